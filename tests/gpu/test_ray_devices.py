"""Real Ray on pretended GPUs: every task computes on the GPU that it was given, before and after a worker died.

Ray gives a task a GPU by an environment variable, at which the CUDA of a process looks once. A process that is used again
would stay where it was: after a crash two of them share a GPU while another idles.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cases import FULL
from pretended_gpu import run_python

TASKS = 50


@FULL
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("gpus", "share"), [(2, 1.0), (4, 1.0), (2, 0.5)])
def test_every_task_computes_on_the_gpu_it_was_given(gpus: int, share: float, tmp_path: Path) -> None:
    printed = run_python(
        "train_by_ray.py", str(gpus), str(share), str(TASKS), str(tmp_path / "crashed"), gpus=gpus, timeout=1100
    )
    found = json.loads(
        next(line for line in printed.splitlines() if line.startswith("found: ")).removeprefix("found: ")
    )
    assert found["slots"] == gpus / share
    crashed = [task for task in found["tasks"] if "kind" in task]
    assert [task["kind"] for task in crashed] == ["crash"]
    worked = [task for task in found["tasks"] if "worked" in task]
    assert len(worked) == TASKS - 1
    wrong = [task for task in worked if task["worked"] != task["given"]]
    assert wrong == [], f"{len(wrong)} of {len(worked)} tasks computed on another GPU than theirs"
    assert {gpu for task in worked for gpu in task["worked"]} == set(range(gpus))
