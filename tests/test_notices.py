"""What several tasks have to say alike is told once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import ensemble.training.loop as loop
from ensemble.config import parse_experiment
from ensemble.events import Event, Notice
from ensemble.executors import InlineExecutor
from ensemble.run.run import run_ensemble


def test_a_missing_compiler_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "obstacle", lambda: "no C compiler: install one")
    heard: list[str] = []

    class Listener:
        def handle(self, event: Event, _time: float) -> None:
            if isinstance(event, Notice):
                heard.append(event.message)

        def close(self, _ok: bool) -> None: ...

    values: dict[str, Any] = {
        "name": "told", "output_dir": str(tmp_path), "num_members": 3, "method": {"name": "deep_ensemble"},
        "data": {"name": "digits"}, "model": {"name": "lenet5"}, "training": {"epochs": 1, "batch_size": 64},
        "compute": {"stack_size": 1, "device": "cpu"},
    }  # fmt: skip
    run_ensemble(parse_experiment(values), lambda *_: InlineExecutor(), lambda _: [Listener()])
    assert heard == ["networks such as this one train at about half the speed: no C compiler: install one"]
