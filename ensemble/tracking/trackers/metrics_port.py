"""`tracking.metrics_port`: where Prometheus can scrape the run's figures (`metrics_endpoint.py`)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from pydantic import Field

from ensemble.config.tracker import TrackerJob, TrackerSection, register_tracker
from ensemble.errors import ConfigError

if TYPE_CHECKING:
    from ensemble.tracking.base import Tracker


@register_tracker("metrics_port")
class MetricsPortConfig(TrackerSection):
    """Figures for Prometheus."""

    value_of = "port"
    port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="while the run goes on, its figures for Prometheus at http://127.0.0.1:PORT/metrics; 0: any port that is free, which is said; without it no port is opened",
    )

    @property
    def wanted(self) -> bool:
        return self.port is not None

    def require(self) -> None:
        if importlib.util.find_spec("prometheus_client") is None:
            raise ConfigError(
                f"tracking.metrics_port is {self.port} and needs the package prometheus_client: pip install prometheus-client, or leave the key out"
            )

    def build(self, job: TrackerJob) -> Tracker:
        from ensemble.tracking.metrics import Figures, device_of
        from ensemble.tracking.metrics_endpoint import MetricsEndpoint

        assert self.port is not None
        endpoint = MetricsEndpoint(self.port, Figures(device_of(job.folder)))
        job.notify(f"metrics for Prometheus: {endpoint.url}")
        return endpoint
