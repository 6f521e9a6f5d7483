"""Images that would take too much of a GPU's memory stay in the machine's, and every kind of training that reads images goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cases import FULL
from recipes import RECIPES

SCRIPT = "train_streamed.py"
pytestmark = pytest.mark.timeout(900)  # the first test of the file trains for all
Outcome = Callable[[Any], dict[str, Any]]


@pytest.mark.parametrize(
    "case",
    [pytest.param((name, True), marks=[] if recipe.quick else [FULL], id=name) for name, recipe in RECIPES.items()],
)
def test_it_trains_to_its_end_without_graphs_and_says_why(case: tuple[str, bool], outcome_of: Outcome) -> None:
    found = outcome_of(case)
    assert found["error"] == ""
    assert found["trained"] == RECIPES[case[0]].count
    assert (found["failures"], found["faults"], found["warnings"]) == ([], [], [])
    assert found["not_modelled"] == []
    assert found["graph_launches"] == 0
    (said,) = [notice for notice in found["notices"] if "CUDA graph" in notice]
    assert (
        "sent batch by batch" in said
        or RECIPES[case[0]].training
        or RECIPES[case[0]].model != RECIPES["1 network"].model
    )
