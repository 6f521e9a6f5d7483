"""What the vote says of every image: predictions.csv, one line per image of the test and the validation part.

    part,row,file,label,vote,right,probability,disagreement
    test,17,rose/1.jpg,rose,tulip,0,0.614,0.25

row: position in that part's array (for validation, among the training images). file: below data.root, empty where the images
are no files. probability: of the class that the vote names. disagreement: share of the members that name another one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.config.schema import WEIGHING
from ensemble.errors import StorageError
from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.choosing import choose_all
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.splits import SplitVotes
from ensemble.results.judging import load_voters
from ensemble.storage import RunFolder
from ensemble.storage.names import FILES, PREDICTIONS
from ensemble.types import IntArray

COLUMNS = ("part", "row", "file", "label", "vote", "right", "probability", "disagreement")
PARTS = ("train", "test")  # of the list of files


@dataclass(frozen=True)
class Prediction:
    """One line; see the module."""

    part: str
    row: int
    file: str
    label: str
    vote: str
    right: bool
    probability: float
    disagreement: float


def predictions_csv(folder: RunFolder, evaluation: Evaluation) -> str:
    """The lines for the headline vote of a judged run, every probability with four digits."""
    voters = load_voters(folder)
    places = {member.index: place for place, member in enumerate(voters.members)}
    kept = [places[member.index] for member in evaluation.members]
    validation, test = voters.validation.members(kept), voters.test.members(kept)
    weights_M = None
    if evaluation.aggregator in WEIGHING:
        own = None if voters.weights_M is None else voters.weights_M[kept]
        weights_M = choose_all(validation, evaluation.aggregator, own, False, 0).weights_M
    files, text = read_files(folder), io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    parts = (("test", test, np.arange(test.num_rows)), ("validation", validation, voters.labels.validation_rows))
    for part, votes, rows_N in parts:
        names = files.get("test" if part == "test" else "train", ())
        writer.writerows(_lines(part, votes, rows_N, names, evaluation, weights_M))
    return text.getvalue()


def _lines(
    part: str, votes: SplitVotes, rows_N: IntArray, files: Sequence[str], evaluation: Evaluation, weights_M: object
) -> list[tuple[object, ...]]:
    decision = decide(evaluation.aggregator, votes.probs_MNK, weights_M)  # type: ignore[arg-type]
    classes_N, names = decision.classes_N, evaluation.class_names
    probs_N = decision.probs_NK[np.arange(len(classes_N)), classes_N]
    others_N = (votes.probs_MNK.argmax(-1) != classes_N).mean(0)
    return [
        (part, row, files[row] if files else "", names[label], names[vote], int(label == vote), f"{p:.4f}", f"{d:.4g}")
        for row, label, vote, p, d in zip(
            rows_N.tolist(),
            votes.labels_N.tolist(),
            classes_N.tolist(),
            probs_N.tolist(),
            others_N.tolist(),
            strict=True,
        )
    ]


def read_predictions(folder: RunFolder) -> list[Prediction]:
    """The lines of a run; none where it kept none. Raises StorageError for a file that is something else."""
    if not folder.has(PREDICTIONS):
        return []
    where = folder.path / PREDICTIONS
    return [
        Prediction(part, _whole(row, where), file, label, vote, right == "1", _number(p, where), _number(d, where))
        for part, row, file, label, vote, right, p, d in _rows(folder.read_bytes(PREDICTIONS), where, COLUMNS)
    ]


def files_csv(train_files: Sequence[str], test_files: Sequence[str]) -> str:
    """pictures.csv: the file of every image, one line each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("part", "row", "file"))
    for part, files in zip(PARTS, (train_files, test_files), strict=True):
        writer.writerows((part, row, file) for row, file in enumerate(files))
    return text.getvalue()


def read_files(folder: RunFolder) -> dict[str, list[str]]:
    """The files of a run's images by part, train and test, in the order of their rows; empty where they are no files."""
    if not folder.has(FILES):
        return {}
    where, found = folder.path / FILES, {part: list[str]() for part in PARTS}
    for part, row, file in _rows(folder.read_bytes(FILES), where, ("part", "row", "file")):
        if part not in found or _whole(row, where) != len(found[part]):
            raise StorageError(f"{where}: damaged: its rows do not follow one another")
        found[part].append(file)
    labels = folder.load_labels()
    if [len(found[part]) for part in PARTS] != [len(labels.train_labels_N), len(labels.test_labels_N)]:
        raise StorageError(f"{where}: damaged: not as many files as the run has images")
    return found


def _rows(content: bytes, where: Path, header: tuple[str, ...]) -> list[list[str]]:
    try:
        first, *rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    except (ValueError, csv.Error) as error:
        raise StorageError(f"{where}: damaged: not a table: {error}") from error
    if tuple(first) != header or any(len(row) != len(header) for row in rows):
        raise StorageError(f"{where}: damaged: expected the columns {', '.join(header)}")
    return rows


def _whole(text: str, where: Path) -> int:
    if not (text.isascii() and text.isdigit()):
        raise StorageError(f"{where}: damaged: {text[:40]!r} is no row")
    return int(text)


def _number(text: str, where: Path) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise StorageError(f"{where}: damaged: {text[:40]!r} is no number") from error
