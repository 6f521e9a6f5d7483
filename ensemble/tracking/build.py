"""The listeners of a run, by its configuration: the trackers that it wants, each built by its own section, and the console."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from ensemble.config import Experiment
from ensemble.config.tracker import TrackerJob
from ensemble.errors import EnsembleError
from ensemble.events import Event, Notice
from ensemble.outside import json_lines
from ensemble.storage.names import EVENTS
from ensemble.tracking.base import Tracker
from ensemble.tracking.event_log import read_events

log = logging.getLogger(__name__)

Console = Literal["progress", "warnings", "silent"]  # what is said on stderr: all, warnings only, nothing
Makers = Mapping[str, Callable[[Path, Path], None]]


def build_trackers(
    experiment: Experiment, folder: Path, console: Console, makers: Makers | None = None
) -> list[Tracker]:
    """The trackers that the experiment wants, figures for Ray's own metrics, and the console; the event log is the run's own.

    folder: the run folder, whose event log holds earlier starts of the run. makers: of files that are kept with a run,
    see `TrackerJob`. Raises StorageError when the log is damaged, ConfigError when a tracker cannot be had as it is configured;
    one whose code fails is said and left out.
    """
    from ensemble.tracking.metrics import Figures, device_of
    from ensemble.tracking.ray_metrics import RayMetrics

    consoles = _consoles(experiment.name, console)

    def notify(message: str, warning: bool = False) -> None:
        log.debug("%s", message)
        for tracker in consoles if warning or console == "progress" else ():
            tracker.handle(Notice(message, warning), time.time())

    @cache
    def earlier() -> Sequence[tuple[float, Event]]:
        return list(read_events(folder / EVENTS)) if (folder / EVENTS).exists() else []

    job = TrackerJob(
        experiment.name, experiment.model_dump(mode="json"), folder, notify, earlier=earlier, makers=makers or {}
    )
    built: list[Tracker] = []
    # Those that end the start most easily, by a port that is taken, come before those that begin something elsewhere.
    for name, section in reversed([*experiment.tracking.sections()]):
        if not section.wanted:
            continue
        try:
            built.insert(0, section.build(job))
        except EnsembleError:
            for tracker in built:
                with contextlib.suppress(Exception):
                    tracker.close(False)
            raise
        except Exception as error:
            log.debug("tracking.%s", name, exc_info=True)
            notify(
                f"tracking.{name}: cannot be started and is left out; the run goes on: {type(error).__name__}: {error}",
                warning=True,
            )
    # Closed before the console, because they may have something to say then.
    return [*built, RayMetrics(Figures(device_of(folder))), *consoles]


def require_packages(experiment: Experiment) -> None:
    """Raises ConfigError where a tracker that the experiment wants lacks something; before there is a run folder."""
    for _, section in experiment.tracking.sections():
        if section.wanted:
            section.require()


def _consoles(name: str, console: Console) -> list[Tracker]:
    """What says on stderr what happens; none where nothing is to be said."""
    if console == "silent":
        return []
    if json_lines.active():
        from ensemble.tracking.json_console import JsonConsole

        return [JsonConsole(name, warnings_only=console == "warnings")]
    from ensemble.tracking.console import WarningsOnly, open_console

    return [open_console() if console == "progress" else WarningsOnly()]
