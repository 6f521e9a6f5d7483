"""Boosting from configuration to judgement on real digits: resumed, cut short and ended early."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.config import Experiment, parse_experiment
from ensemble.errors import QuorumError
from ensemble.events import MemberFailed, Notice
from ensemble.executors import InlineExecutor
from ensemble.executors.base import Arrays, Emit, Outcome, Train, Wanted, always
from ensemble.results.judging import staged_points
from ensemble.results.voters import load_voters, voting_members
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.storage import RunFolder
from ensemble.tracking.event_log import read_events
from ensemble.types import Failure, Task

CONFIG: dict[str, Any] = {
    "name": "boost", "seed": 1, "num_members": 6, "model": {"name": "mlp", "widths": (24,)}, "data": {"name": "digits"},
    "method": {"name": "adaboost", "folds": 2},
    "training": {"epochs": 2, "lr": 3e-3, "batch_size": 64},
    "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip


def experiment(root: Path, **changes: Any) -> Experiment:
    method = {**CONFIG["method"], **changes.pop("method", {})}
    return parse_experiment({**CONFIG, "output_dir": str(root), "method": method, **changes})


class Faulty(InlineExecutor):
    """Loses members whose time has come, and stops the run before a task; counts tasks."""

    def __init__(self, lost: Sequence[int] = (), stop_before: int = 10**6) -> None:
        self.lost, self.stop_before, self.tasks = set(lost), stop_before, 0

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        for task in tasks:
            if self.tasks == self.stop_before:
                raise KeyboardInterrupt
            self.tasks += 1
            for outcome in super().run([task], train, arrays, emit):
                kept = tuple(result for result in outcome.results if result.index not in self.lost)
                lost = self.lost & {result.index for result in outcome.results}
                failures = tuple(Failure(index, "crash", "the worker died") for index in sorted(lost))
                yield Outcome(outcome.task, kept, outcome.failures + failures)


def run(config: Experiment, executor: InlineExecutor | None = None) -> RunOutcome:
    return run_ensemble(config, lambda *_: executor or InlineExecutor(), lambda _: [])


def digests(path: Path) -> dict[str, str]:
    files = json.loads((path / "manifest.json").read_text())["files"]
    return {
        key: facts["sha256"]
        for key, facts in files.items()
        if key.endswith((".safetensors", "votes.npz", "method.json", "staged.json"))
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return run(experiment(tmp_path_factory.mktemp("whole")))


def test_what_a_boosted_run_leaves_behind(whole: RunOutcome) -> None:
    folder = RunFolder.read(whole.path)
    assert (whole.failures, whole.ended_early) == ((), ())
    record = json.loads(folder.read_bytes("method.json"))
    rounds = record["report"]["rounds"]
    assert [entry["members"] for entry in rounds] == [[0, 1], [2, 3], [4, 5]]
    assert [record["vote_weights"][str(m)] for m in range(6)] == [e["alpha"] / 2 for e in rounds for _ in range(2)]
    labels = folder.load_labels()
    assert rounds[0]["effective_size"] < rounds[0]["voted_rows"] == len(labels.train_rows)
    # The first round's error is that of two networks on the halves they did not see.
    members = [folder.load_member(m) for m in (0, 1)]
    wrong = sum((m.votes.rows_RK.argmax(1) != labels.train_labels_N[m.votes.rows]).sum() for m in members)
    assert rounds[0]["weighted_error"] == pytest.approx(wrong / len(labels.train_rows), rel=1e-12)
    for heavy in rounds[0]["heaviest"]:
        assert heavy["label"] == labels.train_labels_N[heavy["row"]] != heavy["named"]
    assert whole.evaluation.headline.name == "weighted vote"
    assert whole.evaluation.out_of_bag is not None
    staged = json.loads(folder.read_bytes("staged.json"))
    assert [point["members"] for point in staged] == [2, 4, 6]
    assert staged[-1]["error"] == whole.evaluation.headline.test_error
    assert staged_points(folder, load_voters(folder))[0].error == staged[0]["error"]


@pytest.mark.parametrize("done", [1, 2])
def test_interrupted_between_rounds_it_becomes_the_same_run(done: int, tmp_path: Path, whole: RunOutcome) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(experiment(tmp_path), Faulty(stop_before=done))
    outcome = run(experiment(tmp_path))
    assert outcome.trained == 6 - 2 * done
    assert digests(outcome.path) == digests(whole.path)


def test_a_finished_run_trains_nothing(tmp_path: Path, whole: RunOutcome) -> None:
    shutil.copytree(whole.path, tmp_path / "boost")
    assert run(experiment(tmp_path)).trained == 0
    assert digests(tmp_path / "boost") == digests(whole.path)


def test_stacks_hold_a_whole_round_and_do_not_change_it(tmp_path: Path, whole: RunOutcome) -> None:
    assert RunFolder.read(whole.path).load_member(3).stack_size == 2
    outcome = run(experiment(tmp_path, compute={**CONFIG["compute"], "stack_size": 1}))
    alone, together = RunFolder.read(outcome.path).load_member(1), RunFolder.read(whole.path).load_member(1)
    np.testing.assert_allclose(alone.votes.test_NK, together.votes.test_NK, atol=1e-3)


def test_a_member_that_failed_before_later_rounds_stays_failed(tmp_path: Path) -> None:
    """Member 1 is lost and drawn again as member 2; the rounds after it are built on that, also when resumed."""
    with pytest.raises(KeyboardInterrupt):
        run(experiment(tmp_path, failures={"policy": "drop"}), Faulty(lost=[1], stop_before=3))
    folder = RunFolder.read(tmp_path / "boost")
    assert folder.finished() == {0, 2, 3, 4}
    healthy = Faulty()
    outcome = run(experiment(tmp_path), healthy)
    assert healthy.tasks == 1
    folder = RunFolder.read(outcome.path)
    assert folder.finished() == {0, 2, 3, 4, 5, 6}
    rounds = json.loads(folder.read_bytes("method.json"))["report"]["rounds"]
    assert [entry["members"] for entry in rounds] == [[0, 2], [3, 4], [5, 6]]
    assert not outcome.evaluation.degraded


def test_a_chain_that_ended_for_a_failure_goes_on_when_the_member_comes(tmp_path: Path, whole: RunOutcome) -> None:
    config = experiment(tmp_path, method={"redraws": 0})
    outcome = run(config, Faulty(lost=[3]))
    assert "networks of the last round failed" in outcome.ended_early[0]
    assert outcome.evaluation.degraded
    assert outcome.evaluation.asked_members == 6
    notices = [event.message for _, event in read_events(outcome.path / "events.jsonl") if isinstance(event, Notice)]
    assert outcome.ended_early[0] in notices
    again = run(config)
    assert not again.ended_early
    votes = {key: value for key, value in digests(whole.path).items() if key.startswith("members")}
    assert {key: value for key, value in digests(again.path).items() if key.startswith("members")} == votes


def test_when_all_first_networks_diverge_it_says_so(tmp_path: Path) -> None:
    config = experiment(tmp_path, training={"epochs": 1, "lr": 1e30, "batch_size": 64, "optimizer": "sgd"})
    with pytest.raises(QuorumError, match=r"no network may vote(?s:.*)every network of the round failed"):
        run(config)
    # Both tries of both networks, with streams of their own.
    assert {
        event.member for _, event in read_events(tmp_path / "boost" / "events.jsonl") if isinstance(event, MemberFailed)
    } == {0, 1, 2, 3}


def test_votes_on_training_rows_are_no_out_of_bag_votes(tmp_path: Path) -> None:
    outcome = run(experiment(tmp_path, num_members=2, method={"folds": None, "error_rows": "training"}))
    assert outcome.evaluation.out_of_bag is None
    assert outcome.evaluation.headline.test_error < 0.3


def test_dropped_members_are_not_judged(tmp_path: Path, whole: RunOutcome) -> None:
    shutil.copytree(whole.path, tmp_path / "boost")
    with RunFolder.open(tmp_path, "boost", experiment(tmp_path).model_dump(mode="json"), {}) as folder:
        record = json.loads(folder.read_bytes("method.json"))
        record["report"]["dropped"] = [4, 5]
        folder.write("method.json", json.dumps(record).encode())
        assert voting_members(folder) == [0, 1, 2, 3]


def test_the_command_line_says_that_boosting_ended_early(tmp_path: Path) -> None:
    text = """
num_members: 4
method: {name: adaboost, folds: 2, min_effective_share: 0.9}
model: {name: mlp, widths: [24]}
data: {name: digits}
training: {epochs: 2, lr: 3e-3}
compute: {executor: inline, device: cpu}
tracking: {wandb: {mode: disabled}}
"""
    (tmp_path / "boost.yaml").write_text(text)
    result = CliRunner().invoke(main, ["train", "-q", str(tmp_path / "boost.yaml"), f"output_dir={tmp_path}"])
    assert result.exit_code == 4, result.output
    assert "ended with 1 of 2 rounds: the weights sit on" in result.stderr
