"""A Ray cluster of several nodes, each a real raylet: slot arithmetic, growth, and a node killed in mid-run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image
from ray._raylet import GcsClient
from ray.autoscaler.v2.sdk import get_cluster_resource_state
from ray.cluster_utils import Cluster

from ensemble.config import load_config, parse_experiment
from ensemble.config.schema import ComputeConfig
from ensemble.data import load_dataset
from ensemble.data.prepared import kept, remove
from ensemble.errors import ComputeError, QuorumError
from ensemble.events import EpochFinished, Event, MemberFailed, Notice, TaskStarted
from ensemble.executors import build_executor, expected_slots
from ensemble.executors.choose import planned_device
from ensemble.executors.inline import InlineExecutor
from ensemble.executors.ray_cluster import connection, slots_of_cluster
from ensemble.executors.ray_groups import RayGroupExecutor
from ensemble.executors.ray_tasks import RayExecutor
from ensemble.run.first_plan import first_plan
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.tracking.event_log import read_events
from ensemble.types import Failure, MemberResult, Task
from tests.contracts.executor_contract import arrays_read_only, finish, healthy, tasks
from tests.held_network import held, hold_of
from tests.kernels_there import put_kernels

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
CONFIG: dict[str, Any] = {
    "name": "nodes", "seed": 3, "num_members": 4, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": (64,)}, "training": {"epochs": 6},
    "compute": {"device": "cpu", "stack_size": 1, "checkpoint_every_s": 0.2},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip


@pytest.fixture(scope="module")
def head() -> Iterator[Cluster]:
    """A head without CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        # Workers unpickle the task functions of this suite by module name.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        made = _begun()
        yield made
        ray.shutdown()
        made.shutdown()


def _begun(tries: int = 3) -> Cluster:
    """A cluster whose head is up; Ray gives it half a minute, which is too little on a busy machine."""
    try:
        return Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    except Exception as error:
        if "timed out during startup" not in str(error) or tries == 1:
            raise
        return _begun(tries - 1)


@pytest.fixture
def cluster(head: Cluster) -> Iterator[Cluster]:
    """The head alone; tests add the nodes, which are taken away again."""
    yield head
    ray.shutdown()
    for node in list(head.worker_nodes):
        head.remove_node(node)
    head.wait_for_nodes(timeout=120)  # until the head knows


def executor(cluster: Cluster, device: str = "cpu", **compute: Any) -> RayExecutor:
    return RayExecutor(ComputeConfig(executor="ray", ray_address=cluster.address, **compute), device)


def train(root: Path, executor: Any, file: Path) -> RunOutcome:
    experiment = load_config(file, [f"output_dir={root}"]).experiment
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
    assert executor(cluster, "cuda", gpus_per_task=0.4).slots == 2 * 2 + 1  # no task lies across two GPUs
    ray.shutdown()
    assert not ray.is_initialized()
    small = executor(cluster)
    assert small.slots == 5
    cluster.add_node(num_cpus=3)
    cluster.wait_for_nodes()
    assert small._fitting_slots() == 8
    assert executor(cluster, slots=20).slots == 20  # what does not fit yet waits, which makes an autoscaler add nodes


def test_groups_need_the_cpus_of_their_workers_as_well(cluster: Cluster) -> None:
    """GPUs of a node count as far as its CPUs go round."""
    for cpus, gpus in ((8, 4), (2, 4)):
        cluster.add_node(num_cpus=cpus, num_gpus=gpus)
    cluster.wait_for_nodes()
    wanted = {"executor": "ray", "ray_address": cluster.address, "placement_timeout_s": 0.1}
    with connection(cluster.address):
        for workers, threads, slots in ((2, 1, 3), (2, 2, 2), (5, 2, 1), (2, 8, 0), (7, 1, 0)):
            compute = ComputeConfig(**wanted, gpus_per_task=workers, threads_per_task=threads)
            assert slots_of_cluster(compute, "cuda") == slots
    compute = ComputeConfig(**wanted, gpus_per_task=2, threads_per_task=8)
    with pytest.raises(
        ComputeError, match=r"2 workers with 8 CPUs and 1 GPUs each .*hold 1 such workers: .*8 CPUs and 4 GPUs"
    ):
        RayGroupExecutor(compute, "cuda")


def test_a_driver_without_a_gpu_plans_for_those_of_its_cluster(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The layout of launch/cluster/kuberay_rayjob.yaml: a head without GPUs, where the driver runs, and GPU nodes."""
    named = ComputeConfig(ray_address=cluster.address)
    assert planned_device(named) == "cpu"  # no GPU is there yet
    cluster.add_node(num_cpus=2, num_gpus=1)
    cluster.wait_for_nodes()
    assert planned_device(named) == "cuda"
    assert planned_device(ComputeConfig(ray_address=cluster.address, device="cpu")) == "cpu"
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)  # as in a submitted job
    assert planned_device(ComputeConfig()) == "cuda"
    assert not ray.is_initialized()
    long = {**CONFIG, "training": {"epochs": 150}}  # a shorter one is not worth starting Ray
    auto = parse_experiment({**long, "compute": {}, "output_dir": str(tmp_path)})
    plan = first_plan(auto, load_dataset(auto.data), 1000)
    assert (plan.device, plan.stack_sizes) == ("cuda", {"mlp": 4})
    assert not ray.is_initialized()
    made = build_executor(auto.compute, "cuda", [], 0.0)
    assert (made.name, made.slots) == ("ray", 1)
    made.close()


def test_a_node_whose_gpu_does_not_work_counts_as_lost_and_the_others_take_its_tasks(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Nodes that claim a GPU and have none, as one whose driver failed."""
    for _ in range(2):
        cluster.add_node(num_cpus=1, num_gpus=1)
    cluster.wait_for_nodes()
    made = executor(cluster, "cuda", slots=1)
    outcomes = made.run(tasks(1, 1, 1), healthy, arrays_read_only(), lambda _: None)
    failure = next(outcomes).failures[0]
    assert failure.kind == "lost_node"
    expected = f"{os.uname().nodename} cannot use its GPU: GpuUnusableError: Ray gave GPU 0, but torch sees 0 GPUs"
    assert failure.reason.startswith(expected)
    first = set(made._avoided)
    assert len(first) == 1
    next(outcomes)  # by the other node, whose GPU does not work either: then both are tried again
    assert made._avoided == set()
    outcomes.close()
    compute = {"device": "cuda", "stack_size": 4, "ray_address": cluster.address}
    config = {**CONFIG, "failures": {"lost_node_retries": 1}, "compute": compute}
    experiment = parse_experiment({**config, "output_dir": str(tmp_path)})
    with pytest.raises(
        QuorumError, match=r"0 of 4 members finished.*lost_node: .* cannot use its GPU: GpuUnusableError"
    ):
        run_ensemble(experiment, lambda *_: made, lambda _: [])
    events = [event for _, event in read_events(tmp_path / "nodes" / "events.jsonl")]
    failed = [event for event in events if isinstance(event, MemberFailed) and event.member == 0]
    assert [(event.kind, event.decision) for event in failed] == [("lost_node", "retry"), ("lost_node", "drop")]


def test_no_task_goes_to_a_node_that_is_avoided(cluster: Cluster) -> None:
    bad, good = (cluster.add_node(num_cpus=2) for _ in range(2))
    cluster.wait_for_nodes()
    made = executor(cluster)
    made._avoid(bad.node_id)
    assert made.slots == 2
    events: list[Any] = []
    found = list(made.run(tasks(*[1] * 6), naming_its_node, arrays_read_only(), events.append))
    assert len(found) == 6
    assert {event.message for event in events} == {good.node_id}


def naming_its_node(task: Task, _given: Any) -> Iterator[Event | MemberResult | Failure]:
    yield Notice(ray.get_runtime_context().get_node_id())
    yield finish(task.members[0], 1.0)


MEASURING = """
import sys
from pathlib import Path
from ensemble.config import parse_experiment
from ensemble.data import load_dataset
from ensemble.data.prepared import kept, remove
from ensemble.run.first_plan import complete_plan

experiment = parse_experiment({
    "name": "ways", "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
    "model": {"name": "cnn", "widths": (4,)}, "training": {"batch_size": 16},
    "compute": {"kernels": "measured", "ray_address": sys.argv[1], "device": "cpu", "stack_size": 2},
})
plan = complete_plan(experiment, load_dataset(experiment.data), "cpu")
assert set(plan.ways) == {"cnn"}, plan
print("torch" in sys.modules)
"""


def test_kernels_are_measured_where_tasks_train(cluster: Cluster, tmp_path: Path) -> None:
    """By a node of the cluster: the driver has not so much as imported torch, and what was found lies in its cache."""
    put_kernels(tmp_path / "node")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENSEMBLE_CACHE", str(tmp_path / "node"))
        cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    environment = {**os.environ, "ENSEMBLE_CACHE": str(tmp_path / "driver")}
    done = subprocess.run(
        [sys.executable, "-c", MEASURING, cluster.address],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["False"]
    assert len(list((tmp_path / "node" / "ways").glob("*.json"))) == 1
    assert not (tmp_path / "driver" / "ways").exists()


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


def test_an_autoscaler_sees_what_a_waiting_run_needs(cluster: Cluster) -> None:
    """Autoscalers add nodes for pending demand, which the cluster's state has while the executor waits for a node."""
    compute = ComputeConfig(executor="ray", ray_address=cluster.address, placement_timeout_s=10, threads_per_task=2)
    seen: set[tuple[tuple[str, float], ...]] = set()
    done = threading.Event()

    def look() -> None:
        gcs = GcsClient(address=cluster.address)
        while not done.wait(0.5):
            state = get_cluster_resource_state(gcs)
            seen.update(
                tuple(sorted(each.request.resources_bundle.items())) for each in state.pending_resource_requests
            )

    looking = threading.Thread(target=look)
    looking.start()
    try:
        with pytest.raises(ComputeError, match="no node can hold one task of 2 CPUs and 1 GPUs"):
            RayExecutor(compute, "cuda")
    finally:
        done.set()
        looking.join()
    assert seen == {(("CPU", 2.0), ("GPU", 1.0))}


def test_a_node_killed_in_mid_run_costs_no_member_and_no_bit(cluster: Cluster, tmp_path: Path) -> None:
    nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
    cluster.wait_for_nodes()
    file = tmp_path / "held.yaml"
    file.write_text(json.dumps({**CONFIG, "model": held(tmp_path)}))
    made = executor(cluster)
    assert made.slots == 2
    victims, log = list[str](), tmp_path / "cluster" / "nodes" / "events.jsonl"

    class Killing:
        """The executor, and a hand that kills the node of the first task once it is well under way."""

        name, slots = made.name, made.slots

        def run(self, tasks: Any, train: Any, arrays: Any, emit: Any, wanted: Any) -> Iterator[Any]:
            def watching(event: Event) -> None:
                emit(event)
                if isinstance(event, EpochFinished) and event.epoch == 2 and not victims:
                    victims.append(str(event.member))
                    cluster.remove_node(nodes[0], allow_graceful=False)
                if victims and "MemberFailed" in log.read_text():  # before, its worker might still come to the end
                    hold_of(tmp_path).unlink(missing_ok=True)

            return made.run(tasks, train, arrays, watching, wanted)

        def close(self) -> None:
            made.close()

    outcome = train(tmp_path / "cluster", Killing(), file)
    assert victims
    assert (outcome.failures, outcome.evaluation.degraded) == ((), False)
    events = [event for _, event in read_events(outcome.path / "events.jsonl")]
    failed = [event for event in events if isinstance(event, MemberFailed)]
    assert [event.decision for event in failed] == ["retry"]
    assert failed[0].kind in ("lost_node", "crash")
    assert sum(isinstance(event, TaskStarted) for event in events) == 5
    assert len(digests(outcome.path)) == 8
    assert digests(outcome.path) == digests(train(tmp_path / "calm", InlineExecutor(), file).path)


def test_a_node_without_the_decoded_pictures_reads_them_itself(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for k in range(2):
        (tmp_path / "photos" / "ab"[k]).mkdir(parents=True)
        for i in range(30):
            picture = np.random.default_rng([k, i]).integers(90 * k, 90 * k + 120, (12, 12), np.uint8)
            Image.fromarray(picture).save(tmp_path / "photos" / "ab"[k] / f"{i}.png")
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache of the driver"))
    cluster.add_node(num_cpus=2, env_vars={"ENSEMBLE_CACHE": str(tmp_path / "cache of the node")})

    def trained(name: str, executor: Any, storage: str) -> tuple[dict[str, str], list[str]]:
        data = {
            "name": "image_folder",
            "root": str(tmp_path / "photos"),
            "image_size": 8,
            "channels": 1,
            "storage": storage,
        }
        experiment = parse_experiment(
            {**CONFIG, "name": name, "training": {"epochs": 3}, "data": data, "output_dir": str(tmp_path / "runs")}
        )
        dataset = load_dataset(experiment.data)
        for each in kept():  # as on another machine: what the driver has mapped stays, and nobody else finds it
            remove(each.key)
        outcome = run_ensemble(experiment, lambda *_: executor, lambda _: [], dataset)
        events = [event for _, event in read_events(outcome.path / "events.jsonl")]
        return digests(outcome.path), [event.message for event in events if isinstance(event, Notice)]

    here, _ = trained("here", InlineExecutor(), "memory")
    there, notices = trained("there", executor(cluster), "mapped")
    assert there == here
    assert any("reads the pictures, which it does not have decoded yet" in text for text in notices)
    (folder,) = (tmp_path / "cache of the node" / "pictures").iterdir()  # one of its two workers did it
    assert {file.name for file in folder.iterdir()} == {"index.json", "lock", "train.u8", "test.u8"}
