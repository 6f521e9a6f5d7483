"""The listeners of a run, by its configuration."""

from __future__ import annotations

import logging
from pathlib import Path

from ensemble.config import Experiment
from ensemble.tracking.base import Tracker
from ensemble.tracking.event_log import read_events

log = logging.getLogger(__name__)


def build_trackers(experiment: Experiment, folder: Path, quiet: bool) -> list[Tracker]:
    """Console (unless quiet) and Weights & Biases (unless disabled); the event log is the run's own."""
    trackers: list[Tracker] = []
    if not quiet:
        from ensemble.tracking.console import open_console

        trackers.append(open_console())
    config = experiment.tracking.wandb
    if config.mode != "disabled":
        from ensemble.tracking.wandb_tracker import WandbTracker

        earlier = list(read_events(folder / "events.jsonl"))
        plain = experiment.model_dump(mode="json")
        trackers.append(WandbTracker(config, experiment.name, plain, folder, earlier=earlier))
    return trackers
