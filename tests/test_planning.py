"""Packing: every member once, alike members together, and nothing depends on where it runs."""

from __future__ import annotations

import numpy as np

from ensemble.config import parse_experiment
from ensemble.models.work import multiply_adds
from ensemble.planning import Plan, longest_first, make_plan, pack
from ensemble.types import MemberSpec, Task

MIXED = {
    "name": "mixed", "method": {"name": "deep_ensemble"},
    "members": (
        {"count": 4, "model": {"name": "lenet5"}},
        {"count": 1, "model": {"name": "resnet18"}},
        {"count": 1, "model": {"name": "mlp"}},
    ),
}  # fmt: skip


def specs(*kinds: tuple[str, int]) -> list[MemberSpec]:
    return [MemberSpec(i, recipe, np.arange(rows)) for i, (recipe, rows) in enumerate(kinds)]


def test_stacks_hold_alike_neighbours() -> None:
    plan = Plan({"a": 2, "b": 3}, "cpu", 1)
    tasks = pack(specs(("a", 5), ("a", 5), ("b", 5), ("a", 5), ("b", 5), ("a", 6)), plan)
    assert [[m.index for m in task.members] for task in tasks] == [[0, 1], [3], [2, 4], [5]]
    assert [task.recipe for task in tasks] == ["a", "a", "b", "a"]
    assert len({task.id for task in tasks}) == len(tasks)


def test_rounds_are_not_mixed() -> None:
    members = [MemberSpec(i, "a", np.arange(3), round=i // 2) for i in range(4)]
    assert [len(task.members) for task in pack(members, Plan({"a": 4}, "cpu", 1))] == [2, 2]


def test_the_plan_follows_model_device_and_wish() -> None:
    values = {"name": "p", "num_members": 6, "method": {"name": "bagging"}, "model": {"name": "lenet5"}}
    experiment = parse_experiment(values)
    assert make_plan(experiment, "cpu").stack_sizes == {"lenet5": 4}
    assert make_plan(experiment, "cuda").stack_sizes == {"lenet5": 6}
    wished = parse_experiment({**values, "compute": {"stack_size": 3}})
    assert make_plan(wished, "cpu").stack_sizes == {"lenet5": 3}
    plan = make_plan(wished, "cpu")
    assert Plan.from_json(plan.to_json()) == plan


def test_multiply_adds_of_lenet5_by_hand() -> None:
    """6 maps of 28x28 from 25 weights; 16 of 10x10 from 150; 400x120, 120x84, 84x10."""
    model = parse_experiment(MIXED).groups[0].model
    assert (
        multiply_adds(model, (1, 28, 28), 10) == 6 * 28 * 28 * 25 + 16 * 10 * 10 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    )


def test_the_longest_tasks_go_first_and_none_is_lost() -> None:
    experiment = parse_experiment(MIXED)
    rows = np.arange(100)
    recipes = ["lenet5", "lenet5", "resnet18", "mlp"]
    tasks = [Task(f"t{i}", recipe, (MemberSpec(i, recipe, rows),)) for i, recipe in enumerate(recipes)]
    tasks.append(Task("t4", "lenet5", (MemberSpec(4, "lenet5", rows), MemberSpec(5, "lenet5", rows))))
    ordered = [task.id for task in longest_first(tasks, experiment, (1, 28, 28), 10)]
    assert ordered == ["t2", "t4", "t0", "t1", "t3"]
