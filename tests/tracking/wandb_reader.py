"""Reads what a W&B run file (.wandb) really holds: LevelDB's log format, each record one protobuf message.

The file has a header of 7 bytes, then blocks of 32768 bytes (the first includes the header). A record is crc (4 bytes),
length (2), type (1: whole, 2: first part, 3: middle, 4: last part) and its bytes.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768


@dataclass
class RunFile:
    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    summaries: dict[str, str] = field(default_factory=dict)  # of curves of which another value than the last is kept
    files: list[str] = field(default_factory=list)
    artifacts: list[Any] = field(default_factory=list)
    exit_code: int | None = None


def records(path: Path):
    data = path.read_bytes()
    assert len(data) < 7 or data[:4] == b":W&B", f"{path} is no W&B run file"
    position, parts = 7, b""
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:  # too little room for a header: the rest of the block is padding
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        if kind == 0 or position + 7 + length > len(data):
            return
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def _items(items) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def read_run(path: Path) -> RunFile:
    """Everything the file says about its run."""
    found = RunFile()
    for record in records(path):
        match record.WhichOneof("record_type"):
            case "run":
                found.run = record.run
                found.config.update(_items(record.run.config.update))
            case "history":
                found.history.append(_items(record.history.item))
            case "summary":
                found.summary.update(_items(record.summary.update))
            case "config":
                found.config.update(_items(record.config.update))
            case "metric":
                name = record.metric.glob_name or record.metric.name
                if record.metric.step_metric:
                    found.axes[name] = record.metric.step_metric
                for kind, _ in record.metric.summary.ListFields():
                    found.summaries[name] = kind.name
            case "files":
                found.files += [file.path for file in record.files.files]
            case "artifact":
                found.artifacts.append(record.artifact)
            case "exit":
                found.exit_code = record.exit.exit_code
    return found


def read_folder(folder: Path) -> dict[str, RunFile]:
    """The offline runs under a run folder, by id; an id that lies there twice is an error."""
    found: dict[str, RunFile] = {}
    for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb")):
        run = read_run(path)
        id = path.stem.removeprefix("run-")
        assert id not in found, f"{id} lies in {folder} twice"
        found[id] = run
    return found


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what W&B adds to it."""
    return {name: value for name, value in row.items() if not name.startswith("_")}
