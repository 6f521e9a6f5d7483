"""A tracker that gives the projection of a run (`wandb_projection.py`) to a sink: TensorBoard's files or MLflow.

A thread of its own makes the instructions and carries them out, so training never waits and nothing that happens there
reaches it. Runs are always told whole: each start of a run tells the events of the earlier ones first, and a sink
replaces what it has of a run when that is opened again, so nothing is there twice.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
import time as clock
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from ensemble import signals
from ensemble.config.tracker import TrackerJob
from ensemble.errors import EnsembleError
from ensemble.events import Event, RunFinished, RunStarted
from ensemble.storage import RunFolder
from ensemble.storage.manifest import MANIFEST
from ensemble.storage.names import ENVIRONMENT
from ensemble.storage.parsing import json_object
from ensemble.tracking.event_log import marked_attempts
from ensemble.tracking.instructions import Instruction, Open, Row
from ensemble.tracking.judged import judged_run
from ensemble.tracking.vote_so_far import vote_so_far
from ensemble.tracking.wandb_evaluation import curves, figures, tables
from ensemble.tracking.wandb_projection import Projection, Shown
from ensemble.tracking.wandb_tracker import TOLD

log = logging.getLogger(__name__)

FLUSH_EVERY_S = 2.0
CLOSE_TIMEOUT_S = 30.0
Told = tuple[float, Event] | bool  # an event with its time, or how the run ended


class Sink(Protocol):
    """Carries out instructions, all in one thread."""

    title: str  # what it is called in messages

    def carry_out(self, instruction: Instruction, time: float) -> None:
        """Do one thing; `time` (unix seconds) is that of the event it follows from."""

    def flush(self) -> None:
        """Bring what was held back to where it can be seen."""


class ProjectedTracker:
    """Tells a sink what happens in a run.

    make_sink: called in the thread that will use it. name, experiment: the run's name and resolved configuration as plain
    values. folder: the run folder. earlier: events of earlier driver sessions of the same run. title: what the sink is
    called. notify: takes each line a person should read; called from another thread.
    """

    def __init__(
        self,
        title: str,
        make_sink: Callable[[], Sink],
        shown: Shown,
        name: str,
        experiment: Mapping[str, Any],
        folder: Path,
        *,
        earlier: Iterable[tuple[float, Event]] = (),
        notify: Callable[[str], None] | None = None,
        close_timeout_s: float = CLOSE_TIMEOUT_S,
    ) -> None:
        self.complete = False
        self._title = title
        self._make_sink = make_sink
        self._folder = folder
        self._earlier = list(earlier)
        self._notify = notify or log.warning
        self._timeout_s = close_timeout_s
        self._closed = False
        self._given_up = threading.Event()
        self._told: queue.SimpleQueue[Told] = queue.SimpleQueue()
        vote = vote_so_far(folder, experiment.get("aggregator"), self._miss)
        self._projection = Projection(name, experiment, shown, vote)
        self._thread = threading.Thread(target=self._work, name=f"sink-{title}", daemon=True)
        signals.start_deaf(self._thread)

    def handle(self, event: Event, time: float) -> None:
        """Pass the event on; returns at once."""
        if not self._closed and not self._given_up.is_set():
            self._told.put((time, event))

    def close(self, ok: bool) -> None:
        """End the runs and wait, for a bounded time, until everything is told; says so where it is not."""
        if self._closed:
            return
        self._closed = True
        self._told.put(ok)
        self._thread.join(self._timeout_s)
        if self._thread.is_alive():
            self._give_up(f"not everything was told within {self._timeout_s:.0f} s")

    def _work(self) -> None:
        try:
            self._tell_all(self._make_sink())
            self.complete = True
        except Exception as error:
            log.debug("%s", self._title, exc_info=True)
            self._give_up(f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")

    def _tell_all(self, sink: Sink) -> None:
        flushed = clock.monotonic()
        for time, event, stands in marked_attempts(self._earlier):
            # How an earlier start ended is no longer so: this one tells its own judgement.
            self._tell(sink, event, time, stands and not isinstance(event, RunFinished))
        self._earlier.clear()
        last = 0.0
        while not self._given_up.is_set():
            try:
                told = self._told.get(timeout=FLUSH_EVERY_S)
            except queue.Empty:
                told = None
            if isinstance(told, bool):
                for instruction in self._projection.close(told):
                    sink.carry_out(instruction, last or clock.time())
                sink.flush()
                return
            if told is not None:
                last = told[0]
                self._tell(sink, told[1], last)
            if clock.monotonic() - flushed >= FLUSH_EVERY_S:
                sink.flush()
                flushed = clock.monotonic()

    def _tell(self, sink: Sink, event: Event, time: float, stands: bool = True) -> None:
        if isinstance(event, RunStarted) and (environment := self._stored(ENVIRONMENT)):
            self._projection.describe({key: environment[key] for key in TOLD if key in environment})
        told = self._projection.handle(event, time, stands)
        if isinstance(event, RunFinished) and stands and (judged := self._judged()):
            told += self._projection.judge(figures(judged), curves(judged), tables(judged, {}))
        for instruction in told:
            sink.carry_out(instruction, time)

    def _stored(self, name: str) -> dict[str, Any]:
        """A file of the run folder, empty where there is none; what cannot be read is said."""
        if not (self._folder / MANIFEST).is_file():
            return {}
        try:
            folder = RunFolder.read(self._folder)
            return json_object(folder.read_bytes(name), self._folder / name) if folder.has(name) else {}
        except EnsembleError as error:
            self._miss(f"{name} is not shown there: {error}")
            return {}

    def _judged(self) -> dict[str, Any]:
        if not (self._folder / MANIFEST).is_file():
            return {}
        try:
            return judged_run(RunFolder.read(self._folder))
        except EnsembleError as error:
            self._miss(f"the judgement is not shown there: {error}")
            return {}

    def _miss(self, reason: str) -> None:
        self._notify(f"{self._title}: {reason}")

    def _give_up(self, reason: str) -> None:
        """Say once that the sink misses something, and how it gets it."""
        if not self._given_up.is_set():
            self._given_up.set()
            self._notify(
                f"{self._title}: {reason}; the run itself is unharmed, started once more it is told there again, whole"
            )


def told_to(
    job: TrackerJob,
    title: str,
    make_sink: Callable[[], Sink],
    members: Literal["full", "summary", "none"] = "full",
) -> ProjectedTracker:
    """A tracker that tells a sink what Weights & Biases is told. members: as `tracking.wandb.members`."""
    return ProjectedTracker(
        title,
        make_sink,
        Shown(members=members),
        job.name,
        job.experiment,
        job.folder,
        earlier=job.earlier(),
        notify=job.notify,
    )


def points(row: Row, run: Open) -> tuple[list[tuple[str, int, float]], dict[str, float]]:
    """A row cut into the points of curves, (figure, its x axis as step, value), and what has no axis, by figure."""
    axes = {curve.name: curve.axis for curve in run.curves if curve.axis}
    found, others = [], {}
    for name, value in row.values.items():
        if axes.get(name) in row.values:
            found.append((name, int(row.values[axes[name]]), float(value)))
        else:
            others[name] = value
    return found, others


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """A configuration by dotted keys; lists as JSON, keys without a value and `environment` left out."""
    found: dict[str, bool | int | float | str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.") if prefix + key != "environment" else {}
        elif isinstance(value, bool | int | float | str):
            found[prefix + key] = value
        elif value is not None:
            found[prefix + key] = json.dumps(value, default=str)
    return found
