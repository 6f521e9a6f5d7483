"""The inline executor, and the choice among executors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from executor_contract import ExecutorContract, tasks

from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.executors import InlineExecutor, build_executor, expected_slots


class TestInline(ExecutorContract):
    @pytest.fixture
    def executor(self) -> InlineExecutor:
        return InlineExecutor()


def test_auto_takes_inline_for_little_work() -> None:
    assert build_executor(ComputeConfig(), "cpu", tasks(4, 4), member_images=1000).name == "inline"
    assert build_executor(ComputeConfig(), "cpu", tasks(4), member_images=10**9).name == "inline"
    assert build_executor(ComputeConfig(slots=1), "cpu", tasks(4, 4), member_images=10**9).name == "inline"


def test_what_a_plan_reckons_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    much = 10**9
    assert expected_slots(ComputeConfig(), "cpu", much) == 8
    assert expected_slots(ComputeConfig(threads_per_task=3), "cpu", much) == 2
    assert expected_slots(ComputeConfig(threads_per_task=16), "cpu", much) == 1
    assert expected_slots(ComputeConfig(), "cpu", 1000) == 1  # inline, then
    assert expected_slots(ComputeConfig(executor="ray"), "cpu", 1000) == 8
    assert expected_slots(ComputeConfig(slots=3), "cpu", much) == 3
    assert expected_slots(ComputeConfig(slots=3, executor="inline"), "cpu", much) == 1
    assert expected_slots(ComputeConfig(parallel="data"), "cpu", much) == 1
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert expected_slots(ComputeConfig(), "cpu", much) == 4
    assert expected_slots(ComputeConfig(executor="inline"), "cpu", much) == 1


def test_ray_without_ray_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ComputeError, match="ray is not installed"):
        build_executor(ComputeConfig(executor="ray"), "cpu", tasks(1, 1), 10**9)
    assert build_executor(ComputeConfig(), "cpu", tasks(1, 1), 10**9).name == "inline"
