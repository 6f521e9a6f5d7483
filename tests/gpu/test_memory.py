"""Memory of a GPU: a task gives all back, what does not fit is halved until it does, prediction asks for no more than training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cases import FULL

SCRIPT = "measure_memory.py"
MIB = 8192
LIMIT_S = 900
pytestmark = pytest.mark.timeout(1000)  # the first test of the file measures for all
Outcome = Callable[[Any], dict[str, Any]]

# What prediction may take as a share of what training takes. torch allocates in blocks.
PREDICTION_SHARE = 1.02


def cases(what: str, quick: list[Any], full: list[Any]) -> list[Any]:
    """(what, *arguments) for each of them."""
    return [pytest.param((what, *given), id="-".join(map(str, given))) for given in quick] + [
        pytest.param((what, *given), id="-".join(map(str, given)), marks=FULL) for given in full
    ]


@pytest.mark.parametrize(
    "case", cases("tasks", [(True, "bf16")], [(False, "bf16"), (True, "float32"), (False, "float32")])
)
def test_a_task_gives_its_memory_back(case: tuple[Any, ...], outcome_of: Outcome) -> None:
    """All of it. In bfloat16 most things hold each other: Accelerate's wrapped forward, the run, its graph."""
    found = outcome_of(case)
    assert set(found["after"]) == {found["before"]}


@pytest.mark.parametrize("case", cases("failure", [(True, "bf16")], [(False, "bf16"), (True, "float32")]))
def test_a_task_that_did_not_fit_gives_its_memory_back(case: tuple[Any, ...], outcome_of: Outcome) -> None:
    found = outcome_of(case)
    assert found["held"] == found["before"]


@pytest.mark.parametrize(
    "case", cases("halving", [], [(True, "float32"), (False, "float32"), (True, "bf16"), (False, "bf16")])
)
def test_a_stack_that_does_not_fit_loses_no_member(case: tuple[Any, ...], outcome_of: Outcome) -> None:
    found = outcome_of(case)
    assert found["too_large"] > 0, "everything fits: this says nothing; take a smaller device"
    assert (found["trained"], found["failures"]) == (64, [])


@pytest.mark.parametrize("case", cases("prediction", [("lenet5",)], [("resnet18",), ("lenet5 rgb",), ("cnn rgb",)]))
def test_prediction_needs_no_more_room_than_training(case: tuple[Any, ...], outcome_of: Outcome) -> None:
    found = outcome_of(case)
    assert found["with_prediction"] - found["data"] <= PREDICTION_SHARE * found["training"]


@pytest.mark.parametrize("case", cases("variants", [], [("lenet5",), ("resnet18",)]))
def test_kernels_that_do_not_fit_are_left_out(case: tuple[Any, ...], outcome_of: Outcome) -> None:
    """compute.kernels=measured finds ways that fit, and holds nothing afterwards."""
    found = outcome_of(case)
    assert found["too_large"] > 0, "everything fits: this says nothing; take a smaller device"
    assert found["left"] == 0
