"""`tracking.mlflow`: the keys of MLflow, and the tracker that they ask for (`mlflow_runs.py`)."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, field_validator

from ensemble.config.tracker import TrackerJob, TrackerSection, register_tracker
from ensemble.errors import ConfigError

if TYPE_CHECKING:
    from ensemble.tracking.base import Tracker

STORE = "mlflow.db"


@register_tracker("mlflow")
class MlflowConfig(TrackerSection):
    """MLflow: a run for the ensemble, with the members' nested in it."""

    always = True
    enabled: bool = Field(False, description="also tell MLflow: a run for the ensemble, with the members' nested in it")
    uri: str | None = Field(
        None,
        description="of the store, such as http://HOST:5000 or sqlite:////FOLDER/mlflow.db; without it MLFLOW_TRACKING_URI, else the file mlflow.db in output_dir",
    )
    experiment: str = Field(
        "ensemble", pattern=r"^[A-Za-z0-9._ -]{1,128}$", description="the experiment the runs are in"
    )
    members: Literal["full", "summary", "none"] = Field("full", description="as tracking.wandb.members")

    @field_validator("uri")
    @classmethod
    def _can_be_told(cls, value: str | None) -> str | None:
        """A store of files, which MLflow develops no further, has no room for epoch beside epoch/members."""
        if value is None:
            return None
        scheme, found, _ = value.partition("://")
        if not found or not scheme or scheme == "file":
            raise ValueError(
                f"is {value!r}; expected the address of a server or a database, such as sqlite:///{value}.db"
            )
        return value

    @property
    def wanted(self) -> bool:
        return self.enabled

    def require(self) -> None:
        require_mlflow(self, os.environ)

    def idle_keys(self) -> Iterator[tuple[str, str]]:
        for key in ("uri", "experiment", "members"):
            if not self.enabled and getattr(self, key) != MlflowConfig.model_fields[key].default:
                yield key, "has no effect without tracking.mlflow.enabled; set that to true, or leave it out"

    def build(self, job: TrackerJob) -> Tracker:
        from ensemble.tracking.mlflow_runs import MlflowRuns
        from ensemble.tracking.projected import told_to

        uri = tracking_uri(self, job.folder, os.environ)
        return told_to(
            job, MlflowRuns.title, lambda: MlflowRuns(uri, self.experiment, job.folder.parent, job.notify), self.members
        )


def tracking_uri(config: MlflowConfig, run_folder: Path, environment: Mapping[str, str]) -> str:
    """Where the runs go: what is configured, else MLFLOW_TRACKING_URI, else a file beside the run folder."""
    return config.uri or environment.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run_folder.absolute().parent / STORE}"


def require_mlflow(config: MlflowConfig, environment: Mapping[str, str]) -> None:
    """Raises ConfigError where a package is missing that the configuration needs."""
    local = not (config.uri or environment.get("MLFLOW_TRACKING_URI") or "sqlite").startswith("http")
    needed = {"mlflow": "mlflow-skinny"} | ({"sqlalchemy": "sqlalchemy", "alembic": "alembic"} if local else {})
    missing = [package for module, package in needed.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ConfigError(
            f"tracking.mlflow.enabled is true and needs {', '.join(missing)}: pip install {' '.join(missing)} (or 'ensemble-trainer[mlflow]'), or leave the key out"
        )
