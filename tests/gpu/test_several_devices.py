"""A process that trains on several GPUs in turn, and launchers with one process per GPU."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cases import FULL
from pretended_gpu import REPORTS, read_reports, run_command

SCRIPT = "train_in_turn.py"
GPUS = 4
pytestmark = pytest.mark.timeout(600)
Outcome = Callable[[Any], list[dict[str, Any]]]
BIN = Path(sys.executable).parent
CONFIG = """\
name: launched
num_members: 4
method: {name: deep_ensemble}
data: {name: digits, max_train_rows: 400}
model: {name: cnn, widths: [4, 8], batch_norm: true}
training: {epochs: 2, batch_size: 32}
compute: {device: cuda, stack_size: 1, checkpoint_every_s: 0}
tracking: {wandb: {mode: disabled}}
"""


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(((0, 1, 0), True), id="two-graph"),
        pytest.param(((0, 1, 0), False), id="two-steps", marks=FULL),
        pytest.param(((0, 1, 2, 3), True), id="four-graph", marks=FULL),
    ],
)
def test_one_process_trains_on_one_device_after_another(case: tuple[Any, bool], outcome_of: Outcome) -> None:
    for found in outcome_of(case):
        assert (found["trained"], found["notices"], found["faults"]) == (3, [], [])
        assert set(found["work"]) == {str(found["device"])}
        assert [_device_in(said) for said in found["said"]] == [found["device"]]
        assert (found["graphs"] > 0) == case[1]


@FULL
@pytest.mark.parametrize("parallel", ["members", "data"])
def test_accelerate_launch_gives_each_rank_its_device(parallel: str, tmp_path: Path) -> None:
    """Two ranks on two GPUs: each works on its own, and in data mode they exchange gradients."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "launched.yaml").write_text(CONFIG)
    done = run_command(
        [
            str(BIN / "accelerate"), "launch", "--multi_gpu", "--num_processes", "2", "--mixed_precision", "no",
            "-m", "launched_run", str(tmp_path / "launched.yaml"), f"output_dir={tmp_path}",
            f"compute.parallel={parallel}",
        ],
        gpus=2, timeout=500, **{REPORTS: str(tmp_path / "reports")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    lines = (tmp_path / "launched" / "events.jsonl").read_text().splitlines()
    started = [json.loads(line) for line in lines if '"TaskStarted"' in line]
    reports = {pid: found for pid, found in read_reports(tmp_path / "reports").items() if _worked(found)}
    assert len(reports) == 2, "two ranks should have worked"
    on = {pid: [device for device in found if _launches(found[device])] for pid, found in reports.items()}
    assert sorted(on.values()) == [[0], [1]], "each rank on a device of its own"
    for event in started:
        assert on[event["pid"]] == [_device_in(event["device"])]
    faults = {kind for found in reports.values() for kinds in found.values() for kind in kinds} & _FAULTS
    assert faults == set()
    exchanged = [sum(kinds.get("collective", 0) for kinds in found.values()) for found in reports.values()]
    assert all(exchanged) if parallel == "data" else True


_FAULTS = {"illegal in capture", "outside capture", "bad launch", "wrong device", "out of memory"}


def _device_in(words: str) -> int:
    """The number in what an event says about a device, such as "cuda:1" and its name."""
    found = re.match(r"cuda:(\d+)", words)
    assert found, words
    return int(found[1])


def _launches(kinds: dict[str, int]) -> int:
    return kinds.get("kernel", 0)


def _worked(found: dict[int, dict[str, int]]) -> bool:
    return sum(map(_launches, found.values())) > 100
