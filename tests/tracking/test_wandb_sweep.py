"""Sweeps of W&B: the real `wandb agent` and the real client, against a small server that hands out the tries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ensemble.config import load_config, parse_experiment
from ensemble.config.shipped import shipped
from ensemble.errors import ConfigError
from ensemble.tracking.figures import ENSEMBLE
from ensemble.tracking.wandb_sweep import SweepTry, as_try, current_try, try_of
from tests.tracking.small_server import SmallServer

CONFIG: dict[str, Any] = {
    "name": "tuned", "num_members": 2, "method": {"name": "deep_ensemble"}, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": (8,)}, "training": {"epochs": 1},
    "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"project": "elsewhere"}},
}  # fmt: skip
AGENT = {"WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "try1", "WANDB_SWEEP_PARAM_PATH": "/somewhere"}


@pytest.fixture
def server() -> Iterator[SmallServer]:
    server = SmallServer()
    yield server
    server.close()


def test_every_try_of_an_agent_is_a_run_of_the_sweep_and_a_folder(server: SmallServer, tmp_path: Path) -> None:
    (tmp_path / "tuned.yaml").write_text(json.dumps(CONFIG))
    words = [sys.executable, "-m", "ensemble", "train", "tuned.yaml", "-q", "${args_no_hyphens}"]
    server.sweep = yaml.safe_dump({"method": "bayes", "command": words})
    server.tries = [
        ("try1", {"training.lr": 0.01, "num_members": 3}),
        ("try2", {"training.lr": 0.003, "num_members": 2}),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {
        "HOME": str(tmp_path), "WANDB_API_KEY": "5ec2e7" * 7, "WANDB_BASE_URL": server.url,
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }  # fmt: skip
    agent = subprocess.run(
        [sys.executable, "-m", "wandb", "agent", "me/swept/abc"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert agent.returncode == 0, agent.stdout + agent.stderr
    folders = {path.name: path for path in (tmp_path / "runs").iterdir()}
    assert set(folders) == {"tuned-try1", "tuned-try2"}, agent.stdout + agent.stderr
    assert yaml.safe_load((folders["tuned-try1"] / "config.yaml").read_text())["training"]["lr"] == 0.01
    of_sweep = [given for given in server.opened if given.get("sweep")]
    assert [(given["name"], given["sweep"], given["project"]) for given in of_sweep] == [
        ("try1", "abc", "swept"), ("try2", "abc", "swept")
    ]  # fmt: skip
    members = [given for given in server.opened if not given.get("sweep")]
    assert len(members) == 5
    assert {given["project"] for given in members} == {"swept"}
    for name in ("try1", "try2"):
        judged = json.loads((folders[f"tuned-{name}"] / "evaluation.json").read_text())
        headline = next(row for row in judged["leaderboard"] if row["headline"])
        assert server.summary[name]["error/validation"] == headline["validation_error"]
        assert server.complete[name] == 0


def test_the_sweep_that_comes_along_minimises_a_figure_that_is_told_by_keys_that_there_are() -> None:
    sweep = yaml.safe_load(shipped()["wandb/sweep"].text)
    (figure,) = [figure for figure in ENSEMBLE if figure.name == sweep["metric"]["name"]]
    assert figure.goal == sweep["metric"]["goal"]
    program, command, config, *words, given = sweep["command"]
    assert (program, command, given) == ("ensemble", "train", "${args_no_hyphens}")
    chosen = [f"{key}={each.get('min', each.get('values', [None])[0])}" for key, each in sweep["parameters"].items()]
    experiment = load_config(Path(config), (*words, *chosen)).experiment
    assert experiment.tracking.wandb.mode == "online"
    assert experiment.training.lr == sweep["parameters"]["training.lr"]["min"]


def test_without_all_that_an_agent_sets_there_is_no_try() -> None:
    assert current_try({"WANDB_SWEEP_ID": "abc", "WANDB_RUN_ID": "try1"}) is None
    assert current_try({**AGENT, "WANDB_SWEEP_ID": "me/p/abc", "WANDB_ENTITY": "me"}) == SweepTry(
        "abc", "try1", "me", None
    )
    experiment = parse_experiment(CONFIG)
    assert as_try(experiment, {}) == (experiment, "")
    assert as_try(experiment, AGENT)[0].name == "tuned-try1"


@pytest.mark.parametrize(
    ("change", "environment", "message"),
    [
        ({"tracking": {"wandb": {"mode": "offline"}}}, {}, r"tracking\.wandb\.mode is offline in a try"),
        ({}, {"WANDB_MODE": "disabled"}, r"tracking\.wandb\.mode is disabled in a try"),
        ({"name": "x" * 60}, {}, r"name is x+, with the try's id"),
        ({}, {"WANDB_RUN_ID": "../up"}, r"WANDB_RUN_ID is '\.\./up'"),
    ],
)
def test_a_try_that_cannot_be_one_is_refused(change: dict[str, Any], environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        as_try(parse_experiment({**CONFIG, **change}), {**AGENT, **environment})


def test_a_folder_named_after_its_try_remembers_it(tmp_path: Path) -> None:
    folder = tmp_path / "tuned-try1"
    assert try_of(folder, {}) is None
    known = try_of(folder, {**AGENT, "WANDB_PROJECT": "swept"})
    assert known == SweepTry("abc", "try1", None, "swept")
    assert try_of(folder, {}) == known, "told again without an agent, it has the same ids"
    assert try_of(tmp_path / "another", AGENT) is None, "not every run that an agent's process trains is its try"
