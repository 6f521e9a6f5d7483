"""A loaded ensemble gives the votes that the run stored, for every form of images, and refuses the rest."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from ensemble import load_ensemble
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.errors import ComputeError, DataError, QuorumError, StorageError
from ensemble.evaluation.aggregation import decide
from ensemble.inference.network import Members
from ensemble.inference.stored import read_vote
from ensemble.inference.trained import TrainedEnsemble
from ensemble.storage import RunFolder
from ensemble.storage.atomic import json_bytes


@pytest.fixture(scope="module")
def digits():
    return load_dataset(DataConfig(name="digits"))


@pytest.fixture(scope="module")
def trained(run_path):
    return load_ensemble(run_path, device="cpu")


@pytest.fixture(scope="module")
def stored_MNK(run_path):
    folder = RunFolder.read(run_path)
    return np.stack([folder.load_member(index).votes.test_NK for index in range(4)])


@pytest.fixture
def copied(run_path, tmp_path):
    shutil.copytree(run_path, tmp_path / "run")
    return tmp_path / "run"


def test_member_votes_are_the_stored_ones(trained, digits, stored_MNK):
    probs = trained.member_probs(digits.test_images_NCHW)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs, stored_MNK, atol=1e-6)
    assert trained.member_indices == (0, 1, 2, 3)
    assert trained.class_names == tuple("0123456789")
    assert "4 members (lenet5, cnn), weighted vote" in repr(trained)


def test_vote_is_the_judged_one(run_path, trained, digits, stored_MNK):
    """The weights of the weighted vote and its errors are those of evaluation.json."""
    record = json.loads((run_path / "evaluation.json").read_text())
    weights = next(c["values"] for c in record["choices"] if c["name"].startswith("weights of the weighted vote"))
    probs = trained.predict_proba(digits.test_images_NCHW)
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs, decide("weighted", stored_MNK, np.array(weights)).probs_NK, atol=1e-6)
    wrong = int((trained.predict(digits.test_images_NCHW) != digits.test_labels_N).sum())
    assert wrong == next(row["wrong"] for row in record["leaderboard"] if row["headline"])


@pytest.mark.parametrize("aggregator", ["soft", "hard", "geometric"])
def test_other_votes_on_request(run_path, digits, stored_MNK, aggregator):
    probs = load_ensemble(run_path, aggregator=aggregator).predict_proba(digits.test_images_NCHW)
    np.testing.assert_allclose(probs, decide(aggregator, stored_MNK).probs_NK, atol=1e-6)


def test_every_documented_form_of_images_gives_the_same(trained, digits):
    images = digits.test_images_NCHW[:9]
    expected = trained.predict_proba(images)
    for same in (images[:, 0], images.transpose(0, 2, 3, 1)):
        np.testing.assert_array_equal(trained.predict_proba(same), expected)
    for kind in (np.float32, np.float64, np.float16):
        unit = (images / 255).astype(kind)
        np.testing.assert_allclose(trained.predict_proba(unit), expected, atol=2e-3 if kind == np.float16 else 1e-6)


def test_no_images_give_no_rows(trained):
    assert trained.predict_proba(np.empty((0, 28, 28), np.uint8)).shape == (0, 10)
    assert trained.predict(np.empty((0, 28, 28), np.uint8)).shape == (0,)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((28, 28), np.uint8), r"shape \[28, 28\]; expected \[N, 28, 28\]"),
        (np.zeros((2, 3, 28, 28), np.uint8), r"expected \[N, 28, 28\], \[N, 1, 28, 28\]"),
        (np.full((2, 28, 28), 256), "type int64 from 256 to 256; expected 0 to 255, as this ensemble was trained"),
        (np.full((2, 28, 28), -1, np.int16), "type int16 from -1 to -1; expected 0 to 255"),
        (np.zeros((2, 28, 28), complex), "type complex128; expected uint8"),
        (np.full((2, 28, 28), 255.0), "floats from 255 to 255; expected floats in"),
        (np.full((2, 28, 28), -0.5), "floats from -0.5 to -0.5"),
        (np.full((2, 28, 28), np.nan), "NaN or infinite"),
    ],
)
def test_other_images_are_refused(trained, images, message):
    with pytest.raises(DataError, match=message):
        trained.predict_proba(images)


def test_members_come_out_by_index_whatever_their_recipes(run_path, digits):
    """Recipes that alternate, as in boosting, do not mix the members up."""
    vote = read_vote(run_path)
    order = [3, 0, 1, 2]  # the cnn first
    shuffled = replace(
        vote, members=tuple(replace(vote.members[m], index=i) for i, m in enumerate(order)), weights_M=None
    )
    images = digits.test_images_NCHW[:20]
    expected = TrainedEnsemble(vote, "cpu").member_probs(images)[order]
    np.testing.assert_allclose(TrainedEnsemble(shuffled, "cpu").member_probs(images), expected, atol=1e-6)
    assert Members(shuffled).positions == [3, 0, 1, 2]


def test_members_with_damaged_weights_are_refused(copied):
    path = copied / "members" / "0001" / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"0001/weights\.safetensors: damaged"):
        load_ensemble(copied)


def test_runs_that_cannot_vote_say_why(copied, tmp_path):
    with pytest.raises(StorageError, match="no run here"):
        load_ensemble(tmp_path / "nowhere")
    with RunFolder.open(tmp_path, "run", RunFolder.read(copied).config(), {}) as folder:
        for name in [name for name in folder.files() if name.startswith("members/")]:
            del folder._files[name]
        described = json.loads(folder.read_bytes("dataset.json"))
        del described["mean"]
        folder.write("method.json", json_bytes({"vote_weights": None}))
    with pytest.raises(QuorumError, match="0 of 4 members finished"):
        load_ensemble(copied)
    with RunFolder.open(tmp_path, "run", RunFolder.read(copied).config(), {}) as folder:
        folder.write("dataset.json", json_bytes(described))
    with pytest.raises(StorageError, match=r"dataset\.json: does not say mean; an earlier version"):
        load_ensemble(copied)


def test_unknown_devices_are_refused(run_path):
    with pytest.raises(ComputeError, match="expected auto, cpu or cuda"):
        load_ensemble(run_path, device="tpu")
