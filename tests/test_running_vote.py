"""The vote of the members finished so far: the soft vote of the judgement, file by file, without the test votes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ensemble.errors import StorageError
from ensemble.evaluation.aggregation import decide
from ensemble.results import running_vote
from ensemble.results.running_vote import RunningVote
from ensemble.storage.member_files import Labels, labels_bytes, member_contents
from ensemble.types import MemberResult, Votes

ROWS, CLASSES, MEMBERS = 40, 3, 5


def votes(seed: int, rows: int) -> np.ndarray:
    drawn = np.random.default_rng(seed).random((rows, CLASSES)).astype(np.float32)
    return drawn / drawn.sum(axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Only what the vote needs: labels and members."""
    labels = Labels(
        np.arange(ROWS, 100), np.arange(ROWS), np.random.default_rng(9).integers(0, CLASSES, 100), np.zeros(7, np.int64)
    )
    (tmp_path / "labels.npz").write_bytes(labels_bytes(labels))
    for index in range(MEMBERS):
        of_member = Votes(
            votes(index, ROWS), votes(50 + index, 7), np.zeros(0, np.int64), np.zeros((0, CLASSES), np.float32)
        )
        result = MemberResult(
            index=index, recipe="mlp", votes=of_member, weights={"w": np.zeros(1, np.float32)}, history=(),
            num_parameters=1, train_seconds=1.0, kept_epoch=1, stack_size=1, facts={}, device="cpu",
        )  # fmt: skip
        (tmp_path / f"members/{index:04d}").mkdir(parents=True)
        for name, content in member_contents(result).items():
            (tmp_path / f"members/{index:04d}" / name).write_bytes(content)
    return tmp_path


def test_it_is_the_soft_vote_of_those_that_were_added(folder: Path) -> None:
    vote, order = RunningVote(folder), [3, 0, 4, 1, 2]
    truth_N = np.random.default_rng(9).integers(0, CLASSES, 100)[:ROWS]
    for count in range(1, MEMBERS + 1):
        chosen_N = decide("soft", np.stack([votes(index, ROWS) for index in order[:count]])).classes_N
        assert vote.add(order[count - 1]) == np.mean(chosen_N != truth_N)
    assert vote.add(3) == vote.add(0), "one that is there is not counted twice"


def test_each_file_is_read_once_and_of_votes_those_on_validation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    real = running_vote.read_regular_file
    monkeypatch.setattr(
        running_vote, "read_regular_file", lambda path, most: read.append(path.name) or real(path, most)
    )
    vote = RunningVote(folder)
    for index in range(MEMBERS):
        vote.add(index)
    assert sorted(read) == ["labels.npz", *["member.json"] * MEMBERS, *["votes.npz"] * MEMBERS]


def test_votes_that_are_missing_or_of_another_are_named(folder: Path) -> None:
    vote = RunningVote(folder)
    (folder / "members/0001/votes.npz").write_bytes((folder / "members/0002/votes.npz").read_bytes())
    with pytest.raises(StorageError, match=r"members/0001/votes\.npz"):
        vote.add(1)
    (folder / "members/0002/votes.npz").unlink()
    with pytest.raises(StorageError, match=r"members/0002/votes\.npz: cannot be read"):
        vote.add(2)
    assert vote.add(0) is not None
