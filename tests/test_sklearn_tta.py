"""Test-time augmentation of the scikit-learn estimator: the keys of the configuration, with what the command line makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.utils import check_random_state

from ensemble import EnsembleClassifier
from ensemble.commands.main import main
from ensemble.storage import RunFolder

TTA = {"horizontal_flip": True, "shift": 1, "crops": 2, "crop_area": 0.8}


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    return (found.images * 15).astype(np.uint8), found.target


def classifier(**changes: Any) -> EnsembleClassifier:
    keys: dict[str, Any] = {"num_members": 2, "model": "lenet4", "epochs": 2, "random_state": 5, "tta": TTA}
    return EnsembleClassifier(**{**keys, **changes})


def enlarged(images: np.ndarray) -> np.ndarray:
    """LeNets need some room."""
    return np.kron(images, np.ones((1, 4, 4), np.uint8))


def test_it_says_what_the_command_line_says(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images, labels = enlarged(digits[0][:500]), digits[1][:500]
    X, y, X_test, y_test = images[:400], labels[:400], images[400:], labels[400:]
    fitted = classifier().fit(X, y)
    probs = fitted.predict_proba(X_test)
    np.savez(tmp_path / "digits.npz", train_images=X, train_labels=y, test_images=X_test, test_labels=y_test)
    keys = {
        "name": "line", "num_members": 2, "seed": int(check_random_state(5).randint(2**31 - 1)), "method": {"name": "bagging"},
        "model": {"name": "lenet4"}, "training": {"epochs": 2, "batch_size": 32, "lr": 5e-3}, "evaluation": {"tta": TTA},
        "data": {"name": "arrays", "path": str(tmp_path / "digits.npz"), "validation_fraction": 0.1, "duplicates": "tell"},
        "compute": {"executor": "inline"}, "baseline": False, "tracking": {"wandb": {"mode": "disabled"}},
        "output_dir": str(tmp_path / "runs"),
    }  # fmt: skip
    (tmp_path / "line.yaml").write_text(yaml.safe_dump(keys))
    done = CliRunner().invoke(main, ["train", str(tmp_path / "line.yaml"), "-q"])
    assert done.exit_code == 0, done.output
    folder = RunFolder.read(tmp_path / "runs" / "line")
    stored = np.mean([folder.load_member(index).votes.test_NK for index in range(2)], axis=0)
    np.testing.assert_allclose(probs, stored, atol=2e-6)
    alone = clone(fitted).set_params(tta=None).fit(X, y)
    assert np.abs(alone.predict_proba(X_test) - probs).max() > 1e-3, "the views change what is said"


def test_another_choice_of_views_is_another_run(digits: tuple[np.ndarray, np.ndarray], tmp_path: Path) -> None:
    images, labels = enlarged(digits[0][:200]), digits[1][:200]
    for tta in (None, {"shift": 1}, {"shift": 2}):
        classifier(epochs=1, num_members=1, folder=str(tmp_path), tta=tta).fit(images, labels)
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    ("tta", "message"),
    [
        ({"shift": 32}, r"evaluation\.tta\.shift: found 32, expected less than the image side"),
        ({"crop": 3}, "crop"),
        ({"crop_area": 0.5}, "crop_area has no effect without crops"),
    ],
)
def test_views_that_cannot_be_are_refused(
    digits: tuple[np.ndarray, np.ndarray], tta: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(tta=tta).fit(enlarged(digits[0][:100]), digits[1][:100])


def test_features_have_no_views(digits: tuple[np.ndarray, np.ndarray]) -> None:
    flat = digits[0][:100].reshape(100, -1).astype(float)
    with pytest.raises(ValueError, match="tta: X are features, which have no views"):
        classifier(model=None, tta={"shift": 1}).fit(flat, digits[1][:100])
    shaped = classifier(model=None, tta={"shift": 1}, image_shape=(1, 8, 8)).fit(flat, digits[1][:100])
    assert shaped.predict_proba(flat).shape == (100, 10)
