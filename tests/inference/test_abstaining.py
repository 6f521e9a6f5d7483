"""Silence by rule: thresholds and prediction sets from rows that nobody was trained on, the same in the command and in Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import ensemble
from ensemble.commands.main import main
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.errors import ConfigError
from ensemble.inference.abstaining import reject_rule, sets_rule
from ensemble.inference.trained import TrainedEnsemble, load_ensemble

DIGITS = DataConfig(name="digits")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for name, calibration in (("with", 0.3), ("without", 0.0)):
        ensemble.train(
            data={"name": "digits", "calibration_fraction": calibration}, model="lenet5", method="bagging", num_members=3,
            training={"epochs": 4}, name=name, output_dir=root, compute={"executor": "inline"},
        )  # fmt: skip
    return root


@pytest.fixture(scope="module")
def trained(folder: Path) -> TrainedEnsemble:
    return load_ensemble(folder / "with", device="cpu")


@pytest.fixture(scope="module")
def pictures(folder: Path) -> list[str]:
    dataset = load_dataset(DIGITS)
    paths = []
    for n in range(120):
        paths.append(str(folder / f"{n:02d}.png"))
        Image.fromarray(dataset.test_images_NCHW[n, 0]).save(paths[-1])
    return paths


def predict(*words: str) -> tuple[str, str, int]:
    result = CliRunner().invoke(main, ["predict", *words])
    return result.stdout, result.stderr, result.exit_code


def test_the_rule_of_silence_is_the_promise_of_the_judgement(folder, trained):
    """Two ways to the same threshold: the judgement's, from stored votes, and that of prediction."""
    promises = ensemble.load(folder / "with").evaluation.selective.promises
    for promise in promises:
        if promise.kind != "guaranteed":
            continue
        if np.isnan(promise.threshold):
            with pytest.raises(ConfigError, match="cannot be promised from"):
                reject_rule(trained.vote, promise.risk)
            continue
        rule = reject_rule(trained.vote, promise.risk)
        assert rule.promise.threshold == promise.threshold
        assert rule.tested.answered == promise.answered
        assert rule.tested.risk == promise.test_risk


def test_what_is_answered_on_test_is_what_the_rule_says_of_it(trained):
    rule = reject_rule(trained.vote, 0.1)
    dataset = load_dataset(DIGITS)
    decision = trained.decide(dataset.test_images_NCHW)
    answered = rule.answers(decision)
    assert 0 < answered.sum() < len(answered)
    assert answered.sum() == rule.tested.answered
    assert (decision.classes_N != dataset.test_labels_N)[answered].sum() == rule.tested.wrong
    assert rule.chosen_on == "calibration"


def test_prediction_sets_are_those_of_the_judgement(folder, trained):
    dataset = load_dataset(DIGITS)
    decision = trained.decide(dataset.test_images_NCHW)
    stored = {(rule.method, rule.alpha): rule for rule in ensemble.load(folder / "with").evaluation.conformal.rules}
    for method in ("lac", "aps"):
        sets = sets_rule(trained.vote, 0.1, method).shown(decision)
        found = stored[method.upper(), 0.1]
        assert sets.any(1).all()
        # A probability differs in its last bits from the stored one, and so may the uniform number made of it.
        tolerance = 0 if method == "lac" else 0.03
        assert abs(sets.sum(1).mean() - found.mean_size) <= tolerance * 10
        assert abs(sets[np.arange(len(sets)), dataset.test_labels_N].mean() - found.coverage) <= tolerance


def test_the_command_is_silent_and_says_what_is_promised(folder, trained, pictures):
    out, err, code = predict(str(folder / "with"), *pictures, "--reject", "risk=0.03", "--sets", "alpha=0.1", "--json")
    assert code == 0
    answers = json.loads(out)
    assert {answer["answered"] for answer in answers} == {True, False}
    threshold = reject_rule(trained.vote, 0.03).promise.threshold
    for answer in answers:
        assert answer["answered"] == (answer["probability"] >= threshold - 1e-6)
        assert answer["prediction_set"]
        first = answer["prediction_set"][0]
        assert answer["probabilities"][first] == max(answer["probabilities"].values())
    assert "at most 3.00 % are wrong on images like the" in err
    assert "of the test images" in err
    assert "the set of each image holds its true class with probability 90 %" in err
    text, _, _ = predict(str(folder / "with"), *pictures, "--reject", "0.03")
    assert text.count("no answer") == sum(not answer["answered"] for answer in answers)


def test_without_calibration_rows_thresholds_come_from_validation_and_sets_are_refused(folder, pictures):
    _, err, code = predict(str(folder / "without"), pictures[0], "--reject", "risk=0.2")
    assert code == 0
    assert "validation images" in err
    _, err, code = predict(str(folder / "without"), pictures[0], "--sets", "alpha=0.1")
    assert code == 2
    assert "has no calibration images" in err
    assert "train with data.calibration_fraction=0.1" in err


@pytest.mark.parametrize("words", [("--reject", "risk=2"), ("--reject", "0"), ("--sets", "alpha=x"), ("--sets", "nan")])
def test_shares_that_are_none(folder, pictures, words):
    _, err, code = predict(str(folder / "with"), pictures[0], *words)
    assert code == 2
    assert "a share between 0 and 1" in err


def test_images_of_none_of_the_classes(folder, trained, pictures, tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (28, 28), np.uint8)).save(tmp_path / "noise.png")
    out, err, _ = predict(str(folder / "with"), str(tmp_path / "noise.png"), *pictures, "--unknown", "--json")
    answers = {Path(answer["image"]).name: answer for answer in json.loads(out)}
    known = trained.vote.known.decision.confidences_N
    threshold = np.sort(known)[int(0.05 * (len(known) - 1))]
    for answer in answers.values():
        assert answer["unknown"] == (answer["probability"] < threshold - 1e-6)
    assert "so about 5 % of images of the classes are called so too" in err
    assert 0 < sum(answer["unknown"] for answer in answers.values()) < len(answers)


def test_python_says_what_the_command_says(folder, trained):
    dataset = load_dataset(DIGITS)
    images = dataset.test_images_NCHW[:50]
    run = ensemble.load(folder / "with")
    answered, sets = run.answers(images, 0.03), run.predict_sets(images, 0.1)
    np.testing.assert_array_equal(answered, reject_rule(trained.vote, 0.03).answers(trained.decide(images)))
    assert sets.shape == (50, 10)
    assert sets[np.arange(50), run.predict(images)].all()
    with pytest.raises(ConfigError, match="risk is 2; expected a share between 0 and 1"):
        run.answers(images, 2)
    with pytest.raises(ConfigError, match="has no calibration images"):
        ensemble.load(folder / "without").predict_sets(images, 0.1)


def test_scikit_learn_classifiers_can_be_silent_too():
    from sklearn.datasets import load_iris
    from sklearn.model_selection import train_test_split

    X, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    X_train, X_test, y_train, y_test = train_test_split(X, names, test_size=0.3, random_state=0, stratify=names)
    given = {"num_members": 2, "epochs": 15, "random_state": 0}
    classifier = ensemble.EnsembleClassifier(calibration_fraction=0.3, **given).fit(X_train, y_train)
    sets = classifier.predict_sets(X_test, alpha=0.2)
    assert sets.shape == (len(X_test), 3)
    covered = sets[np.arange(len(X_test)), np.searchsorted(classifier.classes_, y_test)]
    assert covered.mean() > 0.6
    assert classifier.answers(X_test, risk=0.5).dtype == bool
    plain = ensemble.EnsembleClassifier(**given).fit(X_train, y_train)
    with pytest.raises(ValueError, match="has no calibration images"):
        plain.predict_sets(X_test, alpha=0.2)


def test_the_exported_file_holds_the_rules(trained, tmp_path):
    """Whoever has the file alone is silent where the run is."""
    import torch

    from ensemble.inference.export import export_ensemble

    export_ensemble(trained, "torch_export", tmp_path / "vote.pt2")
    extra = {"ensemble.json": ""}
    program = torch.export.load(tmp_path / "vote.pt2", extra_files=extra)
    rules = json.loads(json.loads(extra["ensemble.json"])["silence"])
    images = load_dataset(DIGITS).test_images_NCHW[:100]
    probs_NK = program.module()(torch.from_numpy(images.copy()))[0].numpy()
    assert {rule["risk"] for rule in rules["answer"]} <= {0.01, 0.001}
    for rule in rules["answer"]:
        answered = trained.answers(images, rule["risk"])
        near = np.abs(probs_NK.max(1) - rule["confidence"]) < 1e-4
        np.testing.assert_array_equal((probs_NK.max(1) >= rule["confidence"])[~near], answered[~near])
    assert [rule["alpha"] for rule in rules["prediction_sets"]] == [0.1, 0.05, 0.01]
    for rule in rules["prediction_sets"]:
        sets = probs_NK >= rule["probability"] - 1e-6
        sets[np.arange(100), probs_NK.argmax(1)] |= ~sets.any(1)
        assert (sets == trained.predict_sets(images, rule["alpha"])).mean() > 0.999
    unknown = probs_NK.max(1) < rules["unknown"]["confidence"]
    assert 0 < unknown.mean() < 0.5


def test_python_calls_the_same_images_unknown_as_the_command(folder, trained, pictures):
    out, _, _ = predict(str(folder / "with"), *pictures, "--unknown", "--json")
    said = [answer["unknown"] for answer in json.loads(out)]
    assert ensemble.load(folder / "with").is_unknown(pictures).tolist() == said
    images = load_dataset(DIGITS).test_images_NCHW
    shares = [trained.is_unknown(images, share).mean() for share in (0.05, 0.2, 0.5)]
    assert shares == sorted(shares)
    assert 0 < shares[0] < 0.2 < shares[2]
    with pytest.raises(ConfigError, match="unknown is 2; expected a share between 0 and 1"):
        trained.is_unknown(images, 2)


def test_scikit_learn_classifiers_call_rows_unknown():
    X, y = np.random.default_rng(0).normal(size=(300, 4)), np.arange(300) % 2
    X[:, 0] += 6 * y
    classifier = ensemble.EnsembleClassifier(num_members=2, epochs=15, random_state=0).fit(X, y)
    between = np.zeros((20, 4))
    between[:, 0] = 3
    assert classifier.is_unknown(between).mean() > classifier.is_unknown(X).mean()
    assert classifier.is_unknown(X, 0.3).mean() == pytest.approx(0.3, abs=0.2)
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        classifier.is_unknown(X, 0)
