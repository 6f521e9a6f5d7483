"""Packs a round's members into tasks. The plan, not the machine, decides: bits depend on the plan alone.

The plan is made once, stored in the run folder and used again by every later start of the same run, wherever that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ensemble.config.schema import Experiment
from ensemble.types import MemberSpec, Task

# Small networks leave a device idle and gain from company; large ones fill it alone. A CPU's caches bound the useful
# size from above (measured: docs/log.md), a GPU's appetite asks for more.
_CPU_STACK = {"lenet5": 4, "lenet4": 4, "mlp": 4, "cnn": 2, "layers": 4, "resnet18": 1, "resnet50": 1}
_GPU_STACK = {"lenet5": 32, "lenet4": 32, "mlp": 32, "cnn": 16, "layers": 32, "resnet18": 4, "resnet50": 1}


@dataclass(frozen=True)
class Plan:
    """How many members of each group train as one network, and on which kind of device."""

    stack_sizes: dict[str, int]
    device: str
    threads_per_task: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Plan:
        return cls(dict(values["stack_sizes"]), str(values["device"]), int(values["threads_per_task"]))


def make_plan(experiment: Experiment, device: str) -> Plan:
    """The plan of an experiment on "cpu" or "cuda" devices."""
    table = _GPU_STACK if device == "cuda" else _CPU_STACK
    compute = experiment.compute
    sizes = {group.name: min(group.count, compute.stack_size or table[group.model.name]) for group in experiment.groups}
    return Plan(sizes, device, compute.threads_per_task)


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
    tasks: Sequence[Task], experiment: Experiment, image_shape: tuple[int, int, int], classes: int
) -> list[Task]:
    """The same tasks, those with the most work first, so that no long one is left alone at the end.

    Work is members times rows times epochs times the multiply-adds of their network; the order changes no bit.
    """
    per_image = {group.name: 1 for group in experiment.groups}
    if len(per_image) > 1:
        from ensemble.models.work import multiply_adds  # imports torch, which a driver of like members can do without

        per_image = {
            group.name: multiply_adds(group.model, image_shape, classes) * group.training.epochs
            for group in experiment.groups
        }

    def work(task: Task) -> int:
        return per_image[task.recipe] * sum(len(member.rows) for member in task.members)

    return sorted(tasks, key=work, reverse=True)
