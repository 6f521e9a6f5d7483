"""The figures that monitoring scrapes, told from a run's events: one table of names, for whatever exports them.

A counter counts since this start of the run and begins at 0 with the next one; exporters write `_total` behind its name.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from ensemble.events import EpochFinished, Event, MemberFailed, MemberFinished, RunStarted
from ensemble.storage import RunFolder
from ensemble.storage.atomic import written_bytes
from ensemble.tracking.progress import Progress


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure: its name without `_total`, what it is, and the labels that its values have besides `run`."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exported(self) -> str:
        """The name that is scraped."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


INFO = Metric("ensemble_info", "gauge", "1, with the facts of the run as labels", ("version", "method", "executor", "device"))  # fmt: skip
START = Metric("ensemble_start_timestamp_seconds", "gauge", "When this start of the run began, unix seconds")
LAST_EVENT = Metric("ensemble_last_event_timestamp_seconds", "gauge", "When the last event happened, unix seconds")
SLOTS = Metric("ensemble_slots", "gauge", "Tasks that could be under way at a time when the run started")
MEMBERS = Metric("ensemble_members", "gauge", "Members of the run in a state: waiting, running, finished, failed", ("state",))  # fmt: skip
EPOCHS = Metric("ensemble_epochs", "counter", "Epochs that members have ended")
IMAGES = Metric("ensemble_images_trained", "counter", "Training images that members have seen, counted as their epochs end")  # fmt: skip
RETRIES = Metric(
    "ensemble_retries", "counter", "Members that failed and are tried again, by kind of failure", ("kind",)
)
WRITTEN = Metric("ensemble_written_bytes", "counter", "Bytes of files written to the run folder, without the event log")
LAST_ERROR = Metric("ensemble_last_validation_error", "gauge", "Validation error of the member that finished last, a fraction")  # fmt: skip
MEAN_ERROR = Metric("ensemble_mean_validation_error", "gauge", "Mean validation error of the members finished since this start, a fraction")  # fmt: skip
METRICS = (INFO, START, LAST_EVENT, SLOTS, MEMBERS, EPOCHS, IMAGES, RETRIES, WRITTEN, LAST_ERROR, MEAN_ERROR)


class Figures:
    """The values of all metrics after the events handed to `update`; another thread may read them.

    device: gives the kind of device of the run's plan; asked when the run starts.
    """

    def __init__(self, device: Callable[[], str]) -> None:
        self._lock = threading.Lock()
        self._progress = Progress()
        self._device = device
        self._info: tuple[str, ...] = ()
        self._started = self._last = 0.0
        self._epochs = self._images = 0
        self._retries: Counter[str] = Counter()
        self._last_error: float | None = None
        self._written_before = written_bytes()

    def update(self, event: Event, time: float) -> None:
        """Take in one event that happened at `time`."""
        with self._lock:
            self._progress.update(event, time)
            self._last = time
            match event:
                case RunStarted():
                    self._started = time
                    self._info = _version(), event.method, event.executor, self._device()
                case EpochFinished():
                    self._epochs += 1
                    self._images += event.images or 0
                case MemberFinished():
                    self._last_error = event.validation_error
                case MemberFailed() if event.decision == "retry":
                    self._retries[event.kind] += 1
                case _:
                    pass

    def values(self) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
        """Every value that there is: its metric, the values of `run` and of the metric's labels, and the number."""
        with self._lock:
            found = list(self._values()) if self._progress.run is not None else []
        yield from found

    def _values(self) -> Iterator[tuple[Metric, tuple[str, ...], float]]:
        progress = self._progress
        assert progress.run is not None
        run = (progress.run.name,)
        yield INFO, (*run, *self._info), 1
        yield START, run, self._started
        yield LAST_EVENT, run, self._last
        yield SLOTS, run, progress.run.slots
        states = {
            "waiting": progress.waiting, "running": len(progress.running), "finished": progress.finished,
            "failed": progress.failed,
        }  # fmt: skip
        for state, count in states.items():
            yield MEMBERS, (*run, state), count
        yield EPOCHS, run, self._epochs
        yield IMAGES, run, self._images
        for kind, count in sorted(self._retries.items()):
            yield RETRIES, (*run, kind), count
        yield WRITTEN, run, written_bytes() - self._written_before
        if self._last_error is not None:
            yield LAST_ERROR, run, self._last_error
        if progress.mean_error is not None:
            yield MEAN_ERROR, run, progress.mean_error


def device_of(folder: Path) -> Callable[[], str]:
    """What says the kind of device of the plan of a run in this folder, once there is one."""
    return lambda: str(RunFolder.read(folder).plan()["device"])


def _version() -> str:
    try:
        return version("ensemble-trainer")
    except PackageNotFoundError:  # used from a folder, without being installed
        return "unknown"
