"""What the vote says of every image: predictions.csv, one line per image of the test and the validation part, and
of cross-validation per training image, of which the members speak that did not train on it (part out_of_fold).

    part,row,file,label,vote,right,probability,disagreement
    test,17,rose/1.jpg,rose,tulip,0,0.614,0.25

row: position in that part's array (for validation, among the training images). file: below data.root, empty where the images
are no files. probability: of the class that the vote names. disagreement: share of the members that name another one.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.out_of_bag import OutOfBag, out_of_bag_vote
from ensemble.evaluation.records import Evaluation
from ensemble.results.judging import out_of_bag_of
from ensemble.results.voters import Voters
from ensemble.storage import RunFolder
from ensemble.storage.names import FILES, PREDICTIONS
from ensemble.storage.remedies import unfit
from ensemble.types import DoubleArray, IntArray

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


def predictions_csv(voters: Voters, evaluation: Evaluation, files: Mapping[str, Sequence[str]]) -> str:
    """The lines for the headline vote, every probability with four digits.

    voters: those that the evaluation is of. files: of the run, see `read_files`.
    """
    voters = voters.finite()
    indices = [member.index for member in voters.members]
    assert indices == [member.index for member in evaluation.members], "the evaluation is of other members"
    weights_M = voters.vote_weights(evaluation.aggregator)
    test, validation, text = voters.test, voters.validation, io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    parts = (("test", test, np.arange(test.num_rows)), ("validation", validation, voters.labels.validation_rows))
    for part, votes, rows_N in parts:
        decision = decide(evaluation.aggregator, votes.probs_MNK, weights_M)
        others_N = (votes.favourites_MN != decision.classes_N).mean(0)
        said = _Said(rows_N, votes.labels_N, decision.classes_N, decision.confidences_N, others_N)
        writer.writerows(_lines(part, said, files.get("test" if part == "test" else "train", ()), evaluation))
    if (folds := out_of_bag_of(voters)) is not None and folds.folds:
        writer.writerows(
            _lines("out_of_fold", _out_of_fold(folds, test.num_classes), files.get("train", ()), evaluation)
        )
    return text.getvalue()


@dataclass(frozen=True, eq=False)
class _Said:
    """A vote on the rows of a part: their classes, what it named, how probable that is to it, and the share of voters that named another."""

    rows_N: IntArray
    labels_N: IntArray
    classes_N: IntArray
    confidences_N: DoubleArray
    others_N: DoubleArray


def _out_of_fold(folds: OutOfBag, num_classes: int) -> _Said:
    """The mean of the members that did not train on a row, whatever the headline vote is."""
    vote = out_of_bag_vote(folds, num_classes)
    named, others = np.full(len(folds.labels), -1), np.zeros(len(folds.labels))
    named[vote.rows] = vote.classes_R
    for rows, probs_RK in zip(folds.rows, folds.probs, strict=True):
        if np.isfinite(probs_RK).all():
            others[rows] += probs_RK.argmax(1) != named[rows]
    confidences_R = vote.probs_RK[np.arange(len(vote.rows)), vote.classes_R]
    return _Said(vote.rows, folds.labels[vote.rows], vote.classes_R, confidences_R, others[vote.rows] / vote.voters_R)


def _lines(part: str, said: _Said, files: Sequence[str], evaluation: Evaluation) -> list[tuple[object, ...]]:
    names = evaluation.class_names
    return [
        (part, row, files[row] if files else "", names[label], names[vote], int(label == vote), f"{p:.4f}", f"{d:.4g}")
        for row, label, vote, p, d in zip(
            said.rows_N.tolist(),
            said.labels_N.tolist(),
            said.classes_N.tolist(),
            said.confidences_N.tolist(),
            said.others_N.tolist(),
            strict=True,
        )
    ]


def read_predictions(folder: RunFolder) -> list[Prediction]:
    """The lines of a run; none where it kept none. Raises StorageError for a file that is something else."""
    if not folder.has(PREDICTIONS):
        return []
    return parse_predictions(folder.read_bytes(PREDICTIONS), folder.path / PREDICTIONS)


def surest_mistakes(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The test images that the vote gets wrong, the surest first."""
    wrong = [one for one in predictions if one.part == "test" and not one.right]
    return sorted(wrong, key=lambda one: -one.probability)


def parse_predictions(content: bytes, where: Path) -> list[Prediction]:
    """The lines of a file. Raises StorageError for one that is something else."""
    return [
        Prediction(part, _whole(row, where), file, label, vote, right == "1", _number(p, where), _number(d, where))
        for part, row, file, label, vote, right, p, d in _rows(content, where, COLUMNS)
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
            raise unfit(where, "its rows do not follow one another")
        found[part].append(file)
    labels = folder.load_labels()
    if [len(found[part]) for part in PARTS] != [len(labels.train_labels_N), len(labels.test_labels_N)]:
        raise unfit(where, "not as many files as the run has images")
    return found


def _rows(content: bytes, where: Path, header: tuple[str, ...]) -> list[list[str]]:
    try:
        first, *rows = csv.reader(io.StringIO(content.decode(), newline=""), strict=True)
    except (ValueError, csv.Error) as error:
        raise unfit(where, f"not a table: {error}") from error
    if tuple(first) != header or any(len(row) != len(header) for row in rows):
        raise unfit(where, f"expected the columns {', '.join(header)}")
    return rows


def _whole(text: str, where: Path) -> int:
    if not (text.isascii() and text.isdigit()):
        raise unfit(where, f"{text[:40]!r} is no row")
    return int(text)


def _number(text: str, where: Path) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise unfit(where, f"{text[:40]!r} is no number") from error
