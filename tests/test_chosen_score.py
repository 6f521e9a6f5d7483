"""The score for unknown images: fixed before, or chosen on one set that is named for it, and never by what it is judged on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy import stats
from sklearn.metrics import roc_auc_score

import ensemble
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.errors import ConfigError, PeekingError
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.set_votes import HowToVote
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.unknown_images import MAX_PROBABILITY, choose_score, scores_of
from ensemble.events import Event
from ensemble.inference.abstaining import silence, unknown_rule
from ensemble.inference.trained import load_ensemble
from ensemble.report.html import write_report
from ensemble.report.paper_tables import write_tables
from ensemble.results.judging import judge
from ensemble.run.later_votes import vote_later
from ensemble.run.run import RunOutcome, judge_again
from ensemble.storage import RunFolder
from tests.test_further_sets import CONFIG, STRIPED, run, said, votes

SCORES = ("max probability", "entropy", "mutual information", "agreement")


def files(folder: Path) -> dict[str, Any]:
    """Two sources of images that are no digits: noise, and blobs."""
    folder.mkdir(parents=True, exist_ok=True)
    draw, labels = np.random.default_rng(0), np.arange(60) % 10
    noise = draw.integers(0, 255, (60, 28, 28)).astype(np.uint8)
    blobs = np.zeros((60, 28, 28), np.uint8)
    for n in range(60):
        blobs[n, n % 20 : n % 20 + 8, 4:24] = 200
    for name, images in (("noise", noise), ("blobs", blobs)):
        np.savez(folder / f"{name}.npz", train_images=images, train_labels=labels, test_images=images[:20], test_labels=labels[:20])  # fmt: skip
    return {
        name: {"name": name, "kind": "unknown", "data": {"name": "arrays", "path": str(folder / f"{name}.npz")}}
        for name in ("noise", "blobs")
    }


def experiment(root: Path, *sets: dict[str, Any], **changes: Any) -> Any:
    return parse_experiment({**CONFIG, "output_dir": str(root), "evaluation": {"sets": sets}, **changes})


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    root = tmp_path_factory.mktemp("chosen")
    given = files(root / "files")
    return run(experiment(root, {**given["noise"], "chooses_score": True}, given["blobs"], STRIPED))


def entropy(probs: np.ndarray) -> np.ndarray:
    return stats.entropy(probs, axis=1)


def recomputed(known: np.ndarray, unknown: np.ndarray) -> dict[str, float]:
    """The area of every score, with nothing of ours."""
    both = np.concatenate([known, unknown], axis=1).astype(np.float64)
    mean = both.mean(0)
    found = {
        "max probability": mean.max(1), "entropy": -entropy(mean),
        "mutual information": -(entropy(mean) - np.mean([entropy(one) for one in both], axis=0)),
        "agreement": np.mean([one.argmax(1) == mean.argmax(1) for one in both], axis=0),
    }  # fmt: skip
    is_known = np.r_[np.ones(known.shape[1]), np.zeros(unknown.shape[1])]
    return {name: roc_auc_score(is_known, score.round(9)) for name, score in found.items()}


def test_it_is_the_one_that_tells_that_set_best_from_validation_images(chosen: RunOutcome) -> None:
    kept = [np.load(chosen.path / f"members/{m:04d}/votes.npz") for m in range(3)]
    cast = votes(chosen.path, "noise", 0)
    areas = recomputed(np.stack([one["validation_NK"] for one in kept]), np.stack([cast[m] for m in range(3)]))
    best = max(areas, key=areas.__getitem__)
    assert len({round(area, 4) for area in areas.values()}) > 1
    assert [(one.name, one.chosen, one.chosen_on) for one in chosen.evaluation.unknown] == [
        (name, best, "noise") for name in ("blobs", "noise", "striped")
    ]
    for one in chosen.evaluation.unknown:
        score = next(score for score in one.scores if score.score == best)
        assert score.p_holm == score.p_value


def test_without_such_a_set_it_is_fixed_before(chosen: RunOutcome, tmp_path: Path) -> None:
    given = files(tmp_path / "files")
    found = run(experiment(tmp_path, given["noise"], given["blobs"], STRIPED)).evaluation.unknown
    assert {(one.chosen, one.chosen_on) for one in found} == {(MAX_PROBABILITY, "")}
    for one, other in zip(found, chosen.evaluation.unknown, strict=True):
        assert [score.auroc for score in one.scores] == [score.auroc for score in other.scores]


def made_up(seed: int, members: int = 4, rows: int = 200) -> np.ndarray:
    exp = np.exp(np.random.default_rng(seed).normal(0, 2, (members, rows, 5)))
    return (exp / exp.sum(-1, keepdims=True)).astype(np.float32)


def test_any_score_can_come_out_first_and_equal_ones_are_the_first() -> None:
    how, known = HowToVote("soft", None, 0), np.full((4, 50, 5), 0.05, np.float32)
    known[..., 0] = 0.8
    labels = np.zeros(50, np.int64)
    validation = SplitVotes("validation", known, labels)
    split = known.copy()  # each member as sure as on known images, of a class of its own
    for m in range(4):
        split[m] = np.roll(known[m], m, axis=1)
    found = scores_of(np.concatenate([known, split], axis=1), how)
    assert choose_score(validation, split, how) == next(iter(found))  # all tell them apart
    flat = np.full_like(known, 0.2)  # nobody knows anything, and all agree on that
    assert choose_score(validation, flat, how) == "max probability"
    unsure = known.copy()
    unsure[::2] = np.roll(known[::2], 1, axis=2)
    mixed = np.concatenate([known[:, :25], unsure[:, :25]], axis=1)
    areas = recomputed(known, mixed)
    assert areas[choose_score(validation, mixed, how)] == max(areas.values())
    for seed in range(12):
        known, unknown = made_up(seed), made_up(seed + 100)
        areas = recomputed(known, unknown)
        picked = choose_score(SplitVotes("validation", known, np.zeros(200, np.int64)), unknown, how)
        assert areas[picked] == pytest.approx(max(areas.values()), abs=1e-6)


def test_test_votes_choose_nothing() -> None:
    known = made_up(1)
    with pytest.raises(PeekingError):
        choose_score(SplitVotes("test", known, np.zeros(200, np.int64)), made_up(2), HowToVote("soft", None, 0))


def test_poisoned_test_votes_change_no_choice(chosen: RunOutcome, tmp_path: Path) -> None:
    from ensemble.results import voters as reading
    from ensemble.results.further_sets import with_sets
    from ensemble.results.judging import judge_voters

    folder = RunFolder.read(chosen.path)
    voters = reading.load_voters(folder)
    generator = np.random.default_rng(0)
    for member in voters.members:
        member.votes.test_NK[:] = generator.permutation(member.votes.test_NK, axis=1)
    found = with_sets(judge_voters(voters), voters, folder).unknown
    assert {one.chosen for one in found} == {one.chosen for one in chosen.evaluation.unknown}
    assert found[0].scores[0].auroc != chosen.evaluation.unknown[0].scores[0].auroc


def test_it_is_said_in_words_everywhere(chosen: RunOutcome, tmp_path: Path) -> None:
    out = CliRunner().invoke(main, ["evaluate", str(chosen.path)], catch_exceptions=False).output
    text = re.sub(r"\s+", " ", out)
    assert "(the score was chosen on this very set, which flatters it) with AUROC" in text
    assert text.count("(the score was chosen on noise) with AUROC") == 2
    page = Path(write_report([chosen.path], None)).read_text()
    assert page.count("was chosen on noise and validation images, not on these") == 2
    assert page.count("was chosen on this very set and validation images, so its figures here are too good") == 1
    written = {path.name: path.read_text() for path in write_tables(chosen.evaluation, tmp_path)}
    assert "was chosen on this very set, so its figures here are too good." in written["unknown_noise.tex"]
    assert "was chosen on noise." in written["unknown_blobs.tex"]
    record = chosen.evaluation.to_json()
    assert [one["chosen_on"] for one in record["unknown"]] == ["noise"] * 3
    for one in record["unknown"]:
        del one["chosen_on"]
    assert Evaluation.from_json(record).unknown[0].chosen_on == ""  # as earlier versions wrote it


def test_predict_calls_unknown_by_it(chosen: RunOutcome, tmp_path: Path) -> None:
    trained = load_ensemble(chosen.path, device="cpu")
    rule = unknown_rule(trained.vote)
    assert (rule.score.score, rule.score.on) == (chosen.evaluation.unknown[0].chosen, "noise")
    assert [name for name, _ in rule.caught] == ["blobs", "striped"]  # not the set that chose it
    given = np.random.default_rng(3).integers(0, 255, (30, 28, 28)).astype(np.uint8)
    probs_MNK = trained.member_probs(given)
    own = scores_of(probs_MNK, HowToVote("soft", None, 0))[rule.score.score]
    calibration = votes(chosen.path, "calibration", 0)
    known = scores_of(np.stack([calibration[m] for m in range(3)]), HowToVote("soft", None, 0))[rule.score.score]
    threshold = np.sort(known)[int(0.05 * (len(known) - 1))]
    np.testing.assert_array_equal(trained.is_unknown(given), own < threshold - 1e-6)
    Image.fromarray(given[0]).save(tmp_path / "noise.png")
    result = CliRunner().invoke(main, ["predict", str(chosen.path), str(tmp_path / "noise.png"), "--unknown", "--json"])
    assert f"by the score that the run chose on noise, {rule.score.score}" in result.stderr
    assert json.loads(result.stdout)[0]["unknown"] == trained.is_unknown([tmp_path / "noise.png"])[0]


def test_another_vote_than_the_judged_one_keeps_the_fixed_score(chosen: RunOutcome) -> None:
    assert unknown_rule(load_ensemble(chosen.path, aggregator="geometric").vote).score.score == MAX_PROBABILITY


@pytest.mark.parametrize("score", SCORES)
def test_the_exported_rules_are_those_that_the_file_can_follow(
    chosen: RunOutcome, monkeypatch: pytest.MonkeyPatch, score: str
) -> None:
    from ensemble.inference import abstaining

    judged = abstaining._judged_unknown(load_ensemble(chosen.path).vote)
    fixed = tuple(type(one)(**{**vars(one), "chosen": score}) for one in judged)
    monkeypatch.setattr(abstaining, "_judged_unknown", lambda _vote: fixed)
    vote = load_ensemble(chosen.path).vote
    found = silence(vote)["unknown"]
    known = vote.known.decision
    assert found["confidence"] == np.quantile(known.confidences_N, 0.05, method="lower")
    assert ("entropy" in found) == (score == "entropy")
    if score == "entropy":
        assert found["entropy"] == pytest.approx(np.quantile(entropy(known.probs_NK), 0.95, method="higher"), abs=1e-6)
        assert found["score_chosen_on"] == "noise"


def test_a_set_of_a_finished_run_can_choose_later_and_another_after_it(tmp_path: Path) -> None:
    given = files(tmp_path / "files")
    outcome = run(experiment(tmp_path, given["blobs"]))
    plain = (outcome.path / "votes/blobs/set.json").read_bytes()
    assert b"chooses_score" not in plain
    sets = tmp_path / "sets.yaml"
    sets.write_text(json.dumps({"evaluation": {"sets": [{**given["noise"], "chooses_score": True}]}}))
    vote_later(outcome.path, [str(sets)])
    assert {one.chosen_on for one in judge(RunFolder.read(outcome.path)).unknown} == {"noise"}
    before = (outcome.path / "votes/noise/0000.npz").read_bytes()
    heard: list[Event] = []
    again = run(experiment(tmp_path, {**given["blobs"], "chooses_score": True}), heard)
    assert {one.chosen_on for one in again.evaluation.unknown} == {"blobs"}
    assert "set blobs: the score for unknown images is now chosen on it" in said(heard)
    assert "set noise: the score for unknown images is no longer chosen on it" in said(heard)
    assert (outcome.path / "votes/noise/0000.npz").read_bytes() == before
    back = run(experiment(tmp_path, given["blobs"]))
    assert {one.chosen_on for one in back.evaluation.unknown} == {""}
    assert (outcome.path / "votes/blobs/set.json").read_bytes() == plain
    assert judge_again(outcome.path).unknown == back.evaluation.unknown


def test_a_set_that_is_not_complete_chooses_nothing_and_that_is_said(chosen: RunOutcome, tmp_path: Path) -> None:
    from ensemble.storage.set_store import SetStore

    given = files(tmp_path / "files")
    outcome = run(experiment(tmp_path, {**given["noise"], "chooses_score": True}, STRIPED))
    with RunFolder.open(tmp_path, "run", RunFolder.read(outcome.path).config(), {}) as folder:
        store = SetStore(folder)
        facts = store.facts("noise")
        store.save(facts, 0, {one: cast for one, cast in store.votes(facts, 0).items() if one != 1})
    found = judge(RunFolder.read(outcome.path))
    assert [(one.name, one.chosen, one.chosen_on) for one in found.unknown] == [("striped", MAX_PROBABILITY, "")]
    assert any("set noise cannot choose the score for unknown images" in line for line in found.warnings)


@pytest.mark.parametrize(
    ("sets", "said_of"),
    [
        (({"name": "a", "kind": "shifted", "corruptions": ({"stripe": ()},), "chooses_score": True},), "this set is shifted"),
        (({**STRIPED, "chooses_score": True},), "the run's test images choose nothing"),
        (
            tuple({"name": name, "kind": "unknown", "data": {"name": "digits"}, "chooses_score": True} for name in ("a", "b")),
            "a and b both have chooses_score",
        ),
    ],
)  # fmt: skip
def test_what_cannot_choose_is_refused(tmp_path: Path, sets: Any, said_of: str) -> None:
    with pytest.raises(ConfigError, match=said_of):
        experiment(tmp_path, *sets)


def test_a_loaded_run_says_it(chosen: RunOutcome) -> None:
    images = np.random.default_rng(1).integers(0, 255, (10, 28, 28)).astype(np.uint8)
    loaded = ensemble.load(chosen.path)
    np.testing.assert_array_equal(loaded.is_unknown(images), load_ensemble(chosen.path).is_unknown(images))
