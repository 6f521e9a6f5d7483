"""Every kind of training runs on a GPU, and with CUDA graphs a step is hardly more than one launch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
from cases import FULL
from recipes import NOT_CAPTURABLE, RECIPES, may_be_refused

SCRIPT = "train_recipes.py"
pytestmark = pytest.mark.timeout(900)  # the first test of the file trains for all
Outcome = Callable[[Any], dict[str, Any]]


def cases(*graphs: bool | None) -> list[Any]:
    return [
        pytest.param((name, graph), marks=[] if recipe.quick else [FULL], id=f"{name}-{'graph' if graph else 'steps'}")
        for name, recipe in RECIPES.items()
        for graph in graphs
    ]


@pytest.mark.parametrize("case", cases(False, True))
def test_it_trains_to_its_end(case: tuple[str, bool], outcome_of: Outcome) -> None:
    """No call that a capture forbids, no launch that a device refuses, no device mix-up, no warning."""
    found = outcome_of(case)
    assert found["error"] == ""
    assert found["trained"] == RECIPES[case[0]].count
    assert (found["failures"], found["faults"], found["warnings"]) == ([], [], [])
    assert found["not_modelled"] == [], "give the runtime a model of these functions, or what it shows may be wrong"


@pytest.mark.parametrize("case", cases(True))
def test_a_step_is_a_graph(case: tuple[str, bool], outcome_of: Outcome) -> None:
    found, recipe = outcome_of(case), RECIPES[case[0]]
    if may_be_refused(recipe) and found["notices"]:
        assert [notice for notice in found["notices"] if "CUDA graph" in notice] == found["notices"]
        return
    by_torch_func = [notice for notice in found["notices"] if "as one network by torch.func" in notice]
    assert found["notices"] == by_torch_func
    assert bool(by_torch_func) == case[0].startswith("by torch.func")
    assert found["step"] is not None, "no graph was launched"
    assert found["step"]["launches"] <= recipe.launches, found["step"]["kinds"]
    assert found["step"]["waits"] <= recipe.waits


@pytest.mark.parametrize("case", cases(False))
def test_without_graphs_none_is_launched(case: tuple[str, bool], outcome_of: Outcome) -> None:
    assert outcome_of(case)["graph_launches"] == 0


@pytest.mark.parametrize("case", [pytest.param(("1 network", None), id="default")])
def test_graphs_are_the_default(case: tuple[str, None], outcome_of: Outcome) -> None:
    assert outcome_of(case)["graph_launches"] > 0


def test_what_may_be_refused_cannot_be_captured() -> None:
    import torch

    classes = {"adagrad": torch.optim.Adagrad}
    assert set(classes) == set(NOT_CAPTURABLE)
    for name, optimizer in classes.items():
        assert "capturable" not in inspect.signature(optimizer).parameters, f"{name} can be captured now"
