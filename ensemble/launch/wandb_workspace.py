"""Puts the comparison of ensembles on a W&B project: a workspace with ready panels, and on request a report.

    python -m ensemble.launch.wandb_workspace ENTITY [--project ensemble] [--report] [--dry-run]

Needs the optional extra `dashboard` (wandb-workspaces) and a login; --dry-run only builds both and prints their panels.
The panels read what the tracker writes: one run per ensemble (JobType ensemble) and one per member (JobType member).
"""

from __future__ import annotations

import sys
from typing import Any

import click

VOTE, BEST, MEAN = "error/test", "error/best_member", "error/mean_member"
INTRODUCTION = (
    "Every ensemble's vote beside the single model that validation picks, from the same run. Rates are shares of the "
    "test images; verdict/p_value is the exact McNemar test of the vote against that single model."
)


def build_workspace(entity: str, project: str) -> Any:
    """The workspace, not saved. Raises ImportError without wandb-workspaces."""
    import wandb_workspaces.workspaces as ws

    sections = [
        ws.Section(name=title, panels=panels, is_open=True) for title, panels in _panels("ensemble").items()
    ] + [ws.Section(name=title, panels=panels, is_open=False) for title, panels in _panels("member").items()]
    return ws.Workspace(
        entity=entity,
        project=project,
        name="Ensembles compared",
        sections=sections,
        runset_settings=ws.RunsetSettings(
            groupby=[ws.Metric("Group"), ws.Metric("JobType")],
            order=[ws.Ordering(ws.Summary(VOTE))],
            pinned_columns=[f"summary:{name}" for name in (VOTE, BEST, "verdict/p_value", "train_seconds")],
        ),
    )


def build_report(entity: str, project: str) -> Any:
    """The report, not saved. Raises ImportError without wandb-workspaces."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.P(text=INTRODUCTION)]
    for job_type in ("ensemble", "member"):
        runset = wr.Runset(
            entity=entity, project=project, name=f"{job_type} runs", filters=f"Metric('jobType') == '{job_type}'"
        )
        for title, panels in _panels(job_type).items():
            blocks += [wr.H2(text=title), wr.PanelGrid(runsets=[runset], panels=panels)]
    return wr.Report(
        project=project, entity=entity, title="Ensembles against single models", description=INTRODUCTION, blocks=blocks
    )


def _panels(job_type: str) -> dict[str, list[Any]]:
    """Panels by section; each number in them is one the tracker writes."""
    import wandb_workspaces.reports.v2 as wr

    if job_type == "member":
        return {
            "Members while training": [
                wr.LinePlot(title="Validation error", x="epoch", y=["validation/error"], log_y=True),
                wr.LinePlot(title="Training loss", x="epoch", y=["train/loss"], log_y=True),
                wr.ScatterPlot(
                    title="Validation error by parameters",
                    x=wr.SummaryMetric("num_parameters"),
                    y=wr.SummaryMetric("kept/validation_error"),
                    log_x=True,
                ),
            ]
        }
    return {
        "Vote against single model": [
            wr.BarPlot(title="Test error: vote, best member by validation, mean member", metrics=[VOTE, BEST, MEAN]),
            wr.BarPlot(title="p of the vote against the single model", metrics=["verdict/p_value"]),
            wr.ScatterPlot(
                title="Test error by training seconds",
                x=wr.SummaryMetric("train_seconds"),
                y=wr.SummaryMetric(VOTE),
                log_x=True,
            ),
        ],
        "While members train": [
            wr.LinePlot(
                title="Validation error of the members: mean, best, worst",
                x="epoch",
                y=[f"epoch/validation_error_{name}" for name in ("mean", "best", "worst")],
            ),
            wr.LinePlot(title="Validation error of the vote so far", x="members/finished", y=["vote/validation_error"]),
        ],
        "Error by number of members": [
            wr.LinePlot(title="Test error of the vote", x="size/members", y=["size/error"]),
            wr.LinePlot(title="Its best and worst order", x="size/members", y=["size/error_best", "size/error_worst"]),
        ],
        "Calibration": [wr.BarPlot(title="Expected calibration error", metrics=["ece/test"])],
    }


@click.command()
@click.argument("entity")
@click.option("--project", default="ensemble", show_default=True, help="tracking.wandb.project of the runs.")
@click.option("--report", is_flag=True, help="Also a report.")
@click.option("--dry-run", is_flag=True, help="Build it, print the panels, save nothing.")
def main(entity: str, project: str, report: bool, dry_run: bool) -> None:
    """Create the comparison of ensembles in the W&B project of ENTITY."""
    try:
        made = [build_workspace(entity, project), *([build_report(entity, project)] if report else [])]
    except ImportError as error:
        click.echo(f"error: {error}; install it with: pip install 'ensemble-trainer[dashboard]'", err=True)
        sys.exit(2)
    if dry_run:
        for title, panels in {**_panels("ensemble"), **_panels("member")}.items():
            click.echo(f"{title}: {'; '.join(panel.title for panel in panels)}")
        return
    for thing in made:
        try:
            thing.save()
        except Exception as error:  # whatever a network, a key or the service may raise
            click.echo(f"error: W&B: {error}; log in with `wandb login`, and check {entity}/{project}", err=True)
            sys.exit(7)
        click.echo(thing.url)


if __name__ == "__main__":
    main()
