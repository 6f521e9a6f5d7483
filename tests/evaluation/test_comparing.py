"""Systems on the same rows: the figures against independent implementations, and what the joint vote is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.comparing import Comparison, System, compare, single_system
from ensemble.report.compared import sentence

ROWS, CLASSES = 400, 5
LABELS = np.random.default_rng(1).integers(0, CLASSES, ROWS)


def probabilities(seed: int, skill: float) -> np.ndarray:
    """Votes of a classifier that is right the more often the higher its skill."""
    scores = np.random.default_rng(seed).normal(size=(ROWS, CLASSES))
    scores[np.arange(ROWS), LABELS] += skill
    exp = np.exp(scores)
    return exp / exp.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def members() -> np.ndarray:
    return np.stack([probabilities(seed, 1.5) for seed in range(3)])


@pytest.fixture(scope="module")
def comparison(members: np.ndarray) -> Comparison:
    run = System("run", "run", decide("soft", members), members, 0.2, 30.0)
    return compare(
        [run, single_system("a", "member", members[0]), single_system("b", "file", probabilities(9, 1.0))], LABELS, "x"
    )


def wrong(probs: np.ndarray) -> np.ndarray:
    return probs.argmax(axis=1) != LABELS


def test_lines_are_tested_against_the_reference(comparison: Comparison, members: np.ndarray) -> None:
    reference = wrong(members.mean(axis=0))
    p_values = []
    for line, probs in zip(comparison.lines[1:3], (members[0], probabilities(9, 1.0)), strict=True):
        mine = wrong(probs)
        table = [
            [(reference & mine).sum(), (reference & ~mine).sum()],
            [(~reference & mine).sum(), (~reference & ~mine).sum()],
        ]
        assert line.p_value == pytest.approx(mcnemar(table, exact=True).pvalue, rel=1e-12)
        assert (line.only_this_wrong, line.only_reference_wrong) == (table[1][0], table[0][1])
        assert line.wrong == mine.sum()
        assert line.difference == pytest.approx((mine.sum() - reference.sum()) / ROWS, abs=1e-15)
        assert line.difference_lower < line.difference < line.difference_upper
    p_values = [line.p_value for line in comparison.lines[1:]]
    adjusted = multipletests(p_values, method="holm")[1]
    assert [line.p_holm for line in comparison.lines[1:]] == pytest.approx(list(adjusted), rel=1e-12)
    assert math.isnan(comparison.lines[0].p_value)
    assert comparison.lines[0].only_this_wrong is None


def test_pairs_are_a_family_of_their_own(comparison: Comparison, members: np.ndarray) -> None:
    assert [(pair.first, pair.second) for pair in comparison.pairs] == [("run", "a"), ("run", "b"), ("a", "b")]
    a, b = wrong(members[0]), wrong(probabilities(9, 1.0))
    last = comparison.pairs[-1]
    assert (last.only_first_wrong, last.only_second_wrong) == ((a & ~b).sum(), (~a & b).sum())
    adjusted = multipletests([pair.p_value for pair in comparison.pairs], method="holm")[1]
    assert [pair.p_holm for pair in comparison.pairs] == pytest.approx(list(adjusted), rel=1e-12)


def test_joint_votes_give_each_system_or_each_network_one_voice(comparison: Comparison, members: np.ndarray) -> None:
    by_system, by_network = comparison.lines[3:]
    other = probabilities(9, 1.0)
    assert by_system.name == "joint vote of 3 systems"
    assert by_system.wrong == wrong((members.mean(axis=0) + members[0] + other) / 3).sum()
    assert (by_network.name, by_network.voters) == ("joint vote of 5 networks", 5)
    assert by_network.wrong == wrong((members.sum(axis=0) + members[0] + other) / 5).sum()


def test_single_models_have_one_joint_vote_and_json_has_no_nan(members: np.ndarray) -> None:
    compared = compare([single_system(str(m), "member", members[m]) for m in range(3)], LABELS, "x", reference=1)
    assert [line.kind for line in compared.lines] == ["member"] * 3 + ["joint"]
    record = compared.to_json()
    assert record["reference"] == "1"
    assert record["lines"][1]["p_value"] is None
    assert record["lines"][0]["p_value"] == compared.lines[0].p_value


def test_bare_classes_have_no_log_loss():
    """Probabilities of 0 and 1 that are wrong somewhere, from a file; of a joint vote that counts votes neither."""
    bare = np.eye(CLASSES)[(LABELS + (np.arange(ROWS) < 7)) % CLASSES]
    found = compare(
        [single_system("bare", "file", bare), single_system("soft", "file", probabilities(3, 1.0))], LABELS, "x", "hard"
    )
    by_name = {line.name: line for line in found.lines}
    assert math.isnan(by_name["bare"].nll)
    assert by_name["soft"].nll > 0
    assert math.isnan(by_name["joint vote of 2 systems"].nll)
    assert found.to_json()["lines"][0]["nll"] is None


def test_no_sentence_contradicts_its_interval():
    """Where the adjustment for all lines takes a verdict back, the sentence says so."""
    generator = np.random.default_rng(5)
    taken_back = 0
    for _ in range(60):
        shift = generator.uniform(0.8, 1.6, 4)
        systems = [
            single_system(f"s{i}", "file", probabilities(int(generator.integers(1e6)), s)) for i, s in enumerate(shift)
        ]
        comparison = compare(systems, LABELS, "x")
        for line in comparison.lines[1:]:
            text = sentence(comparison, line)
            excludes = line.difference_lower > 0 or line.difference_upper < 0
            assert excludes == (line.p_value < 0.05)
            assert ("is not distinguishable" in text) == (line.p_holm >= 0.05)
            assert ("by itself it would be" in text) == (excludes and "is not distinguishable" in text)
            assert ("is better than" in text) <= (line.difference_upper < 0)
            taken_back += "by itself" in text
    assert taken_back
