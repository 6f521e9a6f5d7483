"""A method of a script: one class, one line, and everything there is works with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import Field

from ensemble import MethodJob, MethodSection, register_method
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.config.base import Part
from ensemble.errors import ConfigError
from ensemble.executors import InlineExecutor
from ensemble.methods import build_method
from ensemble.methods.one_round import OneRound
from ensemble.report.card import model_card
from ensemble.run.run import run_ensemble
from ensemble.seeding import Purpose, member_generator
from ensemble.storage import RunFolder
from ensemble.types import MemberSpec
from tests.contracts.method_contract import LABELS_N, NUM_CLASSES, TRAIN_ROWS, MethodContract

KEYS: dict[str, Any] = {
    "name": "own", "num_members": 3, "data": {"name": "digits", "max_train_rows": 300}, "model": {"name": "mlp", "widths": (8,)},
    "training": {"epochs": 1, "batch_size": 32}, "compute": {"executor": "inline", "device": "cpu"},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip


class Pasting(MethodSection):
    """Members on small samples without replacement (Breiman 1999)."""

    name: Literal["pasting"]
    in_short = "pasting: each member on a small part of the training images (Breiman 1999)"
    mixed = True
    headline = "hard"
    training_defaults = {"optimizer": "sgd", "lr": 0.05}  # noqa: RUF012 - nobody changes it
    share: float = Field(0.5, gt=0, lt=1)

    def side_by_side(self, members: int) -> int:
        return members

    def build(self, job: MethodJob) -> OneRound:
        count, members = round(self.share * len(job.train_rows)), []
        for index, recipe in enumerate(job.recipes):
            generator = member_generator(job.seed, index, Purpose.SAMPLE)
            rows = np.sort(generator.choice(job.train_rows, count, replace=False))
            members.append(MemberSpec(index, recipe, rows, vote_rows=np.setdiff1d(job.train_rows, rows)))
        return OneRound(members)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Methods that a test registers are forgotten after it."""
    monkeypatch.setattr(MethodSection.registry, "_parts", {**MethodSection.registry.all()})
    register_method(Pasting)
    yield
    Part.registered += 1


class TestPasting(MethodContract):
    @pytest.fixture
    def make(self) -> Any:
        experiment = parse_experiment({**KEYS, "num_members": 8, "method": {"name": "pasting", "share": 0.3}})
        return lambda: build_method(experiment, TRAIN_ROWS, LABELS_N, NUM_CLASSES)


def test_trains_resumes_and_reports(tmp_path: Path) -> None:
    experiment = parse_experiment({**KEYS, "output_dir": str(tmp_path), "method": {"name": "pasting"}})
    assert (experiment.aggregator, experiment.training.optimizer, experiment.training.lr) == ("hard", "sgd", 0.05)
    run = run_ensemble(experiment, lambda *_: InlineExecutor(), lambda _folder: ()).path
    weights = (run / "members/0002/weights.safetensors").read_bytes()
    (run / "members/0002/weights.safetensors").unlink()
    run_ensemble(experiment, lambda *_: InlineExecutor(), lambda _folder: ())
    assert (run / "members/0002/weights.safetensors").read_bytes() == weights
    for command in ("evaluate", "report", "check"):
        done = CliRunner().invoke(main, [command, str(run)])
        assert done.exit_code == 0, done.output
    assert "pasting: each member on a small part" in model_card(run)
    judged = json.loads((run / "evaluation.json").read_text())
    assert judged["out_of_bag"]["rows"] > 0
    assert RunFolder.read(run).method().vote_weights is None


def test_its_keys_are_checked_like_all_others() -> None:
    with pytest.raises(ConfigError, match=r"method\.shar: unknown key; did you mean method\.share\?"):
        parse_experiment({**KEYS, "method": {"name": "pasting", "shar": 0.4}})
    with pytest.raises(ConfigError, match="aggregator additive belongs to gradient_boosting"):
        parse_experiment({**KEYS, "method": {"name": "pasting"}, "aggregator": "additive"})
    with pytest.raises(ConfigError, match="did you mean pasting"):
        parse_experiment({**KEYS, "method": {"name": "pastin"}})


def test_a_stored_run_of_a_method_that_is_not_here_is_judged_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = parse_experiment({**KEYS, "output_dir": str(tmp_path), "method": {"name": "pasting"}})
    run = run_ensemble(experiment, lambda *_: InlineExecutor(), lambda _folder: ()).path
    first = CliRunner().invoke(main, ["evaluate", str(run), "--json"])
    monkeypatch.delitem(MethodSection.registry._parts, "pasting")
    Part.registered += 1
    again = CliRunner().invoke(main, ["evaluate", str(run), "--json"])
    assert again.exit_code == 0, again.output
    assert again.stdout == first.stdout
