"""An ensemble of networks as a scikit-learn classifier.

    classifier = EnsembleClassifier(method="bagging", num_members=5).fit(X_train, y_train)
    classifier.predict_proba(X_test)
    GridSearchCV(EnsembleClassifier(), {"lr": [1e-3, 3e-3]}).fit(X, y)

It trains through the same loop as `ensemble train`, in this process. The loop works on bytes, so features are brought
to 256 levels between their 0.5th and 99.5th percentile, much as HistGradientBoostingClassifier bins them; images keep
theirs. Rows for a test are not split off: that is what score, cross_val_score and GridSearchCV are for.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ensemble.config import Experiment, parse_experiment
from ensemble.data import Dataset, split_rows
from ensemble.errors import ConfigError, DataError
from ensemble.events import Event
from ensemble.executors import InlineExecutor
from ensemble.run import complete_plan, train_members
from ensemble.run_data import require_same_data
from ensemble.storage import RunFolder
from ensemble.storage.mending import mend
from ensemble.training import device_kind
from ensemble.types import ByteArray, DoubleArray

AnyArray = npt.NDArray[Any]
DEFAULT_MODEL = {"name": "mlp", "widths": (64,)}
TAILS = (0.5, 99.5)  # percentiles that become 0 and 255


class EnsembleClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """An ensemble of neural networks that vote.

    method: "bagging", "deep_ensemble" or another method by name, or a mapping with its keys. num_members: how many
    networks. model: None for a small multi-layer perceptron, a name such as "lenet5", or a mapping with keys.
    epochs, batch_size, lr: of the training; `training` and `compute` are mappings of further keys of these sections.
    aggregator: soft, hard, weighted or geometric. validation_fraction: share held back to watch the training and to
    weigh the members. image_shape: (C, H, W) of flat rows that are images. random_state: as everywhere. folder: keeps
    the run there, so that an interrupted fit goes on where it was; None trains in a temporary folder.

    Attributes: classes_, n_features_in_, ensemble_ (a TrainedEnsemble over the levels), low_ and high_ (the range of
    every feature, or one of all pixels, that the levels span; None for bytes).
    """

    def __init__(
        self,
        method: str | Mapping[str, Any] = "bagging",
        num_members: int = 5,
        model: str | Mapping[str, Any] | None = None,
        epochs: int = 30,
        batch_size: int = 32,
        lr: float = 5e-3,
        aggregator: str = "soft",
        validation_fraction: float = 0.1,
        image_shape: tuple[int, int, int] | None = None,
        training: Mapping[str, Any] | None = None,
        compute: Mapping[str, Any] | None = None,
        random_state: Any = None,
        folder: str | None = None,
    ) -> None:
        self.method = method
        self.num_members = num_members
        self.model = model
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.aggregator = aggregator
        self.validation_fraction = validation_fraction
        self.image_shape = image_shape
        self.training = training
        self.compute = compute
        self.random_state = random_state
        self.folder = folder

    def fit(self, X: Any, y: Any) -> Self:
        """Train. X: features [N, F], or images [N, H, W], [N, H, W, C] or [N, C, H, W]; y: N labels of any kind.

        Raises ValueError for settings and data that cannot mean anything; warns of members that failed.
        """
        X, y = validate_data(self, X, y, allow_nd=True, dtype="numeric")
        check_classification_targets(y)
        self.classes_, labels_N = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"y: found only one class ({self.classes_[0]}); expected at least two classes")
        self.low_, self.high_ = _range(X, self._are_images(X))
        dataset = _dataset(self._levels(X), labels_N.astype(np.int64), [str(name) for name in self.classes_])
        try:
            with self._root() as root:
                experiment = self._experiment(root, dataset)
                path = _train(experiment, dataset)
                from ensemble.inference.trained import load_ensemble

                self.ensemble_ = load_ensemble(path, device=device_kind(experiment.compute))
        except (ConfigError, DataError) as error:
            raise ValueError(str(error)) from error
        return self

    def predict(self, X: Any) -> AnyArray:
        """The class of each row, ties by the rule of the vote."""
        decision = self._decide(X)
        return self.classes_[decision.classes_N]  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> DoubleArray:
        """The probabilities [N, K] of the vote, columns in the order of `classes_`."""
        probs_NK: DoubleArray = self._decide(X).probs_NK
        return probs_NK

    def _decide(self, X: Any) -> Any:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True, dtype="numeric")
        return self.ensemble_.decide(self._levels(X))

    def _are_images(self, X: AnyArray) -> bool:
        return X.ndim > 2 or self.image_shape is not None

    def _levels(self, X: AnyArray) -> ByteArray:
        """X as bytes [N, C, H, W]; plain features are the channels of a single pixel."""
        if self.image_shape is not None and X.ndim == 2:
            if X.shape[1] != np.prod(self.image_shape):
                raise ValueError(
                    f"X: found {X.shape[1]} features; expected {np.prod(self.image_shape)}, as image_shape says"
                )
            X = X.reshape(len(X), *self.image_shape)
        elif X.ndim == 2:
            X = X[:, :, None, None]
        elif X.ndim == 3:
            X = X[:, None]
        elif X.ndim == 4 and X.shape[3] < X.shape[1]:
            X = X.transpose(0, 3, 1, 2)
        elif X.ndim != 4:
            raise ValueError(f"X: found {X.ndim} axes; expected features [N, F] or images with 3 or 4 axes")
        if self.low_ is None or self.high_ is None:
            return np.ascontiguousarray(X, np.uint8)
        low, high = (bound[:, None, None] for bound in (self.low_, self.high_))
        unit = (X.astype(np.float64) - low) / np.where(high > low, high - low, 1.0)
        levels: ByteArray = (unit.clip(0, 1) * 255).round().astype(np.uint8)
        return levels

    def _experiment(self, root: Path, dataset: Dataset) -> Experiment:
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        values = {
            "num_members": self.num_members,
            "seed": seed,
            "method": _section(self.method),
            "model": _section(self.model or DEFAULT_MODEL),
            "training": {
                "epochs": self.epochs, "batch_size": self.batch_size, "lr": self.lr, **dict(self.training or {}),
            },
            "aggregator": self.aggregator,
            "data": {"name": "arrays", "path": IN_MEMORY, "validation_fraction": self.validation_fraction},
            "compute": {"executor": "inline", **dict(self.compute or {})},
            "tracking": {"wandb": {"mode": "disabled"}},
        }  # fmt: skip
        # Runs of other data or settings lie beside each other, as those of a grid search must.
        digest = hashlib.sha256(repr(_plain(values)).encode())
        digest.update(dataset.train_images_NCHW.tobytes() + dataset.train_labels_N.tobytes())
        return parse_experiment(
            _plain({"name": f"fit-{digest.hexdigest()[:16]}", "output_dir": str(root), **values}), "EnsembleClassifier"
        )

    @contextmanager
    def _root(self) -> Iterator[Path]:
        if self.folder is not None:
            yield Path(self.folder)
            return
        with tempfile.TemporaryDirectory(prefix="ensemble-") as name:
            yield Path(name)


IN_MEMORY = "(given to EnsembleClassifier.fit)"


def _train(experiment: Experiment, dataset: Dataset) -> Path:
    """Train all members in a run folder; returns it. The number of torch's threads is left as it was."""
    import torch

    split = split_rows(dataset.train_labels_N, dataset.num_classes, experiment.data, experiment.seed)
    plan = complete_plan(experiment, dataset, device_kind(experiment.compute))
    config = experiment.model_dump(mode="json")
    threads = torch.get_num_threads()
    try:
        root, made = Path(experiment.output_dir), plan.to_json()
        with RunFolder.open(
            root, experiment.name, config, made, lambda stored: require_same_data(stored, dataset, split)
        ) as folder:
            mend(folder)
            driver = train_members(experiment, dataset, split, folder, lambda *_: InlineExecutor(), _ignore)
    finally:
        torch.set_num_threads(threads)
    if driver.failures:
        told = "; ".join(f"member {f.index}: {f.kind}: {f.reason}" for f in driver.failures.values())
        warnings.warn(f"members failed and do not vote: {told}", ConvergenceWarning, stacklevel=3)
    return folder.path


def _ignore(_event: Event) -> None:
    """Nobody listens."""


def _range(X: AnyArray, images: bool) -> tuple[DoubleArray | None, DoubleArray | None]:
    """Lower and upper bound, [F] of features or [1] of images; None for bytes, which are levels already."""
    if X.dtype == np.uint8:
        return None, None
    if images:
        return np.array([float(X.min())]), np.array([float(X.max())])
    low, high = np.percentile(X.astype(np.float64), TAILS, axis=0)
    flat = high <= low  # nearly constant: whatever differs still shows
    return np.where(flat, X.min(axis=0), low), np.where(flat, X.max(axis=0), high)


def _dataset(images_NCHW: ByteArray, labels_N: npt.NDArray[np.int64], class_names: list[str]) -> Dataset:
    """Training rows only; nothing is kept back for a test."""
    images = np.ascontiguousarray(images_NCHW)
    images.flags.writeable = False
    nothing = np.empty((0, *images.shape[1:]), np.uint8)
    return Dataset("arrays", images, labels_N, nothing, np.empty(0, np.int64), tuple(class_names), True)


def _section(value: str | Mapping[str, Any]) -> dict[str, Any]:
    return {"name": value} if isinstance(value, str) else dict(value)


def _plain(value: Any) -> Any:
    """numpy's numbers as Python's and lists as tuples, as the strict configuration wants them."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_plain(inner) for inner in value)
    return value.item() if isinstance(value, np.generic) else value
