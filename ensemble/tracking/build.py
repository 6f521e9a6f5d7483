"""The listeners of a run, by its configuration."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ensemble.config import Experiment, load_config
from ensemble.errors import ConfigError, StorageError
from ensemble.events import Notice
from ensemble.tracking.base import Tracker
from ensemble.tracking.event_log import read_events
from ensemble.types import ByteArray

log = logging.getLogger(__name__)


def build_trackers(experiment: Experiment, folder: Path, quiet: bool) -> list[Tracker]:
    """Weights & Biases (unless disabled) and the console (when quiet, warnings only); the event log is the run's own.

    folder: the run folder, whose event log holds earlier starts of the run. Raises StorageError when that is damaged.
    """
    from ensemble.tracking.console import WarningsOnly, open_console

    trackers: list[Tracker] = [WarningsOnly() if quiet else open_console()]

    def notify(message: str) -> None:
        log.debug("%s", message)
        for tracker in trackers[-1:] if not quiet else []:
            tracker.handle(Notice(message), time.time())

    config, history = experiment.tracking.wandb, folder / "events.jsonl"
    if config.mode != "disabled":
        from ensemble.tracking.wandb_tracker import WandbTracker

        wandb = WandbTracker(
            config,
            experiment.name,
            experiment.model_dump(mode="json"),
            folder,
            earlier=read_events(history) if history.exists() else (),
            test_images=_test_images(experiment),
            notify=notify,
        )
        trackers.insert(0, wandb)  # closed before the console, because it may have something to say then
    return trackers


def replay_run(folder: Path, mode: Literal["online", "offline"] | None = None) -> bool:
    """Tell Weights & Biases about a stored run again; True when all of it was sent or written.

    mode: instead of the configured one. Raises ConfigError when the run disabled W&B and no mode is given,
    StorageError when there is no such run or its event log is damaged.
    """
    from ensemble.tracking.wandb_tracker import replay

    history = folder / "events.jsonl"
    if not history.is_file():
        raise StorageError(
            f"{folder}: no run here (there is no events.jsonl); give the folder of a run, such as runs/NAME"
        )
    experiment = load_config(folder / "config.yaml").experiment
    config = experiment.tracking.wandb
    if mode is not None:
        config = config.model_copy(update={"mode": mode})
    if config.mode == "disabled":
        raise ConfigError(
            f"{folder}: tracking.wandb.mode of this run is disabled; give --mode online or --mode offline"
        )
    plain = experiment.model_dump(mode="json")
    return replay(
        read_events(history), config, experiment.name, plain, folder, test_images=_test_images(experiment), notify=_say
    )


def _say(message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201


def _test_images(experiment: Experiment) -> Callable[[list[int]], ByteArray]:
    """Loads the data set only when images are asked for: after training, for the few disputed rows."""

    def images(rows: list[int]) -> ByteArray:
        from ensemble.data import load_dataset

        images_NCHW: ByteArray = load_dataset(experiment.data).test_images_NCHW[rows]
        return images_NCHW

    return images
