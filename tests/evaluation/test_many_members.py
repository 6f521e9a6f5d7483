"""A thousand members: what is kept of a judgement grows with them, not with their pairs, and what is cut is said."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ensemble.evaluation.evaluate import evaluate
from ensemble.evaluation.record_base import parameters_of
from ensemble.evaluation.records import Evaluation, MemberFacts
from ensemble.evaluation.sections import diversity
from ensemble.evaluation.sections.diversity import MATRIX_MEMBERS
from ensemble.evaluation.splits import SplitVotes


def judged(members: int) -> Evaluation:
    rng = np.random.default_rng(0)
    labels_N = rng.integers(0, 3, 30)
    probs_MNK = rng.random((members, 30, 3)) + np.eye(3)[labels_N]
    probs_MNK /= probs_MNK.sum(axis=2, keepdims=True)
    votes = probs_MNK.astype(np.float32)
    facts = [MemberFacts(m, "mlp", 10, 1.0, 1) for m in range(members)]
    return evaluate(
        SplitVotes("validation", votes, labels_N), SplitVotes("test", votes, labels_N), facts, "soft", None, members,
        "drawn", ("a", "b", "c"), choose=False,
    )  # fmt: skip


@pytest.mark.parametrize("members", [1, 2, MATRIX_MEMBERS, MATRIX_MEMBERS + 1, 400])
def test_the_matrices_are_bounded_and_what_is_cut_is_said(members: int) -> None:
    evaluation = judged(members)
    kept = min(members, MATRIX_MEMBERS)
    assert np.array(evaluation.diversity.disagreement).shape == (kept, kept)
    assert np.array(evaluation.diversity.double_fault).shape == (kept, kept)
    assert any(f"first {MATRIX_MEMBERS} of" in line for line in evaluation.warnings) == (members > MATRIX_MEMBERS)


def test_of_very_many_members_as_many_at_equal_distances_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judged(300)
    monkeypatch.setattr(diversity, "PAIRED_MEMBERS", 150)
    some = judged(300)
    for one, other in zip(whole.diversity.measures, some.diversity.measures, strict=True):
        assert one.name == other.name
        assert other.mean == pytest.approx(one.mean, abs=0.03, nan_ok=True)
    assert some.diversity.disagreement == whole.diversity.disagreement
    assert some.diversity.double_fault == whole.diversity.double_fault
    assert any("over all pairs of 150 members at equal distances" in line for line in some.warnings)
    assert any(line.endswith("over all pairs") for line in whole.warnings)


def test_size_grows_with_members_not_with_pairs() -> None:
    few, many = (len(json.dumps(judged(count).to_json())) for count in (200, 800))
    assert many < 4.5 * few


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_what_members_share_is_counted_once(order: tuple[int, ...]) -> None:
    """In any order, also where a member of an earlier version says nothing of it; without a network nobody knows."""
    facts = [MemberFacts(0, "a", 110, 1.0, 1, 100), MemberFacts(1, "a", 110, 1.0, 1), MemberFacts(2, "b", 7, 1.0, 1)]
    assert parameters_of([facts[k] for k in order]) == 100 + 10 + 10 + 7
    assert np.isnan(parameters_of([*facts, MemberFacts(3, "c", 0, 0.0, 0)]))
