"""Tests on pretended devices: what they need, and one process for all the cases of a file."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from cases import key_of, run_cases
from pretended_gpu import why_not


@pytest.fixture(scope="session", autouse=True)
def _pretended() -> None:
    if reason := why_not():
        pytest.skip(reason)


@pytest.fixture(scope="module")
def outcome_of(request: pytest.FixtureRequest, _pretended: None) -> Callable[[Any], Any]:
    """What the module's SCRIPT found for a case; all cases that are to be run here go into one process."""
    module = request.module
    here = [
        item for item in request.session.items if getattr(item, "module", None) is module and hasattr(item, "callspec")
    ]
    cases = dict.fromkeys(item.callspec.params["case"] for item in here if "case" in item.callspec.params)
    found = run_cases(
        module.SCRIPT,
        list(cases),
        getattr(module, "GPUS", 1),
        getattr(module, "MIB", 81_920),
        getattr(module, "LIMIT_S", 600),
    )

    def look_up(case: Any) -> Any:
        outcome = found[key_of(case)]
        assert not isinstance(outcome, str), outcome
        return outcome

    return look_up
