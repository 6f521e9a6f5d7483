"""`tracking.metrics_port`: the figures of a run at http://127.0.0.1:PORT/metrics, in Prometheus' text format, while it runs.

It listens on the loopback interface only: whoever scrapes from another machine goes through an agent or a tunnel on
this one, or, on a Ray cluster, takes the figures from Ray's own endpoints (`ray_metrics`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from ensemble import signals
from ensemble.errors import ConfigError
from ensemble.events import Event
from ensemble.tracking.metrics import Figures, Metric

HOST = "127.0.0.1"
_KEY = "tracking.metrics_port"


class MetricsEndpoint:
    """A tracker that answers scrapes from a thread of its own until it is closed.

    port: 0 for any that is free; the one it took is then `port`. Raises ConfigError where the port is in use or may
    not be used, and where the package prometheus_client is missing.
    """

    def __init__(self, port: int, figures: Figures) -> None:
        try:
            from prometheus_client import CollectorRegistry, make_wsgi_app
        except ImportError as error:
            raise ConfigError(
                f"{_KEY} is {port} and needs the package prometheus_client: pip install prometheus-client, or leave the key out ({error})"
            ) from error
        self._figures = figures
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(figures))
        try:
            self._server = make_server(HOST, port, make_wsgi_app(registry), _Server, _SilentHandler)
        except OSError as error:
            raise ConfigError(
                f"{_KEY}: port {port} of {HOST} cannot be used: {error.strerror or error}; choose another one, or 0 for any that is free"
            ) from error
        self.port = self._server.server_port
        self._closed = False
        signals.start_deaf(threading.Thread(target=self._server.serve_forever, name="metrics", daemon=True))

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{HOST}:{self.port}/metrics"

    def handle(self, event: Event, time: float) -> None:
        """Take in one event that happened at `time`."""
        self._figures.update(event, time)

    def close(self, ok: bool) -> None:  # noqa: ARG002 - it ends the same way either way
        """Give the port back."""
        if not self._closed:
            self._closed = True
            self._server.shutdown()
            self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _SilentHandler(WSGIRequestHandler):
    """The standard library's would print a line for every scrape."""

    timeout = 10.0  # seconds for a request to arrive

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class _Collector:
    """The figures as the families that prometheus_client writes."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Any]:
        """Called for every scrape."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        families: dict[Metric, Any] = {}
        makers: dict[str, Callable[..., Any]] = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily}
        for metric, labels, value in self._figures.values():
            if metric not in families:
                families[metric] = makers[metric.kind](metric.name, metric.help, labels=("run", *metric.labels))
            families[metric].add_metric(labels, value)
        yield from families.values()
