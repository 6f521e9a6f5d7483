"""What Weights & Biases is told, worked out from the events alone: which runs, rows, summaries and ends.

One run per member (job_type member) and one for the ensemble (job_type ensemble), all in one group. Ids are built from
the run's name and a hash of its configuration, so the same run always meets its own W&B runs again: a run that is
opened anew replaces the old one with the same id, and is therefore always given whole. Nothing here knows wandb; the
same instructions are carried out while training and when an event log is replayed later.

A member's run holds what its last attempt told. The rows of the ensemble follow from all that was told, in the order of
the log, so a replay passes on the events of replaced attempts too (`stands`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ensemble.events import EpochFinished, Event, MemberFailed, MemberFinished, RunFinished, RunStarted, TaskStarted
from ensemble.tracking import figures
from ensemble.tracking.instructions import (
    Artifact,
    Finish,
    Instruction,
    Open,
    Row,
    Settings,
    Summary,
    Table,
    TableData,
)
from ensemble.tracking.members_together import MembersTogether
from ensemble.tracking.run_identity import config_hash, member_config, tag_names

ENSEMBLE = "ensemble"
MOST_PLACES = 200  # hosts and devices in the ensemble's config
# Parts of a run that may be kept as artifacts of their own, and the types W&B sorts those by.
ARTIFACT_TYPES = {"votes": "votes", "weights": "model", "onnx": "model", "report": "report"}
VoteError = Callable[[int], float | None]


@dataclass(frozen=True, slots=True)
class Shown:
    """How the runs of an ensemble are shown. members: a run for each of them with its curves, one with its summary alone, or
    none and a table in the ensemble's. name, notes, job_type, ensemble_id: of the ensemble's run; group: of all; "" stands for
    the default.
    """

    tags: tuple[str, ...] = ()
    members: Literal["full", "summary", "none"] = "full"
    name: str = ""
    notes: str = ""
    group: str = ""
    job_type: str = ""
    ensemble_id: str = ""


@dataclass
class _Member:
    rows: dict[int, tuple[float, EpochFinished]] = field(default_factory=dict)
    recipe: str = ""
    place: str = ""
    last: int | None = None  # the last epoch its open run was given; None while no run is open


class Projection:
    """Turns the events of one run, in order, into instructions.

    config: the resolved configuration as plain values; it becomes the config of every W&B run.
    vote_error: a member that has just finished -> the validation error of the vote of all that have until then, a
    fraction; None where that is not known.
    """

    def __init__(
        self, name: str, config: Mapping[str, Any], shown: Shown = Shown(), vote_error: VoteError | None = None
    ) -> None:
        self._name = name
        self._config = dict(config)
        self._shown = shown
        self._vote_error = vote_error or (lambda _member: None)
        self.base = f"{name}-{config_hash(config)}"
        self.group = shown.group or self.base
        self.ensemble = shown.ensemble_id or f"{self.base}-{ENSEMBLE}"
        self._environment: dict[str, Any] = {}
        self._places: list[str] = []
        self._members: dict[int, _Member] = {}
        self._finished: dict[int, MemberFinished] = {}
        self._failed: dict[int, MemberFailed] = {}
        self._together = MembersTogether()
        self._rows: list[Row] = []
        self._opened = False
        self._step = 0  # the last step of the ensemble's run

    def describe(self, environment: Mapping[str, Any]) -> None:
        """What the run runs on; told with the runs that are opened from here on."""
        self._environment.update(environment)

    def recall(self, event: Event, time: float, stands: bool = True) -> None:
        """Learn of an event that an earlier driver session told W&B already (or could have)."""
        self._ensemble_rows(event, time)
        match event:
            case TaskStarted():
                self._start(event)
            case EpochFinished() if stands:
                self._remember(event, time)
            case _:
                pass

    def handle(self, event: Event, time: float, stands: bool = True) -> list[Instruction]:
        """The instructions that follow from an event that happened at `time` (unix seconds).

        stands: False for one that a later one of the same log replaces.
        """
        if isinstance(event, RunStarted):
            self._environment.update(executor=event.executor, slots=event.slots)
            told = self._open_ensemble() or [self._settings()]
            self._ensemble_rows(event, time)
            return told
        if isinstance(event, TaskStarted):
            known = len(self._places)
            self._start(event)
            self._ensemble_rows(event, time)
            return [self._settings()] if self._opened and len(self._places) > known else []
        of_member: list[Instruction] = []
        if isinstance(event, EpochFinished) and stands:
            of_member = self._epoch(event, time)
        elif isinstance(event, MemberFinished | MemberFailed) and stands:
            of_member = self._end(event)
        rows = self._ensemble_rows(event, time)
        if isinstance(event, RunFinished | MemberFinished | MemberFailed):
            rows = self._open_ensemble() or rows  # tells all rows so far when it was not open
        elif not self._opened:
            rows = []
        return [*of_member, *rows, *(self._run_figures(event) if isinstance(event, RunFinished) and stands else [])]

    def judge(
        self, found: dict[str, Any], curves: Sequence[dict[str, float]], tables: Sequence[TableData]
    ) -> list[Instruction]:
        """Give the ensemble's run its figures, the rows of its curves, one step each, and then its tables on one step."""
        told = self._open_ensemble()
        time = self._rows[-1].time if self._rows else 0.0
        rows = [Row(self.ensemble, self._next_step(), time, dict(values)) for values in curves]
        last = self._next_step() if tables else self._step
        shown = [Table(self.ensemble, last, data) for data in tables]
        return [*told, *rows, *shown, Summary(self.ensemble, found)]

    def keep(self, kind: str, files: Sequence[tuple[str, str]]) -> list[Instruction]:
        """Keep these files with the ensemble's run, as an artifact. kind: run (the whole folder), or one of its parts."""
        name, type = (self.base, ENSEMBLE) if kind == "run" else (f"{self.base}-{kind}", ARTIFACT_TYPES[kind])
        aliases = ("latest", f"{len(self._finished)}-members")
        facts = (("members", len(self._finished)), ("failed", len(self._failed)), ("run", self._name))
        return [*self._open_ensemble(), Artifact(self.ensemble, name, type, tuple(files), aliases, facts)]

    def close(self, ok: bool) -> list[Instruction]:
        """End every run that is still open; a member that did not come to its end counts as failed."""
        ends: list[Instruction] = []
        for index, member in self._members.items():
            if member.last is not None:
                if self._shown.members == "summary":
                    ends += [
                        self._open_run(index),
                        Summary(self.member_id(index), {"status": "unfinished", "epoch": member.last}),
                    ]
                if self._shown.members != "none":
                    ends.append(Finish(self.member_id(index), 1))
                member.last = None
        if self._opened:
            if self._shown.members == "none" and (self._members or self._finished or self._failed):
                ends.append(Table(self.ensemble, self._next_step(), self._members_table()))
            self._opened = False
            ends.append(Finish(self.ensemble, 0 if ok else 1))
        return ends

    def member_id(self, index: int) -> str:
        """The id of a member's W&B run."""
        return f"{self.base}-{_short(index)}"

    # The members

    def _start(self, event: TaskStarted) -> None:
        place = f"{event.host}: {event.device}"
        if place not in self._places and len(self._places) < MOST_PLACES:
            self._places.append(place)
        for index in event.members:
            member = self._members.setdefault(index, _Member())
            member.recipe = event.recipe
            if event.epochs:  # not one that only votes
                member.place = place

    def _remember(self, event: EpochFinished, time: float) -> _Member:
        """Keep the epoch in place of itself and of all later ones an earlier attempt reported."""
        member = self._members.setdefault(event.member, _Member())
        for epoch in [epoch for epoch in member.rows if epoch >= event.epoch]:
            del member.rows[epoch]
        member.rows[event.epoch] = (time, event)
        return member

    def _epoch(self, event: EpochFinished, time: float) -> list[Instruction]:
        member = self._remember(event, time)
        if self._shown.members == "full" and (member.last is None or event.epoch <= member.last):
            return self._open_member(event.member)
        member.last = event.epoch
        return [_row(self.member_id(event.member), time, event)] if self._shown.members == "full" else []

    def _end(self, event: MemberFinished | MemberFailed) -> list[Instruction]:
        member = self._members.setdefault(event.member, _Member())
        if isinstance(event, MemberFinished):
            member.recipe = event.recipe
        elif event.decision == "retry" and self._shown.members != "full":
            return []  # no run was opened for this attempt
        told: list[Instruction] = []
        if self._shown.members == "summary":
            told = [self._open_run(event.member)]
        elif self._shown.members == "full" and member.last is None:
            told = self._open_member(event.member)
        member.last = None
        if self._shown.members == "none":
            return []
        id = self.member_id(event.member)
        return [
            *told,
            Summary(id, _end_figures(event, member)),
            Finish(id, 0 if isinstance(event, MemberFinished) else 1),
        ]

    def _open_member(self, index: int) -> list[Instruction]:
        member = self._members[index]
        rows = [member.rows[epoch] for epoch in sorted(member.rows)]
        member.last = rows[-1][1].epoch if rows else 0
        return [self._open_run(index), *(_row(self.member_id(index), time, event) for time, event in rows)]

    def _open_run(self, index: int) -> Open:
        member = self._members[index]
        config = member_config(self._config, index, member.recipe)
        if self._environment:
            config["environment"] = _light(self._environment)
        return Open(
            self.member_id(index),
            "member",
            f"{self._shown.name or self._name} {_short(index)}",
            self.group,
            "member",
            tag_names(config, self._shown.tags),
            "",
            config,
            figures.curves_of(figures.MEMBER),
        )

    def _members_table(self) -> TableData:
        columns = (
            "member", "recipe", "status", "kept_epoch", "validation_error", "num_parameters", "train_seconds", "place",
            "failure_kind", "failure_reason", "tries",
        )  # fmt: skip
        rows: list[tuple[Any, ...]] = []
        for index in sorted({*self._members, *self._finished, *self._failed}):
            known, done, failed = (
                self._members.get(index, _Member()),
                self._finished.get(index),
                self._failed.get(index),
            )
            status = "finished" if done else "failed" if failed else "unfinished"
            kept = (
                (done.kept_epoch, done.validation_error, done.num_parameters or None, done.train_seconds)
                if done
                else (None,) * 4
            )
            why = (failed.kind, failed.reason, failed.tries) if failed and not done else (None,) * 3
            rows.append((index, known.recipe, status, *kept, known.place, *why))
        return TableData("members", columns, tuple(rows))

    # The ensemble

    def _ensemble_rows(self, event: Event, time: float) -> list[Instruction]:
        """The rows of the ensemble's run that follow from an event, kept for when that is opened anew."""
        values = self._together.hear(event)
        if isinstance(event, MemberFinished | MemberFailed):
            ended = self._count(event)
            values += [ended] if ended else []
        rows = [Row(self.ensemble, self._next_step(), time, each) for each in values]
        self._rows += rows
        return list(rows)

    def _next_step(self) -> int:
        self._step += 1
        return self._step

    def _count(self, event: MemberFinished | MemberFailed) -> dict[str, float] | None:
        """How many members have ended; None where their number did not change."""
        figures: dict[str, float] = {}
        if isinstance(event, MemberFailed):
            if event.decision == "retry":
                return None
            self._failed[event.member] = event
        else:
            self._failed.pop(event.member, None)
            self._finished[event.member] = event
            figures = {"member/validation_error": event.validation_error, "member/train_seconds": event.train_seconds}
            errors = [finished.validation_error for finished in self._finished.values()]
            figures["members/mean_validation_error"] = sum(errors) / len(errors)
            vote = self._vote_error(event.member)
            figures |= {} if vote is None else {"vote/validation_error": vote}
        counts = {"members/finished": len(self._finished), "members/failed": len(self._failed)}
        return {**counts, "member/index": event.member, **figures}

    def _run_figures(self, event: RunFinished) -> list[Instruction]:
        told = {figures.EARLIER_NAMES.get(name, name): value for name, value in event.headline.items()}
        counts = {"members/finished": event.members, "members/failed": event.failed, "run_seconds": event.seconds}
        return [Summary(self.ensemble, {**counts, **told})]

    def _settings(self) -> Settings:
        return Settings(self.ensemble, {"environment": {**self._environment, "places": list(self._places)}})

    def _open_ensemble(self) -> list[Instruction]:
        if self._opened:
            return []
        self._opened = True
        opened = Open(
            self.ensemble,
            "ensemble",
            self._shown.name or f"{self._name} ensemble",
            self.group,
            self._shown.job_type or ENSEMBLE,
            tag_names(self._config, self._shown.tags),
            self._shown.notes,
            self._config | (self._settings().values if self._environment else {}),
            figures.curves_of(figures.ENSEMBLE),
        )
        return [opened, *self._rows]


def _short(index: int) -> str:
    return f"m{index:04d}"


def _light(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What of the environment every member's run shows."""
    packages = environment.get("packages") or {}
    return {
        **{key: environment[key] for key in ("commit", "python", "executor") if key in environment},
        **{name: packages[name] for name in ("ensemble-trainer", "torch") if name in packages},
    }


def _row(id: str, time: float, event: EpochFinished) -> Row:
    values = {
        "epoch": event.epoch,
        "train/loss": event.train_loss,
        "validation/loss": event.validation_loss,
        "validation/error": event.validation_error,
        "train/lr": event.lr,
        "train/epoch_seconds": event.seconds,
    }
    worker = {
        "worker/cpu_cores": event.cpu_cores,
        "worker/memory_bytes": event.memory_bytes,
        "worker/gpu_memory_bytes": event.gpu_memory_bytes,
        "worker/gpu_percent": event.gpu_percent,
    }
    return Row(id, event.epoch, time, values | {name: value for name, value in worker.items() if value is not None})


def _end_figures(event: MemberFinished | MemberFailed, member: _Member) -> dict[str, Any]:
    place = {"place": member.place} if member.place else {}
    if isinstance(event, MemberFailed):
        return {
            "status": "failed",
            **place,
            "failure/kind": event.kind,
            "failure/reason": event.reason,
            "failure/tries": event.tries,
            "failure/seconds_lost": event.seconds_lost,
            "failure/decision": event.decision,
        }
    kept = member.rows.get(event.kept_epoch)
    losses = {"kept/validation_loss": kept[1].validation_loss, "kept/train_loss": kept[1].train_loss} if kept else {}
    return {
        "status": "finished",
        **place,
        "kept/epoch": event.kept_epoch,
        "kept/validation_error": event.validation_error,
        **losses,
        "num_parameters": event.num_parameters or None,  # 0 of a member without a network
        "train_seconds": event.train_seconds,
    }
