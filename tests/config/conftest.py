"""Tiny runs, and all they leave, as one text that two runs can be compared by."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ensemble.config import Experiment, parse_experiment
from ensemble.config.effects import idle_here
from ensemble.data import load_dataset, split_of
from ensemble.executors import InlineExecutor
from ensemble.run.first_plan import first_plan
from ensemble.run.run import train_members
from ensemble.storage import RunFolder

BASE: dict[str, Any] = {
    "name": "tiny", "num_members": 2, "method": {"name": "deep_ensemble"},
    "data": {"name": "digits", "max_train_rows": 60}, "model": {"name": "mlp", "widths": (16,)},
    "training": {"epochs": 2, "batch_size": 32, "lr": 0.05},
    "compute": {"executor": "inline", "device": "cpu", "checkpoint_every_s": 0.0},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
Trace = Callable[[Mapping[str, Any]], str]


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    """Trains dotted keys over BASE; gives the digests of all members, what was decided, and what was said."""

    def train(changes: Mapping[str, Any]) -> str:
        values = json.loads(json.dumps(BASE))
        for key, value in changes.items():
            *sections, last = key.split(".")
            inner = values
            for section in sections:
                inner = inner.setdefault(section, {})
            inner[last] = value
        digest = hashlib.sha256(repr(sorted(changes.items())).encode()).hexdigest()[:16]
        return traced(parse_experiment(_tuples({**values, "output_dir": str(tmp_path / digest)})))

    return train


_loaded = functools.lru_cache(load_dataset)  # digits are read from text


def traced(experiment: Experiment) -> str:
    """The run of an experiment in this process, in a text."""
    dataset = _loaded(experiment.data)
    split = split_of(dataset, experiment.data, experiment.seed)
    plan = first_plan(experiment, dataset, len(split.train_rows))
    said = idle_here(experiment, plan.device, "inline")
    with RunFolder.open(
        experiment.output_dir, experiment.name, experiment.model_dump(mode="json"), plan.to_json()
    ) as folder:
        driver = train_members(experiment, dataset, split, folder, lambda *_: InlineExecutor(), lambda _event: None)
        names = [name for name in sorted(folder._files) if not name.startswith(("config", "environment", "events"))]
        found = [f"{name} {_digest(folder, name)}" for name in names]
    failures = sorted(f"{index} {failure.kind}" for index, failure in driver.failures.items())
    return "\n".join([*said, *failures, *found])


def _digest(folder: RunFolder, name: str) -> str:
    """Of a file; without the seconds that records and histories hold."""
    content = folder.read_bytes(name)
    if name.endswith("history.csv"):
        lines = [line.split(",") for line in content.decode().splitlines()]
        kept = [i for i, title in enumerate(lines[0]) if "seconds" not in title]
        content = repr([[line[i] for i in kept] for line in lines]).encode()
    if name.endswith("member.json"):
        record = json.loads(content)
        record.pop("files_sha256", None)  # of the history too, which holds seconds
        content = json.dumps(_without_seconds(record), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_seconds(inner) for key, inner in value.items() if "seconds" not in key}
    return [_without_seconds(inner) for inner in value] if isinstance(value, list) else value


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
