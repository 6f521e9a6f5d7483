"""Cross-validation ensembles trained, judged out of fold, resumed and shown."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.data import load_dataset, split_of
from ensemble.errors import DataError
from ensemble.evaluation.sections.out_of_fold import OutOfFoldResult
from ensemble.evaluation.statistics import wilson_interval
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.storage import RunFolder
from tests.test_run import CONFIG, Limited, digests, experiment, run

FOLDS: dict[str, Any] = {"method": {"name": "cross_validation", "folds": 3}, "num_members": 6, "compute": {**CONFIG["compute"], "stack_size": 3}}  # fmt: skip
MNIST_FREE = {"data": {"name": "digits", "max_train_rows": 500}}


def folded(root: Path, **changes: Any) -> RunOutcome:
    return run(experiment(root, **{**FOLDS, **MNIST_FREE, **changes}))


def found(outcome: RunOutcome) -> OutOfFoldResult:
    record = outcome.evaluation.section("out_of_fold")
    assert isinstance(record, OutOfFoldResult)
    return record


def recomputed(path: Path) -> dict[int, np.ndarray]:
    """By training row the mean of the members that did not train on it, from the files of the run alone: numpy, no code of ours."""
    said: dict[int, list[np.ndarray]] = {}
    for member in sorted((path / "members").iterdir()):
        with np.load(member / "votes.npz") as votes:
            for row, probs in zip(votes["rows"].tolist(), votes["rows_RK"], strict=True):
                said.setdefault(row, []).append(probs.astype(np.float64))
    return {row: np.mean(probs, axis=0) for row, probs in said.items()}


def test_out_of_fold_votes_are_what_the_files_of_the_members_say(tmp_path: Path) -> None:
    outcome = folded(tmp_path)
    labels, record, votes = RunFolder.read(outcome.path).load_labels(), found(outcome), recomputed(outcome.path)
    assert sorted(votes) == labels.train_rows.tolist()
    assert not set(votes) & set(labels.validation_rows.tolist())
    wrong = sum(int(votes[row].argmax() != labels.train_labels_N[row]) for row in votes)
    assert (record.wrong, record.rows, record.without_vote, record.mean_voters) == (wrong, len(labels.train_rows), 0, 2)
    assert 0 < record.error == wrong / record.rows < 0.6
    assert (record.lower, record.upper) == (
        wilson_interval(wrong, record.rows).lower,
        wilson_interval(wrong, record.rows).upper,
    )
    assert outcome.evaluation.out_of_bag is None
    assert [one.member for one in record.members] == list(range(6))
    assert sum(one.rows for one in record.members) == 2 * record.rows
    # In training a member is validated by its own fold.
    folder = RunFolder.read(outcome.path)
    for one in record.members:
        last = folder.load_member(one.member).history[-1]
        assert last.validation_error == pytest.approx(one.error, abs=1e-6)
    with (outcome.path / "predictions.csv").open(newline="") as file:
        lines = [one for one in csv.DictReader(file) if one["part"] == "out_of_fold"]
    assert [int(one["row"]) for one in lines] == sorted(votes)
    assert sum(one["right"] == "0" for one in lines) == wrong
    assert {one["disagreement"] for one in lines} <= {"0", "0.5", "1"}


def test_a_member_is_the_one_that_is_trained_on_its_rows_alone(tmp_path: Path) -> None:
    """Neighbours with other folds in its stack change nothing, in training or in validating: but for the rounding of other kernels."""
    paths = [
        folded(tmp_path / str(size), compute={**CONFIG["compute"], "stack_size": size}, num_members=3).path
        for size in (3, 1)
    ]
    for member in range(3):
        one, other = (RunFolder.read(path).load_member(member) for path in paths)
        np.testing.assert_array_equal(one.votes.rows, other.votes.rows)
        np.testing.assert_allclose(one.votes.rows_RK, other.votes.rows_RK, atol=1e-4)
        for epoch, again in zip(one.history, other.history, strict=True):
            assert epoch.validation_loss == pytest.approx(again.validation_loss, abs=1e-4)


def test_the_epoch_that_is_kept_is_the_best_on_the_fold(tmp_path: Path) -> None:
    training = {"epochs": 5, "lr": 0.1, "batch_size": 16, "keep": "best_validation_error"}
    outcome = folded(tmp_path, training=training)
    folder, record = RunFolder.read(outcome.path), found(outcome)
    kept = []
    for one in record.members:
        member = folder.load_member(one.member)
        errors = [epoch.validation_error for epoch in member.history]
        assert min(errors) == errors[member.kept_epoch - 1] == pytest.approx(one.error, abs=1e-6)
        kept.append(member.kept_epoch)
    assert set(kept) != {5}
    assert record.chose
    said = CliRunner().invoke(main, ["evaluate", str(outcome.path), "--all"]).output
    assert "a little too small" in " ".join(said.split())


def test_an_interrupted_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    folded(tmp_path / "a")
    config = experiment(tmp_path / "b", **FOLDS, **MNIST_FREE)
    with pytest.raises(KeyboardInterrupt):
        run(config, lambda *_: Limited(1))
    run(config)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_rows_whose_members_failed_have_no_vote(tmp_path: Path) -> None:
    """A member that diverges leaves its fold without a vote in a single cross-validation."""
    config = experiment(tmp_path, **{**FOLDS, **MNIST_FREE, "num_members": 3, "failures": {"policy": "drop"}})
    outcome = run(config)
    folder = RunFolder.read(outcome.path)
    votes = folder.load_member(1).votes
    from ensemble.evaluation.out_of_bag import OutOfBag
    from ensemble.evaluation.sections.out_of_fold import out_of_fold_result

    labels = folder.load_labels()
    members = [folder.load_member(m).votes for m in (0, 2)]
    without = OutOfBag(
        [m.rows for m in members], [m.rows_RK for m in members], labels.train_rows, labels.train_labels_N, True
    )
    record = out_of_fold_result(without, [0, 2], 10)
    assert record.without_vote == len(votes.rows)
    assert record.rows == len(labels.train_rows) - len(votes.rows)
    assert [one.member for one in record.members] == [0, 2]


def test_groups_of_rows_are_left_out_whole(tmp_path: Path) -> None:
    config = experiment(tmp_path, **{**FOLDS, "num_members": 3})
    whole = load_dataset(config.data)
    dataset = replace(whole, groups_N=np.arange(len(whole.train_labels_N)) // 7)
    outcome = run_ensemble(config, lambda *_: Limited(), lambda _: [], dataset)
    assert dataset.groups_N is not None
    train_rows = split_of(dataset, config.data, config.seed).train_rows
    seen = []
    for member in range(3):
        rows = RunFolder.read(outcome.path).load_member(member).votes.rows
        rest = np.setdiff1d(train_rows, rows)
        assert not np.isin(dataset.groups_N[rows], dataset.groups_N[rest]).any()
        seen.append(rows)
    np.testing.assert_array_equal(np.sort(np.concatenate(seen)), train_rows)


def test_too_few_groups_leave_no_folder_behind(tmp_path: Path) -> None:
    config = experiment(tmp_path, **{**FOLDS, "method": {"name": "cross_validation", "folds": 6}})
    whole = load_dataset(config.data)
    dataset = replace(whole, groups_N=np.arange(len(whole.train_labels_N)) % 6)
    with pytest.raises(DataError, match="cross_validation: found 5 groups"):
        run_ensemble(config, lambda *_: Limited(), lambda _: [], dataset)
    assert not list(tmp_path.iterdir())


def test_the_vote_is_compared_with_one_network_on_all_rows_unless_told_otherwise(tmp_path: Path) -> None:
    values = {**CONFIG, **FOLDS, **MNIST_FREE, "output_dir": str(tmp_path)}
    del values["baseline"]
    outcome = run(parse_experiment(values))
    assert outcome.evaluation.baseline is not None


def test_page_card_and_files_speak_of_folds(tmp_path: Path) -> None:
    outcome = folded(tmp_path)
    record = found(outcome)
    runner, at = CliRunner(), str(outcome.path)
    assert runner.invoke(main, ["report", at]).exit_code == 0
    page = (outcome.path / "report.html").read_text()
    assert "Each member on the fold that it left out" in page
    assert 'data-key="sections.out_of_fold.members.5.error"' in page
    assert (outcome.path / "tables/section_out_of_fold.csv").read_text().count("\n") == 7
    assert runner.invoke(main, ["evaluate", at, "--all"]).output.count("Out of fold: error") == 1
    from ensemble.tracking.event_log import read_events

    events = [event for _, event in read_events(outcome.path / "events.jsonl")]
    said = [str(getattr(event, "message", "")) for event in events]
    assert sum("3 folds of 500 training rows" in line for line in said) == 1
    assert events[-1].headline["out_of_fold/error"] == record.error  # type: ignore[attr-defined]


def test_scikit_learn_has_them_too() -> None:
    from sklearn.datasets import load_iris

    from ensemble import EnsembleClassifier

    X, y = load_iris(return_X_y=True)
    classifier = EnsembleClassifier(method="cross_validation", num_members=5, epochs=20, random_state=0).fit(X, y)
    assert classifier.score(X, y) > 0.85
    y_rare, X_rare = np.concatenate([y, [3, 3]]), np.concatenate([X, X[:2]])
    with pytest.raises(ValueError, match="all training rows of class 3 are one"):
        EnsembleClassifier(method="cross_validation", random_state=0).fit(X_rare, y_rare)
    with pytest.raises(ValueError, match="expected a multiple of 5"):
        EnsembleClassifier(method="cross_validation", num_members=4).fit(X, y)


@pytest.mark.parametrize(("launch", "executor"), [(("-m", "ensemble", "train"), "ray"), (("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29641", "-m", "ensemble.launch.accelerate_run"), "accelerate")])  # fmt: skip
def test_ray_and_launched_ranks_train_the_same_bits(tmp_path: Path, launch: tuple[str, ...], executor: str) -> None:
    folded(tmp_path / "here")
    values = {**CONFIG, **FOLDS, **MNIST_FREE, "output_dir": str(tmp_path / "there")}
    values["compute"] = {**values["compute"], "executor": executor, **({"slots": 2} if executor == "ray" else {})}
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(values))
    subprocess.run(
        [sys.executable, *launch, str(path)], check=True, timeout=300, env={**os.environ, "ACCELERATE_USE_CPU": "true"}
    )
    assert digests(tmp_path / "here") == digests(tmp_path / "there")
