"""An ensemble of networks as a scikit-learn classifier.

    classifier = EnsembleClassifier(method="bagging", num_members=5).fit(X_train, y_train)
    classifier.predict_proba(X_test)
    GridSearchCV(EnsembleClassifier(), {"lr": [1e-3, 3e-3]}).fit(X, y)

It trains through the same loop as `ensemble train`, in this process. The loop works on bytes, so features are brought
to 256 levels between their 0.5th and 99.5th percentile, much as HistGradientBoostingClassifier bins them; images of
bytes keep theirs, other images are brought to levels between their smallest and largest value, but for those of a few
outliers. What lies beyond is cut off, in fit and in predict alike. Rows for a test are not split off: that is what score, cross_val_score and GridSearchCV are for.
"""

from __future__ import annotations

import hashlib
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from ensemble.config import Experiment, parse_experiment
from ensemble.config.data import Layout
from ensemble.data import Dataset, check_views, split_of
from ensemble.data.channel_axis import to_channels_first
from ensemble.data.fitted_range import FEW_LEVELS, fitted_range
from ensemble.data.named_sets import load_named_sets
from ensemble.errors import ConfigError, DataError
from ensemble.events import Event
from ensemble.executors import InlineExecutor
from ensemble.inference.abstaining import reject_rule, sets_rule
from ensemble.methods import check_rows
from ensemble.outside.paths import given_path
from ensemble.results.run_data import require_same_data
from ensemble.run.first_plan import complete_plan
from ensemble.run.run import train_members
from ensemble.storage import RunFolder
from ensemble.storage.mending import mend
from ensemble.training import device_kind
from ensemble.types import ByteArray, DoubleArray

AnyArray = npt.NDArray[Any]
DEFAULT_MODEL = {"name": "mlp", "widths": (64,)}


class EnsembleClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """An ensemble of neural networks that vote.

    method: "bagging", "deep_ensemble" or another method by name, or a mapping with its keys. num_members: how many
    networks. model: None for a small multi-layer perceptron, a name such as "lenet5", or a mapping with keys.
    epochs, batch_size, lr: of the training; `training` and `compute` are mappings of further keys of these sections.
    aggregator: soft, hard, weighted or geometric. validation_fraction: share held back to watch the training and to
    weigh the members. image_shape: (C, H, W) of flat rows that are images. layout: "channels_first" or "channels_last" of
    images with four axes, where their shape does not tell. calibration_fraction: share held back for `predict_sets` and `answers`
    alone. tta: keys of `evaluation.tta` (horizontal_flip, shift, crops, crop_area): every network votes on so many views of
    an image, in fit and in predict alike. random_state: as everywhere. folder: keeps
    the run there, so that an interrupted fit goes on where it was; None trains in a temporary folder.

    Attributes: classes_, n_features_in_, ensemble_ (a TrainedEnsemble over the levels), low_ and high_ (the range of
    every feature, or one of all pixels, that the levels span; None for bytes), layout_ (how images were read).
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
        layout: Layout | None = None,
        calibration_fraction: float = 0.0,
        tta: Mapping[str, Any] | None = None,
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
        self.layout = layout
        self.calibration_fraction = calibration_fraction
        self.tta = tta

    def fit(self, X: Any, y: Any) -> Self:
        """Train. X: features [N, F], or images [N, H, W], [N, H, W, C] or [N, C, H, W]; y: N labels of any kind.

        Raises ValueError for settings and data that cannot mean anything; warns of members that failed.
        """
        X, y = validate_data(self, X, y, allow_nd=True, dtype="numeric")
        if self.layout not in (None, *get_args(Layout)):
            raise ValueError(f"layout={self.layout!r}: expected one of {', '.join(get_args(Layout))}, or None")
        try:
            check_classification_targets(y)
            self.classes_, labels_N = np.unique(y, return_inverse=True)
        except TypeError as error:  # of values that have no order
            kinds = ", ".join(sorted({type(label).__name__ for label in y}))
            raise ValueError(
                f"y: found labels of several types ({kinds}); expected numbers or texts, all of one kind"
            ) from error
        if len(self.classes_) < 2:
            raise ValueError(f"y: found only one class ({self.classes_[0]}); expected at least two classes")
        try:
            images, self.layout_ = self._as_images(X, self.layout)
            self.low_, self.high_ = fitted_range(images, self._are_images(X))
            dataset = _dataset(self._levels(images), labels_N.astype(np.int64), [str(name) for name in self.classes_])
            with self._root() as root:
                experiment = self._experiment(root, dataset)
                _check_tta(experiment, dataset)
                path = _train(experiment, dataset)
                from ensemble.inference.trained import load_ensemble

                self.ensemble_ = load_ensemble(path, device=device_kind(experiment.compute))
                assert self.ensemble_.vote.known is not None, "read while the folder is there"
                assert self.ensemble_.vote.tested is None, "no rows are kept back for a test"
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

    def answers(self, X: Any, risk: float) -> npt.NDArray[np.bool_]:
        """Which rows to answer [N], so that at most a share `risk` of the answers is wrong; see `TrainedEnsemble.answers`.

        Raises ValueError where the rows that were held back cannot promise it.
        """
        decision = self._decide(X)
        try:
            return reject_rule(self.ensemble_.vote, risk).answers(decision)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def predict_sets(self, X: Any, alpha: float) -> npt.NDArray[np.bool_]:
        """Which classes each row may be of [N, K], columns in the order of `classes_`; see `TrainedEnsemble.predict_sets`.

        Raises ValueError without calibration_fraction.
        """
        decision = self._decide(X)
        try:
            return sets_rule(self.ensemble_.vote, alpha).shown(decision)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def is_unknown(self, X: Any, share: float = 0.05) -> npt.NDArray[np.bool_]:
        """Which rows to call rows of none of the classes [N]: the vote is less sure of them than of all but a share of those held back.

        See `TrainedEnsemble.is_unknown`. Raises ValueError for a share that is none between 0 and 1.
        """
        images = self._levels_of(X)
        try:
            return self.ensemble_.is_unknown(images, share)
        except ConfigError as error:
            raise ValueError(str(error)) from error

    def _decide(self, X: Any) -> Any:
        images = self._levels_of(X)  # first: it says what an unfitted one lacks
        return self.ensemble_.decide(images)

    def _levels_of(self, X: Any) -> Any:
        """Rows as the members take them. Raises ValueError for others than in fit."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, allow_nd=True, dtype="numeric")
        try:
            images, _ = self._as_images(X, self.layout_)
        except DataError as error:
            raise ValueError(str(error)) from error
        if images.shape[1:] != self.ensemble_.image_shape:
            found, expected = (list(shape) for shape in (images.shape[1:], self.ensemble_.image_shape))
            raise ValueError(f"X: found images of {found} (channels, height, width); expected {expected}, as in fit")
        self._warn_of_another_scale(images)
        return self._levels(images)

    def _warn_of_another_scale(self, images_NCHW: AnyArray) -> None:
        """Warns of fractions of 1 where bytes, or numbers far larger, were fitted: they would all be nearly one level."""
        low, high = (0.0, 255.0) if self.low_ is None or self.high_ is None else (self.low_[0], self.high_[0])
        if self.low_ is not None and len(self.low_) > 1:  # features, of which each has a range of its own
            return
        inside = images_NCHW.dtype.kind == "f" and images_NCHW.min() >= 0 and images_NCHW.max() <= 1
        if inside and high - low >= 2 * FEW_LEVELS and (images_NCHW % 1 != 0).any():
            warnings.warn(
                f"X: found values from {images_NCHW.min():g} to {images_NCHW.max():g}, but those of fit were from {low:g} to {high:g}; "
                "scale them as for fit",
                UserWarning,
                stacklevel=4,
            )

    def _are_images(self, X: AnyArray) -> bool:
        return X.ndim > 2 or self.image_shape is not None

    def _as_images(self, X: AnyArray, layout: Layout | None) -> tuple[AnyArray, Layout | None]:
        """X as [N, C, H, W] and how its axes were read; plain features are the channels of a single pixel."""
        if self.image_shape is not None and X.ndim == 2:
            if X.shape[1] != np.prod(self.image_shape):
                raise ValueError(
                    f"X: found {X.shape[1]} features; expected {np.prod(self.image_shape)}, as image_shape says"
                )
            return X.reshape(len(X), *self.image_shape), None
        if X.ndim == 2:
            return X[:, :, None, None], None
        if X.ndim == 3:
            return X[:, None], None
        if X.ndim != 4:
            raise ValueError(f"X: found {X.ndim} axes; expected features [N, F] or images with 3 or 4 axes")
        return to_channels_first(X, layout, "X", "layout=...")

    def _levels(self, images_NCHW: AnyArray) -> ByteArray:
        """The values as bytes of the same shape; those beyond what was fitted are cut off, and all are rounded."""
        if self.low_ is None or self.high_ is None:
            if images_NCHW.dtype == np.uint8:
                return images_NCHW
            return images_NCHW.clip(0, 255).round().astype(np.uint8)
        low, high = (bound[:, None, None] for bound in (self.low_, self.high_))
        unit = (images_NCHW.astype(np.float64) - low) / np.where(high > low, high - low, 1.0)
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
            "data": {
                "name": "arrays", "path": IN_MEMORY, "validation_fraction": self.validation_fraction,
                "calibration_fraction": float(self.calibration_fraction),
            },
            "compute": {"executor": "inline", **dict(self.compute or {})},
            "tracking": {"wandb": {"mode": "disabled"}},
        }  # fmt: skip
        if self.tta:
            values["evaluation"] = {"tta": dict(self.tta)}
        _check_compute(self.compute or {})
        # Runs of other data or settings lie beside each other, as those of a grid search must.
        digest = hashlib.sha256(repr(_plain(values)).encode())
        digest.update(dataset.train_images_NCHW.tobytes() + dataset.train_labels_N.tobytes())
        return parse_experiment(
            _plain({"name": f"fit-{digest.hexdigest()[:16]}", "output_dir": str(root), "baseline": False, **values}),
            "EnsembleClassifier",
        )

    @contextmanager
    def _root(self) -> Iterator[Path]:
        if self.folder is not None:
            yield given_path(self.folder, "folder")
            return
        with tempfile.TemporaryDirectory(prefix="ensemble-") as name:
            yield Path(name)


IN_MEMORY = "(given to EnsembleClassifier.fit)"


def _train(experiment: Experiment, dataset: Dataset) -> Path:
    """Train all members in a run folder; returns it. The number of torch's threads is left as it was."""
    import torch

    split = split_of(dataset, experiment.data, experiment.seed)
    check_rows(experiment, split.train_rows, dataset.train_labels_N, dataset.class_names, dataset.groups_N)
    plan = complete_plan(experiment, dataset, device_kind(experiment.compute))
    config = experiment.model_dump(mode="json")
    threads = torch.get_num_threads()
    try:
        root, made = Path(experiment.output_dir), plan.to_json()
        with RunFolder.open(
            root, experiment.name, config, made, lambda stored: require_same_data(stored, dataset, split)
        ) as folder:
            mend(folder)
            sets = load_named_sets(experiment.evaluation, dataset, split)
            driver = train_members(experiment, dataset, split, folder, lambda *_: InlineExecutor(), _ignore, sets=sets)
    finally:
        torch.set_num_threads(threads)
    if driver.failures:
        told = "; ".join(f"member {f.index}: {f.kind}: {f.reason}" for f in driver.failures.values())
        warnings.warn(f"members failed and do not vote: {told}", ConvergenceWarning, stacklevel=3)
    return folder.path


def _check_compute(compute: Mapping[str, Any]) -> None:
    """Raises ConfigError for what only `ensemble train` and the launchers do: this class trains in this process."""
    one_process = {"executor": ("inline", "auto"), "parallel": ("members",), "slots": (None, 1), "ray_address": (None,)}
    wrong = [
        f"{key}={compute[key]!r}" for key, values in one_process.items() if compute.get(key, values[0]) not in values
    ]
    if float(compute.get("gpus_per_task", 1)) > 1:
        wrong.append(f"gpus_per_task={compute['gpus_per_task']!r}")
    if wrong:
        raise ConfigError(
            f"compute: {', '.join(wrong)}: EnsembleClassifier trains one task after the other in this process; leave it out, or use `ensemble train` with your data as data.name=arrays"
        )


def _check_tta(experiment: Experiment, dataset: Dataset) -> None:
    """Raises ConfigError for views that cannot be had: of features there are none."""
    tta = experiment.evaluation.tta
    if tta.active and dataset.image_shape[1:] == (1, 1):
        raise ConfigError(
            "tta: X are features, which have no views; leave tta out, or give images ([N, H, W] and more axes, or image_shape)"
        )
    check_views(tta, dataset)


def _ignore(_event: Event) -> None:
    """Nobody listens."""


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
