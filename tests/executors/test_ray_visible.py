"""What people see of a run's tasks on a cluster: their names in Ray's own tools, and lines while they wait for a slot."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families
from ray.util.state import list_tasks

from ensemble.config import parse_experiment
from ensemble.config.schema import ComputeConfig
from ensemble.events import Event, Notice, RunStarted
from ensemble.executors import ray_waiting
from ensemble.executors.labels import members_in_words, task_label
from ensemble.executors.ray_groups import RayGroupExecutor
from ensemble.executors.ray_tasks import RayExecutor
from ensemble.executors.ray_waiting import Need, Slots, WaitingLines
from ensemble.run.compose import run_experiment
from ensemble.tracking.metrics import METRICS, Figures
from ensemble.tracking.ray_metrics import RayMetrics
from ensemble.types import Checkpoint, MemberSpec, Task
from tests.contracts.executor_contract import arrays, finish, healthy, tasks
from tests.launch.ray_head import free_port

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
ROOT = str(Path(__file__).parents[2])  # workers unpickle the task functions of this suite by module name
REPORT_MS = 5000  # half of Ray's own
HOLDER = """
import sys
import ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
Holder = ray.remote(num_cpus=2)(type("Holder", (), {"there": lambda self: True}))
held = Holder.remote()
ray.get(held.there.remote())
print("held", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """A Ray with a dashboard, which `ray list tasks` asks, and two CPUs; gives its address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setenv("RAY_metrics_report_interval_ms", str(REPORT_MS))  # its agent reads no configuration
        found = ray.init(
            address="local", num_cpus=2, include_dashboard=True, log_to_driver=False, logging_level="ERROR",
            _node_ip_address="127.0.0.1", dashboard_host="127.0.0.1", dashboard_port=free_port(), runtime_env={"env_vars": {"PYTHONPATH": ROOT}},
        )  # fmt: skip
        yield str(found.address_info["address"])
        ray.shutdown()


@pytest.fixture
def held(cluster: str) -> Iterator[Callable[[], None]]:
    """Another driver's actor holds both CPUs; gives what makes it let go."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, cluster], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "held\n"
        yield other.stdin.close
        other.kill()


def described(task: Task, given: Any) -> Iterator[Any]:
    """A task that tells how the system lists its process."""
    yield Notice(Path("/proc/self/cmdline").read_text().rstrip("\0"))
    yield from (finish(spec, 1.0) for spec in task.members)


def test_tasks_are_called_by_run_and_members(cluster: str) -> None:
    baseline = Task("baseline", "r", (MemberSpec(10, "r", np.arange(3)),), what="baseline")
    executor, seen = RayExecutor(ComputeConfig(executor="ray"), "cpu", "exp2"), list[Event | Checkpoint]()
    assert len(list(executor.run([*tasks(8, 2), baseline], described, arrays(), seen.append))) == 3
    wanted = {"exp2 members 0-7", "exp2 members 8-9", "exp2 baseline"}
    assert {event.message for event in seen if isinstance(event, Notice)} == {f"ray::{name}" for name in wanted}
    for _ in range(40):  # workers report once a second
        listed = {task.name: task.func_or_class_name for task in list_tasks(address=cluster, limit=1000)}
        if wanted <= listed.keys():
            break
        time.sleep(0.5)
    assert {listed.get(name) for name in wanted} == {"train_remotely"}
    shown = subprocess.run(
        [str(Path(sys.executable).with_name("ray")), "list", "tasks", "--address", f"http://{ray._private.worker._global_node.webui_url}"],
        capture_output=True, text=True, timeout=60, env={**os.environ, "COLUMNS": "300"}, check=True,
    )  # fmt: skip
    assert "exp2 members 0-7" in shown.stdout


def test_what_waits_for_a_slot_is_said_until_it_has_one(
    held: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_waiting, "FIRST_S", 2.0)
    monkeypatch.setattr(ray_waiting, "EVERY_S", 4.0)
    said: list[str] = []

    def hear(event: Event | Checkpoint) -> None:
        if isinstance(event, Notice) and event.message.startswith("exp2:"):
            said.append(event.message)
            if len(said) == 2:
                threading.Thread(target=held).start()

    executor = RayExecutor(ComputeConfig(executor="ray"), "cpu", "exp2")
    assert len(list(executor.run(tasks(8, 2), healthy, arrays(), hear))) == 2
    assert len(said) == 3, said
    waits = "exp2: members 0-9 wait for 1 CPU per task; the cluster has 2 slots, 0 free; asked 0:"
    assert [line.startswith(waits) for line in said] == [True, True, False]
    assert said[0] != said[1]
    assert said[2].startswith("exp2: members 0-9 have their slots, asked 0:")
    said.clear()
    assert len(list(executor.run(tasks(1, 1, 1), slower, arrays(), hear))) == 3
    assert said == [], "tasks behind others of the same run, and processes that start, are nothing to say"


def slower(task: Task, given: Any) -> Iterator[Any]:
    time.sleep(4)
    yield from healthy(task, given)


@pytest.mark.long  # Ray Train starts twice as many actors as there are workers
def test_groups_say_so_too(held: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_waiting, "FIRST_S", 2.0)
    said: list[str] = []

    def hear(event: Event | Checkpoint) -> None:
        if isinstance(event, Notice) and event.message.startswith("exp2:"):
            said.append(event.message)
            held()

    executor = RayGroupExecutor(ComputeConfig(executor="ray", gpus_per_task=2), "cpu", run="exp2")
    assert len(list(executor.run(tasks(3), healthy, arrays(), hear))) == 1
    assert len(said) == 2, said
    assert said[0].startswith("exp2: members 0-2 wait for 2 times 1 CPU; the cluster has 1 slot, 0 free; asked ")
    assert said[1].startswith("exp2: members 0-2 have a slot, asked ")


def test_a_runs_figures_are_among_rays_own(cluster: str, tmp_path: Path) -> None:
    """Ray's agent exports what the driver counts, under Ray's prefix; Prometheus finds its port as below."""
    experiment = parse_experiment({
        "name": "exported", "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
        "model": {"name": "mlp", "widths": (8,)}, "training": {"epochs": 2}, "output_dir": str(tmp_path),
        "compute": {"executor": "ray", "device": "cpu", "stack_size": 2}, "tracking": {"wandb": {"mode": "disabled"}},
    })  # fmt: skip
    run_experiment(experiment, "silent")
    (node,) = ray.nodes()
    found: dict[tuple[str, str], float] = {}
    for _ in range(60):  # Ray hands them on every few seconds
        with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
            families = list(text_string_to_metric_families(answer.read().decode()))
        samples = [one for family in families for one in family.samples if one.labels.get("run") == "exported"]
        found = {(one.name, one.labels.get("state", "")): one.value for one in samples}
        if found.get(("ray_ensemble_members", "finished")) == 2:
            break
        time.sleep(1)
    assert {name for name, _ in found} == {f"ray_{m.exported}" for m in METRICS} - {"ray_ensemble_retries_total"}
    assert found["ray_ensemble_epochs_total", ""] == 4
    assert found["ray_ensemble_images_trained_total", ""] == 4 * 1298
    info = next(one.labels for one in samples if one.name == "ray_ensemble_info")
    assert (info["method"], info["executor"], info["device"]) == ("bagging", "ray", "cpu")


def test_figures_that_do_not_change_stay_until_the_run_ends(cluster: str) -> None:
    """Ray's agent forgets gauges that nobody sets again."""
    tracker, (node,) = RayMetrics(Figures(lambda: "cpu")), ray.nodes()
    tracker.handle(RunStarted("calm", "bagging", 3, 0, "ray", 2), 1e9)

    def there() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as answer:
            return 'run="calm"' in answer.read().decode()

    def within(seconds: float, wanted: bool) -> bool:
        deadline = time.monotonic() + seconds
        while there() is not wanted and time.monotonic() < deadline:
            time.sleep(0.5)
        return there() is wanted

    assert within(60, True)
    time.sleep(3.5 * REPORT_MS / 1000)
    assert there(), "more than two reports later, without an event"
    tracker.close(True)
    assert within(60, False)


def test_lines_come_now_and_then() -> None:
    """By a clock of the test: every 30 s for ten minutes, then every ten minutes."""
    lines, task, none = WaitingLines("r", Need(1, 1)), tasks(1)[0], Slots(2, 0, True)
    told = []
    for second in range(3600):
        if lines.due([100.0], 100.0 + second) and (line := lines.wait([(task, 100.0)], 0, none, 100.0 + second)):
            assert line.startswith("r: member 0 waits for 1 CPU and 1 GPU; the cluster has 2 slots, 0 free; asked ")
            told.append(second)
    assert told[:3] == [10, 40, 70]
    assert len(told) == 25
    assert lines.begin(task, 3700.0) == "r: member 0 has a slot, asked 1:00:00 ago"
    assert lines.begin(task, 3701.0) is None, "once"


@pytest.mark.parametrize(
    ("under_way", "slots"),
    [(0, Slots(2, 1, True)), (0, Slots(2, 0, False)), (2, Slots(2, 0, True))],
    ids=["a free slot", "nothing waits: the process starts", "all are this run's own"],
)
def test_what_waits_for_nobody_else_is_not_said(under_way: int, slots: Slots) -> None:
    lines, task = WaitingLines("r", Need(1, 0)), tasks(1)[0]
    assert lines.wait([(task, 0.0)], under_way, slots, 60.0) is None
    assert lines.begin(task, 61.0) is None


def test_it_ends_when_nothing_waits_any_more_though_the_process_has_not_said_anything() -> None:
    lines, task = WaitingLines("r", Need(1, 0)), tasks(2)[0]
    assert lines.wait([(task, 0.0)], 0, Slots(2, 0, True), 60.0) is not None
    assert lines.wait([(task, 0.0)], 0, Slots(2, 0, False), 65.0) == "r: members 0-1 have a slot, asked 1:05 ago"
    assert lines.wait([(task, 0.0)], 0, Slots(2, 0, False), 70.0) is None
    assert lines.begin(task, 80.0) is None


def test_a_task_that_is_taken_back_is_not_said_to_have_a_slot() -> None:
    lines, (one, other) = WaitingLines("r", Need(2, 0)), tasks(1, 3)
    said = lines.wait([(one, 0.0), (other, 0.0)], 1, Slots(3, 0, True), 60.0)
    assert said == (
        "r: members 0-3 wait for 2 CPUs per task; the cluster has 3 slots, 0 free, 1 of them held by this run; asked 1:00 ago"
    )
    assert lines.begin(other, 61.0) is None
    lines.drop(one)
    assert lines.begin(one, 62.0) is None


@pytest.mark.parametrize(
    ("indices", "words"),
    [([4], "member 4"), ([7, 0, 1, 2], "members 0-2, 7"), (range(8), "members 0-7"), ([1, 3], "members 1, 3")],
)
def test_members_in_words(indices: Any, words: str) -> None:
    assert members_in_words(indices) == words
    assert task_label("", Task("t", "r", tuple(MemberSpec(i, "r", np.arange(1)) for i in indices))) == words
