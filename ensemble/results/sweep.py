"""Runs a sweep and says what came of each setting. Validation decides; test errors are there to be read, once.

result = run_sweep(load_sweep(path, words), train)
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.config import Experiment
from ensemble.config.sweeping import Setting, SweepPlan
from ensemble.errors import ConfigError, QuorumError, StorageError
from ensemble.evaluation.statistics import Interval, mean_interval, welch_t
from ensemble.events import EpochFinished, MemberFailed
from ensemble.outside.paths import read_regular_file
from ensemble.results.judging import find_run, judge
from ensemble.storage import RunFolder
from ensemble.storage.remote import is_address, local_root

Train = Callable[[Experiment], Path]
TABLE = "sweep.json"
_MOST_BYTES = 2**28  # of the table of a sweep


@dataclass(frozen=True)
class Trial:
    """One seed of a setting: what it came to, or why it did not. Errors are fractions; curve: its epochs in order."""

    validation_error: float
    test_error: float
    train_seconds: float
    kept_epoch: int
    failure: str
    curve: tuple[EpochFinished, ...]

    @property
    def finished(self) -> bool:
        return not self.failure


@dataclass(frozen=True)
class Line:
    """A setting with its trials. screened: dropped after the first, shortened round."""

    setting: Setting
    trials: tuple[Trial, ...]
    screened: bool = False

    @property
    def finished(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.finished]

    @property
    def validation_error(self) -> float:
        """Mean over the seeds that finished; NaN for none."""
        return _mean([trial.validation_error for trial in self.finished])

    @property
    def validation_interval(self) -> Interval:
        """Student's t interval over the seeds."""
        return mean_interval([trial.validation_error for trial in self.finished])

    @property
    def test_error(self) -> float:
        return _mean([trial.test_error for trial in self.finished])

    @property
    def test_interval(self) -> Interval:
        return mean_interval([trial.test_error for trial in self.finished])

    @property
    def train_loss(self) -> float:
        """Mean over the seeds of the last epoch's training loss."""
        return _mean([trial.curve[-1].train_loss for trial in self.finished if trial.curve])

    @property
    def seconds(self) -> float:
        return sum(trial.train_seconds for trial in self.trials)

    @property
    def state(self) -> str:
        """In words: finished, dropped, or how it failed."""
        failed = [trial for trial in self.trials if not trial.finished]
        if not failed:
            return "dropped after screening" if self.screened else "finished"
        kinds = "/".join(sorted({trial.failure.partition(":")[0] for trial in failed}))
        last = max(len(trial.curve) for trial in failed)
        when = f" after epoch {last}" if last else " in epoch 1"
        return f"{len(failed)} of {len(self.trials)} {kinds}{when}"


@dataclass(frozen=True)
class SweepResult:
    """All lines, best first; the winner among the settings of which every seed finished, if there is one.

    p_value: between the winner and the runner-up, NaN where there is no test; test: which one it is of, or why there is
    none.
    """

    plan: SweepPlan
    folder: Path
    lines: tuple[Line, ...]
    winner: Line | None
    runner_up: Line | None
    p_value: float
    test: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; figures that do not exist are None."""
        return {
            "name": self.plan.name, "seeds": self.plan.seeds,
            "winner": self.winner.setting.label if self.winner else None,
            "runner_up": self.runner_up.setting.label if self.runner_up else None,
            "p_value": _plain(self.p_value), "test": self.test,
            "settings": [{
                "setting": line.setting.label, "values": {k: _jsonable(v) for k, v in line.setting.values.items()},
                "state": line.state, "validation_error": _plain(line.validation_error),
                "validation_interval": [_plain(end) for end in line.validation_interval],
                "test_error": _plain(line.test_error), "test_interval": [_plain(end) for end in line.test_interval],
                "train_loss": _plain(line.train_loss), "seconds": line.seconds,
                "trials": [{
                    "validation_error": _plain(trial.validation_error), "test_error": _plain(trial.test_error),
                    "kept_epoch": trial.kept_epoch, "failure": trial.failure,
                    "curve": [{k: v if not isinstance(v, float) or math.isfinite(v) else None for k, v in asdict(e).items()} for e in trial.curve],
                } for trial in line.trials],
            } for line in self.lines],
        }  # fmt: skip


def run_sweep(plan: SweepPlan, train: Train, screen: int | None = None, survivors: float = 0.5) -> SweepResult:
    """Train every setting with every seed, and rank them by their mean validation error.

    train: runs an experiment and returns its folder. screen: first train all for so many epochs, in runs of their
    own, and only the best share `survivors` of them in full. Raises ConfigError where screening would drop nothing, and
    StorageError where the folder holds the tables of another sweep, both before anything is trained.
    """
    place = str(plan.base.get("output_dir", "runs"))
    folder = (local_root(place) if is_address(place) else Path(place)) / plan.name
    refuse_other_tables(folder, plan)
    dropped: list[Line] = []
    if screen is not None:
        count = max(1, math.ceil(survivors * len(plan.settings)))
        if count == len(plan.settings):
            raise ConfigError(
                f"--survivors {survivors:g} keeps all {count} settings, so screening would drop none; expected a smaller share"
            )
        ranked = _ranked(_lines(plan.shortened(screen), train))
        dropped = [replace(line, screened=True) for line in ranked[count:]]
        kept = {line.setting.name for line in ranked[:count]}
        plan = plan.only([setting for setting in plan.settings if setting.name in kept])
    lines = _ranked(_lines(plan, train))
    whole = [line for line in lines if len(line.finished) == len(line.trials)]
    winner, runner_up = (whole[0] if whole else None), (whole[1] if len(whole) > 1 else None)
    p_value, test = _compared(winner, runner_up) if winner and runner_up else (math.nan, "")
    return SweepResult(plan, folder, (*lines, *dropped), winner, runner_up, p_value, test)


def _lines(plan: SweepPlan, train: Train) -> list[Line]:
    if plan.in_one_run:
        experiment = plan.mixed()
        trials = list(_member_trials(_trained(experiment, train), experiment.total_members))
        return [
            Line(setting, tuple(trials[i * plan.seeds : (i + 1) * plan.seeds]))
            for i, setting in enumerate(plan.settings)
        ]
    return [
        Line(setting, tuple(_run_trial(_trained(plan.experiment(setting, s), train)) for s in range(plan.seeds)))
        for setting in plan.settings
    ]


def _trained(experiment: Experiment, train: Train) -> RunFolder:
    """The folder after training. That too few members finished is a result here, not an error."""
    try:
        return RunFolder.read(train(experiment))
    except QuorumError:
        return RunFolder.read(find_run(f"{experiment.output_dir}/{experiment.name}", Path()))


def _member_trials(folder: RunFolder, count: int) -> Iterator[Trial]:
    """One trial per member of a mixed run."""
    curves, failures = _told(folder)
    labels = folder.load_labels()
    validation_labels_N = labels.train_labels_N[labels.validation_rows]
    finished = folder.finished()
    for index in range(count):
        curve = tuple(curves.get(index, {}).values())
        if index not in finished:
            yield Trial(
                math.nan, math.nan, math.fsum(e.seconds for e in curve), 0, failures.get(index, "not trained"), curve
            )
            continue
        member = folder.load_member(index)
        wrong_N = member.votes.validation_NK.argmax(axis=1) != validation_labels_N
        test_error = float((member.votes.test_NK.argmax(axis=1) != labels.test_labels_N).mean())
        yield Trial(float(wrong_N.mean()), test_error, member.train_seconds, member.kept_epoch, "", curve)


def _run_trial(folder: RunFolder) -> Trial:
    """A whole run as one trial: its headline vote."""
    curves, failures = _told(folder)
    curve = tuple(next(iter(curves.values()), {}).values())
    try:
        evaluation = judge(folder)
    except QuorumError:
        return Trial(math.nan, math.nan, 0.0, 0, next(iter(failures.values()), "too few members"), curve)
    vote = evaluation.headline
    return Trial(vote.validation_error, vote.test_error, vote.train_seconds, 0, "", curve)


def _told(folder: RunFolder) -> tuple[dict[int, dict[int, EpochFinished]], dict[int, str]]:
    """Epochs by member and number, and why members failed, from the event log."""
    curves: dict[int, dict[int, EpochFinished]] = {}
    failures: dict[int, str] = {}
    for _, event in folder.events():
        if isinstance(event, EpochFinished):
            curves.setdefault(event.member, {})[event.epoch] = event
        elif isinstance(event, MemberFailed):
            failures[event.member] = f"{event.kind}: {event.reason}"
    return curves, failures


def _ranked(lines: Sequence[Line]) -> list[Line]:
    """Best first: settings that finished whole, then by validation error, then in the order of the grid."""
    return sorted(
        lines,
        key=lambda line: (
            len(line.finished) < len(line.trials),
            line.validation_error if line.finished else math.inf,
        ),
    )


def _compared(one: Line, other: Line) -> tuple[float, str]:
    """p-value between two settings, and the name of its test, or why there is none.

    What varies between two runs of one setting is the seed. So a setting is known by several seeds or not at all,
    however many images two single networks are compared on.
    """
    if len(one.trials) == 1:
        return (
            math.nan,
            "one seed each, so no test: two seeds of one setting may differ as much; seeds=5 gives each five",
        )
    errors = [[trial.validation_error for trial in line.trials] for line in (one, other)]
    p_value = welch_t(*errors)
    if math.isnan(p_value):
        return p_value, "no test: neither setting's seeds differ in their validation error"
    return p_value, "Welch's t test on the validation errors of the seeds"


def refuse_other_tables(folder: Path, plan: SweepPlan) -> None:
    """Raises StorageError where the folder holds the tables of a sweep that `plan` does not contain.

    The same sweep again, or one with more values or seeds, may replace them: nothing is lost by that.
    """
    path = folder / TABLE
    if not path.exists():
        return
    try:
        stored = json.loads(read_regular_file(path, _MOST_BYTES))
        kept = [(line["setting"], line["values"], len(line["trials"])) for line in stored["settings"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path}: cannot be read as the table of a sweep ({type(error).__name__}: {error}); move it away, or give this "
            "sweep another name=..."
        ) from error
    planned = [{key: _jsonable(value) for key, value in setting.values.items()} for setting in plan.settings]
    lost = [label for label, values, seeds in kept if values not in planned or seeds > plan.seeds]
    if lost:
        more = f" and {len(lost) - 3} more" if len(lost) > 3 else ""
        raise StorageError(
            f"{path}: holds the table of another sweep, of whose settings this one lacks {', '.join(lost[:3])}{more} "
            f"(or some of their seeds); give this sweep another name=..., such as name={plan.name}-2, to keep both"
        )


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else math.nan


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(inner) for key, inner in value.items()}
    return [_jsonable(inner) for inner in value] if isinstance(value, tuple) else value
