"""The W&B comparison: really built with wandb-workspaces, every figure in it one that the tracker writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ensemble.launch.wandb_workspace import build_report, build_workspace, main
from ensemble.tracking.figures import ENSEMBLE, MEMBER

pytestmark = pytest.mark.filterwarnings("ignore")  # of the package's own imports


def test_workspace_and_report_are_built_and_hold_all_panels() -> None:
    workspace, report = build_workspace("me", "ensemble"), build_report("me", "ensemble")
    assert workspace._to_model().project == "ensemble"  # what is sent; a report's can only be made with a login
    grids = [block for block in report.blocks if hasattr(block, "panels")]
    shown = [[panel.title for panel in part.panels] for part in (*workspace.sections, *grids)]
    assert shown[: len(shown) // 2] == shown[len(shown) // 2 :]
    assert [section.name for section in workspace.sections][-1] == "Members while training"
    assert {grid.runsets[0].filters for grid in grids} == {
        f"Metric('jobType') == '{job}'" for job in ("ensemble", "member")
    }


def test_every_metric_is_one_the_tracker_writes() -> None:
    sections = build_workspace("me", "ensemble").sections
    known = {"ensemble": {figure.name for figure in ENSEMBLE}, "member": {figure.name for figure in MEMBER}}
    count = 0
    for section in sections:
        kind = "member" if section.name == "Members while training" else "ensemble"
        for panel in section.panels:
            for name in metrics_of(panel):
                count += 1
                assert name in known[kind], f"{name} of {panel.title} is told by nobody"
    assert count > 12


def metrics_of(panel: Any) -> list[str]:
    """The names of the metrics that a panel shows."""
    shown = [getattr(panel, axis, None) for axis in ("x", "y", "metrics")]
    each = [
        one for found in shown if found is not None for one in (found if isinstance(found, list | tuple) else [found])
    ]
    return [getattr(one, "name", one) for one in each]


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
