"""Three kills at random moments: finished in the end, bit for bit what an undisturbed run is. More: benchmarks/chaos.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import held_network

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 12


@pytest.mark.timeout(900)
@pytest.mark.parametrize("executor", ["processes", "ray"])
def test_three_kills_cost_no_bit(executor: str, tmp_path: Path) -> None:
    words = [
        "--kills",
        "3",
        "--seed",
        "2",
        "--epochs",
        str(EPOCHS),
        "--limit",
        "600",
        "--out",
        str(tmp_path / "chaos.json"),
    ]
    words += ["--held-by", f"{held_network.__file__}:Held", "--executor", executor]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "chaos.json").read_text())
    assert sum(figures["kills"].values()) == 3
    assert (figures["files"], figures["files_equal"]) == (12, 12)
    # Each kill costs at most the epochs since the last states of the two tasks under way.
    assert 6 * EPOCHS <= figures["member_epochs_trained"] < 2 * 6 * EPOCHS
    assert figures["mistakes"] == []
    assert figures["left_behind"] == 0
    assert figures["sigterm_work_lost_s_most"] < 5
