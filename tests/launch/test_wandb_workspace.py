"""The W&B comparison: really built with wandb-workspaces, every figure in it one that the tracker writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ensemble.launch.wandb_workspace import build_report, build_workspace, main

pytestmark = pytest.mark.filterwarnings("ignore")  # of the package's own imports
TRACKING = Path(__file__).parents[2] / "ensemble" / "tracking"


def test_workspace_and_report_are_built_and_hold_all_panels() -> None:
    workspace, report = build_workspace("me", "ensemble"), build_report("me", "ensemble")
    assert workspace._to_model().project == "ensemble"  # what is sent; a report's can only be made with a login
    grids = [block for block in report.blocks if hasattr(block, "panels")]
    shown = [[panel.title for panel in part.panels] for part in (*workspace.sections, *grids)]
    assert shown[:4] == shown[4:]
    assert [section.name for section in workspace.sections][-1] == "Members while training"
    assert {grid.runsets[0].filters for grid in grids} == {
        f"Metric('jobType') == '{job}'" for job in ("ensemble", "member")
    }


def test_every_metric_is_one_the_tracker_writes() -> None:
    written = "".join(path.read_text() for path in TRACKING.glob("wandb_*.py"))
    source = (Path(__file__).parents[2] / "ensemble" / "launch" / "wandb_workspace.py").read_text()
    metrics = set(
        re.findall(r'"((?:error|verdict|size|train|validation|ece)/[a-z_]+|train_seconds|num_parameters)"', source)
    )
    assert len(metrics) > 8
    for metric in metrics:
        room, _, name = metric.partition("/")
        made = metric in written or (room == "size" and "size/{new}" in written and name.split("_")[-1] in written)
        assert made, f"{metric} is written by nobody"


def test_a_dry_run_needs_neither_key_nor_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    shown = CliRunner().invoke(main, ["me", "--report", "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "Vote against single model: Test error: vote" in shown.output


def test_without_a_login_it_ends_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "HOME": str(tmp_path),
        "NETRC": str(tmp_path / "netrc"),
        "WANDB_BASE_URL": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    shown = CliRunner().invoke(main, ["me"])
    assert shown.exit_code == 7
    assert "wandb login" in shown.output
