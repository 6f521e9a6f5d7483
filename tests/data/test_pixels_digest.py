"""The digest taken while rows are written is that of the finished images, or is not given."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ensemble.data.pixels_digest import DigestOnTheWay, pixels_sha256


def images(rows: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, 2, 3, 4), np.uint8)


def test_it_is_the_digest_that_stored_runs_have():
    """Of shapes as text and of bytes, part after part: another would refuse every run of before."""
    train, test = images(5, 0), images(3, 1)
    known = b"(5, 2, 3, 4)" + train.tobytes() + b"(3, 2, 3, 4)" + test.tobytes()
    assert pixels_sha256(train, test) == hashlib.sha256(known).hexdigest()


def on_the_way(parts: dict[str, np.ndarray], shards: int, earlier: int = 0, leave_out: str | None = None) -> str | None:
    digest = DigestOnTheWay()
    for name, all_rows in parts.items():
        for start in range(earlier if name == "train" else 0, len(all_rows), shards):
            if name != leave_out:
                digest.add(name, all_rows.shape, all_rows[:start], all_rows[start : start + shards])
    return digest.sha256({name: each.shape for name, each in parts.items()})


@given(train=st.integers(1, 20), test=st.integers(1, 9), shards=st.integers(1, 25), earlier=st.integers(0, 19))
def test_however_rows_come(train: int, test: int, shards: int, earlier: int):
    """Also where the first rows were written by an earlier start."""
    parts = {"train": images(train, 1), "test": images(test, 2)}
    found = on_the_way(parts, shards, earlier)
    assert found == (
        None if earlier >= train else pixels_sha256(*parts.values())
    )  # nothing was added of a finished part


def test_other_parts_have_no_digest():
    parts = {"train": images(5, 0), "test": images(3, 1)}
    assert on_the_way(parts, 2, leave_out="test") is None
    digest = DigestOnTheWay()
    for name, all_rows in reversed(parts.items()):
        digest.add(name, all_rows.shape, all_rows[:0], all_rows)
    assert digest.sha256({name: each.shape for name, each in parts.items()}) is None
    with pytest.raises(ValueError, match="rows of test after those of another part"):
        digest.add("test", (5, 2, 3, 4), parts["test"], parts["test"][:2])
    cut = DigestOnTheWay()
    cut.add("train", (5, 2, 3, 4), parts["train"][:0], parts["train"][:4])
    assert cut.sha256({"train": (5, 2, 3, 4)}) is None
