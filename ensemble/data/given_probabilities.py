"""The votes of a member that was trained elsewhere and of which nothing but its class probabilities is known.

    votes = read_votes(given, dataset, split)       # from an .npz file, see `config/probabilities_file.py`

Whatever does not belong to the run's images (another number of them, other classes, other labels, numbers that are no
probabilities) is refused by name, since a vote over mixed-up rows would look like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.config.groups import GivenVotes
from ensemble.config.probabilities_file import EXPECTED, ROWS, TEST, TRAIN, VALIDATION
from ensemble.config.weights_file import sha256
from ensemble.data.dataset import Dataset
from ensemble.data.numpy_file import load_numpy, reason_of
from ensemble.data.regular_files import open_regular, shown
from ensemble.data.split import Split
from ensemble.errors import DataError
from ensemble.types import FloatArray, IntArray, Votes

SUM_TOLERANCE = 1e-3  # as for stored votes
_LABELS = {TEST: "test_labels", TRAIN: "train_labels", VALIDATION: "validation_labels"}
Array = npt.NDArray[Any]


def read_votes(given: GivenVotes, dataset: Dataset, split: Split) -> Votes:
    """The votes in a file on the validation and test images of a run. Nobody knows which rows are out of the member's bag: none.

    Labels that the file holds beside its probabilities are compared with those of the data set, so that rows in another order
    are found. Raises DataError naming the file, the array and what was expected; ConfigError where the file cannot be read.
    """
    path = Path(given.file)
    if given.sha256 is not None and sha256([path], "probabilities", EXPECTED) != given.sha256:
        raise DataError(f"{shown(path)}: changed since the configuration was read; start again")
    arrays = _arrays(path)
    if TEST not in arrays:
        raise _missing(path, TEST, arrays)
    whole, part = TRAIN in arrays, VALIDATION in arrays
    if whole and part:
        raise DataError(
            f"{shown(path)}: holds {TRAIN} and {VALIDATION}; expected one of them, so that it is clear which one votes"
        )
    if not whole and not part:
        raise _missing(path, f"{TRAIN} (or {VALIDATION} with {ROWS})", arrays)
    classes = dataset.class_names
    test_NK = _probabilities(path, TEST, arrays, len(dataset.test_labels_N), "test images", classes)
    _same_labels(path, TEST, arrays, dataset.test_labels_N)
    if whole:
        found_NK = _probabilities(path, TRAIN, arrays, len(dataset.train_labels_N), "training images", classes)
        _same_labels(path, TRAIN, arrays, dataset.train_labels_N)
        validation_NK = found_NK[split.validation_rows]
    else:
        rows = len(split.validation_rows)
        found_NK = _probabilities(path, VALIDATION, arrays, rows, "validation images of this run", classes)
        order = _order(path, arrays, split.validation_rows)
        validation_NK = found_NK[order]
        _same_labels(path, VALIDATION, arrays, dataset.train_labels_N[split.validation_rows[np.argsort(order)]])
    none = np.empty(0, np.int64)
    return Votes(validation_NK, test_NK, none, np.empty((0, len(classes)), np.float32))


def _arrays(path: Path) -> dict[str, Array]:
    """The arrays of the file that are looked at."""
    wanted = (TEST, TRAIN, VALIDATION, ROWS, *_LABELS.values())
    try:
        with open_regular(path, EXPECTED) as file:
            loaded = load_numpy(file)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise DataError(f"{shown(path)}: found a single array; expected {EXPECTED}")
            with loaded as archive:
                found = {name: archive[name] for name in wanted if name in archive.files}
                return found | {name: np.empty(0) for name in archive.files if name not in wanted}
    except DataError:
        raise
    except Exception as error:  # damaged files make numpy raise nearly anything, MemoryError among it
        raise DataError(f"{shown(path)}: cannot be read: {reason_of(error)}; expected {EXPECTED}") from error


def _missing(path: Path, name: str, arrays: Mapping[str, Array]) -> DataError:
    found = ", ".join(sorted(arrays)[:10]) or "nothing"
    return DataError(
        f"{shown(path)}: {name} missing; found {found}; expected {TEST} [test images, classes] and {TRAIN} [training images, classes] in the data set's order"
    )


def _probabilities(
    path: Path, name: str, arrays: Mapping[str, Array], rows: int, images: str, classes: tuple[str, ...]
) -> FloatArray:
    """An array of the file as probabilities [rows, classes]. Raises DataError where it is none."""
    array, what = arrays[name], f"{shown(path)}: {name}"
    shape = "x".join(map(str, array.shape)) or "a single number"
    if array.ndim == 1 and array.dtype.kind in "iu":
        raise DataError(
            f"{what} is {array.dtype} of shape {shape}, which looks like class numbers; expected the probability of every class, [{rows}, {len(classes)}] floats"
        )
    if array.ndim == 3:
        raise DataError(
            f"{what} has shape {shape}, as of {len(array)} networks; expected one, [{rows}, {len(classes)}]: give each network a group and a file of its own, or save their mean"
        )
    if array.ndim != 2 or array.dtype.kind != "f":
        raise DataError(f"{what} is {array.dtype} of shape {shape}; expected floats [{rows}, {len(classes)}]")
    if array.shape[1] != len(classes):
        known = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
        raise DataError(
            f"{what} has {array.shape[1]} columns, but the data set has {len(classes)} classes ({known}); expected a column for each, in this order"
        )
    if len(array) != rows:
        raise DataError(
            f"{what} has {len(array):,} rows, but there are {rows:,} {images}; expected one row for each, in the data set's order"
        )
    _require_probabilities(what, array)
    return array.astype(np.float32)


def _require_probabilities(what: str, probs_NK: Array) -> None:
    finite_N = np.isfinite(probs_NK).all(axis=1)
    if len(bad := np.flatnonzero(~finite_N)):
        raise DataError(
            f"{what}: {len(bad):,} rows hold numbers that are not finite, the first is row {bad[0]}: {_row(probs_NK[bad[0]])}; expected a probability everywhere: mend these rows before saving"
        )
    sums_N = probs_NK.sum(axis=1, dtype=np.float64)
    fits_N = (probs_NK >= 0).all(axis=1) & (np.abs(sums_N - 1.0) <= SUM_TOLERANCE)
    if len(bad := np.flatnonzero(~fits_N)):
        first = bad[0]
        raise DataError(
            f"{what}: {len(bad):,} rows are no probabilities, the first is row {first}: {_row(probs_NK[first])} (sum {sums_N[first]:.4g}); expected numbers of at least 0 that sum to 1; {remedy_of(probs_NK)}"
        )


def remedy_of(values_NK: Array) -> str:
    """What makes probabilities [..., classes] of finite numbers that are none.

    Numbers of at least 0 are shares that were scaled, such as per cent, where the rows have one sum, or none is above 1.
    """
    sums = values_NK.sum(axis=-1, dtype=np.float64)
    one_sum = float(np.ptp(sums)) <= SUM_TOLERANCE * float(np.abs(sums).max())
    if (values_NK >= 0).all() and (sums > 0).all() and (one_sum or (values_NK <= 1 + SUM_TOLERANCE).all()):
        return "divide each row by its sum before saving"
    return "these look like logits: apply softmax before saving"


def _row(values: Array) -> str:
    return ", ".join(f"{value:.4g}" for value in values[:10]) + (", ..." if len(values) > 10 else "")


def _order(path: Path, arrays: Mapping[str, Array], validation_rows: IntArray) -> IntArray:
    """Where in the file each validation row of the run stands. Raises DataError where the file is of other rows."""
    what = f"{shown(path)}: {ROWS}"
    remedy = f"expected the positions of the run's validation images among the training images, as labels.npz of its folder has them; {TRAIN}, of all training images, does without them"
    if ROWS not in arrays:
        raise DataError(f"{what} missing beside {VALIDATION}; {remedy}")
    rows = arrays[ROWS]
    if rows.dtype.kind not in "iu" or rows.shape != validation_rows.shape:
        raise DataError(f"{what} is {rows.dtype} {list(rows.shape)}; {remedy}")
    order: IntArray = np.argsort(rows, kind="stable")
    if not np.array_equal(rows[order], validation_rows):
        other = np.setdiff1d(rows, validation_rows)
        found = f"names row {other[0]}, which is none of them" if len(other) else "names a row twice"
        raise DataError(f"{what} {found} (another seed draws others); {remedy}")
    return order


def _same_labels(path: Path, name: str, arrays: Mapping[str, Array], labels_N: IntArray) -> None:
    """Raises DataError where the file holds labels of these images and they are not those of the data set."""
    key = _LABELS[name]
    if key not in arrays:
        return
    found = arrays[key]
    if found.shape != labels_N.shape or found.dtype.kind not in "iu":
        raise DataError(
            f"{shown(path)}: {key} is {found.dtype} {list(found.shape)}; expected {len(labels_N):,} class numbers, one for each row of {name}"
        )
    differing = np.flatnonzero(found != labels_N)
    if len(differing):
        n = differing[0]
        raise DataError(
            f"{shown(path)}: {key} differs from the data set's labels in {len(differing):,} rows, the first is row {n}: {found[n]} and {labels_N[n]}; expected the same images in the same order, and classes numbered alike"
        )
