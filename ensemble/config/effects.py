"""Options that could take no effect: refused where they contradict each other, said where the machine decides.

    contradictions(experiment)               # [("training.label_smoothing", "has no effect with ..."), ...]
    idle_here(experiment, "cpu", "inline")   # ["compute.gpus_per_task=2 has no effect here: ..."]

Neither is asked of a stored run: what it was trained with is done.
"""

from __future__ import annotations

from collections.abc import Iterator

from ensemble.config.network import Network
from ensemble.config.schema import ComputeConfig, Experiment, FailureConfig, Group

_OF_GPUS = ("gpus_per_task", "gpu_type", "cuda_graph", "deterministic")
_OF_CLUSTERS = ("ray_address", "gpu_type")
_OF_SEVERAL = ("ray_address", "slots", "gpu_type")


def contradictions(experiment: Experiment) -> list[tuple[str, str]]:
    """Keys that differ from their defaults and could change nothing, each with the reason."""
    found = [*_of_compute(experiment.compute), *_of_failures(experiment.failures)]
    for name, section in experiment.tracking.sections():
        found += [(f"tracking.{name}.{key}", reason) for key, reason in section.idle_keys()]
    found += experiment.method.idle_keys(experiment.training, experiment.num_members)
    # Those without a network have no keys that could be idle.
    numbers = [number for number, group in enumerate(experiment.members) if group.model is not None] or [0]
    for number, group in zip(numbers, experiment.groups, strict=False):
        at = f"members.{number}." if experiment.members else ""
        found += [(f"{at}model.{key}", reason) for key, reason in (*group.model.idle_keys(), *_of_start(group.model))]
        if group.model.freeze == "backbone" and group.training.lr_backbone_factor != 1:
            found.append(
                (f"{at}training.lr_backbone_factor", "has no effect with model.freeze backbone; leave one of them out")
            )
    return list(dict.fromkeys(found))


def _of_compute(compute: ComputeConfig) -> Iterator[tuple[str, str]]:
    if compute.executor in ("inline", "processes", "accelerate"):
        for key in _OF_CLUSTERS if compute.executor == "processes" else _OF_SEVERAL:
            if getattr(compute, key) not in (None, 1):
                yield (
                    f"compute.{key}",
                    f"has no effect with compute.executor {compute.executor}; use ray, or leave it out",
                )
    if compute.executor in ("inline", "processes") and compute.parallel == "data":
        why = "is one" if compute.executor == "inline" else "gives each its own tasks"
        yield (
            "compute.parallel",
            f"data shares each batch over processes, and the executor {compute.executor} {why}; leave one of them out",
        )


def _of_start(model: Network) -> Iterator[tuple[str, str]]:
    if model.new_head and not model.brings_weights:
        yield "new_head", "has no effect without model.weights, since every layer is drawn anew; leave it out"
    if model.freeze != "none" and not model.brings_weights:
        yield "freeze", "would keep layers as they were drawn at random; give model.weights, or leave it out"


def _of_failures(failures: FailureConfig) -> Iterator[tuple[str, str]]:
    for key in ("crash_retries", "lost_node_retries"):
        if failures.policy != "retry" and getattr(failures, key) != FailureConfig.model_fields[key].default:
            yield f"failures.{key}", f"has no effect with failures.policy {failures.policy}; use retry, or leave it out"


def idle_here(experiment: Experiment, device: str, executor: str, slots: int = 1) -> list[str]:
    """Sentences on options that differ from their defaults and change nothing on this device and executor, or less than they say.

    slots: that the executor has.
    """
    compute, fields = experiment.compute, ComputeConfig.model_fields
    reasons = {
        **dict.fromkeys(_OF_SEVERAL if executor == "inline" else (), "one process trains all"),
        **dict.fromkeys(_OF_CLUSTERS if executor == "processes" else (), "processes of this machine train all"),
        **dict.fromkeys(_OF_GPUS if device == "cpu" else (), "the tasks train on CPUs"),
    }
    found = [
        f"compute.{key}={getattr(compute, key)} has no effect here: {why}"
        for key, why in reasons.items()
        if getattr(compute, key) not in (fields[key].default, None)
    ]
    if executor == "processes" and compute.slots is not None and compute.slots > slots:
        found.append(
            f"compute.slots={compute.slots} is more than this machine has processors for: {slots} at a time (compute.threads_per_task={compute.threads_per_task})"
        )
    for group in experiment.groups:
        if _never_moves(group):
            schedule, epochs = group.training.schedule.name, group.training.epochs
            found.append(
                f"{group.name}: training.schedule {schedule} has no effect here: its first step would come after {epochs} epochs"
            )
    return found


def _never_moves(group: Group) -> bool:
    """True for a schedule in steps of epochs that a training of so few epochs never reaches."""
    schedule, epochs = group.training.schedule, group.training.epochs - group.training.warmup_epochs
    if schedule.name == "step":
        return schedule.every >= epochs
    return epochs == 1 and schedule.name in ("exponential", "plateau")
