"""Members vote on further sets on a GPU, from their stored weights: every network, in the precision that it was trained in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cases import FULL
from recipes import RECIPES

SCRIPT = "vote_on_sets.py"
pytestmark = pytest.mark.timeout(900)  # the first test of the file trains for all
NETWORKS = (
    "1 network", "64 networks", "mlp", "cnn", "layers", "resnet18", "1 resnet18 bf16", "rgb", "bf16", "tf32", "not deterministic",
    "dropout", "batch norm", "on views", "one against all", "everything",
)  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param((name,), marks=[] if RECIPES[name].quick else [FULL], id=name) for name in NETWORKS]
)
def test_members_vote_from_their_weights(case: tuple[str], outcome_of: Callable[[Any], dict[str, Any]]) -> None:
    found = outcome_of(case)
    assert found["error"] == ""
    assert (found["failures"], found["faults"], found["warnings"], found["not_modelled"]) == ([], [], [], [])
    assert found["votes"] == [[index, [300, 10]] for index in range(RECIPES[case[0]].count)]
    assert found["members"] == RECIPES[case[0]].count
