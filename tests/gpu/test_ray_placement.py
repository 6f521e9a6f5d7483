"""Real Ray, real torch, two pretended devices: every task computes on the device that Ray gave it, in kept processes."""

from __future__ import annotations

import json

import pytest
from cases import FULL
from pretended_gpu import run_python


@pytest.mark.parametrize(("share", "count"), [(1.0, 18), pytest.param(0.5, 18, marks=FULL)])
def test_every_task_computes_on_the_gpu_it_was_given(share: float, count: int) -> None:
    """Also after a crash, when Ray assigns the freed device to a process that has used the other one."""
    printed = run_python("ray_placement.py", str(share), str(count), gpus=2)
    places = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    crashes = count // 6
    assert len(places) == count - crashes
    assert [place["used"] for place in places] == [place["given"] for place in places]
    assert {place["used"] for place in places} == {0, 1}
    assert len({place["process"] for place in places}) <= 2 / share + crashes
    assert {place["share"] for place in places} == {share}
