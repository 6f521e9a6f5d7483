"""Packing: every member once, alike members together, and nothing depends on where it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ensemble.config import parse_experiment
from ensemble.models.work import multiply_adds
from ensemble.run.planning import (
    Plan,
    longest_first,
    make_plan,
    pack,
    quickest_stack,
    speeds,
    stored_kernels,
)
from ensemble.training import gpu_cards
from ensemble.training.gpu_cards import Card
from ensemble.training.job import Ways
from ensemble.training.layers import CONVOLUTION_WAYS
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
    assert make_plan(experiment, "cpu").stack_sizes == {"lenet5": 6}
    assert make_plan(experiment, "cuda").stack_sizes == {"lenet5": 6}
    medium = parse_experiment({**values, "model": {"name": "cnn"}})
    assert make_plan(medium, "cpu").stack_sizes == {"cnn": 6}
    wide = parse_experiment({**values, "model": {"name": "cnn", "widths": (256,)}})
    assert make_plan(wide, "cpu").stack_sizes == {"cnn": 1}
    wished = parse_experiment({**values, "compute": {"stack_size": 4}})
    assert make_plan(wished, "cpu", slots=2).stack_sizes == {"lenet5": 4}
    plan = make_plan(wished, "cpu")
    assert Plan.from_json(plan.to_json()) == plan


def lenets(count: int, **compute: Any) -> Any:
    values = {"name": "p", "num_members": count, "method": {"name": "deep_ensemble"}, "model": {"name": "lenet5"}}
    return parse_experiment({**values, "training": {"batch_size": 128}, "compute": compute})


CARD = Card("Some Card", 10.0)
TABLE = {
    "Some Card": {
        "memory_gib": 10.0,
        "networks": {
            "lenet float32": {
                "batch_size": 128,
                "images_per_s": {"1": 1e5, "16": 1e6, "64": 2e6, "256": 2.1e6},
                "peak_bytes": {"1": 0.2 * 2**30, "16": 0.125 * 2**30, "64": 0.1 * 2**30},
            }
        },
        "convolutions": [
            {"precision": "float32", "members": 64, "batch_size": 128, "layer": layer, "fastest": way, "ms": {}}
            for layer, way in (("1x28x28 to 6 by 5x5, padding (2, 2)", "triton"), ("6x14x14 to 16 by 5x5", "rows"))
        ],
    }
}


@pytest.fixture
def card_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_cards, "_cards", lambda: TABLE)


@pytest.mark.usefixtures("card_table")
def test_a_measured_card_decides_by_its_speeds_and_its_memory() -> None:
    """Speeds rise up to 256 members, but 0.8 of 10 GiB holds 80 of 0.1 GiB.

    0.8 of 5 GiB holds 16 members, which take 2 GiB, and of the next 48, which take 4.4 GiB, 21.
    """
    known = gpu_cards.measured(CARD, lenets(1).groups[0].model, "float32")
    assert known is not None
    assert known.largest_stack(10.0, 128) == 80
    assert known.largest_stack(10.0, 256) == 37  # twice the batch: as if in half the memory
    assert known.largest_stack(0.1, 128) == 1
    plan = make_plan(lenets(200), "cuda", card=CARD)
    assert plan.stack_sizes == {"lenet5": 67}  # three times as many as 200 need, each within memory
    assert plan.estimated == []
    assert make_plan(lenets(200, stack_size=150), "cuda", card=CARD).stack_sizes == {"lenet5": 150}
    assert make_plan(lenets(200, gpus_per_task=0.5), "cuda", card=CARD).stack_sizes == {"lenet5": 36}
    assert make_plan(lenets(200), "cpu", card=CARD).stack_sizes == make_plan(lenets(200), "cpu").stack_sizes


@pytest.mark.usefixtures("card_table")
def test_what_was_not_measured_is_an_estimate_and_says_so() -> None:
    assert make_plan(lenets(200), "cuda", card=Card("Another Card", 80.0)).estimated == ["lenet5"]
    assert make_plan(lenets(200), "cuda").estimated == ["lenet5"]
    assert make_plan(lenets(200, precision="bf16"), "cuda", card=CARD).estimated == ["lenet5"]
    assert make_plan(lenets(200, stack_size=4), "cuda").estimated == []
    assert make_plan(lenets(200), "cpu").estimated == []
    plan = make_plan(lenets(200), "cuda")
    assert Plan.from_json(plan.to_json()) == plan
    assert Plan.from_json({"stack_sizes": {"a": 2}, "device": "cuda", "threads_per_task": 1}).estimated == []


@pytest.mark.usefixtures("card_table")
def test_a_measured_card_decides_how_convolutions_are_computed() -> None:
    """Measured with 64 members; half and twice as many count as like them, more and less do not."""
    for members, found in ((64, True), (128, True), (32, True), (16, False)):
        plan, experiment = Plan({"lenet5": members}, "cuda", 1), lenets(200)
        ways = stored_kernels(plan, experiment, CARD, (1, 28, 28), 10)
        assert ways == ({"lenet5": Ways(False, {"0": "triton", "3": "rows"})} if found else {})
    assert stored_kernels(plan, lenets(200), Card("Another Card", 80.0), (1, 28, 28), 10) == {}
    assert stored_kernels(Plan({"lenet5": 64}, "cuda", 1), lenets(200), CARD, (1, 32, 32), 10) == {}


def test_the_table_of_cards_holds_only_entries_that_the_planner_can_read() -> None:
    """Whatever `python -m benchmarks.tune_gpu` has added to it; it ships with measured cards alone."""
    for name, entry in gpu_cards._cards().items():
        assert entry["memory_gib"] > 0, name
        assert {"networks", "convolutions", "torch", "date"} <= set(entry)
        for kind, network in entry["networks"].items():
            assert set(network["images_per_s"]) == set(network["peak_bytes"]), kind
            assert min(network["peak_bytes"].values()) > 0
        assert all(case["fastest"] in CONVOLUTION_WAYS for case in entry["convolutions"])


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ({"name": "mlp"}, 32),
        ({"name": "cnn"}, 16),
        ({"name": "cnn", "widths": (8, 16)}, 32),
        ({"name": "cnn", "widths": (64, 176)}, 2),
        ({"name": "cnn", "widths": (64, 512)}, 1),
        ({"name": "resnet18"}, 4),
    ],
)
def test_the_estimate_for_a_gpu_depends_on_the_width(model: dict[str, Any], size: int) -> None:
    values = {"name": "p", "num_members": 100, "method": {"name": "bagging"}, "model": model}
    speed = speeds(parse_experiment(values).groups[0], "cuda")
    assert max(speed) == 2 * size
    assert speed[size] == speed[max(speed)] == size


@pytest.mark.parametrize(("slots", "size"), [(1, 8), (2, 4), (3, 3), (4, 2), (8, 1), (100, 1)])
def test_no_slot_is_left_idle(slots: int, size: int) -> None:
    values = {"name": "p", "num_members": 8, "method": {"name": "bagging"}, "model": {"name": "lenet5"}}
    assert make_plan(parse_experiment(values), "cpu", slots).stack_sizes == {"lenet5": size}


def test_a_round_is_planned_for_not_the_whole_run() -> None:
    """Four folds of a boosting round on two slots: two stacks of two, though the run has 40 members."""
    boosting = {"name": "p", "num_members": 40, "method": {"name": "adaboost"}, "model": {"name": "lenet5"}}
    assert make_plan(parse_experiment(boosting), "cpu", 2).stack_sizes == {"lenet5": 2}
    assert make_plan(parse_experiment(boosting), "cpu", 1).stack_sizes == {"lenet5": 4}
    chained = {**boosting, "method": {"name": "snapshot", "chains": 2}, "training": {"epochs": 2}}
    assert make_plan(parse_experiment(chained), "cpu", 2).stack_sizes == {"lenet5": 1}
    filtered = {**boosting, "num_members": 12, "method": {"name": "filter_boosting"}}
    filtered["training"] = {"augmentation": {"rotation_degrees": 5}}
    assert make_plan(parse_experiment(filtered), "cpu", 2).stack_sizes == {"lenet5": 2}


def test_groups_share_the_slots() -> None:
    assert make_plan(parse_experiment(MIXED), "cpu", 2).stack_sizes == {"lenet5": 4, "resnet18": 1, "mlp": 1}
    assert make_plan(parse_experiment(MIXED), "cpu", 12).stack_sizes == {"lenet5": 1, "resnet18": 1, "mlp": 1}


def test_the_quickest_stack_by_hand() -> None:
    """Speeds 1, 2, 3, 3 for stacks of 1 to 4: seconds 1, 1, 1, 4/3."""
    speed = {1: 1.0, 2: 2.0, 3: 3.0, 4: 3.0}
    assert quickest_stack(6, 1, speed) == 3  # 3+3: 2 s; 2+2+2: 3 s; 4+2: 7/3 s
    assert quickest_stack(6, 2, speed) == 3  # side by side: 1 s
    assert quickest_stack(6, 3, speed) == 2
    assert quickest_stack(7, 2, speed) == 4  # 4 beside 3: 4/3 s; 3+1 beside 3: 2 s
    assert quickest_stack(1, 5, speed) == 1
    assert quickest_stack(5, 1, {1: 1.0, 2: 1.0, 8: 0.5}) == 1  # company that does not pay


def test_multiply_adds_of_lenet5_by_hand() -> None:
    """6 maps of 28x28 from 25 weights; 16 of 10x10 from 150; 400x120, 120x84, 84x10."""
    model = parse_experiment(MIXED).groups[0].model
    assert (
        multiply_adds(model, (1, 28, 28), 10) == 6 * 28 * 28 * 25 + 16 * 10 * 10 * 150 + 400 * 120 + 120 * 84 + 84 * 10
    )


def test_the_longest_tasks_go_first_and_none_is_lost() -> None:
    experiment = parse_experiment(MIXED)
    groups = {group.name: group for group in experiment.groups}
    rows = np.arange(100)
    recipes = ["lenet5", "lenet5", "resnet18", "mlp"]
    tasks = [Task(f"t{i}", recipe, (MemberSpec(i, recipe, rows),)) for i, recipe in enumerate(recipes)]
    tasks.append(Task("t4", "lenet5", (MemberSpec(4, "lenet5", rows), MemberSpec(5, "lenet5", rows))))
    ordered = [task.id for task in longest_first(tasks, lambda task: groups[task.recipe], (1, 28, 28), 10)]
    assert ordered == ["t2", "t4", "t0", "t1", "t3"]
