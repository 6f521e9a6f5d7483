"""MLflow's runs of a run: one for the ensemble and, nested in it, one per member.

    mlflow ui --backend-store-uri sqlite:///runs/mlflow.db

A metric cannot be taken back there, so a run that is opened again is deleted and made anew: the tag `ensemble.id` says
which it is. Parameters are the configuration by dotted keys, words are tags, and tables are artifacts as CSV.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ensemble.tracking.instructions import Artifact, Finish, Instruction, Open, Row, Settings, Summary, Table, TableData
from ensemble.tracking.projected import flat, points

ARTIFACTS = ".mlflow-artifacts"  # hidden, or it would be listed among the runs
ID, PARENT = "ensemble.id", "mlflow.parentRunId"
PARAMS_AT_ONCE, METRICS_AT_ONCE, LONGEST_PARAM, LONGEST_TAG = 100, 1000, 6000, 5000  # what every server takes


@dataclass
class _Run:
    opened: Open
    id: str  # MLflow's
    metrics: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)  # not sent yet: time, value
    summary: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)


class MlflowRuns:
    """Tells an MLflow store. uri: of the store; home: the folder of runs, where the artifacts of a local store lie.

    missed: takes in words what is left out. Raises whatever MLflow raises, but artifacts may fail.
    """

    title = "MLflow"

    def __init__(self, uri: str, experiment: str, home: Path, missed: Callable[[str], None]) -> None:
        # Nothing of a run is told to anybody who was not named, unless its owner says otherwise.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        with _quiet():
            _make_store(uri)
            self._client = MlflowClient(uri)
            place = None if uri.startswith("http") else (home.absolute() / ARTIFACTS).as_uri()
            self._experiment = self._find_or_create(experiment, place)
        self._missed = missed
        self._runs: dict[str, _Run] = {}
        self._members: list[str] = []  # MLflow's ids of all runs of members that were made
        self._parent: str | None = None
        self._without_artifacts = False

    def carry_out(self, instruction: Instruction, time: float) -> None:
        """Do one thing."""
        match instruction:
            case Open():
                self._open(instruction, time)
            case Settings(id, values):
                self._runs[id].environment.update(values.get("environment") or {})
            case Row():
                run = self._runs[instruction.id]
                found, others = points(instruction, run.opened)
                run.metrics.update({(name, step): (instruction.time, value) for name, step, value in found})
                run.summary.update(others)
            case Summary(id, values):
                self._runs[id].summary.update(values)
            case Table(id, _, data):
                self._artifact(self._runs[id], f"tables/{data.name}.csv", _csv(data))
            case Finish(id, exit_code):
                self._finish(self._runs.pop(id), exit_code, time)
            case Artifact():
                pass  # files lie in the run folder already

    def flush(self) -> None:
        """Send the metrics that were held back."""
        for run in self._runs.values():
            self._send(run)

    def _find_or_create(self, name: str, place: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name, artifact_location=place))
            except MlflowException:  # another run may have been quicker
                found = self._client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _open(self, opened: Open, time: float) -> None:
        from mlflow.entities import Param

        self._runs.pop(opened.id, None)
        for old in self._client.search_runs([self._experiment], f"tags.`{ID}` = '{opened.id}'"):
            self._client.delete_run(old.info.run_id)
        tags = {ID: opened.id, "ensemble.group": opened.group, "ensemble.kind": opened.kind}
        tags |= {"ensemble.tags": ", ".join(opened.tags), "mlflow.source.name": "ensemble"}
        if opened.kind == "member" and self._parent:
            tags[PARENT] = self._parent
        tags = {key: value[:LONGEST_TAG] for key, value in tags.items()}
        made = self._client.create_run(self._experiment, round(time * 1000), tags, opened.name)
        run = _Run(opened, made.info.run_id, environment=dict(opened.config.get("environment") or {}))
        self._runs[opened.id] = run
        if opened.kind == "ensemble":
            self._parent = run.id
            for member in self._members:  # that were told of before
                self._client.set_tag(member, PARENT, run.id)
            self._artifact(run, "config.yaml", _yaml(opened.config))
        else:
            self._members.append(run.id)
        values = {_key(key): str(value) for key, value in flat(opened.config).items()}
        params = [Param(key, value) for key, value in values.items() if len(value) <= LONGEST_PARAM]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self._client.log_batch(run.id, params=params[start : start + PARAMS_AT_ONCE])

    def _finish(self, run: _Run, exit_code: int, time: float) -> None:
        for name, value in run.summary.items():
            if isinstance(value, str):
                self._client.set_tag(run.id, _key(name), _plain(value)[:LONGEST_TAG])
            else:
                run.metrics[name, 0] = (time, float(value))
        self._send(run)
        if run.environment and run.opened.kind == "ensemble":
            self._artifact(run, "environment.yaml", _yaml(run.environment))
        self._client.set_terminated(run.id, "FAILED" if exit_code else "FINISHED", round(time * 1000))

    def _send(self, run: _Run) -> None:
        from mlflow.entities import Metric

        told = [
            Metric(_key(name), value, round(time * 1000), step) for (name, step), (time, value) in run.metrics.items()
        ]
        for start in range(0, len(told), METRICS_AT_ONCE):
            self._client.log_batch(run.id, metrics=told[start : start + METRICS_AT_ONCE])
        run.metrics.clear()

    def _artifact(self, run: _Run, name: str, text: str) -> None:
        """A server may have no place for artifacts, or one that this machine cannot reach; the first failure is said."""
        if self._without_artifacts:
            return
        try:
            self._client.log_text(run.id, text, name)
        except Exception as error:
            self._without_artifacts = True
            self._missed(
                f"MLflow: artifacts such as {name} are left out: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            )


def _make_store(uri: str) -> None:
    """Make the file of an SQLite store where there is none, whole: one whose making was cut short is damaged for ever."""
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or path.exists():
        return
    from mlflow import MlflowClient

    whole = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    with tempfile.TemporaryDirectory(prefix="ensemble-") as aside:
        made = Path(aside) / "made.db"
        MlflowClient(f"sqlite:///{made}").search_experiments()
        try:
            shutil.copyfile(made, whole)
            with contextlib.suppress(FileExistsError):  # another run was quicker
                os.link(whole, path)
        finally:
            whole.unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without MLflow's lines on stderr about a store that it makes."""
    logger = logging.getLogger("mlflow")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def _key(name: str) -> str:
    """A name of only those characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:250]


def _plain(text: str) -> str:
    """Text that can be stored as UTF-8 everywhere."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")


def _yaml(values: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in values.items() if key != "environment"}
    return yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)


def _csv(data: TableData) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([data.columns, *data.rows])
    return _plain(text.getvalue())
