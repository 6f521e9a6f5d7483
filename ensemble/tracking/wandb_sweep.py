"""A try of a W&B sweep: what `wandb agent` says to the program that it starts, and how a run folder remembers it.

The agent sets three variables: the sweep, the id of the try's W&B run, and a file with the values it chose. The
ensemble's run then has that id and belongs to the sweep, in the sweep's project; runs of members do not. Every try has a
run folder of its own, named after the configuration and the try, which remembers both, so that the run has the same ids
when it is started again or told again without an agent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ensemble.config import Experiment
from ensemble.config.groups import NAME_PATTERN
from ensemble.config.loading import WITHOUT
from ensemble.errors import ConfigError
from ensemble.storage.atomic import json_bytes, write_bytes
from ensemble.storage.parsing import json_model
from ensemble.tracking.wandb_mode import effective_mode

VARIABLES = ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
REMEMBERED = "sweep.json"  # beside what W&B writes there
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True)
class SweepTry:
    """sweep, run: their ids. entity, project: where the sweep is; None: as configured."""

    sweep: str
    run: str
    entity: str | None = None
    project: str | None = None


class _Remembered(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    sweep: str
    run: str
    entity: str | None
    project: str | None


def current_try(environment: Mapping[str, str]) -> SweepTry | None:
    """The try that an agent started this process for; None without an agent. Raises ConfigError for ids that are none."""
    found = {name: environment.get(name, "").strip() for name in VARIABLES}
    if not all(found.values()):  # a variable alone was left by something else
        return None
    sweep = found["WANDB_SWEEP_ID"].rpartition("/")[2]
    for name, value in (("WANDB_SWEEP_ID", sweep), ("WANDB_RUN_ID", found["WANDB_RUN_ID"])):
        if not _ID.fullmatch(value):
            raise ConfigError(f"{name} is {value!r}; expected the id that `wandb agent` sets; unset it to train alone")
    entity, project = (environment.get(f"WANDB_{name}", "").strip() or None for name in ("ENTITY", "PROJECT"))
    return SweepTry(sweep, found["WANDB_RUN_ID"], entity, project)


def as_try(experiment: Experiment, environment: Mapping[str, str]) -> tuple[Experiment, str]:
    """The experiment as an agent wants it, with the try's id at the end of its name, and a line that says so.

    Without an agent it is what it was, and there is nothing to say. Raises ConfigError where the sweep would never hear of
    the try's figures, or where the name is too long.
    """
    found = current_try(environment)
    if found is None:
        return experiment, ""
    mode = effective_mode(experiment.tracking.wandb.mode, environment)
    if mode != "online":
        raise ConfigError(
            f"tracking.wandb.mode is {mode} in a try of the W&B sweep {found.sweep}, which would never hear of its figures; expected online: put tracking.wandb.mode=online into the sweep's command, and unset WANDB_MODE"
        )
    name = f"{experiment.name}-{found.run}"
    if not re.fullmatch(NAME_PATTERN, name):
        raise ConfigError(
            f"name is {experiment.name}, with the try's id {name} ({len(name)} characters); expected at most 64: give the configuration a shorter name"
        )
    # As in a sweep of ours: tries are ranked by their vote, so networks beside it are trained when somebody asks for them.
    changed = {"name": name, **{key: WITHOUT[key] for key in experiment.left_open}}
    return experiment.model_copy(update=changed), f"try {found.run} of the W&B sweep {found.sweep}: run {name}"


def try_of(folder: Path, environment: Mapping[str, str]) -> SweepTry | None:
    """The try that a run folder belongs to: the one it remembers, else the one it is named after, which it remembers from now.

    Other runs that this process may train belong to no try. Raises StorageError or OSError where it cannot be remembered.
    """
    file, now = folder / "wandb" / REMEMBERED, current_try(environment)
    if file.is_file():
        return SweepTry(**json_model(file.read_bytes(), file, _Remembered).model_dump())
    if now is None or not folder.name.endswith(f"-{now.run}"):
        return None
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(file, json_bytes(asdict(now)))
    return now
