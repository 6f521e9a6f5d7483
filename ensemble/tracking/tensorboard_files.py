"""TensorBoard's event files of a run, in its folder under `tensorboard/`: one sub-folder per run of the projection.

    tensorboard --logdir runs/my-run/tensorboard      # or --logdir runs, for all

Curves are scalars whose step is their x axis; figures of a run as a whole are scalars at step 0, written when it ends;
words, the configuration and the tables are texts. A file cannot be changed, so a run that is opened again, and a value
that replaces another of the same step, begin a new file in place of the old one. The protocol buffers are TensorBoard's
own: neither torch nor TensorFlow is loaded.
"""

from __future__ import annotations

import os
import re
import socket
import time as clock
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ensemble.tracking.instructions import Artifact, Finish, Instruction, Open, Row, Settings, Summary, Table, TableData
from ensemble.tracking.projected import flat, points

HOME = "tensorboard"
MOST_ROWS = 200  # of a table that is shown as text
_FILES = "events.out.tfevents."


@dataclass
class _Run:
    opened: Open
    folder: Path
    started: float
    config: dict[str, Any]
    curves: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)  # (figure, step) -> time, value
    texts: dict[str, tuple[float, str]] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None
    waiting: list[bytes] = field(default_factory=list)  # records that are not in the file yet
    stale: bool = False  # something in the file was replaced


class TensorBoardFiles:
    """Writes the files below `folder` (the run folder), in place of those of earlier starts."""

    title = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self._home = folder / HOME
        self._runs: dict[str, _Run] = {}
        self._files = 0
        for name in self._home.iterdir() if self._home.is_dir() else ():
            if re.fullmatch(r"ensemble|m\d{4,}", name.name):
                _remove_files(name)

    def carry_out(self, instruction: Instruction, time: float) -> None:
        """Do one thing. Raises OSError where files cannot be written or removed."""
        match instruction:
            case Open():
                self._open(instruction, time)
            case Settings(id, values):
                self._runs[id].config.update(values)
            case Row():
                self._row(instruction)
            case Summary(id, values):
                self._runs[id].summary.update(values)
            case Table(id, _, data):
                if not data.chart:
                    self._text(self._runs[id], data.name, _markdown(data), time)
            case Finish(id, exit_code):
                self._finish(self._runs.pop(id), exit_code, time)
            case Artifact():
                pass  # files lie in the run folder already

    def flush(self) -> None:
        """Append what was held back. No file stays open in between, since there may be thousands of members."""
        for run in self._runs.values():
            self._write(run)

    def _open(self, opened: Open, time: float) -> None:
        name = opened.kind if opened.kind == "ensemble" else opened.id.rpartition("-")[2]
        run = _Run(opened, self._home / name, time, dict(opened.config))
        self._runs[opened.id] = run
        self._begin(run)
        shown = {key: value for key, value in run.config.items() if key != "environment"}
        self._text(run, "config", _code(shown), time)
        if opened.notes:
            self._text(run, "notes", opened.notes, time)

    def _begin(self, run: _Run) -> None:
        """A new file in place of those there are."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        run.folder.mkdir(parents=True, exist_ok=True)
        _remove_files(run.folder)
        self._files += 1
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"{_FILES}{int(clock.time()):010d}.{socket.gethostname()}.{os.getpid()}.{self._files:06d}"
        run.file, run.waiting, run.stale = run.folder / name, [], False
        self._add(run, Event(wall_time=run.started, file_version="brain.Event:2"))
        # A TensorBoard that has been looking on forgets by this what it has of the run.
        self._add(run, Event(wall_time=run.started, step=0, session_log=SessionLog(status=SessionLog.START)))
        self._add(run, _event(_hparams_start(run), 0, run.started))

    def _row(self, row: Row) -> None:
        run = self._runs[row.id]
        found, others = points(row, run.opened)
        run.summary.update(others)
        for name, step, value in found:
            before = run.curves.get((name, step))
            run.curves[name, step] = (row.time, value)
            if before is None:
                self._add(run, _event(_scalar(name, value), step, row.time))
            elif before[1] != value:
                run.stale = True

    def _text(self, run: _Run, tag: str, text: str, time: float) -> None:
        run.stale |= tag in run.texts
        run.texts[tag] = (time, text)
        self._add(run, _event(_words(tag, text), 0, time))

    def _finish(self, run: _Run, exit_code: int, time: float) -> None:
        if environment := run.config.get("environment"):
            self._text(run, "environment", _code(environment), time)
        if run.stale:
            self._begin(run)
            for tag, (when, text) in run.texts.items():
                self._add(run, _event(_words(tag, text), 0, when))
            for (name, step), (when, value) in run.curves.items():
                self._add(run, _event(_scalar(name, value), step, when))
        for name, value in run.summary.items():
            words = isinstance(value, str)
            self._add(run, _event(_words(name, value) if words else _scalar(name, float(value)), 0, time))
        self._add(run, _event(_hparams_end(exit_code == 0), 0, time))
        self._write(run)

    def _add(self, run: _Run, event: Any) -> None:
        run.waiting.append(event.SerializeToString())

    def _write(self, run: _Run) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        if not run.waiting:
            return
        assert run.file is not None, "a run has a file from when it is opened"
        with run.file.open("ab") as file:
            writer = RecordWriter(file)
            for record in run.waiting:
                writer.write(record)
        run.waiting.clear()


def _remove_files(folder: Path) -> None:
    for file in folder.glob(f"{_FILES}*"):
        file.unlink()


def _event(value: Any, step: int, time: float) -> Any:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary as Values

    return Event(wall_time=time, step=step, summary=Values(value=[value]))


def _scalar(tag: str, value: float) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary as Values

    return Values.Value(tag=tag, simple_value=value)


def _words(tag: str, text: str) -> Any:
    """A text, which TensorBoard shows as Markdown."""
    from tensorboard.compat.proto.summary_pb2 import Summary as Values
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.text.metadata import create_summary_metadata

    tensor = TensorProto(
        dtype="DT_STRING",
        string_val=[text.encode("utf-8", "replace")],
        tensor_shape=TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)]),
    )
    return Values.Value(tag=tag, metadata=create_summary_metadata(tag, ""), tensor=tensor)


def _hparams_start(run: _Run) -> Any:
    from tensorboard.plugins.hparams import metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    info = SessionStartInfo(start_time_secs=run.started, group_name=run.opened.name)
    for key, value in flat(run.config).items():
        if isinstance(value, bool):
            info.hparams[key].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[key].number_value = value
        elif len(value) <= 500:  # not whole programs
            info.hparams[key].string_value = value.encode("utf-8", "replace").decode()
    return _of_hparams(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def _hparams_end(ok: bool) -> Any:
    from tensorboard.plugins.hparams import api_pb2, metadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo

    status = api_pb2.Status.Value("STATUS_SUCCESS" if ok else "STATUS_FAILURE")
    return _of_hparams(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=SessionEndInfo(status=status)))


def _of_hparams(tag: str, data: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary as Values
    from tensorboard.plugins.hparams import metadata

    return Values.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)


def _code(values: Mapping[str, Any]) -> str:
    """A mapping as YAML, in a block of Markdown."""
    text = yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
    return "\n".join(f"    {line}" for line in text.splitlines())


def _markdown(data: TableData) -> str:
    def line(cells: Sequence[Any]) -> str:
        texts = ("" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells)
        return "| " + " | ".join(" ".join(text.split()).replace("|", "\\|") for text in texts) + " |"

    more = [f"\n{len(data.rows) - MOST_ROWS} more"] if len(data.rows) > MOST_ROWS else []
    rows = [line(data.columns), "|" + "---|" * len(data.columns), *map(line, data.rows[:MOST_ROWS])]
    return "\n".join(rows + more)
