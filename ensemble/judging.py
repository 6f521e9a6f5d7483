"""From a run folder to its evaluation: stored votes and labels in, figures out, no training code.

    evaluation = judge(RunFolder.read(Path("runs/my-run")))

The same function judges at the end of a run and years later, and gives the same numbers.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.config.schema import Aggregator, aggregator_problem
from ensemble.errors import ConfigError, QuorumError
from ensemble.evaluation.evaluate import evaluate
from ensemble.evaluation.out_of_bag import OutOfBag
from ensemble.evaluation.records import Evaluation, MemberFacts
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.staged import StagedPoint, staged_errors
from ensemble.storage import Labels, RunFolder
from ensemble.storage.remote import Mirror, is_address, local_root
from ensemble.types import MemberResult

METHOD, DATASET, EVALUATION, DISPUTED = "method.json", "dataset.json", "evaluation.json", "disputed.npz"
STAGED = "staged.json"


def judge(folder: RunFolder, aggregator: Aggregator | None = None) -> Evaluation:
    """Judge the finished members of a run. `aggregator` replaces the configured headline vote.

    Raises QuorumError when fewer members finished than failures.min_members, StorageError when a file is damaged, ConfigError for a vote that there is not or that the run's method does not have.
    """
    config, labels = folder.config(), folder.load_labels()
    if aggregator is not None and (problem := aggregator_problem(aggregator, config["method"]["name"])):
        raise ConfigError(problem)
    members = [folder.load_member(index) for index in voting_members(folder)]
    asked, needed = asked_members(config), max(1, int(config["failures"]["min_members"]))
    if len(members) < needed:
        raise QuorumError(
            f"{folder.path}: {len(members)} of {asked} members finished, {needed} are needed (failures.min_members); start the run again to train the missing ones"
        )
    described = json.loads(folder.read_bytes(DATASET))
    return evaluate(
        validation=SplitVotes(
            "validation",
            np.stack([member.votes.validation_NK for member in members]),
            labels.train_labels_N[labels.validation_rows],
        ),
        test=SplitVotes("test", np.stack([member.votes.test_NK for member in members]), labels.test_labels_N),
        members=[MemberFacts(m.index, m.recipe, m.num_parameters, m.train_seconds, m.kept_epoch) for m in members],
        aggregator=aggregator or config["aggregator"],
        vote_weights_M=method_weights(folder, members),
        asked_members=asked,
        dataset=described["name"],
        class_names=tuple(described["class_names"]),
        out_of_bag=_out_of_bag(members, labels) if _judged_on_others(config) else None,
    )


def voting_members(folder: RunFolder) -> list[int]:
    """The finished members but those the method dropped, ascending."""
    dropped = (_method_record(folder).get("report") or {}).get("dropped", ())
    return sorted(folder.finished() - set(dropped))


def staged_points(folder: RunFolder) -> tuple[StagedPoint, ...]:
    """The test error after every round of a method that weighs its members; empty for any other method."""
    record = _method_record(folder)
    if record.get("vote_weights") is None:
        return ()
    indices = voting_members(folder)
    groups: dict[int, list[int]] = {}
    for kept in (record.get("report") or {}).get("rounds", ()):
        groups.setdefault(kept["round"], []).extend(indices.index(member) for member in kept["members"])
    rounds = [groups[number] for number in sorted(groups)] or [[m] for m in range(len(indices))]
    members = [folder.load_member(index) for index in indices]
    test = SplitVotes("test", np.stack([m.votes.test_NK for m in members]), folder.load_labels().test_labels_N)
    additive = folder.config()["method"]["name"] == "gradient_boosting"
    return staged_errors(test, method_weights(folder, members), rounds, additive)


def headline_figures(evaluation: Evaluation) -> dict[str, float]:
    """The figures a dashboard sorts by: rates as fractions; those that do not exist are left out."""
    vote, verdict = evaluation.headline, evaluation.verdict
    mean = next(row for row in evaluation.leaderboard if row.kind == "mean_member")
    figures = {
        "test_error": vote.test_error,
        "test_error_lower": vote.lower,
        "test_error_upper": vote.upper,
        "validation_error": vote.validation_error,
        "test_nll": vote.nll,
        "best_member_test_error": verdict.member_error,
        "mean_member_test_error": mean.test_error,
        "p_value": verdict.p_value,
    }
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def asked_members(config: dict[str, Any]) -> int:
    """How many members a stored configuration asks for."""
    return int(config["num_members"] or sum(group["count"] for group in config["members"]))


def find_run(name: str, root: Path) -> Path:
    """The folder of a run given as a path, as a name under `root`, or as an address, which is fetched first."""
    if is_address(name):
        address, _, run = name.rstrip("/").rpartition("/")
        path = local_root(address) / run
        Mirror(address, run).fetch(path)
        return path
    return Path(name) if Path(name).is_dir() or "/" in name else root / name


def _method_record(folder: RunFolder) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(folder.read_bytes(METHOD)) if folder.has(METHOD) else {}
    return record


def method_weights(folder: RunFolder, members: list[MemberResult]) -> Any:
    weights = _method_record(folder).get("vote_weights")
    return None if weights is None else np.array([weights[str(member.index)] for member in members])


def _judged_on_others(config: dict[str, Any]) -> bool:
    """True when members voted on training rows only where they were not fitted to them."""
    method = config["method"]
    return bool(method.get("error_rows") != "training" and method["name"] != "gradient_boosting")


def _out_of_bag(members: list[MemberResult], labels: Labels) -> OutOfBag | None:
    if not any(len(member.votes.rows) for member in members):
        return None
    rows, probs = [m.votes.rows for m in members], [m.votes.rows_RK for m in members]
    return OutOfBag(rows, probs, labels.train_rows, labels.train_labels_N)
