"""The figures of a run among Ray's own metrics, where its tasks go to Ray: each cluster's Prometheus then has them.

Ray writes `ray_` before their names, and labels of its own beside ours.
"""

from __future__ import annotations

import sys
from typing import Any

from ensemble.events import Event, RunStarted
from ensemble.tracking.metrics import Figures, Metric


class RayMetrics:
    """A tracker that hands what has changed to Ray, whose agent on this machine exports it every few seconds.

    It does nothing in runs whose executor is another.
    """

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._exports = False
        self._of: dict[Metric, Any] = {}
        self._last: dict[tuple[Metric, tuple[str, ...]], float] = {}

    def handle(self, event: Event, time: float) -> None:
        """Take in one event that happened at `time`."""
        self._figures.update(event, time)
        if isinstance(event, RunStarted):
            ray = sys.modules.get("ray")  # whatever imported it has connected to it
            self._exports = event.executor == "ray" and ray is not None and bool(ray.is_initialized())
        if self._exports:
            self._export()

    def close(self, ok: bool) -> None:  # noqa: ARG002 - it ends the same way either way
        """Nothing is left to say; the connection is the executor's."""
        self._exports = False

    def _export(self) -> None:
        for metric, labels, value in self._figures.values():
            before = self._last.get((metric, labels))
            if value == before:
                continue
            self._last[metric, labels] = value
            tags = dict(zip(("run", *metric.labels), labels, strict=True))
            if metric.kind == "gauge":
                self._made(metric).set(value, tags)
            elif value > (before or 0.0):  # Ray refuses to count 0
                self._made(metric).inc(value - (before or 0.0), tags)

    def _made(self, metric: Metric) -> Any:
        if metric not in self._of:
            from ray.util.metrics import Counter, Gauge

            make = Gauge if metric.kind == "gauge" else Counter
            self._of[metric] = make(metric.exported, metric.help, tag_keys=("run", *metric.labels))
        return self._of[metric]
