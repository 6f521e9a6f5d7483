"""The inline executor, and the choice among executors."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from executor_contract import ExecutorContract, tasks

from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.executors import InlineExecutor, build_executor


class TestInline(ExecutorContract):
    @pytest.fixture
    def executor(self) -> InlineExecutor:
        return InlineExecutor()


def test_auto_takes_inline_for_little_work() -> None:
    assert build_executor(ComputeConfig(), "cpu", tasks(4, 4), member_images=1000).name == "inline"
    assert build_executor(ComputeConfig(), "cpu", tasks(4), member_images=10**9).name == "inline"
    assert build_executor(ComputeConfig(slots=1), "cpu", tasks(4, 4), member_images=10**9).name == "inline"


def test_ray_without_ray_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ComputeError, match="ray is not installed"):
        build_executor(ComputeConfig(executor="ray"), "cpu", tasks(1, 1), 10**9)
    assert build_executor(ComputeConfig(), "cpu", tasks(1, 1), 10**9).name == "inline"
