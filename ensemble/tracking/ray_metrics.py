"""The figures of a run among Ray's own metrics, where its tasks go to Ray: each cluster's Prometheus then has them.

Ray writes `ray_` before their names, and labels of its own beside ours.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

from ensemble import signals
from ensemble.events import Event, RunStarted
from ensemble.tracking.metrics import Figures, Metric

EVERY_S = 4.0  # between two times that the figures are handed to Ray


class RayMetrics:
    """A tracker that hands the figures to Ray, whose agent on this machine exports them every few seconds.

    It does nothing in runs whose executor is another.
    """

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._exports = False
        self._of: dict[Metric, Any] = {}
        self._counted: dict[tuple[Metric, tuple[str, ...]], float] = {}

    def handle(self, event: Event, time: float) -> None:
        """Take in one event that happened at `time`."""
        self._figures.update(event, time)
        if isinstance(event, RunStarted) and event.executor == "ray" and not self._exports:
            self._exports = True
            signals.start_deaf(threading.Thread(target=self._repeat, name="ray-metrics", daemon=True))

    def close(self, ok: bool) -> None:  # noqa: ARG002 - it ends the same way either way
        """Hand over the last values; the connection is the executor's."""
        if self._exports and not self._closed.is_set():
            self._closed.set()
            self._export()

    def _repeat(self) -> None:
        """Ray forgets a gauge that is not set again within two of its reports, which are ten seconds apart."""
        while not self._closed.is_set():
            self._export()
            self._closed.wait(EVERY_S)

    def _export(self) -> None:
        ray = sys.modules.get("ray")  # whatever imported it has connected to it
        if ray is None or not ray.is_initialized():
            return
        with self._lock:
            for metric, labels, value in self._figures.values():
                tags = dict(zip(("run", *metric.labels), labels, strict=True))
                if metric.kind == "gauge":
                    self._made(metric).set(value, tags)
                    continue
                before = self._counted.get((metric, labels), 0.0)
                if value > before:  # Ray refuses to count 0
                    self._counted[metric, labels] = value
                    self._made(metric).inc(value - before, tags)

    def _made(self, metric: Metric) -> Any:
        if metric not in self._of:
            from ray.util.metrics import Counter, Gauge

            make = Gauge if metric.kind == "gauge" else Counter
            self._of[metric] = make(metric.exported, metric.help, tag_keys=("run", *metric.labels))
        return self._of[metric]
