"""What kinds of nodes a Ray cluster has, and which of them a run's tasks use.

    for line in unlike_nodes(compute, "cuda"): ...   # nodes that take no task, and why; GPUs of several types
    smallest_card(compute)                           # the card that stacks are sized for

Ray itself says of which type a node's GPUs are (its resource accelerator_type:H100). Names and memory are asked of the nodes.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ensemble import signals
from ensemble.config.schema import ComputeConfig
from ensemble.executors.ray_cluster import fitting_on, gpu_types
from ensemble.outside.names import shown
from ensemble.training.gpu_cards import Card

_ASKED_S = 20.0  # for all nodes to say what cards they have
_QUERY = ("nvidia-smi", "--query-gpu=name,memory.total,mig.mode.current", "--format=csv,noheader,nounits")
_QUERY_S = 15.0
_SHOWN = 4


def unlike_nodes(compute: ComputeConfig, device: str) -> list[str]:
    """A line on the nodes of each kind that take no task of a run, and one on GPUs of several types. Empty where all nodes are alike.

    The process must be connected to the cluster.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and _works(node["Resources"])]
    threads, gpus = compute.threads_per_task, compute.gpus_per_task if device == "cuda" else 0.0
    each, wanted = min(gpus, 1.0), compute.gpu_type if device == "cuda" else None
    idle: dict[str, list[Mapping[str, Any]]] = {}
    for node in nodes:
        if fitting_on(node["Resources"], threads, each, wanted) == 0:
            idle.setdefault(_reason(node["Resources"], compute, device), []).append(node)
    said = [f"{_named(own)} {'takes' if len(own) == 1 else 'take'} no task: {why}" for why, own in sorted(idle.items())]
    if device == "cuda" and wanted is None:
        said += _several_types([node for node in nodes if fitting_on(node["Resources"], threads, each)])
    return said


def _works(resources: Mapping[str, float]) -> bool:
    """Whether a node is there to compute; a head without CPUs is not."""
    return resources.get("CPU", 0) > 0 or resources.get("GPU", 0) > 0


def _reason(resources: Mapping[str, float], compute: ComputeConfig, device: str) -> str:
    if device == "cuda":
        if not resources.get("GPU"):
            return "no GPU, and the run trains on GPUs (compute.device=cpu trains on CPUs alone)"
        types = gpu_types(resources)
        if compute.gpu_type is not None and compute.gpu_type not in types:
            return f"GPUs of type {', '.join(types) or 'unknown'}, and compute.gpu_type is {compute.gpu_type}"
    if resources.get("CPU", 0) < compute.threads_per_task:
        return f"fewer than {compute.threads_per_task} CPUs (compute.threads_per_task)"
    return f"less than {compute.gpus_per_task:g} of a GPU (compute.gpus_per_task)"


def _named(nodes: list[Mapping[str, Any]]) -> str:
    names = [shown(str(node["NodeManagerHostname"])) for node in nodes]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"node{'s' * (len(names) > 1)} {', '.join(names[:_SHOWN])}{more}"


def _several_types(nodes: list[Mapping[str, Any]]) -> Iterator[str]:
    gpus, hosts = Counter[str](), Counter[str]()
    for node in nodes:
        if count := node["Resources"].get("GPU", 0):
            kind = ", ".join(gpu_types(node["Resources"])) or "unknown"
            gpus[kind] += int(count)
            hosts[kind] += 1
    if len(gpus) > 1:
        each = ", ".join(
            f"{kind} ({gpus[kind]} on {hosts[kind]} node{'s' * (hosts[kind] > 1)})" for kind in sorted(gpus)
        )
        yield (
            f"the cluster has GPUs of several types: {each}; members that different ones train may differ by rounding, and stacks are sized "
            "for the card with the least memory; compute.gpu_type keeps to one"
        )


def smallest_card(compute: ComputeConfig) -> Card | None:
    """Of the cards that the tasks of a run may get the one with the least memory; None where no node says which it has.

    The process must be connected to the cluster. Takes as long as a process on every GPU node needs to start, 20 s at most.
    """
    nodes = [node for node in ray.nodes() if node["Alive"] and _may_train(node["Resources"], compute)]
    ask = ray.remote(num_cpus=0, max_retries=0, name="which cards a node has")(_cards_here)
    asked = [
        ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            int(node["Resources"]["GPU"])
        )
        for node in nodes
    ]
    deadline, found = time.monotonic() + _ASKED_S, list[Card]()
    while asked and time.monotonic() < deadline:
        signals.check()
        ready, asked = ray.wait(asked, timeout=0.5)
        for answer in ready:
            try:
                found += [Card(name, memory_gib) for name, memory_gib in ray.get(answer)]
            except RayError:  # a node that has gone, or does not let anything start
                continue
    for late in asked:
        ray.cancel(late, force=True)
    return min(found, key=lambda card: (card.memory_gib, card.name), default=None)


def _may_train(resources: Mapping[str, float], compute: ComputeConfig) -> bool:
    return fitting_on(resources, compute.threads_per_task, min(compute.gpus_per_task, 1.0), compute.gpu_type) > 0


def _cards_here(count: int) -> list[tuple[str, float]]:
    """Name and memory in GiB of every card of this machine, as its driver says; nothing where it has none that answers.

    count: GPUs that Ray has there. Nothing either where the machine has others, of which some are not Ray's, or where cards are
    divided (MIG), since the driver tells of whole ones.
    """
    try:
        asked = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_QUERY_S, check=True)  # noqa: S603  # a fixed command
        lines = [line.rsplit(",", 2) for line in asked.stdout.splitlines() if line.strip()]
        cards = [(name.strip(), float(memory_mib) / 1024) for name, memory_mib, _ in lines]
        divided = any(mode.strip() == "Enabled" for *_, mode in lines)
        return [] if divided or (len(cards) != count and len(set(cards)) > 1) else cards
    except (OSError, ValueError, subprocess.SubprocessError):
        return []
