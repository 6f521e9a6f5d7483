"""One network on all training rows beside the vote: trained once, never a voter, compared by a test of its own."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from ensemble import load_ensemble
from ensemble.config import load_config, parse_experiment
from ensemble.config.loading import flat_values, parse_stored
from ensemble.config.sweeping import load_sweep
from ensemble.errors import ConfigError, StorageError
from ensemble.evaluation.records import Evaluation
from ensemble.events import EpochFinished, MemberFinished, Notice, TaskStarted
from ensemble.executors import InlineExecutor
from ensemble.report.html import write_report
from ensemble.report.tables import leaderboard_markdown
from ensemble.results.judging import judge
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.storage import RunFolder
from ensemble.tracking.event_log import read_events
from ensemble.tracking.wandb_sweep import as_try
from tests.config.test_effects import METHODS
from tests.test_run import CONFIG, Crashing, Limited, digests

NAME = "one network on all training rows"


def run(root: Path, make: Any = None, **changes: Any) -> RunOutcome:
    experiment = parse_experiment({**CONFIG, "output_dir": str(root), **changes})
    return run_ensemble(experiment, make or (lambda *_: InlineExecutor()), lambda _: [])


def members_alone(found: dict[str, str]) -> dict[str, str]:
    return {name: digest for name, digest in found.items() if name.startswith("members/")}


def weights_of(folder: RunFolder) -> dict[str, Any]:
    found = folder.load_baseline(weights=True)
    assert found is not None
    return dict(found.weights)


def test_it_is_the_network_that_all_rows_give_and_the_members_stay_what_they_were(tmp_path: Path) -> None:
    """Member number 4 of a deep ensemble has the same start, rows and order."""
    with_it, without = run(tmp_path, baseline=True), run(tmp_path / "without")
    found = digests(tmp_path)
    assert members_alone(found) == digests(tmp_path / "without")
    assert len(found) == 10
    run(tmp_path / "deep", num_members=5, method={"name": "deep_ensemble"})
    expected = RunFolder.read(tmp_path / "deep" / "run").load_weights(4)
    own = weights_of(RunFolder.read(with_it.path))
    assert own.keys() == expected.keys()
    assert all(np.array_equal(own[name], expected[name]) for name in own)
    kinds = [[row.name for row in outcome.evaluation.leaderboard] for outcome in (with_it, without)]
    assert set(kinds[0]) - set(kinds[1]) == {NAME}
    assert with_it.trained == 4
    assert with_it.evaluation.headline.test_error == without.evaluation.headline.test_error
    assert without.evaluation.baseline is None


def test_the_comparison_is_what_the_stored_votes_say(tmp_path: Path) -> None:
    evaluation = run(tmp_path, baseline=True, training={"epochs": 1, "lr": 3e-3, "batch_size": 64}).evaluation
    labels = np.load(tmp_path / "run" / "labels.npz")["test_labels_N"]
    votes = np.mean([np.load(tmp_path / "run" / f"members/{m:04d}/votes.npz")["test_NK"] for m in range(4)], 0)
    alone = np.load(tmp_path / "run" / "baseline" / "votes.npz")["test_NK"].argmax(1) != labels
    vote = votes.argmax(1) != labels
    found = evaluation.baseline
    assert found is not None
    only_vote, only_alone = int((vote & ~alone).sum()), int((alone & ~vote).sum())
    assert (found.only_vote_wrong, found.only_baseline_wrong) == (only_vote, only_alone)
    assert only_vote + only_alone > 5
    assert found.p_value == pytest.approx(binomtest(only_vote, only_vote + only_alone).pvalue)
    assert found.difference == pytest.approx(vote.mean() - alone.mean())
    assert found.difference_lower < found.difference < found.difference_upper
    assert (found.outcome == "not distinguishable") == (found.difference_lower <= 0 <= found.difference_upper)
    row = next(row for row in evaluation.leaderboard if row.kind == "baseline")
    assert (row.wrong, row.member, row.num_parameters) == (int(alone.sum()), None, evaluation.members[0].num_parameters)
    assert Evaluation.from_json(evaluation.to_json()).baseline == found
    assert found.sentence in leaderboard_markdown(evaluation)


def test_it_can_be_added_to_a_finished_run_and_stays(tmp_path: Path) -> None:
    run(tmp_path)
    before = digests(tmp_path)
    added = run(tmp_path, baseline=True)
    assert added.trained == 0
    assert added.evaluation.baseline is not None
    assert members_alone(digests(tmp_path)) == before
    run(tmp_path / "at_once", baseline=True)
    assert digests(tmp_path) == digests(tmp_path / "at_once")
    given = Limited()
    assert run(tmp_path, lambda *_: given, baseline=True).evaluation.baseline == added.evaluation.baseline
    assert given.given == 0
    assert run(tmp_path).evaluation.baseline == added.evaluation.baseline, "a stored one is judged, whoever asks"


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_an_interrupted_run_ends_with_the_same_bits(limit: int, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, lambda *_: Limited(limit), baseline=True)
    again = Limited()
    run(tmp_path, lambda *_: again, baseline=True)
    assert again.given == 3 - limit
    run(tmp_path / "calm", baseline=True)
    assert digests(tmp_path) == digests(tmp_path / "calm")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_one(method: str, tmp_path: Path) -> None:
    changes = {key: value for key, value in METHODS[method].items() if "." not in key}
    changes.setdefault("method", {"name": method})
    training = {**CONFIG["training"], "augmentation": {"shift": 0.1}}
    changes = {"num_members": 2, **changes, "data": {"name": "digits", "max_train_rows": 100}, "training": training}
    if method == "snapshot":
        training["schedule"] = {"name": "cosine"}
    found = run(tmp_path, baseline=True, **changes).evaluation
    run(tmp_path / "without", **changes)
    assert members_alone(digests(tmp_path)) == digests(tmp_path / "without")
    assert found.baseline is not None
    assert len(found.members) == changes["num_members"]


def test_nothing_is_said_of_it_as_of_a_member(tmp_path: Path) -> None:
    events = [event for _, event in read_events(run(tmp_path, baseline=True).path / "events.jsonl")]
    assert {event.member for event in events if isinstance(event, EpochFinished | MemberFinished)} == {0, 1, 2, 3}
    assert not [event for event in events if isinstance(event, TaskStarted) and 4 in event.members]
    assert [
        event.message
        for event in events
        if isinstance(event, Notice) and event.message.startswith("baseline: one network")
    ]


def test_one_that_fails_costs_the_comparison_only(tmp_path: Path) -> None:
    outcome = run(tmp_path, lambda *_: Crashing("baseline"), baseline=True)
    assert not outcome.failures
    assert outcome.evaluation.baseline is None
    assert not outcome.evaluation.degraded
    events = [event for _, event in read_events(outcome.path / "events.jsonl")]
    said = [event.message for event in events if isinstance(event, Notice) and event.warning]
    assert len(said) == 1 + 3, "crash_retries"
    assert said[0] == "baseline: crash: its process died; it is tried again"
    assert said[-1] == "baseline: crash: its process died; the vote is not compared with it"
    assert run(tmp_path, baseline=True).evaluation.baseline is not None


@pytest.mark.parametrize("file", ["weights.safetensors", "votes.npz", "history.csv", "member.json"])
def test_a_damaged_one_is_named_and_trained_again(file: str, tmp_path: Path) -> None:
    path = run(tmp_path, baseline=True).path
    sound = digests(tmp_path)
    damaged = path / "baseline" / file
    damaged.write_bytes(damaged.read_bytes()[:-3])
    assert [error.name for error in RunFolder.read(path).damaged_files()] == [f"baseline/{file}"]
    if file in ("votes.npz", "member.json"):
        with pytest.raises(StorageError, match=rf"baseline/{file}.*trains the baseline again"):
            judge(RunFolder.read(path))
    run(tmp_path, baseline=True)
    assert digests(tmp_path) == sound
    assert not RunFolder.read(path).damaged_files()


def test_a_list_that_names_a_part_of_it_is_damaged(tmp_path: Path) -> None:
    path = run(tmp_path, baseline=True).path / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["files"]["baseline/votes.npz"], manifest["names_sha256"], manifest["entries_sha256"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(StorageError, match=r"damaged: lists 'baseline/history.csv', but not all of"):
        RunFolder.read(path.parent)


def test_predictions_are_those_of_the_members_and_the_page_shows_it(tmp_path: Path) -> None:
    path = run(tmp_path, baseline=True).path
    images = np.random.default_rng(0).integers(0, 256, (3, 1, 28, 28)).astype(np.uint8)
    probs = load_ensemble(path).predict_proba(images)
    run(tmp_path / "without")
    assert np.array_equal(probs, load_ensemble(tmp_path / "without" / "run").predict_proba(images))
    page = write_report([path], None)
    assert NAME in Path(page).read_text()


def test_groups_of_members_have_no_common_recipe() -> None:
    group = {"count": 2, "model": {"name": "mlp"}}
    values = {key: value for key, value in CONFIG.items() if key not in ("model", "num_members")}
    with pytest.raises(ConfigError, match="baseline is one network by the recipe of all"):
        parse_experiment({**values, "members": (group, {**group, "name": "other"}), "baseline": True})


BAGGED = "num_members: 2\nmethod: {name: bagging}\nmodel: {name: mlp, widths: [8]}\n"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        (BAGGED, True),
        (BAGGED + "baseline: false\n", False),
        (BAGGED.replace("bagging", "deep_ensemble"), False),
        (BAGGED.replace("bagging", "deep_ensemble") + "baseline: true\n", True),
        ("method: {name: bagging}\nmembers: [{count: 2, model: {name: mlp}}, {count: 1, model: {name: lenet5}}]\n", False),
    ],
)  # fmt: skip
def test_bagging_of_one_recipe_has_one_unless_the_user_says_otherwise(text: str, chosen: bool, tmp_path: Path) -> None:
    """`ensemble config` shows the values and origins of what was loaded."""
    (tmp_path / "mine.yaml").write_text(text)
    loaded = load_config(tmp_path / "mine.yaml")
    assert flat_values(loaded.experiment)["baseline"] is chosen
    said = "baseline" in text
    assert (loaded.origins["baseline"] == "default") is not said
    assert ("baseline" in loaded.experiment.left_open) is not said
    assert load_config(tmp_path / "mine.yaml", ["baseline=false", "controls=[]"]).experiment.left_open == ()


def test_a_stored_configuration_without_the_key_has_none() -> None:
    values = {key: value for key, value in CONFIG.items() if key != "baseline"}
    assert parse_experiment(values).baseline
    assert not parse_stored(values).baseline


@pytest.mark.parametrize("stored", ["baseline: false", ""])
def test_a_run_that_was_begun_without_one_stays_what_it_was(stored: str, tmp_path: Path) -> None:
    """What earlier versions left: config.yaml says false, or lacks the key."""
    run(tmp_path, baseline=False)
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("baseline: false", stored))
    relisted(tmp_path / "run", "config.yaml")
    before = digests(tmp_path)
    values = {key: value for key, value in CONFIG.items() if key != "baseline"}
    again = Limited()
    experiment = parse_experiment({**values, "output_dir": str(tmp_path)})
    assert experiment.baseline
    outcome = run_ensemble(experiment, lambda *_: again, lambda _: [])
    assert again.given == 0
    assert outcome.evaluation.baseline is None
    assert digests(tmp_path) == before
    assert RunFolder.read(tmp_path / "run").config()["baseline"] is False
    assert run(tmp_path, baseline=True).evaluation.baseline is not None, "asked for, it is added"
    outcome = run_ensemble(experiment, lambda *_: Limited(), lambda _: [])
    assert RunFolder.read(tmp_path / "run").config()["baseline"] is True
    assert outcome.evaluation.baseline is not None


def relisted(folder: Path, name: str) -> None:
    """Enter a changed file into the manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    content = (folder / name).read_bytes()
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    for key in ("names_sha256", "entries_sha256"):
        manifest.pop(key, None)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_sweeps_do_not_pay_for_it_unless_asked(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(BAGGED)
    plan = load_sweep(tmp_path / "mine.yaml", ["training.lr=0.1,0.01"])
    assert not plan.experiment(plan.settings[0]).baseline
    asked = load_sweep(tmp_path / "mine.yaml", ["training.lr=0.1,0.01", "baseline=true"])
    assert asked.experiment(asked.settings[0]).baseline
    experiment = load_config(tmp_path / "mine.yaml", ["tracking.wandb.mode=online"]).experiment
    agent = dict.fromkeys(("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"), "x1")
    assert not as_try(experiment, agent)[0].baseline
    wanted = load_config(tmp_path / "mine.yaml", ["tracking.wandb.mode=online", "baseline=true"]).experiment
    assert as_try(wanted, agent)[0].baseline


def test_the_console_says_that_it_is_trained_and_how_to_do_without(tmp_path: Path) -> None:
    events = [event for _, event in read_events(run(tmp_path, baseline=True).path / "events.jsonl")]
    said = [event.message for event in events if isinstance(event, Notice) and "baseline=false" in event.message]
    rows = len(RunFolder.read(tmp_path / "run").load_labels().train_rows)
    assert said == [
        f"baseline: one network more, on all {rows:,} training rows, is trained to compare the vote with; baseline=false does without"
    ]
