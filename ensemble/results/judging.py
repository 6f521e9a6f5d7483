"""From a run folder to its evaluation: stored votes and labels in, figures out, no training code.

    evaluation = judge(RunFolder.read(Path("runs/my-run")))

The same function judges at the end of a run and years later, and gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ensemble.config.controls import TIMES, WIDTH, Control
from ensemble.config.method import MethodSection
from ensemble.config.schema import Aggregator, aggregator_problem
from ensemble.config.secrets import secret_in
from ensemble.errors import ConfigError, StorageError
from ensemble.evaluation.controls import ControlVotes
from ensemble.evaluation.evaluate import Baseline, evaluate
from ensemble.evaluation.out_of_bag import OutOfBag
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.shown_sections import section_numbers
from ensemble.evaluation.staged import StagedPoint, staged_errors
from ensemble.evaluation.written import plural
from ensemble.outside.long_work import working
from ensemble.outside.paths import given_path
from ensemble.results.further_sets import with_sets
from ensemble.results.voters import Voters, facts_of, load_voters
from ensemble.storage import RunFolder
from ensemble.storage.descriptions import JudgedConfig
from ensemble.storage.fetched_run import fetched_run
from ensemble.storage.listed_folder import is_file
from ensemble.storage.manifest import MANIFEST
from ensemble.storage.names import DATASET, DISPUTED, EVALUATION, METHOD, STAGED
from ensemble.storage.parsing import json_object
from ensemble.storage.remedies import unfit
from ensemble.storage.remote import is_address
from ensemble.types import MemberResult

__all__ = ["DATASET", "DISPUTED", "EVALUATION", "METHOD", "STAGED"]


def judge(folder: RunFolder, aggregator: Aggregator | None = None) -> Evaluation:
    """Judge the finished members of a run, on further sets too. `aggregator` replaces the configured headline vote.

    Raises QuorumError when fewer members finished than failures.min_members, StorageError when a file is damaged,
    ConfigError for a vote that there is not or that the run's method does not have.
    """
    voters = load_voters(folder)
    return with_sets(judge_voters(voters, aggregator), voters, folder)


def judge_voters(voters: Voters, aggregator: Aggregator | None = None) -> Evaluation:
    """The same for members whose votes are loaded already, on validation and test alone."""
    if aggregator is not None and (problem := aggregator_problem(aggregator, voters.config.method.name)):
        raise ConfigError(problem)
    with working("judging"):
        evaluation = evaluate(
            validation=voters.validation,
            test=voters.test,
            members=voters.facts,
            aggregator=aggregator or voters.config.aggregator,
            vote_weights_M=voters.weights_M,
            asked_members=voters.config.asked_members,
            dataset=voters.dataset.name,
            class_names=tuple(voters.dataset.class_names),
            out_of_bag=out_of_bag_of(voters),
            baseline=_baseline(voters.baseline),
            controls=[_control(name, found) for name, found in voters.controls.items()],
            calibration=voters.calibration,
        )
    return replace(evaluation, warnings=(*evaluation.warnings, *_left_out(voters)))


def _left_out(voters: Voters) -> list[str]:
    """What must be known of images that were left out because members train on them."""
    found = voters.dataset.pictures.duplicates if voters.dataset.pictures else {}
    return [
        f"{plural(count, f'{part} image')} left out, because training has the same, pixel for pixel (data.duplicates)"
        for part, count in found.items()
        if count
    ]


def stored_evaluation(folder: RunFolder) -> tuple[dict[str, Any], Evaluation]:
    """The judgement that the run keeps: as it lies on disk, and as records. Raises StorageError where there is none."""
    if not folder.has(EVALUATION):
        raise StorageError(
            f"{folder.path}: this run has not been judged yet (no {EVALUATION}); `ensemble evaluate --write` judges what has finished, its `ensemble train` finishes it"
        )
    where = folder.path / EVALUATION
    record = json_object(folder.read_bytes(EVALUATION), where)
    try:
        return record, Evaluation.from_json(record)
    except StorageError as error:
        raise StorageError(f"{where}: {error}") from error


def staged_points(folder: RunFolder, voters: Voters) -> tuple[StagedPoint, ...]:
    """The test error after every round of a method that weighs its members; empty for any other method.

    voters: those of this folder.
    """
    method = folder.method()
    if method.vote_weights is None:
        return ()
    positions = {member.index: position for position, member in enumerate(voters.members)}
    groups: dict[int, list[int]] = {}
    for kept in method.rounds:
        if unknown := set(kept.members) - positions.keys():
            raise unfit(folder.path / METHOD, f"member {min(unknown)} of a round has not finished")
        groups.setdefault(kept.round or 0, []).extend(positions[member] for member in kept.members)
    rounds = [groups[number] for number in sorted(groups)] or [[m] for m in range(len(positions))]
    assert voters.weights_M is not None, "the method has weights"
    return staged_errors(voters.test, voters.weights_M, rounds, _has(voters.config, "additive"))


def headline_figures(evaluation: Evaluation) -> dict[str, float]:
    """The figures a dashboard sorts by, and those of users' sections: rates as fractions; those that do not exist are left out."""
    vote, verdict = evaluation.headline, evaluation.verdict
    mean = next(row for row in evaluation.leaderboard if row.kind == "mean_member")
    figures = {
        "error/test": vote.test_error,
        "error/test_lower": vote.lower,
        "error/test_upper": vote.upper,
        "error/validation": vote.validation_error,
        "nll/test": vote.nll,
        "error/best_member": verdict.member_error,
        "error/mean_member": mean.test_error,
        "error/baseline": math.nan if evaluation.baseline is None else evaluation.baseline.baseline_error,
        **{f"error/{one.control}": one.control_error for one in evaluation.controls},
        "verdict/p_value": verdict.p_value,
    }
    return section_numbers(evaluation) | {name: value for name, value in figures.items() if math.isfinite(value)}


def find_run(name: str, root: Path) -> Path:
    """The folder of a run given as a path, as a name under `root`, or as an address, which is fetched first.

    A folder of that name that is no run does not hide a run under `root`. Raises StorageError for a path that cannot be
    looked at.
    """
    if is_address(name):
        if remedy := secret_in(name):
            raise ConfigError(f"RUN: {remedy}")
        return fetched_run(name)
    here, below = given_path(name, "RUN"), root / name
    if "/" in str(here) or is_file(here / MANIFEST):
        return here
    if is_file(below / MANIFEST):
        return below
    return here if here.is_dir() else below


def find_runs(words: Sequence[str], root: Path) -> list[Path]:
    """Runs as `find_run` finds them, and all runs in a folder that is none itself, by their names.

    Pages of this program among the words, as `runs/*` has them, are passed over.
    """
    found = []
    for word in words:
        path = find_run(word, root)
        if path.suffix == ".html" and path.is_file() and b'name="ensemble-report"' in path.read_bytes()[:4096]:
            continue
        below = [] if is_file(path / MANIFEST) or not path.is_dir() else sorted(path.iterdir())
        found += [one for one in below if is_file(one / MANIFEST)] or [path]
    return found


def _baseline(found: MemberResult | None) -> Baseline | None:
    return None if found is None else Baseline.of(found.votes.validation_NK, found.votes.test_NK, facts_of(found))


def _control(name: Control, found: MemberResult) -> ControlVotes:
    factor = found.facts.get(TIMES if name == "longer" else WIDTH, math.nan)
    votes = found.votes
    return ControlVotes.of(name, votes.validation_NK, votes.test_NK, facts_of(found), len(found.history), factor)


def _judged_on_others(config: JudgedConfig) -> bool:
    """True when members voted on training rows only where they were not fitted to them."""
    return config.method.error_rows != "training" and not _has(config, "votes_where_fitted")


def _has(config: JudgedConfig, trait: Literal["additive", "votes_where_fitted", "folds_votes"]) -> bool:
    """Whether the method of a stored run has a trait; False for one that is not registered here."""
    return bool(getattr(MethodSection.registry.find(config.method.name), trait, False))


def out_of_bag_of(voters: Voters) -> OutOfBag | None:
    """What members said about training rows that they were not fitted to; None where they said nothing about such rows."""
    if not _judged_on_others(voters.config):
        return None
    votes, labels = [member.votes for member in voters.members], voters.labels
    if not any(len(vote.rows) for vote in votes):
        return None
    return OutOfBag(
        [vote.rows for vote in votes], [vote.rows_RK for vote in votes], labels.train_rows, labels.train_labels_N,
        folds := _has(voters.config, "folds_votes"), folds and voters.config.chooses_by_validation,
    )  # fmt: skip
