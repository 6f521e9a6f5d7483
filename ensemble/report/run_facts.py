"""All that a report tells about a run, read from its folder: the judgement, histories, failures, images, provenance.

    run = read_run(Path("runs/quickstart"))

Nothing is worked out anew: figures and page only lay out what is stored.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ensemble.errors import StorageError
from ensemble.evaluation.records import Evaluation
from ensemble.events import Event, MemberFailed, MemberFinished, RunFinished, RunStarted, TaskStarted, from_json
from ensemble.storage import RunFolder
from ensemble.storage.atomic import read_npz
from ensemble.storage.run_folder import CONFIG, EVENTS
from ensemble.types import ByteArray, EpochRecord

EVALUATION, ENVIRONMENT, DISPUTED, DATASET = "evaluation.json", "environment.json", "disputed.npz", "dataset.json"


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
    images: test row -> CHW, of the disputed rows, empty where the run kept none. places: where tasks ran.
    remarks: what is to be known of the data, such as pictures that were left out.
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

    @property
    def commands(self) -> tuple[tuple[str, str], ...]:
        """What to type to get the judgement and the members again, each with what it does."""
        path = shlex.quote(str(self.path))
        config = shlex.quote(str(self.path / CONFIG))
        return (
            (f"ensemble evaluate {path}", "the same figures again, from the stored votes"),
            (f"ensemble train {config} name={self.name}-again", "the same members again, from their seeds"),
            (f"ensemble report {path}", "this page"),
        )


def read_run(path: Path) -> RunFacts:
    """Read a judged run. Raises StorageError where there is none, it has not been judged yet, or a file is damaged."""
    folder = RunFolder.read(path)
    if not folder.has(EVALUATION):
        raise StorageError(
            f"{path}: this run has not been judged yet (no {EVALUATION}); start its `ensemble train` again to finish it"
        )
    record = json.loads(folder.read_bytes(EVALUATION))
    evaluation = Evaluation.from_json(record)
    events = list(_events(path / EVENTS))
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
        environment=json.loads(folder.read_bytes(ENVIRONMENT)) if folder.has(ENVIRONMENT) else {},
        histories={
            member.index: folder.load_member(member.index).history
            for member in evaluation.members
            if member.index in folder.finished()
        },
        failures=tuple(_failures(folder, events)),
        images=_images(folder),
        executor=f"{starts[-1].executor}, {starts[-1].slots} at a time" if starts else "",
        places=tuple(sorted({_place(event) for event in events if isinstance(event, TaskStarted)})),
        wall_seconds=ends[-1].seconds if ends else None,
        remarks=_remarks(folder),
    )


def _remarks(folder: RunFolder) -> tuple[str, ...]:
    """What dataset.json says of the data that was read; older runs kept nothing of it."""
    pictures = json.loads(folder.read_bytes(DATASET)).get("pictures", {}) if folder.has(DATASET) else {}
    return tuple(map(str, pictures.get("remarks", ())))


def _events(path: Path) -> Iterator[Event]:
    """The events of the log. A last line without its end is a torn write and is passed over."""
    try:
        lines = path.read_text("utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise StorageError(f"{path}:{number}: not a JSON record: {error}") from error
        if isinstance(record, dict):
            yield from_json(record)


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


def _images(folder: RunFolder) -> dict[int, ByteArray]:
    if not folder.has(DISPUTED):
        return {}
    arrays = read_npz(folder.read_bytes(DISPUTED), folder.path / DISPUTED)
    if not {"rows", "images"} <= arrays.keys() or len(arrays["rows"]) != len(arrays["images"]):
        raise StorageError(f"{folder.path / DISPUTED}: expected arrays rows and images of one length")
    return {int(row): image for row, image in zip(arrays["rows"], arrays["images"], strict=True)}


def _place(event: TaskStarted) -> str:
    threads = "1 thread" if event.threads == 1 else f"{event.threads} threads"
    return f"{event.host}: {event.device}, {threads} per task"
