"""The pretended runtime is sharp: faults planted in a capture are found, and what comes after is not disturbed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

SCRIPT = "plant_faults.py"
GPUS = 2
pytestmark = pytest.mark.timeout(600)
Outcome = Callable[[Any], dict[str, Any]]
# By the fault: what is said about it, by torch or by the runtime.
FORBIDDEN = {
    "item": "illegal in capture: cudaStreamSynchronize",
    "mask": "illegal in capture: cudaStreamSynchronize",
    "upload": "capture",
    "generator": "capture",
    "synchronize": "illegal in capture: cudaDeviceSynchronize",
    "unjoined": "illegal in capture: work that was not joined",
}


@pytest.mark.parametrize("case", [("capture", plant) for plant in FORBIDDEN], ids=list(FORBIDDEN))
def test_what_a_capture_forbids_is_refused(case: tuple[str, str], outcome_of: Outcome) -> None:
    found = outcome_of(case)
    assert found["error"] != ""
    assert FORBIDDEN[case[1]] in " ".join([found["error"], *found["faults"]])
    assert found["goes_on"]


@pytest.mark.parametrize("case", [("capture", "outside")])
def test_work_beside_the_capture_is_found(case: tuple[str, str], outcome_of: Outcome) -> None:
    """Legal, but no replay would repeat it."""
    found = outcome_of(case)
    assert any(fault.startswith("outside capture: ") for fault in found["faults"])


@pytest.mark.parametrize("case", [("capture", "nothing")])
def test_a_capture_without_fault_has_none(case: tuple[str, str], outcome_of: Outcome) -> None:
    assert outcome_of(case) == {"error": "", "faults": [], "goes_on": True}


@pytest.mark.parametrize(
    ("case", "fault"),
    [
        (("alone", "wrong_device"), "wrong device: memset"),
        (("alone", "bad_launch"), "bad launch: unknown kernel"),
        (("alone", "too_large"), "out of memory: cudaMalloc"),
    ],
)
def test_faults_of_launches_and_memory_are_found(case: tuple[str, str], fault: str, outcome_of: Outcome) -> None:
    assert fault in outcome_of(case)["faults"]


@pytest.mark.parametrize("case", [("training", plant) for plant in ("item", "mask", "upload", "generator")])
def test_training_says_why_it_goes_on_without_a_graph(case: tuple[str, str], outcome_of: Outcome) -> None:
    found = outcome_of(case)
    assert found["trained"] == 3
    assert len(found["notices"]) == 1
    assert "without a CUDA graph" in found["notices"][0]
    # Not the error that ends every broken capture, but the one that broke it.
    assert "previous error" not in found["notices"][0]
