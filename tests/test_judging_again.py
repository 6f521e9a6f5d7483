"""What a run's judgement says is a function of what the run keeps: made again, it is the same to the last byte."""

from __future__ import annotations

from pathlib import Path

import ensemble
from ensemble.results.judging import judge
from ensemble.storage import RunFolder


def test_a_judgement_made_again_is_the_same(tmp_path: Path) -> None:
    """Bagging with a baseline: every kind of line, and all that is worked out in threads beside each other."""
    run = ensemble.train(
        data="digits", model={"name": "mlp", "widths": [8]}, method="bagging", num_members=3, baseline=True,
        training={"epochs": 1}, compute={"executor": "inline"}, output_dir=tmp_path, name="again",
    )  # fmt: skip
    stored = (run.path / "evaluation.json").read_bytes()
    for _ in range(3):
        found = judge(RunFolder.read(run.path)).to_json()
        assert found == run.evaluation.to_json()
    (run.path / "evaluation.json").unlink()
    ensemble.train(
        data="digits", model={"name": "mlp", "widths": [8]}, method="bagging", num_members=3, baseline=True,
        training={"epochs": 1}, compute={"executor": "inline"}, output_dir=tmp_path, name="again",
    )  # fmt: skip
    assert (run.path / "evaluation.json").read_bytes() == stored
