"""The files of one member: weights.safetensors, votes.npz, history.csv, member.json, from its result and back.

What does not fit the run (rows of other images, probabilities that are none, files of another member) is a StorageError
naming the file.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from ensemble.storage.atomic import json_bytes, npz_bytes, read_npz
from ensemble.storage.descriptions import MemberFile
from ensemble.storage.manifest import MEMBER_FILES
from ensemble.storage.parsing import array_of, json_model, require_probabilities, require_rows
from ensemble.storage.remedies import unfit
from ensemble.types import EpochRecord, FloatArray, IntArray, MemberResult, Votes

WEIGHTS, VOTES, HISTORY, MEMBER = MEMBER_FILES


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """What votes are judged against. Row arrays are positions in the data set's training images, ascending."""

    train_rows: IntArray
    validation_rows: IntArray
    train_labels_N: IntArray
    test_labels_N: IntArray


@dataclass(frozen=True)
class Expected:
    """What the votes of a run must be like, where that is known: its labels, and how many classes there are."""

    labels: Labels | None = None
    classes: int | None = None


def labels_bytes(labels: Labels) -> bytes:
    """The content of labels.npz."""
    return npz_bytes({name: getattr(labels, name) for name in Labels.__slots__})


def labels_digest(labels: Labels) -> str:
    """SHA-256 of labels and split."""
    return hashlib.sha256(labels_bytes(labels)).hexdigest()


def same_labels(one: Labels, other: Labels) -> bool:
    """Whether votes on the one can be judged against the other."""
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Labels.__slots__)


def parse_labels(content: bytes, where: Path, classes: int | None) -> Labels:
    """Split and labels of a run. classes: how many the data set has, where that is known."""
    arrays = read_npz(content, where)
    labels = Labels(*(array_of(arrays, name, where, "i", (None,)) for name in Labels.__slots__))
    for name in ("train_rows", "validation_rows"):
        require_rows(getattr(labels, name), name, where, len(labels.train_labels_N))
    if np.intersect1d(labels.train_rows, labels.validation_rows).size:
        raise unfit(where, "a row is in train_rows and in validation_rows")
    for name in ("train_labels_N", "test_labels_N"):
        values = getattr(labels, name)
        if values.size and (values.min() < 0 or (classes is not None and values.max() >= classes)):
            raise unfit(
                where,
                f"{name} has class {values.min() if values.min() < 0 else values.max()}; expected 0 to {'the number of classes' if classes is None else classes - 1}",
            )
    return labels


def member_contents(result: MemberResult) -> dict[str, bytes]:
    """All files of a member, by name."""
    contents = {
        WEIGHTS: save_safetensors(
            {name: np.require(array, requirements="C") for name, array in result.weights.items()}
        ),
        VOTES: npz_bytes({name: getattr(result.votes, name) for name in Votes.__slots__}),
        HISTORY: _history_bytes(result.history),
    }
    facts = {
        "index": result.index, "recipe": result.recipe, "num_parameters": result.num_parameters,
        "train_seconds": result.train_seconds, "kept_epoch": result.kept_epoch, "stack_size": result.stack_size,
        "facts": dict(result.facts), "device": result.device,
        **({"shared_parameters": result.shared_parameters} if result.shared_parameters else {}),
        "files_sha256": {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()},
    }  # fmt: skip
    return {**contents, MEMBER: json_bytes(facts)}


def parse_member(content: bytes, where: Path, index: int | None) -> MemberFile:
    """member.json of the member with that index. None: whatever it is."""
    facts = json_model(content, where, MemberFile)
    if index is not None and facts.index != index:
        raise unfit(where, f"of member {facts.index}; expected member {index}")
    return facts


def require_own(facts: MemberFile, name: str, content: bytes, where: Path) -> None:
    """Raises StorageError when a file is not the one that the member was stored with. Earlier versions did not note it."""
    expected = facts.files_sha256.get(name)
    if expected is not None and expected != hashlib.sha256(content).hexdigest():
        raise unfit(
            where,
            f"not the file that member {facts.index} was stored with (see {MEMBER}); it was edited or is another member's",
        )


def parse_votes(content: bytes, where: Path, expected: Expected) -> Votes:
    """A member's votes, one row per image of the run's validation and test, and per listed training row."""
    arrays, labels = read_npz(content, where), expected.labels
    validation, test = (None, None) if labels is None else (len(labels.validation_rows), len(labels.test_labels_N))
    rows = array_of(arrays, "rows", where, "i", (None,))
    require_rows(rows, "rows", where, None if labels is None else len(labels.train_labels_N))
    votes = {"validation_NK": validation, "test_NK": test, "rows_RK": len(rows)}
    classes = expected.classes
    for name, length in votes.items():
        array = array_of(arrays, name, where, "f", (length, classes))
        classes = array.shape[1]
        require_probabilities(array, name, where)
    return Votes(arrays["validation_NK"], arrays["test_NK"], rows, arrays["rows_RK"])


def parse_validation_votes(content: bytes, where: Path, expected: Expected) -> FloatArray:
    """The votes on validation rows alone, [rows, classes]; nothing else of the file is unpacked."""
    rows = None if expected.labels is None else len(expected.labels.validation_rows)
    arrays = read_npz(content, where, ("validation_NK",))
    votes_NK: FloatArray = array_of(arrays, "validation_NK", where, "f", (rows, expected.classes))
    require_probabilities(votes_NK, "validation_NK", where)
    return votes_NK


def parse_weights(content: bytes, where: Path) -> dict[str, npt.NDArray[Any]]:
    """A member's tensors, named as in its network's state_dict."""
    try:
        tensors: dict[str, Any] = load_safetensors(content)
    except (SafetensorError, ValueError, TypeError, KeyError) as error:
        raise unfit(where, f"not a safetensors file: {error}") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise unfit(where, f"{name} has values that are not finite")
    return tensors


def parse_history(content: bytes, where: Path) -> tuple[EpochRecord, ...]:
    """A member's epochs, one line each."""
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode()), strict=True))
        records = tuple(_epoch(row) for row in rows)
    except (ValueError, TypeError, KeyError, csv.Error) as error:
        raise unfit(where, f"not the epochs of a member: {error}") from error
    epochs = [record.epoch for record in records]
    if epochs and (epochs[0] < 1 or epochs != list(range(epochs[0], epochs[0] + len(epochs)))):
        raise unfit(where, "its epochs do not follow one another")
    return records


def _epoch(row: Mapping[str, Any]) -> EpochRecord:
    values: dict[str, Any] = {key: float(value) for key, value in row.items() if value != "" and key != "epoch"}
    return EpochRecord(epoch=int(row["epoch"]), **values)


def _history_bytes(history: tuple[EpochRecord, ...]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(EpochRecord.__slots__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in history)
    return text.getvalue().encode()
