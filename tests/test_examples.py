"""The examples run, as they stand, in an empty folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests import preloaded

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_it_runs_and_says_something(example: Path, tmp_path: Path) -> None:
    done = preloaded.run(
        [sys.executable, str(example), str(tmp_path / "runs")],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "test error" in done.stdout
    assert done.stderr == ""
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert next((tmp_path / "runs").iterdir()).joinpath("evaluation.json").is_file()


def test_the_configuration_beside_its_network_trains(tmp_path: Path) -> None:
    config = EXAMPLES[0].parent / "own_file" / "digits.yaml"
    words = ["-m", "ensemble", "train", str(config), "-q", "training.epochs=1", "num_members=2", "--json"]
    done = preloaded.run(
        [sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert [member["recipe"] for member in json.loads(done.stdout)["members"]] == ["make_net", "make_net"]
