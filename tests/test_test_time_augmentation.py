"""Members that vote on several views of an image: the same everywhere a vote is cast, and never beside votes on one view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ensemble
from ensemble.config import Experiment, parse_experiment
from ensemble.config.loading import load_sets
from ensemble.data import load_dataset, split_of
from ensemble.data.views import views_of
from ensemble.errors import ConfigError
from ensemble.executors import InlineExecutor
from ensemble.inference.export import export_ensemble
from ensemble.inference.trained import load_ensemble
from ensemble.report.card import model_card
from ensemble.run.later_votes import vote_later
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.storage import RunFolder

TTA = {"shift": 1, "crops": 2}
SETS = ({"name": "changed", "kind": "shifted", "corruptions": ({"identity": ()}, {"stripe": ()})},)
CONFIG: dict[str, Any] = {
    "name": "run", "seed": 3, "num_members": 3, "method": {"name": "bagging"}, "model": {"name": "lenet5"}, "baseline": True,
    "data": {"name": "digits", "calibration_fraction": 0.1}, "training": {"epochs": 1, "batch_size": 64},
    "compute": {"stack_size": 2, "executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
    "evaluation": {"tta": TTA, "sets": SETS},
}  # fmt: skip


def experiment(root: Path, **changes: Any) -> Experiment:
    return parse_experiment({**CONFIG, "output_dir": str(root), **changes})


def run(config: Experiment) -> RunOutcome:
    return run_ensemble(config, lambda *_: InlineExecutor(), lambda _: [])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def on_views(root: Path) -> RunOutcome:
    return run(experiment(root))


@pytest.fixture(scope="module")
def plain(root: Path) -> RunOutcome:
    return run(experiment(root, name="plain", evaluation={"sets": SETS}))


def test_a_vote_is_the_mean_over_the_views(on_views: RunOutcome, plain: RunOutcome) -> None:
    """Of the network that was trained without them: its weights are the same."""
    config = experiment(on_views.path)
    dataset = load_dataset(config.data)
    split = split_of(dataset, config.data, config.seed)
    alone, folder = load_ensemble(plain.path), RunFolder.read(on_views.path)
    views = views_of(config.evaluation.tta, 28, 28)
    assert len(views) == 7
    for images, part in (
        (dataset.test_images_NCHW, "test_NK"),
        (dataset.train_images_NCHW[split.validation_rows], "validation_NK"),
    ):
        said = [alone.member_probs(view(torch.from_numpy(images)).numpy()) for view in views]
        for index in range(3):
            stored = getattr(folder.load_member(index).votes, part)
            np.testing.assert_allclose(stored, np.mean([one[index] for one in said], axis=0), atol=2e-6)
            assert np.abs(stored - said[0][index]).max() > 1e-3
    own = folder.load_member(1).votes
    said = [
        alone.member_probs(view(torch.from_numpy(dataset.train_images_NCHW[own.rows])).numpy())[1] for view in views
    ]
    np.testing.assert_allclose(own.rows_RK, np.mean(said, axis=0), atol=2e-6)


def test_members_are_trained_as_without(on_views: RunOutcome, plain: RunOutcome) -> None:
    for index in range(3):
        mine, other = (RunFolder.read(one.path).load_weights(index) for one in (on_views, plain))
        assert all(np.array_equal(mine[name], other[name]) for name in other)


def test_further_sets_and_calibration_are_voted_on_alike(on_views: RunOutcome) -> None:
    kept = np.load(on_views.path / "votes/changed/0000.npz")
    said_of = dict(zip(kept["members_M"].tolist(), kept["probs_MNK"], strict=True))
    for index in range(3):
        test_NK = np.load(on_views.path / f"members/{index:04d}/votes.npz")["test_NK"]
        np.testing.assert_array_equal(said_of[index], test_NK)
    np.testing.assert_array_equal(said_of[3], np.load(on_views.path / "baseline/votes.npz")["test_NK"])
    config = experiment(on_views.path)
    dataset = load_dataset(config.data)
    rows = split_of(dataset, config.data, config.seed).calibration_rows
    kept = np.load(on_views.path / "votes/calibration/0000.npz")
    found = load_ensemble(on_views.path).member_probs(dataset.train_images_NCHW[rows])
    np.testing.assert_allclose(kept["probs_MNK"][:3], found, atol=2e-6)


def test_prediction_and_export_follow(on_views: RunOutcome, tmp_path: Path) -> None:
    trained = load_ensemble(on_views.path)
    dataset = load_dataset(experiment(on_views.path).data)
    stored = np.stack([RunFolder.read(on_views.path).load_member(i).votes.test_NK for i in range(3)])
    np.testing.assert_allclose(trained.member_probs(dataset.test_images_NCHW), stored, atol=2e-6)
    for form in ("torch_export", "onnx"):
        exported = export_ensemble(trained, form, tmp_path / form)
        assert exported.checked.real_rows > 0
        assert exported.checked.largest_difference < 1e-5


def test_a_later_vote_is_on_the_same_views(on_views: RunOutcome, tmp_path: Path) -> None:
    (tmp_path / "more.yaml").write_text("evaluation: {sets: [{name: later, kind: shifted, corruptions: [identity]}]}\n")
    vote_later(on_views.path, [str(tmp_path / "more.yaml")])
    kept = np.load(on_views.path / "votes/later/0000.npz")
    test_NK = np.load(on_views.path / "members/0000/votes.npz")["test_NK"]
    np.testing.assert_array_equal(kept["probs_MNK"][0], test_NK)


def test_a_file_of_sets_has_no_views_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "more.yaml"
    path.write_text("evaluation: {tta: {shift: 1}, sets: [{name: later, kind: shifted, corruptions: [identity]}]}\n")
    with pytest.raises(ConfigError, match=r"evaluation\.tta belongs to the run"):
        load_sets(path)


def test_votes_with_and_without_never_lie_in_one_run(on_views: RunOutcome, root: Path) -> None:
    for other in ({}, {"tta": {"shift": 2, "crops": 2}}, {"tta": {"shift": 1, "crops": 2, "crop_area": 0.6}}):
        with pytest.raises(Exception, match=r"evaluation\.tta\.\w+: .* in the folder, .* now"):
            run(experiment(root, evaluation={**other, "sets": SETS}))
    again = run(experiment(root, evaluation={"tta": TTA}))
    assert again.trained == 0, "further sets may change as ever"


def test_a_run_of_an_earlier_version_has_none(plain: RunOutcome, root: Path) -> None:
    path = plain.path / "config.yaml"
    assert "tta" in path.read_text()
    stored = RunFolder.read(plain.path).config()
    del stored["evaluation"]["tta"]
    from ensemble.storage.identity import differences

    now = experiment(root, name="plain", evaluation={"sets": SETS}).model_dump(mode="json")
    assert differences(stored, now) == []
    now["evaluation"]["tta"]["shift"] = 1
    assert differences(stored, now) == ["evaluation.tta.shift: 0 in the folder, 1 now"]


def test_parts_of_a_sum_have_no_views() -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.tta.*gradient_boosting"):
        parse_experiment({**CONFIG, "method": {"name": "gradient_boosting"}, "baseline": False})


def test_flips_of_characters_are_refused_before_anything_is_trained(root: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"evaluation\.tta\.horizontal_flip: found true, expected false with data set digits"
    ):
        run(experiment(root, name="flipped", evaluation={"tta": {"horizontal_flip": True}}))
    assert not (root / "flipped").exists()


def test_the_model_card_and_the_console_say_so(on_views: RunOutcome, plain: RunOutcome) -> None:
    for outcome, expected in ((on_views, True), (plain, False)):
        assert ("the mean over 7 views of each image" in model_card(outcome.path)) == expected
        events = (outcome.path / "events.jsonl").read_text()
        assert ("every member votes on 7 views of each image (evaluation.tta)" in events) == expected


def test_sigmoids_vote_alike_on_views_in_prediction_and_export(root: Path, tmp_path: Path) -> None:
    training = {"epochs": 1, "batch_size": 64, "loss": "bce"}
    outcome = run(experiment(root, name="sigmoids", training=training, evaluation={"sets": SETS, "tta": {"shift": 1}}))
    trained, folder = load_ensemble(outcome.path), RunFolder.read(outcome.path)
    images = load_dataset(experiment(root).data).test_images_NCHW
    stored = np.stack([folder.load_member(i).votes.test_NK for i in range(3)])
    np.testing.assert_allclose(trained.member_probs(images), stored, atol=2e-6)
    kept = np.load(outcome.path / "votes/changed/0000.npz")
    np.testing.assert_array_equal(kept["probs_MNK"][:3], stored)
    for form in ("torch_export", "onnx"):
        assert export_ensemble(trained, form, tmp_path / form).checked.real_rows > 0


def test_from_python(tmp_path: Path) -> None:
    found = ensemble.train(
        model="mlp", data="digits", method="deep_ensemble", num_members=2, training={"epochs": 1}, name="views",
        evaluation={"tta": {"shift": 1}}, output_dir=str(tmp_path),
    )  # fmt: skip
    images = load_dataset(parse_experiment({**CONFIG}).data).test_images_NCHW[:20]
    np.testing.assert_allclose(found.predict_proba(images), found.votes("test").mean(0)[:20], atol=2e-6)
