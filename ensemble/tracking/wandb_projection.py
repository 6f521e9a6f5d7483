"""What Weights & Biases is told, worked out from the events alone: which runs, rows, summaries and ends.

One run per member (job_type member) and one for the ensemble (job_type ensemble), all in one group. Ids are built from
the run's name and a hash of its configuration, so the same run always meets its own W&B runs again: a run that is
opened anew replaces the old one with the same id, and is therefore always given whole. Nothing here knows wandb; the
same instructions are carried out while training and when an event log is replayed later.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ensemble.config.one_spelling import one_spelling
from ensemble.events import EpochFinished, Event, MemberFailed, MemberFinished, RunFinished, RunStarted, TaskStarted
from ensemble.storage.identity import NEUTRAL

ENSEMBLE = "ensemble"
MAX_TAG = 64


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a run, empty, under its id."""

    id: str
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    config: dict[str, Any]
    step_metrics: tuple[tuple[str, str], ...]  # (pattern of metrics, the metric on their x axis)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a run's history; steps rise within a run."""

    id: str
    step: int
    time: float
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a run as a whole."""

    id: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TableData:
    """Named columns; cells are plain values or uint8 images. `confusion` has it drawn as a confusion matrix too."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    confusion: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a run."""

    id: str
    step: int
    data: TableData


@dataclass(frozen=True, slots=True)
class Finish:
    """End a run; exit code 0 shows as finished, anything else as failed."""

    id: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """Files of the run folder, kept as one artifact of type ensemble."""

    id: str
    name: str
    files: tuple[str, ...]


Instruction = Open | Row | Summary | Table | Artifact | Finish


@dataclass
class _Member:
    rows: dict[int, tuple[float, EpochFinished]] = field(default_factory=dict)
    recipe: str = ""
    last: int | None = None  # the last epoch its open run was given; None while no run is open


class Projection:
    """Turns the events of one run, in order, into instructions.

    config: the resolved configuration as plain values; it becomes the config of every W&B run.
    tags: further tags besides method, data set and models.
    """

    def __init__(self, name: str, config: Mapping[str, Any], tags: tuple[str, ...] = ()) -> None:
        self._name = name
        self._config = dict(config)
        self._tags = tags
        self.group = f"{name}-{config_hash(config)}"
        self.ensemble = f"{self.group}-{ENSEMBLE}"
        self._members: dict[int, _Member] = {}
        self._finished: dict[int, MemberFinished] = {}
        self._failed: dict[int, MemberFailed] = {}
        self._rows: list[Row] = []
        self._opened = False

    def recall(self, event: Event, time: float) -> None:
        """Learn of an event that an earlier driver session told W&B already (or could have)."""
        match event:
            case TaskStarted():
                self._start(event)
            case EpochFinished():
                self._remember(event, time)
            case MemberFinished() | MemberFailed():
                self._count(event, time)
            case _:
                pass

    def handle(self, event: Event, time: float) -> list[Instruction]:
        """The instructions that follow from an event that happened at `time` (unix seconds)."""
        match event:
            case RunStarted():
                return self._open_ensemble()
            case TaskStarted():
                self._start(event)
                return []
            case EpochFinished():
                return self._epoch(event, time)
            case MemberFinished() | MemberFailed():
                return self._end(event, time)
            case RunFinished():
                figures = {"members": event.members, "failed": event.failed, "seconds": event.seconds}
                return [*self._open_ensemble(), Summary(self.ensemble, {**figures, **event.headline})]
            case _:
                return []

    def judge(
        self, figures: dict[str, Any], curves: Sequence[dict[str, float]], tables: Sequence[TableData]
    ) -> list[Instruction]:
        """Give the ensemble's run its figures, the rows of its curves, one step each, and then its tables on one step."""
        told = self._open_ensemble()
        step = len(self._rows) + 1
        time = self._rows[-1].time if self._rows else 0.0
        rows = [Row(self.ensemble, step + offset, time, dict(values)) for offset, values in enumerate(curves)]
        last = step + len(rows)
        shown = [Table(self.ensemble, last, data) for data in tables]
        return [*told, *rows, *shown, Summary(self.ensemble, figures)]

    def keep(self, files: Sequence[str]) -> list[Instruction]:
        """Keep these files of the run folder with the ensemble's run."""
        return [*self._open_ensemble(), Artifact(self.ensemble, self.group, tuple(files))]

    def close(self, ok: bool) -> list[Instruction]:
        """End every run that is still open; a member that did not come to its end counts as failed."""
        ends: list[Instruction] = []
        for index, member in self._members.items():
            if member.last is not None:
                member.last = None
                ends.append(Finish(self.member_id(index), 1))
        if self._opened:
            self._opened = False
            ends.append(Finish(self.ensemble, 0 if ok else 1))
        return ends

    def member_id(self, index: int) -> str:
        """The id of a member's W&B run."""
        return f"{self.group}-{_short(index)}"

    def _start(self, event: TaskStarted) -> None:
        for index in event.members:
            self._members.setdefault(index, _Member()).recipe = event.recipe

    def _remember(self, event: EpochFinished, time: float) -> _Member:
        """Keep the epoch in place of itself and of all later ones an earlier attempt reported."""
        member = self._members.setdefault(event.member, _Member())
        for epoch in [epoch for epoch in member.rows if epoch >= event.epoch]:
            del member.rows[epoch]
        member.rows[event.epoch] = (time, event)
        return member

    def _epoch(self, event: EpochFinished, time: float) -> list[Instruction]:
        member = self._remember(event, time)
        if member.last is None or event.epoch <= member.last:
            return self._open_member(event.member)
        member.last = event.epoch
        return [_row(self.member_id(event.member), time, event)]

    def _end(self, event: MemberFinished | MemberFailed, time: float) -> list[Instruction]:
        member = self._members.setdefault(event.member, _Member())
        if isinstance(event, MemberFinished):
            member.recipe = event.recipe
        told = self._open_member(event.member) if member.last is None else []
        member.last = None
        id = self.member_id(event.member)
        ended: list[Instruction] = [
            Summary(id, _end_figures(event)),
            Finish(id, 0 if isinstance(event, MemberFinished) else 1),
        ]
        row = self._count(event, time)
        opened = self._open_ensemble()  # tells all rows so far when it was not open
        return [*told, *ended, *opened, *([row] if row and not opened else [])]

    def _count(self, event: MemberFinished | MemberFailed, time: float) -> Row | None:
        """The ensemble's next row, or None where the number of ended members did not change."""
        if isinstance(event, MemberFailed):
            if event.decision == "retry":
                return None
            self._failed[event.member] = event
            figures = {}
        else:
            self._failed.pop(event.member, None)
            self._finished[event.member] = event
            figures = {"member/validation_error": event.validation_error, "member/train_seconds": event.train_seconds}
            errors = [finished.validation_error for finished in self._finished.values()]
            figures["members/mean_validation_error"] = sum(errors) / len(errors)
        counts = {"members/finished": len(self._finished), "members/failed": len(self._failed)}
        row = Row(self.ensemble, len(self._rows) + 1, time, {**counts, "member/index": event.member, **figures})
        self._rows.append(row)
        return row

    def _open_ensemble(self) -> list[Instruction]:
        if self._opened:
            return []
        self._opened = True
        tags = tag_names(self._config, self._tags)
        axes = (("members/*", "members/finished"), ("member/*", "members/finished"), ("size/*", "size/members"))
        return [
            Open(self.ensemble, f"{self._name} ensemble", self.group, ENSEMBLE, tags, self._config, axes),
            *self._rows,
        ]

    def _open_member(self, index: int) -> list[Instruction]:
        member = self._members[index]
        rows = [member.rows[epoch] for epoch in sorted(member.rows)]
        member.last = rows[-1][1].epoch if rows else 0
        id = self.member_id(index)
        config = member_config(self._config, index, member.recipe)
        tags = tag_names(config, self._tags)
        name = f"{self._name} {_short(index)}"
        return [
            Open(id, name, self.group, "member", tags, config, (("train/*", "epoch"), ("validation/*", "epoch"))),
            *(_row(id, time, event) for time, event in rows),
        ]


def _short(index: int) -> str:
    return f"m{index:04d}"


def _row(id: str, time: float, event: EpochFinished) -> Row:
    values = {
        "epoch": event.epoch,
        "train/loss": event.train_loss,
        "validation/loss": event.validation_loss,
        "validation/error": event.validation_error,
        "train/lr": event.lr,
        "train/epoch_seconds": event.seconds,
    }
    return Row(id, event.epoch, time, values)


def _end_figures(event: MemberFinished | MemberFailed) -> dict[str, Any]:
    if isinstance(event, MemberFinished):
        return {
            "status": "finished",
            "error/validation": event.validation_error,
            "kept_epoch": event.kept_epoch,
            "num_parameters": event.num_parameters,
            "train_seconds": event.train_seconds,
        }
    return {
        "status": "failed",
        "failure/kind": event.kind,
        "failure/reason": event.reason,
        "failure/tries": event.tries,
        "failure/seconds_lost": event.seconds_lost,
        "failure/decision": event.decision,
    }


def config_hash(config: Mapping[str, Any]) -> str:
    """Eight hex digits of what in a configuration may not change between two starts of one run."""
    return hashlib.sha256(json.dumps(_binding(one_spelling(config)), sort_keys=True, default=str).encode()).hexdigest()[
        :8
    ]


def _binding(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    return {
        key: _binding(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in section.items()
        if prefix + key not in NEUTRAL | {"compute.gpus_per_task"}
    }


def member_config(config: Mapping[str, Any], index: int, recipe: str) -> dict[str, Any]:
    """The configuration as one member saw it: of a mixed ensemble only its own group's model and training."""
    mine = {key: value for key, value in config.items() if key != "members"}
    for group in config.get("members") or ():
        if recipe in (group.get("name"), group["model"]["name"]):
            mine["model"] = group["model"]
            mine["training"] = group.get("training") or config.get("training")
            break
    return {**mine, "member": index, "recipe": recipe}


def tag_names(config: Mapping[str, Any], more: tuple[str, ...]) -> tuple[str, ...]:
    """Method, data set and models of a configuration, then `more`; without repeats."""
    models = [config["model"]] if config.get("model") else [group["model"] for group in config.get("members") or ()]
    named = [section["name"] for section in (config.get("method"), config.get("data"), *models) if section]
    return tuple(dict.fromkeys(tag[:MAX_TAG] for tag in (*named, *more) if tag))
