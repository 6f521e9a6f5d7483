"""Packs a round's members into tasks. The plan, not the machine, decides: bits depend on the plan alone.

The plan is made once, stored in the run folder and used again by every later start of the same run, wherever that is.
It chooses, from a stored table of measured speeds, the stack size with which the slots of the first start are done
soonest: few large stacks would leave slots idle, many small ones waste each. `compute.stack_size` overrules it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ensemble.config.network import Network
from ensemble.config.schema import Experiment, Group
from ensemble.training.gpu_cards import Card, Measured, measured, stored_ways
from ensemble.training.job import Ways
from ensemble.types import MemberSpec, Task

# Thousands of member-images per second and CPU thread, by kind of network, batch size and stack size. Small networks
# leave a core idle and gain from company, until the caches are full (measured with benchmarks/stack_speeds.py: docs/log.md).
_CPU_SPEED: dict[str, dict[int, dict[int, float]]] = {
    "lenet": {
        16: {1: 9.8, 2: 13.8, 3: 15.9, 4: 17.7, 6: 19.1, 8: 20.6, 12: 22.5, 16: 23.2, 32: 24.7},
        64: {1: 24.1, 2: 31.2, 3: 33.9, 4: 36.1, 6: 37.7, 8: 38.8, 12: 39.9, 16: 39.8, 32: 40.5},
        256: {1: 37.5, 2: 40.7, 3: 41.2, 4: 41.3, 6: 41.7, 8: 42.3, 12: 43.0, 16: 43.5, 32: 44.5},
    },
    "mlp": {
        16: {1: 17.0, 2: 30.1, 3: 34.7, 4: 38.7, 6: 42.0, 8: 44.0, 12: 46.9, 16: 47.8, 32: 51.5},
        64: {1: 42.0, 2: 63.4, 3: 71.0, 4: 75.0, 6: 78.0, 8: 81.0, 12: 85.9, 16: 89.1, 32: 96.0},
        256: {1: 86.8, 2: 97.0, 3: 101.0, 4: 105.0, 6: 110.0, 8: 116.0, 12: 120.0, 16: 123.0, 32: 127.0},
    },
    "narrow": {  # convolutions of up to 16 maps
        16: {1: 11.7, 2: 17.2, 3: 21.3, 4: 24.4, 6: 27.8, 8: 29.7, 12: 32.2, 16: 34.5, 32: 36.6},
        64: {1: 27.1, 2: 35.8, 3: 39.9, 4: 41.2, 6: 43.1, 8: 44.0, 12: 44.4, 16: 45.1, 32: 46.5},
        256: {1: 33.4, 2: 35.2, 3: 35.7, 4: 35.9, 6: 37.3, 8: 38.1, 12: 39.6, 16: 40.3, 32: 41.9},
    },
    "medium": {  # of up to 128
        16: {1: 2.4, 2: 2.5, 3: 2.4, 4: 2.4, 8: 2.5, 16: 2.6, 32: 2.7},
        64: {1: 3.5, 2: 3.7, 3: 3.9, 4: 3.9, 8: 4.0, 16: 4.1, 32: 4.1},
        256: {1: 3.1, 2: 3.1, 3: 3.2, 4: 3.3, 6: 3.1, 8: 3.0, 12: 3.3, 16: 3.0, 32: 3.0},
    },
    "wide": {64: {1: 0.194, 2: 0.18, 4: 0.164, 8: 0.152}},  # and ResNets: by PyTorch's kernels
}  # fmt: skip
# Members until a GPU is full; below, a stack takes no longer for more of them. A guess from kernel launches, for cards that
# are not in training/gpu_cards.json: there it depends on the widest layer, and on nothing else here.
_GPU_FULL_OF_64, _GPU_FULL_MOST = 16, 32  # with layers of up to 64 channels, and with the narrowest
_ENOUGH = 1.01  # a smaller stack is taken where it is at most this factor slower: it needs less memory


@dataclass(frozen=True)
class Plan:
    """How many members of each group train as one network, on which kind of device, and by which kernels.

    ways: by group, where compute.kernels is measured, or the card's were measured earlier. estimated: groups whose stack
    size rests on a guess, because nothing like them was measured on their GPU.
    """

    stack_sizes: dict[str, int]
    device: str
    threads_per_task: int
    ways: dict[str, Ways] = field(default_factory=dict)
    estimated: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Plan:
        ways = {recipe: Ways(**found) for recipe, found in values.get("ways", {}).items()}
        estimated = list(values.get("estimated", []))
        return cls(dict(values["stack_sizes"]), str(values["device"]), int(values["threads_per_task"]), ways, estimated)


def make_plan(experiment: Experiment, device: str, slots: int = 1, card: Card | None = None) -> Plan:
    """The plan of an experiment for so many slots at a time, each on a "cpu" or a "cuda" device.

    card: the GPU of the slots, where it is known. Where the experiment's networks were measured on it, their speed there
    decides, and a stack fills no more than a share of its memory.
    """
    compute, each = experiment.compute, max(1, slots // max(1, len(experiment.groups)))
    sizes, estimated = {}, []
    for group in experiment.groups:
        count = min(group.count, experiment.method.side_by_side(group.count))
        known = measured(card, group.model, compute.precision) if card is not None and device == "cuda" else None
        fits = None
        if known is not None and card is not None:
            room_gib = card.memory_gib * min(1.0, compute.gpus_per_task)
            fits = known.largest_stack(room_gib, group.training.batch_size)
        wanted = compute.stack_size or quickest_stack(count, each, speeds(group, device, known), fits)
        sizes[group.name] = min(group.count, wanted)
        if device == "cuda" and compute.stack_size is None and known is None:
            estimated.append(group.name)
    return Plan(sizes, device, compute.threads_per_task, estimated=estimated)


def stored_kernels(
    plan: Plan, experiment: Experiment, card: Card, image_shape: tuple[int, int, int], classes: int
) -> dict[str, Ways]:
    """By group the kernels that were fastest on this card when it was measured, for the stacks of a plan."""
    found = {
        group.name: stored_ways(
            card, group.model, experiment.compute.precision, plan.stack_sizes[group.name], group.training.batch_size,
            image_shape, classes,
        )
        for group in experiment.groups
    }  # fmt: skip
    return {name: ways for name, ways in found.items() if ways is not None}


def speeds(group: Group, device: str, known: Measured | None = None) -> Mapping[int, float]:
    """Relative member-images per second of one slot by stack size, for sizes with others in between.

    known: what was measured of such networks on the GPU at hand; without it, a guess.
    """
    if known is not None:
        return known.images_per_s
    if device == "cuda":
        full = _full_gpu(group.model)
        return {1: 1.0, full: float(full), 2 * full: float(full)}
    table = _CPU_SPEED.get(group.model.measured_as, _CPU_SPEED["wide"])
    nearest = min(table, key=lambda batch: abs(np.log(batch / group.training.batch_size)))
    return table[nearest]


def _full_gpu(model: Network) -> int:
    """A guess at how many members fill a GPU: the work of a layer grows with the square of its width."""
    if model.fills_a_gpu is not None:
        return model.fills_a_gpu
    widest = model.widest_convolution()
    return (
        _GPU_FULL_MOST if widest is None else min(_GPU_FULL_MOST, max(1, round(_GPU_FULL_OF_64 * (64 / widest) ** 2)))
    )


def quickest_stack(count: int, slots: int, speed: Mapping[int, float], largest: int | None = None) -> int:
    """The stack size with which `count` like members are done soonest on `slots` slots.

    speed: relative member-images per second of one slot by stack size. Sizes in between are interpolated, larger ones
    not considered. largest: the most members that fit into memory, where that is known.
    """
    known = np.array(sorted(speed))
    rates = np.array([speed[size] for size in known])

    def seconds(size: int) -> float:
        return float(size / np.interp(size, known, rates))

    def makespan(size: int) -> float:
        loads = [0.0] * slots
        for start in range(0, count, size):  # full stacks first, what is left over last: longest first
            loads[loads.index(min(loads))] += seconds(min(size, count - start))
        return max(loads)

    most = min(count, int(known[-1]), largest or count)
    spans = {size: makespan(size) for size in range(1, most + 1)}
    return next(size for size, span in spans.items() if span <= _ENOUGH * min(spans.values()))


def pack(members: Sequence[MemberSpec], plan: Plan) -> list[Task]:
    """Tasks of neighbouring members with one recipe and equally many rows, in stacks of the planned size."""
    alike: dict[tuple[int, str, int], list[MemberSpec]] = {}
    for member in members:
        alike.setdefault((member.round, member.recipe, len(member.rows)), []).append(member)
    tasks = []
    for (_, recipe, _), group in alike.items():
        size = plan.stack_sizes[recipe]
        for start in range(0, len(group), size):
            stack = tuple(group[start : start + size])
            tasks.append(Task(f"{recipe}-{stack[0].index:04d}x{len(stack)}", recipe, stack))
    return tasks


def longest_first(
    tasks: Sequence[Task], group_of: Callable[[Task], Group], image_shape: tuple[int, int, int], classes: int
) -> list[Task]:
    """The same tasks, those with the most work first, so that no long one is left alone at the end.

    group_of: network and recipe of a task. Work is members times rows times epochs times the multiply-adds of their
    network; the order changes no bit.
    """
    groups = {task.id: group_of(task) for task in tasks}
    networks = {id(group.model): group.model for group in groups.values()}
    per_image = dict.fromkeys(networks, 1)
    if len(networks) > 1:
        from ensemble.models.work import multiply_adds  # imports torch, which a driver of like members can do without

        per_image = {key: multiply_adds(model, image_shape, classes) for key, model in networks.items()}

    def work(task: Task) -> int:
        group = groups[task.id]
        return per_image[id(group.model)] * max(1, group.epochs) * sum(len(member.rows) for member in task.members)

    return sorted(tasks, key=work, reverse=True)


def training_work(
    images: Mapping[str, int], experiment: Experiment, device: str, image_shape: tuple[int, int, int], classes: int
) -> float:
    """How much there is to train, by which an executor is chosen.

    images: training images of each group, over its members and epochs. On a CPU their sum; on a "cuda" device each
    counts as so many images of MNIST for a LeNet-5 as it takes multiply-adds.
    """
    if device == "cpu":
        return sum(images.values())
    from ensemble.models.lenet import LeNet5Config
    from ensemble.models.work import multiply_adds

    lenet5 = multiply_adds(LeNet5Config(name="lenet5"), (1, 28, 28), 10)
    each = {group.name: multiply_adds(group.model, image_shape, classes) / lenet5 for group in experiment.groups}
    return sum(count * each[name] for name, count in images.items())
