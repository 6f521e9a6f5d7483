"""Packing: every member once, alike members together, and nothing depends on where it runs."""

from __future__ import annotations

import numpy as np

from ensemble.config import parse_experiment
from ensemble.planning import Plan, make_plan, pack
from ensemble.types import MemberSpec


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
