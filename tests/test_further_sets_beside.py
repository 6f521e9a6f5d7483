"""The networks that do not vote, baseline and controls, on further sets: asked with the members, judged each by a test of its own."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats
from sklearn.metrics import roc_auc_score

from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.roc import false_positive_rate
from ensemble.events import Event
from ensemble.executors.base import Outcome
from ensemble.report.card import model_card
from ensemble.report.further_wording import long_lines
from ensemble.report.html import write_report
from ensemble.report.paper_tables import write_tables
from ensemble.results.further_sets import with_sets
from ensemble.results.judging import judge, judge_voters
from ensemble.results.voters import load_voters
from ensemble.run.later_votes import vote_later
from ensemble.run.run import RunOutcome, judge_again
from ensemble.storage import RunFolder
from ensemble.storage.set_store import SetStore
from ensemble.tracking.figures import ENSEMBLE
from ensemble.tracking.wandb_evaluation import figures, tables
from ensemble.training.set_votes import SetVoter
from ensemble.types import Failure
from tests.test_further_sets import CHANGED, CONFIG, STRIPED, Interrupted, run, said, set_files, votes

TWO_PARTS = {**CHANGED, "corruptions": ({"identity": ()}, {"stripe": ()})}
WITH_CONTROLS: dict[str, Any] = {
    **CONFIG, "num_members": 2, "controls": ("longer", "wider"),
    "evaluation": {"sets": (TWO_PARTS, {**STRIPED, "kind": "shifted", "name": "one_part"}, STRIPED)},
}  # fmt: skip
BESIDE = {"baseline": 2, "longer": 3, "wider": 4}  # their places behind the members'
FOLDERS = {"baseline": "baseline", "longer": "controls/longer", "wider": "controls/wider"}


def experiment(root: Path, **changes: Any) -> Any:
    return parse_experiment({**WITH_CONTROLS, "output_dir": str(root), **changes})


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return run(experiment(tmp_path_factory.mktemp("runs")))


def test_they_say_of_unchanged_images_what_they_said_of_the_test_images(done: RunOutcome) -> None:
    unchanged = votes(done.path, "changed", 0)
    assert sorted(unchanged) == [0, 1, *BESIDE.values()]
    for which, index in BESIDE.items():
        np.testing.assert_array_equal(unchanged[index], np.load(done.path / FOLDERS[which] / "votes.npz")["test_NK"])
        assert not np.array_equal(votes(done.path, "changed", 1)[index], unchanged[index])


def test_every_figure_of_theirs_on_shifted_images_is_recomputed_from_the_files(done: RunOutcome) -> None:
    for found, parts in zip(done.evaluation.shifted, (2, 1), strict=True):
        labels_N = np.load(done.path / f"votes/{found.name}/labels.npz")["labels_N"]
        assert [one.which for one in found.beside] == list(BESIDE)
        cast = [votes(done.path, found.name, number) for number in range(parts)]
        vote_N = np.mean([np.mean([one[0], one[1]], 0).argmax(1) != labels_N for one in cast], 0)
        for one in found.beside:
            probs = [part[BESIDE[one.which]].astype(np.float64) for part in cast]
            wrong_PN = np.array([given.argmax(1) != labels_N for given in probs])
            for part, wrong_N in zip(found.parts, wrong_PN, strict=True):
                assert getattr(part, f"{one.which}_error") == wrong_N.mean()
            alone_N = wrong_PN.mean(0)
            assert one.error == pytest.approx(alone_N.mean(), abs=1e-15)
            assert one.difference == pytest.approx(vote_N.mean() - alone_N.mean(), abs=1e-15)
            right = [given[np.arange(len(labels_N)), labels_N] for given in probs]
            assert one.nll == pytest.approx(np.mean([-np.log(p) for p in right]), abs=1e-5)
            if parts == 1:
                b, c = int((vote_N > alone_N).sum()), int((vote_N < alone_N).sum())
                assert one.p_value == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1.0, abs=1e-12)
                wilson = stats.binomtest(int(alone_N.sum()), len(labels_N)).proportion_ci(method="wilson")
                assert (one.lower, one.upper) == pytest.approx((wilson.low, wilson.high), abs=1e-9)
                continue
            rows = np.random.default_rng(4).integers(0, len(labels_N), (4000, len(labels_N)))
            drawn, own = (vote_N - alone_N)[rows].mean(1), alone_N[rows].mean(1)
            np.testing.assert_allclose(
                [one.difference_lower, one.difference_upper], np.quantile(drawn, [0.025, 0.975]), atol=0.004
            )
            np.testing.assert_allclose([one.lower, one.upper], np.quantile(own, [0.025, 0.975]), atol=0.006)
            assert (one.difference_lower > 0 or one.difference_upper < 0) == (one.p_value < 0.05)


def test_every_figure_of_theirs_on_unknown_images_is_recomputed_from_the_files(done: RunOutcome) -> None:
    (found,) = done.evaluation.unknown
    cast = votes(done.path, "striped", 0)
    known = np.mean([np.load(done.path / f"members/{m:04d}/votes.npz")["test_NK"] for m in range(2)], 0).max(1)
    unknown = np.mean([cast[0], cast[1]], 0).max(1)
    is_known = np.r_[np.ones(len(known)), np.zeros(len(unknown))]
    assert [one.which for one in found.beside] == list(BESIDE)
    for one in found.beside:
        own = np.load(done.path / FOLDERS[one.which] / "votes.npz")["test_NK"].max(1).astype(np.float64)
        other = cast[BESIDE[one.which]].max(1).astype(np.float64)
        area = roc_auc_score(is_known, np.r_[own, other])
        assert one.auroc == pytest.approx(area, abs=1e-12)
        assert one.difference == pytest.approx(roc_auc_score(is_known, np.r_[known, unknown]) - area, abs=1e-4)
        assert one.fpr95 == false_positive_rate(own, other)
        assert one.lower < one.auroc < one.upper
        assert (one.difference_lower > 0 or one.difference_upper < 0) == (one.p_value < 0.05)
        assert one.score == "max probability"


def test_their_names_are_those_of_the_leaderboard(done: RunOutcome) -> None:
    rows = {row.kind: row.name for row in done.evaluation.leaderboard}
    for found in (*done.evaluation.shifted, *done.evaluation.unknown):
        assert {one.which: one.name for one in found.beside} == {which: rows[which] for which in BESIDE}


def test_the_judgement_reads_its_own_json_and_one_without_them(done: RunOutcome) -> None:
    record = done.evaluation.to_json()
    again = Evaluation.from_json(record)
    assert again.shifted[0].beside == done.evaluation.shifted[0].beside
    for one in (*record["shifted"], *record["unknown"]):
        del one["beside"]
    for part in record["shifted"][0]["parts"]:
        del part["longer_error"], part["wider_error"]
    earlier = Evaluation.from_json(record)
    assert [one.beside for one in (*earlier.shifted, *earlier.unknown)] == [(), (), ()]


def test_terminal_page_card_tables_and_dashboard_have_them(done: RunOutcome, tmp_path: Path) -> None:
    told = CliRunner().invoke(main, ["evaluate", str(done.path), "--all"], catch_exceptions=False).output
    text = re.sub(r"\s+", " ", told)
    page = Path(write_report([done.path], None)).read_text()
    card = model_card(done.path)
    written = {path.name: path for path in write_tables(done.evaluation, tmp_path)}
    flat = figures(json.loads((done.path / "evaluation.json").read_text()))
    described = {figure.name for figure in ENSEMBLE}
    for kind, key in (("shifted", "error"), ("unknown", "auroc")):
        for found in getattr(done.evaluation, kind):
            table = written[f"{kind}_{found.name}_one_network.csv"].read_text()
            rows = list(csv.DictReader(io.StringIO(table)))
            assert f"{kind}_{found.name}_one_network.tex" in written
            for one, row in zip(found.beside, rows, strict=True):
                assert f"{kind.capitalize()}, {found.name}: {one.name}" in text
                assert float(row[key]) == getattr(one, key)
                assert flat[f"{kind}/{found.name}/{one.which}_{key}"] == getattr(one, key)
                assert f"{kind}/*/{one.which}_{key}" in described
                assert f"the same of {one.name}" in card
    assert page.count("one network that does not vote") == 3
    assert {"shifted_one_network", "unknown_one_network"} <= {
        table.name for table in tables(done.evaluation.to_json(), {})
    }


def test_a_start_after_a_kill_lets_them_vote_on_what_is_missing(done: RunOutcome, tmp_path: Path) -> None:
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run(experiment(tmp_path), executor=Interrupted(2))
    heard: list[Event] = []
    whole = run(experiment(tmp_path), heard)
    assert set_files(whole.path) == set_files(done.path)
    assert whole.evaluation.shifted == done.evaluation.shifted
    assert whole.evaluation.unknown == done.evaluation.unknown


@pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
def test_later_they_vote_as_at_training_inline_and_on_ray(done: RunOutcome, tmp_path: Path) -> None:
    sets = tmp_path / "sets.yaml"
    sets.write_text(json.dumps({"evaluation": {"sets": WITH_CONTROLS["evaluation"]["sets"]}}))
    for place in ("inline", "ray"):
        outcome = run(experiment(tmp_path, name=place, evaluation={"sets": ()}))
        vote_later(outcome.path, [str(sets)], place)
        assert set_files(outcome.path) == set_files(done.path)
        assert judge_again(outcome.path).shifted == done.evaluation.shifted


def test_a_run_whose_controls_were_not_asked_yet_is_judged_without_them_and_says_so(
    done: RunOutcome, tmp_path: Path
) -> None:
    """As earlier versions left it, which asked members and baseline alone."""
    outcome = run(experiment(tmp_path))
    with RunFolder.open(tmp_path, "run", RunFolder.read(outcome.path).config(), {}) as folder:
        store = SetStore(folder)
        for name in ("changed", "striped"):
            facts = store.facts(name)
            for number in range(len(facts.parts)):
                kept = store.votes(facts, number)
                store.save(facts, number, {one: cast for one, cast in kept.items() if one < BESIDE["longer"]})
    found = judge(RunFolder.read(outcome.path))
    assert [one.which for one in found.shifted[0].beside] == ["baseline"]
    assert [one.which for one in found.unknown[0].beside] == ["baseline"]
    assert [one.which for one in found.shifted[1].beside] == list(BESIDE)
    assert found.shifted[0].parts[0].vote_error == done.evaluation.shifted[0].parts[0].vote_error
    said_of = [line for line in found.warnings if "not compared with" in line]
    assert len(said_of) == 4
    assert "set changed: the vote is not compared with the control longer there" in said_of[0]
    assert "ensemble evaluate RUN --on changed" in said_of[0]
    heard: list[Event] = []
    assert run(experiment(tmp_path), heard).evaluation.shifted == done.evaluation.shifted
    assert set_files(outcome.path) == set_files(done.path)


def test_one_that_fails_costs_the_members_nothing(done: RunOutcome, tmp_path: Path) -> None:
    class Failing(Interrupted):
        def run(self, tasks: Any, train: Any, *others: Any) -> Any:
            for task in tasks:
                if isinstance(train, SetVoter) and task.members[0].index == BESIDE["wider"]:
                    yield Outcome(task, (), (Failure(BESIDE["wider"], "error", "no such thing"),))
                else:
                    yield from Interrupted.run(self, [task], train, *others)

    heard: list[Event] = []
    outcome = run(experiment(tmp_path), heard, Failing(-1))
    assert "the control wider did not vote on all further sets (error: no such thing)" in said(heard)
    for found in (*outcome.evaluation.shifted, *outcome.evaluation.unknown):
        assert [one.which for one in found.beside] == ["baseline", "longer"]
    assert outcome.evaluation.shifted[0].vote_error == done.evaluation.shifted[0].vote_error


def test_promises_are_tried_with_unknown_images_among_the_test_images(done: RunOutcome, tmp_path: Path) -> None:
    """By hand from the stored votes; of a run of a day's training the thresholds would be others, so they are set here."""
    folder = RunFolder.read(done.path)
    voters = load_voters(folder)
    evaluation = judge_voters(voters)
    given = tuple(
        replace(one, threshold=0.3 + 0.1 * place, risk=0.2) for place, one in enumerate(evaluation.selective.promises)
    )
    nothing = replace(given[0], threshold=float("nan"))
    evaluation = replace(evaluation, selective=replace(evaluation.selective, promises=(nothing, *given)))
    found = with_sets(evaluation, voters, folder)
    (unknown,) = found.unknown
    labels_N = np.load(done.path / "labels.npz")["test_labels_N"]
    test_NK = np.mean([np.load(done.path / f"members/{m:04d}/votes.npz")["test_NK"] for m in range(2)], 0)
    cast = votes(done.path, "striped", 0)
    other = np.mean([cast[0], cast[1]], 0).max(1)
    right = test_NK.argmax(1) == labels_N
    assert len(unknown.mixed) == len(given)
    for one, promise in zip(unknown.mixed, given, strict=True):
        known, taken = test_NK.max(1) >= promise.threshold, other >= promise.threshold
        wrong, answered = int((known & ~right).sum() + taken.sum()), int(known.sum() + taken.sum())
        assert (one.kind, one.risk, one.threshold) == (promise.kind, 0.2, promise.threshold)
        assert one.answered == answered
        assert one.coverage == answered / (len(labels_N) + len(other))
        assert one.mixed_risk == wrong / answered
        assert one.accepted == taken.mean()
        wilson = stats.binomtest(wrong, answered).proportion_ci(method="wilson")
        assert (one.mixed_risk_lower, one.mixed_risk_upper) == pytest.approx((wilson.low, wilson.high), abs=1e-9)
        told = "kept" if wilson.high <= 0.2 else "broken" if wilson.low > 0.2 else "cannot be told"
        assert one.outcome == told
    assert Evaluation.from_json(found.to_json()).unknown[0].mixed == unknown.mixed
    lines = long_lines(found)
    assert any("(SCOD)" in line for line in lines)
    assert sum("with them among the test images the answers have an error of" in line for line in lines) == 1
    written = {path.name: path.read_text() for path in write_tables(found, tmp_path)}
    assert len(written["promises_with_striped.csv"].splitlines()) == 1 + len(given)
    assert "promises_with_unknown" in {table.name for table in tables(found.to_json(), {})}
