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


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("gpus", "share", "count"),
    [(2, 1.0, 12), *(pytest.param(*given, marks=FULL) for given in ((2, 1.0, 50), (4, 1.0, 50), (2, 0.5, 50)))],
)
def test_every_task_computes_on_the_gpu_it_was_given(gpus: int, share: float, count: int, tmp_path: Path) -> None:
    """In processes that are kept, also after a crash, when Ray gives the freed GPU to one that has used another."""
    printed = run_python(
        "train_by_ray.py", str(gpus), str(share), str(count), str(tmp_path / "crashed"), gpus=gpus, timeout=1100
    )
    found = json.loads(
        next(line for line in printed.splitlines() if line.startswith("found: ")).removeprefix("found: ")
    )
    assert found["slots"] == gpus / share
    crashed = [task for task in found["tasks"] if "kind" in task]
    assert [task["kind"] for task in crashed] == ["crash"]
    worked = [task for task in found["tasks"] if "worked" in task]
    assert len(worked) == count - 1
    wrong = [task for task in worked if task["worked"] != task["given"]]
    assert wrong == [], f"{len(wrong)} of {len(worked)} tasks computed on another GPU than theirs"
    assert {gpu for task in worked for gpu in task["worked"]} == set(range(gpus))
    assert len({task["pid"] for task in worked}) <= found["slots"] + 1
    assert {task["memory"] for task in worked} == {share}
