"""What a prediction takes: measured on the networks that vote, and in proportion to them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble import load_ensemble
from ensemble.commands.main import main
from ensemble.inference import cost
from ensemble.inference.cost import BATCH, measure
from ensemble.inference.trained import TrainedEnsemble
from ensemble.results.judging import judge
from ensemble.storage import RunFolder


def test_the_command_says_it_as_text_and_as_json(run_path: Path) -> None:
    done = CliRunner().invoke(main, ["cost", str(run_path)])
    assert done.exit_code == 0, done.output
    evaluation = judge(RunFolder.read(run_path))
    text = done.stdout.splitlines()
    assert text[2].split("  ")[-1] == f"each of {BATCH}, ms"
    assert text[3].startswith(f"{evaluation.aggregator} vote of 4 members")
    assert text[4].startswith(f"member {evaluation.verdict.member} alone")
    record = json.loads(CliRunner().invoke(main, ["cost", str(run_path), "--json"]).stdout)
    vote, alone = record["costs"]
    facts = {member.index: member.num_parameters for member in evaluation.members}
    assert vote["parameters"] == sum(facts.values()) == evaluation.headline.num_parameters
    assert alone["parameters"] == facts[evaluation.verdict.member]
    assert 0 < alone["one_ms"] < vote["one_ms"]
    assert vote["each_of_batch_ms"] < vote["one_ms"], "a batch shares the work around it"


def test_what_is_measured_are_predictions_of_one_image_and_of_batches(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    inner = TrainedEnsemble.predict_proba

    def noting(self: TrainedEnsemble, images: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        asked.append((len(self.member_indices), len(images)))
        return inner(self, images)

    monkeypatch.setattr(TrainedEnsemble, "predict_proba", noting)
    monkeypatch.setattr(cost, "_PATIENCE_S", 0.0)
    trained = load_ensemble(run_path, device="cpu")
    measure(trained, judge(RunFolder.read(run_path)))
    assert {what: asked.count(what) for what in asked} == dict.fromkeys([(4, 1), (4, BATCH), (1, 1), (1, BATCH)], 13)
