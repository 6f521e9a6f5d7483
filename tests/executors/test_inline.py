"""The inline executor, and the choice among executors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ensemble.config import parse_experiment
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError, StorageError
from ensemble.events import Notice
from ensemble.executors import InlineExecutor, build_executor, expected_slots
from ensemble.executors.choose import planned_device, uses_cluster
from ensemble.run.planning import training_work
from ensemble.types import Task
from tests.contracts.executor_contract import ExecutorContract, arrays_read_only, healthy, tasks


class TestInline(ExecutorContract):
    @pytest.fixture
    def executor(self) -> InlineExecutor:
        return InlineExecutor()

    def test_what_a_task_holds_is_given_back_before_its_error_arrives(self) -> None:
        """Not when Python next collects what the error's traceback refers to, which may be in another training."""
        given_back: list[str] = []

        def holding(task: Task, given: Any) -> Iterator[Any]:
            try:
                yield Notice("holds a GPU")
                yield from healthy(task, given)
            finally:
                given_back.append(task.id)

        def full(_item: Any) -> None:
            raise StorageError("no space left on device")

        with pytest.raises(StorageError) as caught:
            list(InlineExecutor().run(tasks(1, 1), holding, arrays_read_only(), full))
        assert given_back == ["t0"]
        assert caught.value.__traceback__ is not None  # and so the frames that refer to it


def test_auto_takes_inline_for_little_work() -> None:
    assert build_executor(ComputeConfig(), "cpu", tasks(4, 4), work=1000).name == "inline"
    assert build_executor(ComputeConfig(), "cpu", tasks(4), work=10**9).name == "inline"
    assert build_executor(ComputeConfig(slots=1), "cpu", tasks(4, 4), work=10**9).name == "inline"


def test_on_gpus_several_slots_pay_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute of GPU work, in images of LeNet-5; two seconds of a CPU's."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("ensemble.executors.choose.cpus_here", lambda: 8)
    for device, enough in (("cpu", 50_000), ("cuda", 100_000_000)):
        assert expected_slots(ComputeConfig(), device, enough - 1) == 1
        assert expected_slots(ComputeConfig(), device, enough) == 8
        assert build_executor(ComputeConfig(), device, tasks(1, 1), enough - 1).name == "inline"


def test_work_is_counted_in_images_on_a_cpu_and_in_images_of_lenet5_on_a_gpu() -> None:
    text = {
        "name": "r", "method": {"name": "deep_ensemble"}, "data": {"name": "digits"},
        "members": (
            {"count": 2, "model": {"name": "lenet5"}},
            {"count": 1, "name": "wide", "model": {"name": "mlp", "widths": (50,)}},
        ),
    }  # fmt: skip
    images = {"lenet5": 1000, "wide": 300}
    mnist = (1, 28, 28)
    assert training_work(images, parse_experiment(text), "cpu", mnist, 10) == 1300
    # LeNet-5: 6 maps of 28 x 28 by 25 weights, 16 of 10 x 10 by 150, then 400 x 120, 120 x 84 and 84 x 10.
    lenet5 = 6 * 784 * 25 + 16 * 100 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    expected = 1000 + 300 * (784 * 50 + 50 * 10) / lenet5
    assert training_work(images, parse_experiment(text), "cuda", mnist, 10) == pytest.approx(expected)


def test_a_cluster_that_is_named_decides_what_a_driver_without_a_gpu_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs no connection; the rest is in test_ray_nodes.py."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ComputeError, match="torch sees no GPU here"):
        planned_device(ComputeConfig(device="cuda"))
    assert planned_device(ComputeConfig(device="cuda", ray_address="10.0.0.1:6379")) == "cuda"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert planned_device(ComputeConfig(device="cuda")) == "cuda"
    assert planned_device(ComputeConfig(device="cpu")) == "cpu"
    assert uses_cluster(ComputeConfig())
    assert not uses_cluster(ComputeConfig(executor="inline"))
    assert not uses_cluster(ComputeConfig(parallel="data"))
    with pytest.raises(ComputeError, match="torch sees no GPU here"):
        planned_device(ComputeConfig(device="cuda", executor="inline"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not uses_cluster(ComputeConfig())


def test_what_a_plan_reckons_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ensemble.executors.choose.cpus_here", lambda: 8)
    much = 10**9
    assert expected_slots(ComputeConfig(), "cpu", much) == 8
    assert expected_slots(ComputeConfig(threads_per_task=3), "cpu", much) == 2
    assert expected_slots(ComputeConfig(threads_per_task=16), "cpu", much) == 1
    assert expected_slots(ComputeConfig(), "cpu", 1000) == 1  # inline, then
    assert expected_slots(ComputeConfig(executor="ray"), "cpu", 1000) == 8
    assert expected_slots(ComputeConfig(executor="processes"), "cpu", 1000) == 8
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
    assert build_executor(ComputeConfig(), "cuda", tasks(1, 1), 10**9).name == "inline"
    executor = build_executor(ComputeConfig(slots=2), "cpu", tasks(1, 1), 10**9)
    assert executor.name == "processes"
    executor.close()
