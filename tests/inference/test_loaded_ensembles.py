"""A stored ensemble answers with the numbers it voted with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ensemble import load_ensemble
from ensemble.config import parse_experiment
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.errors import EnsembleError
from ensemble.executors import InlineExecutor
from ensemble.run import run_ensemble
from ensemble.storage import RunFolder

MEMBERS = (
    {"count": 2, "model": {"name": "cnn", "widths": (4,), "batch_norm": True, "dropout": 0.2}},
    {"count": 1, "model": {"name": "lenet5"}},
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values: dict[str, Any] = {
        "name": "mixed", "output_dir": str(tmp_path_factory.mktemp("runs")), "method": {"name": "deep_ensemble"},
        "members": MEMBERS, "training": {"epochs": 2, "lr": 3e-3}, "data": {"name": "digits"},
        "compute": {"device": "cpu", "executor": "inline"}, "tracking": {"wandb": {"mode": "disabled"}},
    }  # fmt: skip
    return run_ensemble(parse_experiment(values), lambda *_: InlineExecutor(), lambda _: []).path


def test_the_stored_votes_come_out_again(run: Path) -> None:
    ensemble, folder = load_ensemble(run), RunFolder.read(run)
    images = load_dataset(DataConfig(name="digits")).test_images_NCHW
    stored_MNK = np.stack([folder.load_member(index).votes.test_NK for index in range(3)])
    np.testing.assert_allclose(ensemble.member_probs(images), stored_MNK, atol=1e-6)
    np.testing.assert_allclose(ensemble.predict_proba(images), stored_MNK.mean(0), atol=1e-6)
    np.testing.assert_array_equal(ensemble.predict(images), stored_MNK.mean(0).argmax(1))
    assert ensemble.class_names == tuple("0123456789")


def test_all_image_shapes_mean_the_same(run: Path) -> None:
    ensemble = load_ensemble(run)
    images = load_dataset(DataConfig(name="digits")).test_images_NCHW[:5]
    expected = ensemble.predict_proba(images)
    for same in (images[:, 0], images.transpose(0, 2, 3, 1), np.float32(images / 255)):
        np.testing.assert_allclose(ensemble.predict_proba(same), expected, atol=1e-5)


def test_wrong_images_are_refused(run: Path) -> None:
    with pytest.raises(EnsembleError):
        load_ensemble(run).predict_proba(np.zeros((2, 3, 5, 7), np.uint8))
