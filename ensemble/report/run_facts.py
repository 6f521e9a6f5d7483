"""All that a report tells about a run, read from its folder: the judgement, histories, failures, images, provenance.

    run = read_run(Path("runs/quickstart"))

Nothing is worked out anew: figures and page only lay out what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ensemble.data.pixel_rule import PixelRule
from ensemble.evaluation.records import Evaluation
from ensemble.events import Event, MemberFailed, MemberFinished, RunFinished, RunStarted, TaskStarted
from ensemble.outside.names import shell_word
from ensemble.results.judging import stored_evaluation
from ensemble.results.line_costs import LineCosts, costs_of
from ensemble.results.predictions import Prediction, read_predictions
from ensemble.results.run_data import kept_images
from ensemble.storage import RunFolder
from ensemble.storage.damage import require_sound
from ensemble.storage.names import CONFIG, DATASET, ENVIRONMENT
from ensemble.storage.parsing import json_object
from ensemble.storage.remedies import unfit
from ensemble.storage.remote import address_of
from ensemble.types import ByteArray, EpochRecord


@dataclass(frozen=True)
class FailureFacts:
    """A member's last failure. finished_later: another try brought it to its end."""

    member: int
    kind: str
    reason: str
    tries: int
    seconds_lost: float
    decision: str
    details: str
    finished_later: bool


@dataclass(frozen=True, eq=False)
class RunFacts:
    """A run as the report sees it.

    record: evaluation.json as it lies on disk, which every number on the page is taken from. histories: by member.
    images: test row -> CHW, of the disputed rows and the surest mistakes, empty where the run kept none. pixels: how files became images. places: where tasks ran.
    remarks: what is to be known of the data, such as pictures that were left out. predictions: what the vote says of every
    image; empty in older runs. costs: what predictions take, None where nobody measured it.
    """

    name: str
    path: Path
    evaluation: Evaluation
    record: Mapping[str, Any]
    config: Mapping[str, Any]
    config_text: str
    environment: Mapping[str, Any]
    histories: Mapping[int, tuple[EpochRecord, ...]]
    failures: tuple[FailureFacts, ...]
    images: Mapping[int, ByteArray]
    executor: str
    places: tuple[str, ...]
    wall_seconds: float | None
    remarks: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    costs: LineCosts | None = None
    pixels: PixelRule | None = None

    @property
    def place(self) -> str:
        """Where the run is for whoever asks for it: its folder, or the address that the folder is the local side of."""
        return address_of(self.path) or str(self.path)

    @property
    def commands(self) -> tuple[tuple[str, str], ...]:
        """What to type to get the judgement and the members again, each with what it does."""
        path = shell_word(self.place)
        config = shell_word(str(self.path / CONFIG))
        return (
            (f"ensemble evaluate {path}", "the same figures again, from the stored votes"),
            (f"ensemble train {config} name={self.name}-again", "the same members again, from their seeds"),
            (f"ensemble report {path}", "this page"),
        )


def read_run(path: Path) -> RunFacts:
    """Read a judged run. Raises StorageError where there is none, it has not been judged yet, or a file is damaged."""
    folder = RunFolder.read(path)
    require_sound(folder)
    record, evaluation = stored_evaluation(folder)
    events = [event for _, event in folder.events()]
    starts = [event for event in events if isinstance(event, RunStarted)]
    ends = [event for event in events if isinstance(event, RunFinished)]
    config = folder.config()
    return RunFacts(
        name=str(config.get("name", path.name)),
        path=path,
        evaluation=evaluation,
        record=record,
        config=config,
        config_text=yaml.safe_dump(config, sort_keys=False, default_flow_style=None, width=72),
        environment=json_object(folder.read_bytes(ENVIRONMENT), path / ENVIRONMENT) if folder.has(ENVIRONMENT) else {},
        histories={
            member.index: folder.load_member(member.index).history
            for member in evaluation.members
            if member.index in folder.finished()
        },
        failures=tuple(_failures(folder, events)),
        images=kept_images(folder),
        executor=f"{starts[-1].executor}, {starts[-1].slots} at a time" if starts else "",
        places=tuple(sorted({_place(event) for event in events if isinstance(event, TaskStarted)})),
        wall_seconds=ends[-1].seconds if ends else None,
        remarks=_remarks(folder),
        predictions=tuple(read_predictions(folder)),
        costs=costs_of(folder, evaluation),
        pixels=_pixels(folder),
    )


def _pixels(folder: RunFolder) -> PixelRule | None:
    stored = folder.dataset().pixels if folder.has(DATASET) else None
    try:
        return None if stored is None else PixelRule.from_json(stored)
    except ValueError as error:
        raise unfit(folder.path / DATASET, f"pixels: {error}") from error


def _remarks(folder: RunFolder) -> tuple[str, ...]:
    """What dataset.json says of the data that was read; older runs kept nothing of it."""
    pictures = folder.dataset().pictures if folder.has(DATASET) else None
    return tuple(pictures.remarks) if pictures else ()


def _failures(folder: RunFolder, events: list[Event]) -> Iterator[FailureFacts]:
    """The last failure of each member, by member."""
    last = {event.member: event for event in events if isinstance(event, MemberFailed)}
    finished = {event.member for event in events if isinstance(event, MemberFinished)} | folder.finished()
    for member, event in sorted(last.items()):
        name = f"failures/{member:04d}.txt"
        details = folder.read_bytes(name).decode("utf-8", "replace") if folder.has(name) else ""
        yield FailureFacts(
            member, event.kind, event.reason, event.tries, event.seconds_lost, event.decision, details, member in finished
        )  # fmt: skip


def _place(event: TaskStarted) -> str:
    threads = "1 thread" if event.threads == 1 else f"{event.threads} threads"
    return f"{event.host}: {event.device}, {threads} per task"
