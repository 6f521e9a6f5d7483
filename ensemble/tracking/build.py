"""The listeners of a run, by its configuration."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ensemble.config import Experiment
from ensemble.config.loading import parse_stored
from ensemble.errors import ConfigError, StorageError
from ensemble.events import Notice
from ensemble.outside import json_lines
from ensemble.results.judging import stored_evaluation
from ensemble.storage import RunFolder
from ensemble.storage.damage import require_sound
from ensemble.storage.names import CONFIG, EVALUATION, EVENTS
from ensemble.tracking.base import Tracker
from ensemble.tracking.event_log import read_events
from ensemble.types import ByteArray

if TYPE_CHECKING:
    from ensemble.tracking.wandb_tracker import Makers

log = logging.getLogger(__name__)


Console = Literal["progress", "warnings", "silent"]  # what is said on stderr: all, warnings only, nothing


def build_trackers(
    experiment: Experiment, folder: Path, console: Console, makers: Makers | None = None
) -> list[Tracker]:
    """Weights & Biases (unless disabled), TensorBoard, MLflow, metrics for Prometheus and the console; the event log is the run's own.

    folder: the run folder, whose event log holds earlier starts of the run. makers: of files that are kept as artifacts,
    see `wandb_tracker`. Raises StorageError when the log is damaged, ConfigError when the port for metrics cannot be used.
    """
    from ensemble.tracking.console import WarningsOnly, open_console

    consoles: dict[Console, Callable[[], list[Tracker]]] = {
        "progress": lambda: [open_console()], "warnings": lambda: [WarningsOnly()], "silent": list,
    }  # fmt: skip
    if json_lines.active():
        from ensemble.tracking.json_console import JsonConsole

        consoles["progress"] = lambda: [JsonConsole(experiment.name)]
        consoles["warnings"] = lambda: [JsonConsole(experiment.name, warnings_only=True)]
    trackers = consoles[console]()

    def notify(message: str) -> None:
        log.debug("%s", message)
        for tracker in trackers[-1:] if console == "progress" else []:
            tracker.handle(Notice(message), time.time())

    trackers[:0] = _metrics(experiment.tracking.metrics_port, folder, notify)
    config, history = experiment.tracking.wandb, folder / EVENTS
    trackers[:0] = _sinks(experiment, folder, notify)
    if config.mode != "disabled":
        from ensemble.tracking.wandb_tracker import WandbTracker

        wandb = WandbTracker(
            config,
            experiment.name,
            experiment.model_dump(mode="json"),
            folder,
            earlier=read_events(history) if history.exists() else (),
            test_images=_test_images(folder),
            notify=notify,
            makers=makers,
        )
        trackers.insert(0, wandb)  # closed before the console, because it may have something to say then
    return trackers


def require_packages(experiment: Experiment) -> None:
    """Raises ConfigError where a tracker that the experiment asks for lacks its package; before there is a run folder."""
    if experiment.tracking.tensorboard:
        from ensemble.tracking.tensorboard_files import require_tensorboard

        require_tensorboard()
    if experiment.tracking.mlflow.enabled:
        from ensemble.tracking.mlflow_runs import require_mlflow

        require_mlflow(experiment.tracking.mlflow, os.environ)


def _sinks(experiment: Experiment, folder: Path, notify: Callable[[str], None]) -> list[Tracker]:
    """What is told the same as Weights & Biases."""
    tracking, mlflow = experiment.tracking, experiment.tracking.mlflow
    if not (tracking.tensorboard or mlflow.enabled):
        return []
    from ensemble.tracking.mlflow_runs import MlflowRuns, tracking_uri
    from ensemble.tracking.projected import ProjectedTracker, Sink
    from ensemble.tracking.tensorboard_files import TensorBoardFiles
    from ensemble.tracking.wandb_projection import Shown

    earlier = list(read_events(folder / EVENTS)) if (folder / EVENTS).exists() else []
    plain = experiment.model_dump(mode="json")

    def told(title: str, make: Callable[[], Sink], shown: Shown) -> Tracker:
        return ProjectedTracker(title, make, shown, experiment.name, plain, folder, earlier=earlier, notify=notify)

    found: list[Tracker] = []
    if tracking.tensorboard:
        found.append(told(TensorBoardFiles.title, lambda: TensorBoardFiles(folder), Shown()))
    if mlflow.enabled:
        uri = tracking_uri(mlflow, folder, os.environ)
        shown = Shown(members=mlflow.members)
        found.append(told(MlflowRuns.title, lambda: MlflowRuns(uri, mlflow.experiment, folder.parent, notify), shown))
    return found


def _metrics(port: int | None, folder: Path, notify: Callable[[str], None]) -> list[Tracker]:
    """What exports the run's figures: to Ray always, where it trains there, and at a port if one is wanted."""
    from ensemble.tracking.metrics import Figures
    from ensemble.tracking.ray_metrics import RayMetrics

    def device() -> str:
        return str(RunFolder.read(folder).plan()["device"])

    found: list[Tracker] = [RayMetrics(Figures(device))]
    if port is not None:
        from ensemble.tracking.metrics_endpoint import MetricsEndpoint

        endpoint = MetricsEndpoint(port, Figures(device))
        notify(f"metrics for Prometheus: {endpoint.url}")
        found.append(endpoint)
    return found


def replay_run(path: Path, mode: Literal["online", "offline"] | None = None, makers: Makers | None = None) -> bool:
    """Tell Weights & Biases about a stored run again; True when all of it was sent or written.

    mode: instead of the configured one. makers: as for `build_trackers`. Raises ConfigError when the run disabled W&B and no mode is given,
    StorageError when there is no such run or a file of it is damaged: nothing is told then.
    """
    from ensemble.tracking.wandb_tracker import replay

    folder = RunFolder.read(path)
    require_sound(folder)
    if folder.has(EVALUATION):
        stored_evaluation(folder)  # what does not fit is named before anything is told
    history = folder.events()
    if not history:
        raise StorageError(
            f"{path}: nothing has happened in this run yet (no {EVENTS}); start its `ensemble train` first"
        )
    experiment = parse_stored(folder.config(), str(path / CONFIG))
    config = experiment.tracking.wandb
    if mode is not None:
        config = config.model_copy(update={"mode": mode})
    if config.mode == "disabled":
        raise ConfigError(f"{path}: tracking.wandb.mode of this run is disabled; give --mode online or --mode offline")
    plain = experiment.model_dump(mode="json")
    images = _test_images(path)
    return replay(history, config, experiment.name, plain, path, test_images=images, notify=_say, makers=makers)


def _say(message: str) -> None:
    print(message, file=sys.stderr)  # noqa: T201


def _test_images(path: Path) -> Callable[[list[int]], ByteArray]:
    """Reads images only when they are asked for: after training, the few disputed ones, which the run keeps."""

    def images(rows: list[int]) -> ByteArray:
        from ensemble.results.run_data import test_images

        return test_images(RunFolder.read(path), rows)

    return images
