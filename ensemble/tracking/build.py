"""The listeners of a run, by its configuration."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from ensemble.config import Experiment
from ensemble.events import Notice
from ensemble.tracking.base import Tracker
from ensemble.tracking.event_log import read_events
from ensemble.types import ByteArray

log = logging.getLogger(__name__)


def build_trackers(experiment: Experiment, folder: Path, quiet: bool) -> list[Tracker]:
    """Weights & Biases (unless disabled) and the console (unless quiet); the event log is the run's own.

    folder: the run folder, whose event log holds earlier starts of the run. Raises StorageError when that is damaged.
    """
    trackers: list[Tracker] = []
    if not quiet:
        from ensemble.tracking.console import open_console

        trackers.append(open_console())

    def notify(message: str) -> None:
        log.debug("%s", message)
        for tracker in trackers[-1:] if not quiet else []:
            tracker.handle(Notice(message), time.time())

    def test_images(rows: list[int]) -> ByteArray:
        from ensemble.data import load_dataset

        images_NCHW: ByteArray = load_dataset(experiment.data).test_images_NCHW[rows]
        return images_NCHW

    config, history = experiment.tracking.wandb, folder / "events.jsonl"
    if config.mode != "disabled":
        from ensemble.tracking.wandb_tracker import WandbTracker

        wandb = WandbTracker(
            config,
            experiment.name,
            experiment.model_dump(mode="json"),
            folder,
            earlier=read_events(history) if history.exists() else (),
            test_images=test_images,
            notify=notify,
        )
        trackers.insert(0, wandb)  # closed before the console, because it may have something to say then
    return trackers
