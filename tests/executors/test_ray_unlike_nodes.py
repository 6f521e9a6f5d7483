"""Clusters whose nodes differ: with and without GPUs, with GPUs of several types, too small for a task. GPUs are claimed here, not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from ensemble.config import parse_experiment
from ensemble.config.schema import ComputeConfig
from ensemble.data import load_dataset
from ensemble.errors import ComputeError
from ensemble.events import Event, Notice
from ensemble.executors.choose import expected_slots, planned_card
from ensemble.executors.ray_cards import _cards_here, unlike_nodes
from ensemble.executors.ray_cluster import connection, gpu_types
from ensemble.executors.ray_tasks import RayExecutor, task_options
from ensemble.executors.ray_waiting import Need
from ensemble.run.first_plan import first_plan
from ensemble.training.gpu_cards import Card
from tests.contracts.executor_contract import arrays_read_only, healthy, tasks

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
SMI = """#!/bin/sh
[ "$1" = --query-gpu=name,memory.total,mig.mode.current ] || exit 9
printf '%s'
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A head without CPUs, a node without GPUs, one with two of the type T4, and one with one A100 and a CPU.

    The last two have a driver's command that names cards: of the first node one that this machine's table knows.
    """
    place = tmp_path_factory.mktemp("drivers")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        # Workers unpickle the task functions of this suite by module name.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        made.add_node(num_cpus=2)
        path = os.environ["PATH"]
        for kind, cpus, gpus, said in (
            ("T4", 4, 2, "Tesla T4, 15360, [N/A]\\nTesla T4, 15360, [N/A]\\n"),
            ("A100", 1, 1, "NVIDIA A100-SXM4-80GB, 81920, Disabled\\n"),
        ):
            (place / kind).mkdir()
            (place / kind / "nvidia-smi").write_text(SMI % said)
            (place / kind / "nvidia-smi").chmod(0o755)
            patch.setenv("PATH", f"{place / kind}:{path}")
            made.add_node(num_cpus=cpus, num_gpus=gpus, resources={f"accelerator_type:{kind}": 1})
        patch.setenv("PATH", path)
        made.wait_for_nodes()
        yield made
        ray.shutdown()
        made.shutdown()


def compute(cluster: Cluster, **keys: Any) -> ComputeConfig:
    return ComputeConfig(**{"executor": "ray", "ray_address": cluster.address, "placement_timeout_s": 1, **keys})


def told(cluster: Cluster, device: str, **keys: Any) -> list[str]:
    with connection(cluster.address):
        return unlike_nodes(compute(cluster, **keys), device)


def test_which_nodes_take_no_task_is_told_with_the_reason(cluster: Cluster) -> None:
    here = os.uname().nodename
    several = "the cluster has GPUs of several types: A100 (1 on 1 node), T4 (2 on 1 node); members"
    without = f"node {here} takes no task: no GPU, and the run trains on GPUs"
    assert told(cluster, "cpu") == []
    assert told(cluster, "cpu", gpu_type="T4") == []
    idle, types = told(cluster, "cuda")
    assert idle.startswith(without)
    assert types.startswith(several)
    assert "compute.gpu_type keeps to one" in types
    other, idle = told(cluster, "cuda", gpu_type="T4")
    assert idle.startswith(without)
    assert other == f"node {here} takes no task: GPUs of type A100, and compute.gpu_type is T4"
    small = told(cluster, "cuda", threads_per_task=2)
    assert not any("several types" in line for line in small), "the A100 takes no task"
    assert f"node {here} takes no task: fewer than 2 CPUs (compute.threads_per_task)" in small
    assert told(cluster, "cpu", threads_per_task=4) == [
        f"nodes {here}, {here} take no task: fewer than 4 CPUs (compute.threads_per_task)"
    ]


def test_slots_are_those_of_the_type(cluster: Cluster) -> None:
    for keys, slots in (
        ({}, 3),
        ({"gpu_type": "T4"}, 2),
        ({"gpu_type": "A100"}, 1),
        ({"gpu_type": "T4", "gpus_per_task": 0.5}, 4),
    ):
        assert expected_slots(compute(cluster, **keys), "cuda", 0) == slots
        made = RayExecutor(compute(cluster, **keys), "cuda")
        assert made.slots == slots
        made.close()
    with pytest.raises(
        ComputeError, match=r"1 GPUs of type H100; the cluster has: .*2 GPUs of type T4.*leave compute\.gpu_type out"
    ):
        RayExecutor(compute(cluster, gpu_type="H100"), "cuda")
    ray.shutdown()


def types_here() -> list[str]:
    """Of the GPUs of the node where this runs."""
    own = ray.get_runtime_context().get_node_id()
    return gpu_types(next(node["Resources"] for node in ray.nodes() if node["NodeID"] == own))


@pytest.mark.parametrize("kind", ["T4", "A100"])
def test_tasks_go_to_nodes_of_the_type(cluster: Cluster, kind: str) -> None:
    with connection(cluster.address):
        where = ray.remote(max_retries=0, **task_options(1, 0.5, gpu_type=kind))(types_here)
        assert ray.get([where.remote() for _ in range(6)]) == [[kind]] * 6


def test_a_run_says_once_which_nodes_are_idle(cluster: Cluster) -> None:
    """Its tasks find no GPU where one is claimed, which is another matter."""
    made, said = RayExecutor(compute(cluster, gpu_type="T4"), "cuda"), list[Event]()
    for _ in range(2):
        failed = [outcome.failures for outcome in made.run(tasks(1), healthy, arrays_read_only(), said.append)]
        assert len(failed) == 1
    made.close()
    lines = [event.message for event in said if isinstance(event, Notice)]
    assert sum("takes no task" in line for line in lines) == 2  # one for each of the other nodes


def test_stacks_are_sized_for_the_card_with_the_least_memory(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    assert planned_card(compute(cluster), "cuda") == Card("Tesla T4", 15.0)
    assert planned_card(compute(cluster, gpu_type="A100"), "cuda") == Card("NVIDIA A100-SXM4-80GB", 80.0)
    assert planned_card(compute(cluster), "cpu") is None
    assert planned_card(compute(cluster, threads_per_task=8), "cuda") is None
    network = {"images_per_s": {1: 1.0, 8: 8.0}, "peak_bytes": {1: 2.0 * 2**30, 8: 2.0 * 2**30}, "batch_size": 64}
    table = {name: {"networks": {"mlp float32": network}} for name in ("Tesla T4", "NVIDIA A100-SXM4-80GB")}
    monkeypatch.setattr("ensemble.training.gpu_cards._cards", lambda: table)
    for kind, size in ((None, 6), ("T4", 6), ("A100", 8)):  # 6 members of 2 GiB fill four fifths of 15 GiB
        values = {
            "name": "r", "num_members": 24, "method": {"name": "bagging"}, "data": {"name": "digits"}, "model": {"name": "mlp"},
            "training": {"batch_size": 64}, "compute": compute(cluster, gpu_type=kind, slots=1).model_dump(),
        }  # fmt: skip
        experiment = parse_experiment(values)
        plan = first_plan(experiment, load_dataset(experiment.data), 1000)
        assert (plan.device, plan.stack_sizes, plan.estimated) == ("cuda", {"mlp": size}, [])


@pytest.mark.parametrize(
    ("said", "count", "cards"),
    [
        ("A, 2048, [N/A]\nB, 49140, [N/A]", 2, [("A", 2.0), ("B", 47.98828125)]),
        ("A, 2048, [N/A]\nB, 49140, [N/A]", 1, []),  # which of them Ray has is not known
        ("B, 49140, [N/A]\nB, 49140, [N/A]", 1, [("B", 47.98828125)] * 2),
        ("NVIDIA H100, 81559, Enabled", 7, []),
        ("Odd, name, 1024, Disabled", 1, [("Odd, name", 1.0)]),
        ("no devices were found", 1, []),
        ("", 1, []),
    ],
)
def test_cards_are_those_that_ray_may_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, count: int, cards: list[tuple[str, float]]
) -> None:
    (tmp_path / "nvidia-smi").write_text(SMI % said)
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert _cards_here(count) == cards


def test_what_is_waited_for_names_the_type() -> None:
    assert str(Need(1, 0.5, gpu_type="T4")) == "1 CPU and 0.5 GPUs of type T4"
    assert str(Need(2, 1, 2)) == "2 times 2 CPUs and 1 GPU"
