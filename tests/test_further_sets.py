"""Votes on further sets: cast at the end of training or years later, by the same weights to the same bits, and judged as they lie there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from ensemble.commands.main import main
from ensemble.config import Experiment, parse_experiment
from ensemble.data import load_dataset, split_of
from ensemble.errors import ConfigError, DataError, EnsembleError, StorageError
from ensemble.evaluation.records import Evaluation
from ensemble.events import Event, Notice
from ensemble.executors import InlineExecutor
from ensemble.executors.base import Arrays, Emit, Outcome, Train, Wanted, always
from ensemble.inference.abstaining import reject_rule, sets_rule
from ensemble.inference.trained import load_ensemble
from ensemble.models import build_model
from ensemble.results.comparison import compare_items
from ensemble.results.further_sets import with_sets
from ensemble.results.judging import judge, judge_voters
from ensemble.results.voters import load_voters
from ensemble.run.compose import run_experiment
from ensemble.run.later_votes import forget_sets, sets_of, vote_later
from ensemble.run.run import RunOutcome, judge_again, run_ensemble
from ensemble.storage import RunFolder
from ensemble.storage.set_store import SetStore
from ensemble.training.set_votes import SetVoter
from ensemble.types import Failure, Task

CHANGED = {"name": "changed", "kind": "shifted", "corruptions": ({"identity": ()}, {"stripe": ()})}
STRIPED = {"name": "striped", "kind": "unknown", "corruptions": ({"stripe": ()},)}
CONFIG: dict[str, Any] = {
    "name": "run", "seed": 3, "num_members": 3, "method": {"name": "bagging"}, "model": {"name": "lenet5"}, "baseline": True,
    "data": {"name": "digits", "calibration_fraction": 0.1}, "training": {"epochs": 1, "batch_size": 64},
    "compute": {"stack_size": 2, "executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
    "evaluation": {"sets": (CHANGED, STRIPED)},
}  # fmt: skip


def experiment(root: Path, **changes: Any) -> Experiment:
    return parse_experiment({**CONFIG, "output_dir": str(root), **changes})


def run(config: Experiment, heard: list[Event] | None = None, executor: InlineExecutor | None = None) -> RunOutcome:
    class Ear:
        def handle(self, event: Event, _time: float) -> None:
            if heard is not None:
                heard.append(event)

        def close(self, _finished: bool) -> None: ...

    return run_ensemble(config, lambda *_: executor or InlineExecutor(), lambda _: [Ear()])


def votes(path: Path, name: str, part: int) -> dict[int, np.ndarray]:
    """What every member said about a part, as a file without any code of ours has it."""
    kept = np.load(path / f"votes/{name}/{part:04d}.npz")
    return dict(zip(kept["members_M"].tolist(), kept["probs_MNK"], strict=True))


def energies(path: Path, *names: str) -> np.ndarray:
    """Of every member [M, N], the images of several sets one after the other."""
    return np.concatenate([np.load(path / f"votes/{name}/0000.npz")["energy_MN"][:3] for name in names], axis=1)


def set_files(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted((path / "votes").rglob("*.npz"))}


def said(heard: Sequence[Event]) -> str:
    return "\n".join(event.message for event in heard if isinstance(event, Notice))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return run(experiment(tmp_path_factory.mktemp("runs")))


def test_members_say_of_unchanged_images_what_they_said_of_the_test_images(finished):
    unchanged = votes(finished.path, "changed", 0)
    assert sorted(unchanged) == [0, 1, 2, 3]  # 3 is the network that does not vote
    for index in range(3):
        kept = np.load(finished.path / f"members/{index:04d}/votes.npz")["test_NK"]
        np.testing.assert_array_equal(unchanged[index], kept)
    np.testing.assert_array_equal(unchanged[3], np.load(finished.path / "baseline/votes.npz")["test_NK"])
    assert not np.array_equal(votes(finished.path, "changed", 1)[0], unchanged[0])


def test_what_was_voted_on_is_in_the_folder(finished):
    dataset = load_dataset(experiment(finished.path).data)
    facts = json.loads((finished.path / "votes/changed/set.json").read_text())
    assert [part["label"] for part in facts["parts"]] == ["identity", "stripe"]
    assert facts["source"] == "the test images"
    np.testing.assert_array_equal(
        np.load(finished.path / "votes/changed/labels.npz")["labels_N"], dataset.test_labels_N
    )
    assert set(np.load(finished.path / "votes/striped/labels.npz")["labels_N"]) == {-1}


def test_every_figure_of_a_shifted_set_is_recomputed_from_the_files(finished):
    labels_N = np.load(finished.path / "votes/changed/labels.npz")["labels_N"]
    found = finished.evaluation.shifted[0]
    reference = finished.evaluation.verdict.member
    errors = {"vote": [], "member": []}
    for number, part in enumerate(found.parts):
        said_of = votes(finished.path, "changed", number)
        mean_NK = np.mean([said_of[index] for index in range(3)], axis=0)
        vote_N, member_N = mean_NK.argmax(1) != labels_N, said_of[reference].argmax(1) != labels_N
        b, c = int((vote_N & ~member_N).sum()), int((~vote_N & member_N).sum())
        assert part.wrong == vote_N.sum()
        assert part.vote_error == vote_N.mean()
        assert part.member_error == member_N.mean()
        assert part.baseline_error == (said_of[3].argmax(1) != labels_N).mean()
        assert part.mean_member_error == pytest.approx(
            np.mean([(said_of[index].argmax(1) != labels_N).mean() for index in range(3)]), abs=1e-15
        )
        assert part.p_value == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1.0, abs=1e-12)
        assert part.vote_nll == pytest.approx(-np.log(mean_NK[np.arange(len(labels_N)), labels_N]).mean(), abs=1e-6)
        one_hot_NK = np.eye(10)[labels_N]
        assert part.vote_brier == pytest.approx(((mean_NK - one_hot_NK) ** 2).sum(1).mean(), abs=1e-6)
        errors["vote"].append(vote_N)
        errors["member"].append(member_N)
    assert found.vote_error == pytest.approx(np.mean(errors["vote"]), abs=1e-15)
    assert found.difference == pytest.approx(np.mean(errors["vote"]) - np.mean(errors["member"]), abs=1e-15)
    # The bootstrap over images, drawn row by row.
    generator = np.random.default_rng(1)
    vote_N, member_N = (np.mean(errors[name], axis=0) for name in ("vote", "member"))
    drawn = [(vote_N - member_N)[generator.integers(0, len(vote_N), len(vote_N))].mean() for _ in range(4000)]
    np.testing.assert_allclose(
        [found.difference_lower, found.difference_upper], np.quantile(drawn, [0.025, 0.975]), atol=0.004
    )
    assert (found.difference_lower > 0 or found.difference_upper < 0) == (found.p_value < 0.05)


def test_every_figure_of_unknown_images_is_recomputed_from_the_files(finished):
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    found = finished.evaluation.unknown[0]
    known = [np.load(finished.path / f"members/{index:04d}/votes.npz")["test_NK"] for index in range(3)]
    unknown = [votes(finished.path, "striped", 0)[index] for index in range(3)]
    is_unknown = np.r_[np.zeros(len(known[0])), np.ones(len(unknown[0]))]

    def entropy(probs: np.ndarray) -> np.ndarray:
        return stats.entropy(probs, axis=1)

    both = [np.concatenate(pair).astype(np.float64) for pair in zip(known, unknown, strict=True)]
    mean = np.mean(both, axis=0)
    scores = {
        "max probability": mean.max(1),
        "entropy": -entropy(mean),
        "mutual information": -(entropy(mean) - np.mean([entropy(one) for one in both], axis=0)),
        "agreement": np.mean([one.argmax(1) == mean.argmax(1) for one in both], axis=0),
        "energy": energies(finished.path, "test", "striped").mean(0),
    }
    assert [score.score for score in found.scores] == list(scores)
    for score in found.scores:
        given = -scores[score.score]
        assert score.auroc == pytest.approx(roc_auc_score(is_unknown, given), abs=1e-6)
        false, true, _ = roc_curve(is_unknown, given, drop_intermediate=False)
        assert score.fpr95 == pytest.approx(false[np.flatnonzero(true >= 0.95)[0]], abs=1e-6)
    assert abs(found.scores[0].aupr_unknown - average_precision_score(is_unknown, -scores["max probability"])) < 0.01
    member = finished.evaluation.verdict.member
    assert found.scores[0].member_auroc == pytest.approx(roc_auc_score(is_unknown, -both[member].max(1)), abs=1e-6)


def test_energies_are_those_of_the_stored_weights(finished):
    """By the plain network and torch alone; the probabilities beside them are a softmax of the same logits."""
    import torch
    from safetensors.torch import load_file

    described = json.loads((finished.path / "dataset.json").read_text())
    config = experiment(finished.path.parent)
    dataset = load_dataset(config.data)
    images = torch.from_numpy(dataset.test_images_NCHW / 255.0)
    x = (
        (images - torch.tensor(described["mean"]).view(1, -1, 1, 1)) / torch.tensor(described["std"]).view(1, -1, 1, 1)
    ).float()
    found_MN = energies(finished.path, "test")
    for index in range(3):
        network = build_model(config.groups[0].model, dataset.image_shape, 10).eval()
        network.load_state_dict(load_file(finished.path / f"members/{index:04d}/weights.safetensors"))
        with torch.no_grad():
            logits = network(x)
        np.testing.assert_allclose(found_MN[index], torch.logsumexp(logits, 1).numpy(), atol=1e-3)
        np.testing.assert_allclose(votes(finished.path, "test", 0)[index], logits.softmax(1).numpy(), atol=1e-4)
    score = next(one for one in finished.evaluation.unknown[0].scores if one.score == "energy")
    assert score.p_holm >= score.p_value
    assert finished.evaluation.unknown[0].chosen == "max probability"


def test_a_run_whose_sets_have_no_energies_gets_them_and_others_are_judged_without(finished, tmp_path):
    copy = shutil.copytree(finished.path, tmp_path / "run")
    stored = RunFolder.read(copy)
    with RunFolder.open(tmp_path, "run", stored.config(), stored.plan()) as folder:
        store = SetStore(folder)
        facts = store.facts("striped")
        store.save(facts, 0, {one: replace(cast, energy_N=None) for one, cast in store.votes(facts, 0).items()})
        store.forget("test")
    before = votes(copy, "striped", 0)
    assert "energy" not in {one.score for one in judge(RunFolder.read(copy)).unknown[0].scores}
    vote_later(copy, ["striped"], "inline")
    assert judge(RunFolder.read(copy)).unknown == finished.evaluation.unknown
    np.testing.assert_array_equal(np.stack(list(votes(copy, "striped", 0).values())), np.stack(list(before.values())))
    forget_sets(copy, ["striped"])
    assert SetStore(RunFolder.read(copy)).names() == ["calibration", "changed"]


def test_calibration_rows_are_used_by_nothing_else(finished):
    config = experiment(finished.path.parent)
    dataset = load_dataset(config.data)
    split = split_of(dataset, config.data, config.seed)
    rows = split.calibration_rows
    assert len(rows) == round(0.1 * len(dataset.train_labels_N))
    kept = np.load(finished.path / "labels.npz")
    assert not np.intersect1d(rows, kept["train_rows"]).size
    assert not np.intersect1d(rows, kept["validation_rows"]).size
    labels = np.load(finished.path / "votes/calibration/labels.npz")["labels_N"]
    np.testing.assert_array_equal(labels, dataset.train_labels_N[rows])
    assert finished.evaluation.conformal.rows == len(rows)
    assert {promise.chosen_on for promise in finished.evaluation.selective.promises} == {"calibration"}


def test_a_further_start_votes_on_nothing_again(finished):
    before = set_files(finished.path)
    written = {name: (finished.path / name).stat().st_mtime_ns for name in before}
    heard: list[Event] = []
    again = run(experiment(finished.path.parent), heard)
    assert set_files(finished.path) == before
    assert {name: (finished.path / name).stat().st_mtime_ns for name in before} == written
    assert "vote on" not in said(heard)
    assert again.evaluation.to_json() == finished.evaluation.to_json()


def test_sets_choose_nothing(finished, tmp_path):
    """What a run without further sets says of the rest is the same to the last digit."""
    without = run(experiment(tmp_path, evaluation={"sets": ()})).evaluation
    records = [one.to_json() for one in (finished.evaluation, without)]
    for record in records:
        for name in ("shifted", "unknown", "members", "contributions", "gain_per_second"):  # the last three hold times
            del record[name]
        for row in record["leaderboard"]:
            del row["train_seconds"]
    assert records[0] == records[1]


def test_a_set_that_is_added_or_changed_is_voted_on_and_one_that_is_gone_stays(tmp_path):
    first = run(experiment(tmp_path, evaluation={"sets": (CHANGED,)}))
    before = set_files(first.path)
    heard: list[Event] = []
    turned = {"name": "changed", "kind": "shifted", "corruptions": ({"rotate": (90.0,)},)}
    second = run(experiment(tmp_path, evaluation={"sets": (turned, STRIPED)}), heard)
    assert second.trained == 0
    after = set_files(second.path)
    assert "votes/changed/0001.npz" not in after
    assert after["votes/changed/0000.npz"] != before["votes/changed/0000.npz"]
    assert after["votes/calibration/0000.npz"] == before["votes/calibration/0000.npz"]
    assert "4 networks vote on changed, striped" in said(heard)
    third = run(experiment(tmp_path, evaluation={"sets": ()}))
    assert set_files(third.path) == after
    assert third.evaluation.to_json() == second.evaluation.to_json()


class Interrupted(InlineExecutor):
    """Is interrupted after so many tasks of voting."""

    def __init__(self, limit: int) -> None:
        self.left = limit

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        for task in tasks:
            if isinstance(train, SetVoter):
                if not self.left:
                    raise KeyboardInterrupt
                self.left -= 1
            yield from super().run([task], train, arrays, emit, wanted)


def test_a_start_after_a_kill_votes_on_what_is_missing(finished, tmp_path):
    for _ in range(3):  # of four tasks
        with pytest.raises(KeyboardInterrupt):
            run(experiment(tmp_path), executor=Interrupted(1))
    whole = run(experiment(tmp_path))
    assert set_files(whole.path) == set_files(finished.path)
    assert whole.evaluation.shifted == finished.evaluation.shifted


def test_damaged_votes_are_cast_again(finished, tmp_path):
    outcome = run(experiment(tmp_path))
    for name in ("votes/changed/0001.npz", "votes/striped/labels.npz"):
        (outcome.path / name).write_bytes(b"nothing")
    heard: list[Event] = []
    again = run(experiment(tmp_path), heard)
    assert "the votes on the set changed are damaged or missing" in said(heard)
    assert "4 networks vote on changed, striped" in said(heard)
    assert set_files(again.path) == set_files(finished.path)


def test_votes_of_other_weights_do_not_count(tmp_path):
    outcome = run(experiment(tmp_path))
    with RunFolder.open(tmp_path, "run", RunFolder.read(outcome.path).config(), {}) as folder:
        store = SetStore(folder)
        facts = store.facts("changed")
        kept = store.votes(facts, 1)
        store.save(facts, 1, {**kept, 1: replace(kept[1], digest="0" * 64)})
    voters = load_voters(RunFolder.read(outcome.path))
    evaluation = with_sets(judge_voters(voters), voters, RunFolder.read(outcome.path))
    assert evaluation.shifted == ()
    assert "set changed: not judged, since member 1 has not voted on stripe" in "\n".join(evaluation.warnings)
    assert run(experiment(tmp_path)).evaluation.shifted == outcome.evaluation.shifted


def test_votes_on_a_set_that_fail_are_told_and_the_set_is_not_judged(tmp_path, monkeypatch):
    class Failing(InlineExecutor):
        def run(
            self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
        ) -> Iterator[Outcome]:
            for task in tasks:
                if isinstance(train, SetVoter) and task.id.startswith("striped"):
                    yield Outcome(task, (), tuple(Failure(m.index, "error", "no such thing") for m in task.members))
                else:
                    yield from super().run([task], train, arrays, emit, wanted)

    heard: list[Event] = []
    outcome = run(experiment(tmp_path), heard, Failing())
    assert outcome.evaluation.unknown == ()
    assert len(outcome.evaluation.shifted) == 1
    assert "did not vote on all further sets (error: no such thing)" in said(heard)
    assert any("set striped: not judged" in line for line in outcome.evaluation.warnings)


def test_a_stack_that_has_no_room_votes_in_halves(finished, tmp_path):
    sizes: list[int] = []

    class Narrow(InlineExecutor):
        def run(
            self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
        ) -> Iterator[Outcome]:
            for task in tasks:
                if isinstance(train, SetVoter):
                    sizes.append(train.parts[task.id].stack_size)
                    if sizes[-1] > 1:
                        full = tuple(Failure(m.index, "out_of_memory", "full") for m in task.members)
                        yield Outcome(task, (), full)
                        continue
                yield from super().run([task], train, arrays, emit, wanted)

    outcome = run(experiment(tmp_path), executor=Narrow())
    assert set(sizes) == {2, 1}
    assert len(outcome.evaluation.shifted) == 1
    for name, content in votes(outcome.path, "changed", 0).items():
        np.testing.assert_allclose(content, votes(finished.path, "changed", 0)[name], atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
def test_later_votes_are_those_of_training_on_every_executor(finished, tmp_path):
    for place in ("inline", "processes", "ray"):
        outcome = run(experiment(tmp_path, name=place, evaluation={"sets": ()}))
        (tmp_path / "sets.yaml").write_text(
            "evaluation:\n  sets:\n    - {name: changed, kind: shifted, corruptions: [identity, stripe]}\n"
            "    - {name: striped, kind: unknown, corruptions: [stripe]}\n"
        )
        vote_later(outcome.path, [str(tmp_path / "sets.yaml")], place)
        assert set_files(outcome.path) == set_files(finished.path)
        assert judge_again(outcome.path).shifted == finished.evaluation.shifted


def test_a_run_on_ray_votes_as_one_inline(finished, tmp_path):
    config = experiment(tmp_path, compute={**CONFIG["compute"], "executor": "ray", "slots": 2})
    outcome = run_experiment(config, "warnings")
    assert set_files(outcome.path) == set_files(finished.path)


def arrays_file(path: Path, classes: int = 10, side: int = 28, channels: int = 1) -> Path:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 255, (60, side, side, channels), np.uint8)
    labels = np.arange(60) % classes
    np.savez(path, train_images=images, train_labels=labels, test_images=images[:20], test_labels=labels[:20])
    return path


def elsewhere(path: Path, kind: str, **keys: Any) -> dict[str, Any]:
    return {"sets": ({"name": "other", "kind": kind, "data": {"name": "arrays", "path": str(path)}, **keys},)}


def test_images_from_elsewhere_of_another_size_and_colour(tmp_path):
    path = arrays_file(tmp_path / "a.npz", side=20, channels=3)
    outcome = run(experiment(tmp_path, evaluation=elsewhere(path, "unknown")))
    facts = json.loads((outcome.path / "votes/other/set.json").read_text())
    assert facts["images"] == 80  # all that a file of one's own holds
    assert "3x20x20 brought to 1x28x28" in facts["source"]
    assert outcome.evaluation.unknown[0].images == 80


def test_images_of_other_classes_are_no_shifted_set(tmp_path):
    path = arrays_file(tmp_path / "a.npz", classes=12)
    with pytest.raises(
        DataError, match=r"set other: its images are of the classes 10, 11, which the run does not have"
    ):
        run(experiment(tmp_path, evaluation=elsewhere(path, "shifted")))
    assert not (tmp_path / "run").exists()  # nothing was begun


def test_fewer_images_are_drawn_evenly(tmp_path):
    path = arrays_file(tmp_path / "a.npz")
    outcome = run(experiment(tmp_path, evaluation=elsewhere(path, "shifted", max_images=20, part="all")))
    labels = np.load(outcome.path / "votes/other/labels.npz")["labels_N"]
    np.testing.assert_array_equal(np.bincount(labels), [2] * 10)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([{"name": "a", "kind": "shifted"}], "without data and corruptions it would be the test images"),
        ([{"name": "test", "kind": "shifted", "corruptions": ("stripe",)}], "stands for a part of the run's own data"),
        ([CHANGED, CHANGED], "two have the name changed"),
        ([{**CHANGED, "corruptions": "mnist_d"}], "expected mnist_c, cifar10_c or a list"),
        ([{**CHANGED, "corruptions": ({"rotate": "x"},)}], "the level of rotate is 'x'; expected a number"),
        ([{**CHANGED, "corruptions": ({"rotate": (0, 7, "...", 180)},)}], "steps of 7 do not lead to 180"),
        ([{**CHANGED, "corruptions": (3,)}], "corruptions holds 3; expected a name"),
        ([{**CHANGED, "part": "all"}], "part has no effect without data"),
        ([{**CHANGED, "files": "x"}], "files are those of a published benchmark"),
        ([{**CHANGED, "data": {"name": "digits", "max_train_rows": 50}}], "data.max_train_rows has no effect on a set"),
        ([{**CHANGED, "kind": "near"}], "expected one of shifted, unknown"),
        ([{**CHANGED, "corruptions": ({"stripes": ()},)}], "stripe"),
        ([{**CHANGED, "corruptions": ({"gaussian_noise": (7.0,)},)}], "gaussian_noise"),
        ([{**CHANGED, "corruptions": ({"stripe": (2.0,)},)}], "stripe"),
    ],
)
def test_mistakes_are_named(tmp_path, sets, message):
    with pytest.raises(EnsembleError, match=message):
        run(experiment(tmp_path, evaluation={"sets": tuple(sets)}))


def test_levels_may_be_written_as_a_range(tmp_path):
    config = experiment(tmp_path, evaluation={"sets": ({**CHANGED, "corruptions": ({"rotate": (0, 15, "...", 60)},)},)})
    assert config.evaluation.sets[0].corruptions == ({"rotate": (0.0, 15.0, 30.0, 45.0, 60.0)},)


def test_names_that_stand_for_nothing(finished):
    with pytest.raises(
        ConfigError, match=r"--on nothing: stands for nothing; expected one of changed, striped, mnist_c"
    ):
        vote_later(finished.path, ["nothing"])


def test_an_evaluation_with_sets_survives_its_record(finished):
    record = json.loads(json.dumps(finished.evaluation.to_json()))
    assert Evaluation.from_json(record).to_json() == record
    assert Evaluation.from_json(record).shifted == finished.evaluation.shifted


def test_parts_are_voted_on_in_blocks_as_in_one(finished, tmp_path, monkeypatch):
    import ensemble.training.set_votes as module

    monkeypatch.setattr(module, "BLOCK_BYTES", 1)  # one chunk of 256 images at a time
    outcome = run(experiment(tmp_path))
    for part in (0, 1):
        for index, probs_NK in votes(outcome.path, "changed", part).items():
            np.testing.assert_array_equal(probs_NK, votes(finished.path, "changed", part)[index])


def test_every_number_of_the_page_is_that_of_the_judgement(finished):
    """Whatever the page says of shifted and unknown images, promises and prediction sets stands in evaluation.json."""
    import re

    from ensemble.report.html import write_report

    text = write_report([finished.path]).read_text()
    record = json.loads((finished.path / "evaluation.json").read_text())
    seen = set()
    for exact, key in re.findall(r'<data value="([^"]*)" data-key="([^"]*)">', text):
        value: Any = record
        for part in key.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        assert (exact == "") if value is None else (float(exact) == value), key
        seen.add(key.partition(".")[0])
    assert {"shifted", "unknown", "selective", "conformal", "calibration"} <= seen
    for name in ("shifted", "unknown"):
        assert (finished.path / f"figures/{name}.png").stat().st_size > 5000
    tables = {path.name for path in (finished.path / "tables").iterdir()}
    assert {"shifted_changed.tex", "unknown_striped.csv", "promises.tex", "prediction_sets.tex"} <= tables
    assert "Shifted and unknown images" in text


def test_runs_are_compared_on_a_further_set(finished, tmp_path):
    other = run(experiment(tmp_path, name="other", method={"name": "deep_ensemble"}))
    items = [str(finished.path), f"{other.path}:1", str(other.path)]
    found = compare_items(items, on="changed:stripe", margin=0.5)
    labels_N = np.load(finished.path / "votes/changed/labels.npz")["labels_N"]
    mine, theirs = (votes(path, "changed", 1) for path in (finished.path, other.path))
    expected = [
        np.mean([mine[index] for index in range(3)], axis=0), theirs[1], np.mean([theirs[index] for index in range(3)], axis=0),
    ]  # fmt: skip
    for line, probs_NK in zip(found.lines, expected, strict=False):
        assert line.wrong == (probs_NK.argmax(1) != labels_N).sum()
    assert found.judged_on == "changed:stripe"
    assert found.yardstick == "other"
    assert all(1 <= line.worth <= 3 for line in found.lines[:3])
    assert not found.lines[2].worth_beyond  # the deep ensemble itself
    assert found.lines[1].equivalence_p < 0.05
    file = tmp_path / "theirs.npz"
    np.savez(file, test_probs=expected[1].astype(np.float64))
    with_file = compare_items([items[0], str(file)], on="changed:stripe")
    assert with_file.lines[1].wrong == found.lines[1].wrong


def test_runs_that_voted_on_other_images_are_not_compared_there(finished, tmp_path):
    fewer = {**CHANGED, "max_images": 100}
    other = run(experiment(tmp_path, name="other", evaluation={"sets": (fewer,)}))
    with pytest.raises(DataError, match=r"labels on|tested on|voted on different images"):
        compare_items([str(finished.path), str(other.path)], on="changed:stripe")
    with pytest.raises(ConfigError, match=r"the set changed has the parts identity, stripe; give one of them"):
        compare_items([str(finished.path), str(other.path)], on="changed")
    with pytest.raises(ConfigError, match=r"has no votes on such a set of its classes \(it has: changed\)"):
        compare_items([str(finished.path), str(other.path)], on="striped")


def test_published_files_are_voted_on_as_they_are(finished, tmp_path):
    """Files that hold the test images themselves: every part has the votes of the test images."""
    from ensemble.data.corruptions import RECIPES

    dataset = load_dataset(experiment(tmp_path).data)
    for corruption in RECIPES["mnist_c"]:
        place = tmp_path / "files" / corruption.name.removeprefix("mnist_c/")
        place.mkdir(parents=True)
        np.save(place / "test_images.npy", dataset.test_images_NCHW.transpose(0, 2, 3, 1))
        np.save(place / "test_labels.npy", dataset.test_labels_N)
    sets = ({"name": "published", "kind": "shifted", "corruptions": "mnist_c", "files": str(tmp_path / "files")},)
    outcome = run(experiment(tmp_path, evaluation={"sets": sets}))
    (found,) = outcome.evaluation.shifted
    assert len(found.parts) == 15
    assert {part.vote_error for part in found.parts} == {outcome.evaluation.headline.test_error}
    for index in range(3):
        kept = np.load(outcome.path / f"members/{index:04d}/votes.npz")["test_NK"]
        np.testing.assert_array_equal(votes(outcome.path, "published", 14)[index], kept)


def test_judging_without_writing_says_what_training_said(finished):
    assert judge(RunFolder.read(finished.path)).to_json() == finished.evaluation.to_json()
    result = CliRunner().invoke(main, ["evaluate", str(finished.path), "--all"])
    assert "Shifted, changed" in result.output
    assert "Unknown, striped" in result.output


def test_votes_are_forgotten_on_request_and_not_replaced_without(finished, tmp_path):
    outcome = run(experiment(tmp_path, evaluation={"sets": (CHANGED,)}))
    path = str(outcome.path)
    other = tmp_path / "other.yaml"
    other.write_text("evaluation: {sets: [{name: changed, kind: unknown, corruptions: [stripe]}]}\n")
    shouted = tmp_path / "shouted.yaml"
    shouted.write_text("evaluation: {sets: [{name: CHANGED, kind: unknown, corruptions: [stripe]}]}\n")
    invoke = CliRunner().invoke
    refused = invoke(main, ["evaluate", path, "--on", str(other)])
    assert refused.exit_code == 2
    assert "the run has votes on another set named changed (the test images)" in refused.stderr
    assert "differs from it in its case alone" in invoke(main, ["evaluate", path, "--on", str(shouted)]).stderr
    assert set_files(outcome.path).keys() == {
        name for name in set_files(finished.path) if name.split("/")[1] in ("calibration", "changed")
    }
    assert (
        "--forget x: no votes on such a set; there are changed\n"
        in invoke(main, ["evaluate", path, "--forget", "x"]).stderr
    )
    for own in ("calibration", "test"):  # of the run itself: without them it could promise nothing any more
        kept = set_files(outcome.path)
        refused = invoke(main, ["evaluate", path, "--forget", "changed", "--forget", own])
        assert refused.exit_code == 2
        assert f"--forget {own}: no votes on such a set; there are changed" in refused.stderr
        assert set_files(outcome.path) == kept, "the other set is not removed either"
    done = invoke(main, ["evaluate", path, "--forget", "changed", "--on", str(other)])
    assert done.exit_code == 0, done.output
    assert "Unknown, changed" in done.output
    assert "Shifted" not in done.output


def test_another_data_set_is_not_looked_for_among_ones_own_pictures(tmp_path):
    own = experiment(tmp_path, data={"name": "image_folder", "root": str(tmp_path), "image_size": 28, "channels": 1})
    assert sets_of("mnist", own, ["cat", "dog"])[0].data.root is None
    assert sets_of("mnist", own, ["cat", "dog"])[0].kind == "unknown"
    kept = experiment(tmp_path, data={"name": "mnist", "root": str(tmp_path)})
    assert sets_of("qmnist", kept, [str(k) for k in range(10)])[0].data.root == str(tmp_path)
    assert sets_of("qmnist", kept, [str(k) for k in range(10)])[0].kind == "shifted"  # of the same classes


def test_recipes_that_do_not_suit_the_images_are_refused_before_training(tmp_path):
    path = arrays_file(tmp_path / "a.npz", side=6)
    sets = {"sets": ({"name": "c", "kind": "shifted", "corruptions": "mnist_c"},)}
    with pytest.raises(ConfigError, match=r"evaluation.sets: c: corruptions: .* at least 8 x 8 pixels"):
        run(experiment(tmp_path, data={"name": "arrays", "path": str(path)}, model={"name": "mlp"}, evaluation=sets))
    assert not (tmp_path / "run").exists()


def test_training_images_in_a_set_are_told(tmp_path):
    path = arrays_file(tmp_path / "a.npz")
    heard: list[Event] = []
    run(experiment(tmp_path, data={"name": "arrays", "path": str(path)}, evaluation=elsewhere(path, "shifted")), heard)
    assert "set other: 80 of its 80 images are training images of this run, pixel for pixel" in said(heard)


def test_training_images_in_a_set_are_told_later_too(tmp_path):
    """Also where no other set needs the run's images; where they cannot be read, that they were not compared."""
    invoke = CliRunner().invoke
    path = arrays_file(tmp_path / "a.npz")
    outcome = run(experiment(tmp_path, data={"name": "arrays", "path": str(path)}))
    sets = tmp_path / "sets.yaml"
    one = f"{{name: arrays, path: '{path}'}}"
    sets.write_text(f"evaluation: {{sets: [{{name: other, kind: shifted, data: {one}}}]}}")
    done = invoke(main, ["evaluate", str(outcome.path), "--on", str(sets)])
    assert done.exit_code == 0, done.output
    assert "set other: 80 of its 80 images are training images of this run, pixel for pixel" in done.stderr
    path.rename(tmp_path / "b.npz")
    sets.write_text(sets.read_text().replace("a.npz", "b.npz").replace("other", "again"))
    done = invoke(main, ["evaluate", str(outcome.path), "--on", str(sets)])
    assert done.exit_code == 0, done.output
    assert "note: the sets are not compared with the run's training images: " in done.stderr


def test_sets_that_would_hold_every_class_are_refused(finished):
    trained = load_ensemble(finished.path, device="cpu")
    with pytest.raises(ConfigError, match=r"alpha=0.001 needs at least 999 calibration images"):
        sets_rule(trained.vote, 0.001)


def test_plain_predictions_need_no_votes_on_sets(tmp_path):
    outcome = run(experiment(tmp_path))
    for file in (outcome.path / "votes").rglob("*.npz"):
        file.unlink()
    trained = load_ensemble(outcome.path, device="cpu")
    assert len(trained.predict(np.zeros((2, 1, 28, 28), np.uint8))) == 2
    with pytest.raises(StorageError, match=r"votes/calibration/0000.npz: listed in manifest.json but not readable"):
        reject_rule(trained.vote, 0.1)


def test_an_additive_vote_has_no_scores_of_opinions(tmp_path):
    outcome = run(experiment(tmp_path, method={"name": "gradient_boosting"}, baseline=False))
    assert [score.score for score in outcome.evaluation.unknown[0].scores] == ["max probability", "entropy"]


def test_judgements_of_versions_without_all_this_are_still_shown(tmp_path):
    from ensemble.report.card import model_card
    from ensemble.report.html import write_report

    outcome = run(experiment(tmp_path, evaluation={"sets": ()}, data={"name": "digits"}))
    with RunFolder.open(tmp_path, "run", RunFolder.read(outcome.path).config(), {}) as folder:
        record = json.loads(folder.read_bytes("evaluation.json"))
        for name in ("shifted", "unknown", "selective", "conformal"):
            del record[name]
        for name in ("smooth_ece", "smooth_lower", "smooth_upper", "class_wise_ece"):
            del record["calibration"][name]
        folder.write("evaluation.json", json.dumps(record).encode())
    assert "Expected calibration error" in write_report([outcome.path]).read_text()
    assert "Promised" not in model_card(outcome.path)


def test_dashboards_are_told_what_the_judgement_says(finished):
    from ensemble.tracking.wandb_evaluation import figures, tables

    record = finished.evaluation.to_json()
    told = figures(record)
    (shifted,), (unknown,) = finished.evaluation.shifted, finished.evaluation.unknown
    assert told["shifted/changed/vote_error"] == shifted.vote_error
    assert told["unknown/striped/auroc"] == unknown.scores[0].auroc
    assert told["selective/aurc"] == finished.evaluation.selective.aurc
    found = {table.name: table for table in tables(record, {})}
    assert [row[:2] for row in found["shifted"].rows] == [("changed", "identity"), ("changed", "stripe")]
    assert len(found["unknown"].rows) == 5
    assert len(found["promises"].rows) == 4
    assert len(found["prediction_sets"].rows) == 9
