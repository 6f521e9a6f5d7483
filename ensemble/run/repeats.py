"""One configuration trained several times with different seeds: a run for each, then a judgement over all of them.

    found = run_repeats(experiment, train, say)         # runs/NAME/NAME_seed0, runs/NAME/NAME_seed1 ...

The runs are trained one after the other, each with all slots: members of different runs differ in their training rows, so they are
no tasks of one another's executor. The same call again trains what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ensemble.config import Experiment
from ensemble.config.groups import NAME_PATTERN
from ensemble.errors import ConfigError, StorageError
from ensemble.results.repeated import Repeated, judge_repeats
from ensemble.run.run import RunOutcome
from ensemble.storage.listed_folder import is_file
from ensemble.storage.manifest import MANIFEST
from ensemble.storage.remote import is_address, local_root


@dataclass(frozen=True)
class RepeatsOutcome:
    """folder: in which the runs lie, and what is written over them. outcomes: of the runs, in their order."""

    folder: Path
    outcomes: tuple[RunOutcome, ...]
    judged: Repeated

    @property
    def degraded(self) -> bool:
        """Whether members of any run failed, or its method ended early."""
        return any(outcome.failures or outcome.ended_early for outcome in self.outcomes)


def run_name(name: str, seed: int) -> str:
    """What the run of a seed is called, in the folder `name`."""
    return f"{name}_seed{seed}"


def repeated(experiment: Experiment) -> tuple[Experiment, ...]:
    """The runs of an experiment: seeds one after the other, names that end in them, in a folder of the experiment's name.

    Raises ConfigError where a name would be too long, or a seed too large.
    """
    found = []
    for seed in range(experiment.seed, experiment.seed + experiment.repeats):
        name = run_name(experiment.name, seed)
        if re.match(NAME_PATTERN, name) is None:
            raise ConfigError(
                f"name: {name}, a run of repeats={experiment.repeats}, is longer than 64 signs; give a shorter name=..."
            )
        if seed >= 2**63:
            raise ConfigError(
                f"seed: {seed}, of a run of repeats={experiment.repeats}, is too large; expected below 2**63: give a smaller one"
            )
        place = f"{experiment.output_dir.rstrip('/')}/{experiment.name}"
        found.append(experiment.model_copy(update={"name": name, "seed": seed, "output_dir": place, "repeats": 1}))
    return tuple(found)


def run_repeats(
    experiment: Experiment, train: Callable[[Experiment], RunOutcome], say: Callable[[str], None]
) -> RepeatsOutcome:
    """Train what is missing of all runs, one after the other, and judge them together.

    train: a run. say: hears which one is next. Raises what a run raises, StorageError where the folder is a run itself.
    """
    runs = repeated(experiment)
    place = runs[0].output_dir
    folder = (local_root(experiment.output_dir) if is_address(place) else Path(experiment.output_dir)) / experiment.name
    if is_file(folder / MANIFEST):
        raise StorageError(
            f"{folder}: is a run of its own, and the {len(runs)} runs of repeats={len(runs)} would lie inside it; give them another name=..."
        )
    say(
        f"{len(runs)} repeats, seeds {runs[0].seed} to {runs[-1].seed}, one after the other; each is a run of its own in {place}"
    )
    outcomes = []
    for number, run in enumerate(runs, 1):
        say(f"repeat {number} of {len(runs)}: {run.name}")
        outcomes.append(train(run))
    judged = judge_repeats([outcome.path for outcome in outcomes], experiment.name)
    return RepeatsOutcome(folder, tuple(outcomes), judged)
