"""Methods whose members build on one another, from configuration to judgement: cut anywhere, the same bits."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from ensemble.config import Experiment, parse_experiment
from ensemble.executors import InlineExecutor
from ensemble.executors.base import Arrays, Emit, Outcome, Train, Wanted, always
from ensemble.inference.trained import load_ensemble
from ensemble.results.judging import staged_points
from ensemble.results.voters import load_voters
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.storage import RunFolder
from ensemble.types import Task

METHODS: dict[str, dict[str, Any]] = {
    "gradient_boosting": {"num_members": 3},
    "snapshot": {"num_members": 4, "method": {"name": "snapshot", "chains": 2}},
    "fast_geometric": {"num_members": 4, "method": {"name": "fast_geometric", "chains": 2, "cycle_epochs": 1}},
    "filter_boosting": {"num_members": 6, "method": {"name": "filter_boosting", "max_passes": 3}},
}


def experiment(root: Path, method: str) -> Experiment:
    values: dict[str, Any] = {
        "name": "run", "seed": 2, "model": {"name": "mlp", "widths": (16,)}, "data": {"name": "digits"},
        "method": {"name": method}, "output_dir": str(root),
        "training": {"epochs": 2, "lr": 3e-3, "batch_size": 64, "augmentation": {"shift": 0.1}},
        "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
    }  # fmt: skip
    return parse_experiment({**values, **METHODS[method]})


class Stopping(InlineExecutor):
    """Stops before the task of that number."""

    def __init__(self, before: int) -> None:
        self.left = before

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        for task in tasks:
            if self.left == 0:
                raise KeyboardInterrupt
            self.left -= 1
            yield from super().run([task], train, arrays, emit)


def run(config: Experiment, executor: InlineExecutor | None = None) -> RunOutcome:
    return run_ensemble(config, lambda *_: executor or InlineExecutor(), lambda _: [])


def digests(root: Path) -> dict[str, str]:
    files = json.loads((root / "run" / "manifest.json").read_text())["files"]
    wanted = (".safetensors", "votes.npz", "method.json", "staged.json")
    return {key: facts["sha256"] for key, facts in files.items() if key.endswith(wanted)}


@pytest.mark.parametrize("method", METHODS)
def test_cut_after_any_task_it_ends_with_the_same_bits(method: str, tmp_path: Path) -> None:
    whole = run(experiment(tmp_path / "whole", method))
    assert len(whole.evaluation.members) == METHODS[method]["num_members"]
    tasks = {"gradient_boosting": 3, "snapshot": 2, "fast_geometric": 2, "filter_boosting": 3}[method]
    for cut in range(1, tasks):
        config = experiment(tmp_path / f"cut{cut}", method)
        with pytest.raises(KeyboardInterrupt):
            run(config, Stopping(cut))
        run(config)
        assert digests(tmp_path / f"cut{cut}") == digests(tmp_path / "whole")


def test_a_snapshot_goes_on_from_the_one_before(tmp_path: Path) -> None:
    """The first loss of a later cycle is near the last one of the cycle before, not near that of a fresh start."""
    folder = RunFolder.read(run(experiment(tmp_path, "snapshot")).path)
    fresh, later = folder.load_member(0).history, folder.load_member(2).history
    assert later[0].train_loss < 0.7 * fresh[0].train_loss
    assert {folder.load_member(m).stack_size for m in range(4)} == {2}  # chains side by side


def test_gradient_boosting_s_vote_is_its_sum(tmp_path: Path) -> None:
    path = run(experiment(tmp_path, "gradient_boosting")).path
    folder = RunFolder.read(path)
    record = json.loads(folder.read_bytes("method.json"))
    weights = [record["vote_weights"][str(m)] for m in range(3)]
    assert weights == [r["weight"] for r in record["report"]["rounds"]]
    assert min(weights[:2]) > 0
    logs = [np.log(folder.load_member(m).votes.test_NK.astype(np.float64)) for m in range(3)]
    labels = folder.load_labels().test_labels_N
    sums = np.cumsum([w * f for w, f in zip(weights, logs, strict=True)], axis=0)
    staged = [float((s.argmax(1) != labels).mean()) for s in sums]
    assert [point.error for point in staged_points(folder, load_voters(folder))] == pytest.approx(staged)
    evaluation = json.loads(folder.read_bytes("evaluation.json"))
    headline = next(row for row in evaluation["leaderboard"] if row["headline"])
    assert headline["name"] == "additive vote"
    assert headline["test_error"] == pytest.approx(staged[-1])
    # A loaded ensemble, and the network that is exported, say the same as the stored votes.
    from ensemble.data import load_dataset

    images = load_dataset(experiment(tmp_path, "gradient_boosting").data).test_images_NCHW
    trained = load_ensemble(path)
    expected = softmax(sums[-1], axis=1)
    np.testing.assert_allclose(trained.predict_proba(images), expected, atol=1e-5)
    import torch

    with torch.inference_mode():
        probs, classes = trained.network()(torch.as_tensor(images))
    np.testing.assert_allclose(probs.numpy(), expected, atol=1e-4)
    np.testing.assert_array_equal(classes.numpy(), expected.argmax(1))
