"""Figures for Prometheus: what they are after a run's events, where they are served, and the dashboard that draws them."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ensemble import __version__
from ensemble.config import parse_experiment
from ensemble.config.schema import Experiment
from ensemble.errors import ConfigError
from ensemble.events import EpochFinished, RunStarted
from ensemble.storage.atomic import write_bytes
from ensemble.tracking.build import build_trackers
from ensemble.tracking.metrics import METRICS, Figures
from ensemble.tracking.metrics_endpoint import MetricsEndpoint
from ensemble.tracking.ray_metrics import RayMetrics
from tests import preloaded
from tests.contracts.tracker_contract import T0, TrackerContract, a_run
from tests.ports import is_loopback, listening

ROOT = Path(__file__).parents[2]
CONFIG: dict[str, Any] = {
    "name": "seen", "num_members": 4, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"}, "compute": {"executor": "inline", "stack_size": 2},
    "model": {"name": "mlp", "widths": (8,)}, "training": {"epochs": 3}, "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
Values = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def figures() -> Figures:
    return Figures(lambda: "cpu")


def scraped(url: str) -> Values:
    """What a scrape finds: numbers by name and labels."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain")
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found: Values, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


class TestEndpoint(TrackerContract):
    @pytest.fixture
    def tracker(self) -> Any:
        endpoint = MetricsEndpoint(0, figures())
        yield endpoint
        endpoint.close(True)


class TestRay(TrackerContract):
    @pytest.fixture
    def tracker(self) -> Any:
        return RayMetrics(figures())


def test_the_figures_of_a_run(tmp_path: Path) -> None:
    endpoint = MetricsEndpoint(0, figures())
    assert scraped(endpoint.url) == {}, "nothing is known before the run has started"
    write_bytes(tmp_path / "votes", b"x" * 1000)
    middle, events = 11, a_run()
    for moment, event in events[:middle]:
        endpoint.handle(replace(event, images=600) if isinstance(event, EpochFinished) else event, moment)
    found = scraped(endpoint.url)
    states = {state: of(found, "ensemble_members", run="bag", state=state) for state in ("waiting", "running", "finished", "failed")}  # fmt: skip
    assert states == {"waiting": 1, "running": 0, "finished": 2, "failed": 0}
    assert of(found, "ensemble_epochs_total", run="bag") == 6
    assert of(found, "ensemble_images_trained_total", run="bag") == 3600
    assert of(found, "ensemble_written_bytes_total", run="bag") == 1000
    assert of(found, "ensemble_last_validation_error", run="bag") == (0.1 + 1 / 30) / 2
    for moment, event in events[middle:]:
        endpoint.handle(event, moment)
    found = scraped(endpoint.url)
    assert of(found, "ensemble_members", run="bag", state="failed") == 1
    assert of(found, "ensemble_retries_total", run="bag", kind="crash") == 1
    assert ("ensemble_retries_total", (("kind", "diverged"), ("run", "bag"))) not in found, "it was not tried again"
    assert of(found, "ensemble_mean_validation_error", run="bag") == pytest.approx((0.1 / 3 + (0.1 + 1 / 30) / 2) / 2)
    assert of(found, "ensemble_start_timestamp_seconds", run="bag") == T0
    assert of(found, "ensemble_last_event_timestamp_seconds", run="bag") == events[-1][0]
    assert of(found, "ensemble_slots", run="bag") == 1
    facts = {"version": __version__, "method": "bagging", "executor": "inline", "device": "cpu"}
    assert of(found, "ensemble_info", run="bag", **facts) == 1
    assert {name for name, _ in found} == {metric.exported for metric in METRICS}
    endpoint.close(True)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(endpoint.url, timeout=10)


def test_odd_names_are_escaped() -> None:
    endpoint, odd = MetricsEndpoint(0, figures()), 'a"b\\c\nd{e="f"} 1'
    endpoint.handle(RunStarted(odd, odd, 3, 0, "inline", 1), T0)
    assert of(scraped(endpoint.url), "ensemble_slots", run=odd) == 1
    endpoint.close(True)


def experiment(port: int | None, root: Path) -> Experiment:
    tracking = {"wandb": {"mode": "disabled"}, "metrics_port": port}
    return parse_experiment({**CONFIG, "output_dir": str(root), "tracking": tracking})


def test_the_port_is_said_and_only_opened_where_it_is_wanted(tmp_path: Path, capsys: Any) -> None:
    silent, wanted = (build_trackers(experiment(port, tmp_path), tmp_path, "progress") for port in (None, 0))
    assert not any(isinstance(tracker, MetricsEndpoint) for tracker in silent)
    (endpoint,) = (tracker for tracker in wanted if isinstance(tracker, MetricsEndpoint))
    assert f"metrics for Prometheus: {endpoint.url}\n" in capsys.readouterr().err
    endpoint.close(True)


def test_without_the_package_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"tracking\.metrics_port is 0 and needs .* pip install prometheus-client"):
        MetricsEndpoint(0, figures())


def command(tmp_path: Path, *words: str) -> list[str]:
    path = tmp_path / "seen.yaml"
    path.write_text(json.dumps({**CONFIG, "output_dir": str(tmp_path)}))
    return [sys.executable, "-m", "ensemble", "train", str(path), *words]


def test_a_port_in_use_ends_the_start_before_anything_is_trained(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = preloaded.run(
            command(tmp_path, f"tracking.metrics_port={port}"), capture_output=True, text=True, timeout=120, cwd=ROOT
        )
    assert ended.returncode == ConfigError.exit_code
    assert (
        f"error: tracking.metrics_port: port {port} of 127.0.0.1 cannot be used: Address already in use" in ended.stderr
    )
    assert not list((tmp_path / "seen").glob("members/*"))
    again = preloaded.run(
        command(tmp_path, f"tracking.metrics_port={port}"), capture_output=True, text=True, timeout=200, cwd=ROOT
    )
    assert again.returncode == 0, again.stderr


@pytest.mark.timeout(200)
def test_a_run_listens_on_the_loopback_interface_alone_and_answers_while_it_trains(tmp_path: Path) -> None:
    words = command(tmp_path, "tracking.metrics_port=0", "training.epochs=100000")
    with preloaded.Popen(words, stderr=subprocess.PIPE, text=True, cwd=ROOT) as run:
        try:
            assert run.stderr is not None
            url = next(line for line in run.stderr if "metrics for Prometheus" in line).split()[-1]
            for _ in range(600):
                found = scraped(url)
                if found.get(("ensemble_epochs_total", (("run", "seen"),)), 0) >= 4:
                    break
                time.sleep(0.1)
            ports = listening([run.pid])
        finally:
            run.send_signal(signal.SIGTERM)
            run.stderr.read()
    assert of(found, "ensemble_members", run="seen", state="running") == 2
    assert of(found, "ensemble_members", run="seen", state="waiting") == 2
    epochs = of(found, "ensemble_epochs_total", run="seen")
    images = of(found, "ensemble_images_trained_total", run="seen")
    assert images / epochs == 1298, "as many as bagging draws of the training rows of the digits"
    assert of(found, "ensemble_written_bytes_total", run="seen") > 1000
    assert [is_loopback(address) for address in ports] == [True]
    assert f"{int(next(iter(ports)).partition(':')[2], 16)}/metrics" in url


def test_the_dashboard_draws_the_figures_that_there_are() -> None:
    dashboard = json.loads((ROOT / "launch" / "cluster" / "grafana_dashboard.json").read_text())
    drawn = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    assert set(re.findall(r"\bensemble_\w+", drawn.replace("(ray_)?", " "))) == {metric.exported for metric in METRICS}
    for panel in dashboard["panels"]:
        assert panel["title"]
        for target in panel["targets"]:
            assert target["expr"].count('__name__=~"(ray_)?ensemble_') == target["expr"].count("{"), target["expr"]
            assert target["expr"].count("(") == target["expr"].count(")")
            labels = set(re.findall(r"by \(([^)]*)\)", target["expr"])[-1].split(", "))
            known = {"run"} | {label for m in METRICS if m.exported in target["expr"] for label in m.labels}
            assert labels <= known
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in dashboard["panels"]
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells)), "two panels lie above each other"
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_document_names_every_figure_with_its_kind_and_labels() -> None:
    text = (ROOT / "docs" / "monitoring.md").read_text()
    rows = [re.findall(r"[^|]+", line) for line in text.splitlines() if line.startswith("| `ensemble_")]
    told = {row[0].strip(" `"): (row[1].strip(), re.findall(r"`(\w+)`", row[2].partition(":")[0])) for row in rows}
    assert told == {metric.exported: (metric.kind, list(metric.labels)) for metric in METRICS}
