"""The commands as a user meets them: output, exit codes, messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import preloaded

GOOD = """
name: small
num_members: 4
method: {name: bagging}
baseline: false
model: {name: mlp, widths: [16]}
training: {epochs: 2, lr: 3e-3}
compute: {executor: inline, stack_size: 2, device: cpu}
tracking: {wandb: {mode: disabled}}
"""


def ensemble(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ensemble", *arguments]
    # Whatever data sets the machine has, the commands see an empty folder.
    environment = {name: value for name, value in os.environ.items() if name != "ENSEMBLE_DATA"}
    return preloaded.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "small.yaml").write_text(GOOD)
    done = ensemble("train", "small.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "The soft vote of 4 members" in done.stdout
    assert "epoch" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr, "no control codes when piped"
    return folder


def test_training_again_retrains_nothing(home: Path) -> None:
    before = (home / "runs/small/members/0000/weights.safetensors").stat().st_mtime_ns
    done = ensemble("train", "small.yaml", "--json", "--quiet", cwd=home)
    assert done.returncode == 0
    assert done.stderr == ""
    assert json.loads(done.stdout) == json.loads((home / "runs/small/evaluation.json").read_text())
    assert (home / "runs/small/members/0000/weights.safetensors").stat().st_mtime_ns == before


def test_evaluate_by_name_and_by_path(home: Path) -> None:
    by_name = ensemble("evaluate", "small", "--json", cwd=home)
    by_path = ensemble("evaluate", "runs/small", "--json", "--aggregator", "hard", cwd=home)
    assert json.loads(by_name.stdout) == json.loads((home / "runs/small/evaluation.json").read_text())
    assert json.loads(by_path.stdout)["aggregator"] == "hard"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "missing.yaml"), 2, "no such configuration file"),
        (("train", "small.yaml", "training.epoch=3"), 2, "did you mean training.epochs?"),
        (("train", "small.yaml", "name=../x"), 2, "name"),
        (("train", "small.yaml", "training.lr=0.5"), 2, "training.lr: 0.003 in the folder, 0.5 now"),
        (("train", "small.yaml", "name=b", "data.name=mnist", "data.root=none", "data.download=false"), 3, "none"),
        (("train", "small.yaml", "name=c", "compute.device=cuda"), 7, "torch sees no GPU"),
        (("train", "small.yaml", "name=d", "model={name: cnn, widths: [4,4,4,4,4]}"), 2, "too small"),
        (("evaluate", "nothing"), 6, "no run here"),
        (("bogus",), 2, "No such command"),
    ],
)
def test_mistakes_have_a_message_and_an_exit_code(
    home: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = ensemble(*arguments, cwd=home)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_diverging_ensemble_says_so_and_exits_below_quorum(home: Path) -> None:
    done = ensemble(
        "train", "small.yaml", "name=wild", "training.optimizer=sgd", "training.lr=1e30", "training.epochs=3", cwd=home
    )
    assert done.returncode == 5
    assert "0 of 4 members finished" in done.stderr
    assert "diverged" in done.stderr


def test_listings(home: Path) -> None:
    models = {row["name"]: row for row in json.loads(ensemble("models", "--json", cwd=home).stdout)}
    assert models["lenet5"]["parameters"] == 61_706
    assert models["resnet50"]["parameters"] == 23_522_250
    datasets = {row["name"]: row for row in json.loads(ensemble("datasets", "--json", cwd=home).stdout)}
    assert datasets["digits"]["present"]
    assert not datasets["mnist"]["present"]
    assert "lenet5" in ensemble("models", cwd=home).stdout
    assert "cifar10" in ensemble("datasets", cwd=home).stdout


def test_config_shows_values_and_origins(home: Path) -> None:
    rows = json.loads(ensemble("config", "small.yaml", "seed=5", "--json", cwd=home).stdout)
    assert rows["seed"] == {"value": 5, "origin": "command line"}
    assert rows["training.epochs"] == {"value": 2, "origin": "small.yaml:7"}
    assert rows["training.batch_size"]["origin"] == "default"


def test_report_writes_one_page_with_the_verdict(home: Path) -> None:
    done = ensemble("report", "small", "--out", "page.html", cwd=home)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "page.html"
    evaluation = json.loads((home / "runs/small/evaluation.json").read_text())
    assert f"soft vote of {evaluation['asked_members']} members" in (home / "page.html").read_text()


def test_a_run_that_was_not_tracked_can_be_told_to_wandb_later(home: Path) -> None:
    refused = ensemble("wandb", "small", cwd=home)
    assert refused.returncode == 2
    assert "give --mode" in refused.stderr
    done = ensemble("wandb", "small", "--mode", "offline", cwd=home)
    assert done.returncode == 0, done.stderr
    # One run per member and one for the ensemble.
    assert len(list((home / "runs/small/wandb").rglob("*.wandb"))) == 5
    assert ensemble("wandb", "nothing", cwd=home).returncode == 6
