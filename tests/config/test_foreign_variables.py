"""What stands in the environment for other programs changes no weight: hidden, or refused by its name, and recorded."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.outside import foreign_variables
from ensemble.outside.foreign_variables import (
    ACCELERATE,
    LAUNCHER,
    describe_variables,
    settle_variables,
    without_variables,
)
from ensemble.run.environment import describe_environment

Trace = Callable[[Mapping[str, Any]], str]
_READ = re.compile(
    r"""(?:environ(?:\.get|\.pop)?\s*[\[(]|getenv\(|parse_\w+_from_env\(|\[)\s*["']([A-Z][A-Z0-9_]{3,})["']"""
)
_PREFIXED = {"FSDP_": "VERSION", "MEGATRON_LM_": "TP_DEGREE", "ACCELERATE_DYNAMO_": "BACKEND"}
_OF_MACHINE = {"CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS"}
GOOD = """
num_members: 1
method: {name: deep_ensemble}
data: {name: digits, max_train_rows: 60}
model: {name: mlp, widths: [4]}
training: {epochs: 1}
compute: {executor: inline}
tracking: {wandb: {mode: disabled}}
"""


def variables_of_accelerate() -> list[str]:
    """Every variable that the sources of Accelerate which this program uses read by name."""
    spec = find_spec("accelerate")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    files = ["accelerator.py", "state.py", "utils/dataclasses.py", "utils/environment.py", "utils/other.py"]
    found = {name for file in files for name in _READ.findall((folder / file).read_text())}
    found |= {f"{beginning}{name}" for beginning, name in _PREFIXED.items()}
    return sorted(name for name in found if foreign_variables._of((*ACCELERATE, *LAUNCHER), {name: ""}))


def test_the_list_is_not_empty() -> None:
    names = variables_of_accelerate()
    assert len(names) > 20
    assert {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_MIXED_PRECISION", "LOCAL_RANK", "WORLD_SIZE"} <= {
        *names
    }


@pytest.mark.parametrize("value", ["4", "1", "true", "bf16", "INDUCTOR", "", "nonsense"])
def test_no_variable_of_accelerate_or_a_launcher_changes_a_run(
    trace: Trace, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    plain = trace({"name": "plain"})
    for name in variables_of_accelerate():
        if name != "WORLD_SIZE":  # the executors read that one, tests/executors
            monkeypatch.setenv(name, value)
    assert trace({"name": "poisoned"}) == plain
    assert os.environ.get("ACCELERATE_USE_CPU", "") == value, "what is hidden comes back; an empty one may stay away"


@pytest.mark.parametrize("name", ["ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_MIXED_PRECISION", "LOCAL_RANK"])
def test_each_alone(trace: Trace, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plain = trace({"name": "plain"})
    monkeypatch.setenv(name, "bf16" if "PRECISION" in name else "3")
    assert trace({"name": "poisoned"}) == plain


@pytest.mark.parametrize("value", ["", " ", "2", "nonsense"])
def test_the_command_is_one_process_and_says_what_it_does_not_heed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    (tmp_path / "x.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(foreign_variables, "_taken", {})
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "RAY_ADDRESS", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"):
        monkeypatch.setenv(name, value)
    if value.strip():
        monkeypatch.delenv("RAY_ADDRESS")
    done = CliRunner().invoke(main, ["train", "x.yaml", "-q"])
    assert done.exit_code == 0, done.output
    told = "WORLD_SIZE: set, but not heeded" in done.stderr
    assert told == bool(value.strip())
    recorded = json.loads((tmp_path / "runs/x/environment.json").read_text())["variables"]
    assert recorded.get("WORLD_SIZE") == (value if value.strip() else None)


def test_secrets_are_recorded_as_set_and_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "RAY_AUTH_TOKEN", "ENSEMBLE_LAUNCH_SECRET", "RAY_REDIS_PASSWORD"):
        monkeypatch.setenv(name, "CANARY")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = describe_environment()
    assert "CANARY" not in json.dumps(found)
    assert found["variables"]["WANDB_API_KEY"] == "(set)"
    assert found["variables"]["OMP_NUM_THREADS"] == "1"


def test_an_empty_list_of_gpus_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "")
    settle_variables()
    assert describe_variables()["CUDA_VISIBLE_DEVICES"] == ""
    assert "RAY_ADDRESS" not in os.environ
    assert "OMP_NUM_THREADS" not in os.environ


def test_hidden_variables_come_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("RANKING", "kept")
    hidden = without_variables("RANK")
    with pytest.raises(KeyError), hidden:
        raise KeyError(sorted({"RANK", "RANKING"} & os.environ.keys()))
    with without_variables("RANK"):
        assert {"RANK", "RANKING"} & os.environ.keys() == {"RANKING"}
    assert os.environ["RANK"] == "3"


def test_a_variable_that_torch_cannot_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(GOOD)
    environment = {**os.environ, "TORCH_LOGS": "no such thing"}
    command = [sys.executable, "-m", "ensemble", "train", "x.yaml", "-q"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 7, done.stderr
    assert "TORCH_LOGS" in done.stderr
    assert "Traceback" not in done.stderr
