"""A Ray cluster of several nodes, each a real raylet: slot arithmetic, growth, and a node killed in mid-run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from ensemble.config import parse_experiment
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.events import EpochFinished, Event, MemberFailed, TaskStarted
from ensemble.executors import expected_slots
from ensemble.executors.inline import InlineExecutor
from ensemble.executors.ray_tasks import RayExecutor
from ensemble.run import RunOutcome, run_ensemble
from ensemble.tracking.event_log import read_events

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
CONFIG: dict[str, Any] = {
    "name": "nodes", "seed": 3, "num_members": 4, "method": {"name": "bagging"}, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": (64,)}, "training": {"epochs": 150},
    "compute": {"device": "cpu", "stack_size": 1, "checkpoint_every_s": 0.2},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """A head without CPUs; tests add the nodes."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def executor(cluster: Cluster, device: str = "cpu", **compute: Any) -> RayExecutor:
    return RayExecutor(ComputeConfig(executor="ray", ray_address=cluster.address, **compute), device)


def train(root: Path, executor: Any) -> RunOutcome:
    experiment = parse_experiment({**CONFIG, "output_dir": str(root)})
    return run_ensemble(experiment, lambda *_: executor, lambda _: [])


def digests(path: Path) -> dict[str, str]:
    files = json.loads((path / "manifest.json").read_text())["files"]
    return {k: v["sha256"] for k, v in files.items() if k.endswith((".safetensors", "votes.npz"))}


def test_slots_are_counted_node_by_node_and_grow_with_the_cluster(cluster: Cluster) -> None:
    """A task needs its CPUs and its share of a GPU on one node; GPUs here are only claimed, which counts the same."""
    started = time.monotonic()
    with pytest.raises(ComputeError, match=r"no node can hold one task of 1 CPUs and 0\.5 GPUs; .*0 CPUs and 0 GPUs"):
        executor(cluster, "cuda", gpus_per_task=0.5, placement_timeout_s=2)
    assert 2 <= time.monotonic() - started < 30
    ray.shutdown()
    cluster.add_node(num_cpus=4, num_gpus=2)
    cluster.add_node(num_cpus=1, num_gpus=1)
    cluster.wait_for_nodes()
    assert executor(cluster, "cuda", gpus_per_task=0.5).slots == 4 + 1
    assert executor(cluster, "cuda", gpus_per_task=1).slots == 2 + 1
    assert executor(cluster, "cuda", threads_per_task=2).slots == 2
    ray.shutdown()
    address = {"ray_address": cluster.address}
    assert expected_slots(ComputeConfig(**address, gpus_per_task=0.5), "cuda", 0) == 5
    assert expected_slots(ComputeConfig(**address, threads_per_task=2), "cpu", 0) == 2
    assert expected_slots(ComputeConfig(**address, gpus_per_task=3), "cuda", 0) == 1
    assert not ray.is_initialized()
    small = executor(cluster)
    assert small.slots == 5
    cluster.add_node(num_cpus=3)
    cluster.wait_for_nodes()
    assert small._fitting_slots() == 8
    assert executor(cluster, slots=20).slots == 20  # what does not fit yet waits, which makes an autoscaler add nodes


def test_a_task_waits_for_the_node_that_is_still_coming(cluster: Cluster) -> None:
    ray_command = Path(sys.executable).with_name("ray")
    join = [
        str(ray_command),
        "start",
        f"--address={cluster.address}",
        "--num-cpus=1",
        "--block",
        "--disable-usage-stats",
    ]
    node = subprocess.Popen(join, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert executor(cluster, placement_timeout_s=90).slots == 1
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait(30)


def test_a_node_killed_in_mid_run_costs_no_member_and_no_bit(cluster: Cluster, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    cluster.wait_for_nodes()
    made = executor(cluster)
    assert made.slots == 2
    victims: list[str] = []

    class Killing:
        """The executor, and a hand that kills the node of the first task once it is well under way."""

        name, slots = made.name, made.slots

        def run(self, tasks: Any, train: Any, arrays: Any, emit: Any, wanted: Any) -> Iterator[Any]:
            def watching(event: Event) -> None:
                emit(event)
                if isinstance(event, EpochFinished) and event.epoch == 40 and not victims:
                    victims.append(str(event.member))
                    cluster.remove_node(nodes[0], allow_graceful=False)

            return made.run(tasks, train, arrays, watching, wanted)

        def close(self) -> None:
            made.close()

    outcome = train(tmp_path / "cluster", Killing())
    assert victims
    assert (outcome.failures, outcome.evaluation.degraded) == ((), False)
    events = [event for _, event in read_events(outcome.path / "events.jsonl")]
    failed = [event for event in events if isinstance(event, MemberFailed)]
    assert [event.decision for event in failed] == ["retry"]
    assert failed[0].kind in ("lost_node", "crash")
    assert sum(isinstance(event, TaskStarted) for event in events) == 5
    assert len(digests(outcome.path)) == 8
    assert digests(outcome.path) == digests(train(tmp_path / "calm", InlineExecutor()).path)
