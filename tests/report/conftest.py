"""Small judged runs on disk, made of random votes with known seeds: what `ensemble train` leaves, without the training."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from ensemble.config.schema import Aggregator
from ensemble.evaluation.evaluate import evaluate
from ensemble.evaluation.out_of_bag import OutOfBag
from ensemble.evaluation.records import Evaluation, MemberFacts
from ensemble.evaluation.splits import SplitVotes
from ensemble.events import EpochFinished, MemberFailed, MemberFinished, RunFinished, RunStarted, TaskStarted, to_json
from ensemble.report.html import write_report
from ensemble.storage import Labels, RunFolder
from ensemble.storage.atomic import json_bytes, npz_bytes
from ensemble.types import EpochRecord, MemberResult, Votes

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "<b>eight</b>", "nine")
VALIDATION_ROWS, TRAIN_ROWS = 120, 200


def make_probs(members: int, labels: np.ndarray, seed: int, skill: float, classes: int = len(CLASSES)) -> np.ndarray:
    """Votes of members that share part of their mistakes, shape (M, N, K)."""
    generator = np.random.default_rng(seed)
    rows = len(labels)
    logits = generator.normal(scale=1.2, size=(rows, classes)) + generator.normal(size=(members, rows, classes))
    logits[:, np.arange(rows), labels] += skill
    probs = np.exp(logits)
    return (probs / probs.sum(axis=-1, keepdims=True)).astype(np.float32)


def make_evaluation(
    members: int = 4,
    rows: int = 400,
    recipes: Sequence[str] = ("lenet5",),
    asked: int | None = None,
    skill: float = 3.5,
    seed: int = 0,
    bags: bool = True,
    choose: bool = True,
    names: Sequence[str] = CLASSES,
    aggregator: Aggregator = "soft",
    dataset: str = "digits",
) -> tuple[Evaluation, SplitVotes, SplitVotes]:
    """An evaluation of random votes, with the votes it was made of (validation, test)."""
    generator = np.random.default_rng(seed)
    splits = []
    for split, size in (("validation", VALIDATION_ROWS), ("test", rows)):
        labels = generator.integers(0, len(names), size)
        splits.append(SplitVotes(split, make_probs(members, labels, seed + len(splits), skill, len(names)), labels))
    validation, test = splits
    facts = [
        MemberFacts(m, recipes[m % len(recipes)], 61_706 + 1_000 * (m % len(recipes)), 2.5 + m, 3)
        for m in range(members)
    ]
    out_of_bag = None
    if bags:
        labels = generator.integers(0, len(names), TRAIN_ROWS)
        outside = [np.flatnonzero(generator.random(TRAIN_ROWS) < 0.37) for _ in range(members)]
        probs = make_probs(members, labels, seed + 7, skill, len(names))
        out_of_bag = OutOfBag(
            outside, [probs[m, chosen] for m, chosen in enumerate(outside)], np.arange(TRAIN_ROWS), labels
        )
    evaluation = evaluate(
        validation, test, facts, aggregator, None, asked or members, dataset, names, out_of_bag, choose=choose
    )
    return evaluation, validation, test


def make_history(member: int, epochs: int) -> tuple[EpochRecord, ...]:
    """Falling curves, a little different for every member."""
    wobble = 1 + 0.1 * np.sin(member)
    return tuple(
        EpochRecord(e, 2.0 * wobble * 0.6**e, 2.1 * wobble * 0.7**e + 0.1, 0.6 * wobble * 0.7**e + 0.03, 1e-3, 0.5)
        for e in range(1, epochs + 1)
    )


def digit_image(label: int, row: int) -> np.ndarray:
    """A picture anybody recognises as one: `label` bright bars on a dark ground, CHW."""
    image = np.zeros((1, 28, 28), np.uint8)
    for bar in range(label % 11):
        image[0, 4:24, 2 + 2 * bar + bar // 5 : 3 + 2 * bar + bar // 5] = 255 - 3 * (row % 40)
    return image


def write_run(
    root: Path,
    name: str = "demo",
    *,
    images: bool = True,
    failed: int | None = None,
    epochs: int = 6,
    channels: int = 1,
    **evaluation_options: object,
) -> Path:
    """A judged run folder. failed: a member that failed besides the others. Returns its path."""
    evaluation, validation, test = make_evaluation(**evaluation_options)  # type: ignore[arg-type]
    members = evaluation.members
    config = {
        "name": name, "seed": 0, "num_members": evaluation.asked_members, "method": {"name": "bagging"},
        "data": {"name": "digits"}, "model": {"name": "lenet5"},
    }  # fmt: skip
    weights = {"layer.weight": np.ones((2, 2), np.float32)}
    events: list[object] = [RunStarted(name, "bagging", evaluation.asked_members, 0, "inline", 1)]
    with RunFolder.open(root, name, config, {"stack_sizes": {"lenet5": len(members)}, "device": "cpu"}) as folder:
        for m, facts in enumerate(members):
            history = make_history(m, epochs)
            votes = Votes(
                validation.probs_MNK[m],
                test.probs_MNK[m],
                np.empty(0, np.int64),
                np.empty((0, test.num_classes), np.float32),
            )
            result = MemberResult(
                facts.index, facts.recipe, votes, weights, history, facts.num_parameters, facts.train_seconds, 3, 1
            )
            folder.save_members([result])
            events.append(TaskStarted(f"t{m}", (m,), facts.recipe, epochs, "host-a", 1, "cpu", 1))
            events += [
                EpochFinished(m, r.epoch, epochs, r.train_loss, r.validation_loss, r.validation_error, r.lr, r.seconds)
                for r in history
            ]
            events.append(MemberFinished(m, facts.recipe, facts.num_parameters, facts.train_seconds, 3, 0.1))
        if failed is not None:
            events.append(MemberFailed(failed, "diverged", "loss <nan> at step 12", 1, 1.5, "drop"))
            folder.write(f"failures/{failed:04d}.txt", b"Traceback: <script>alert(1)</script>")
        events.append(RunFinished(len(members), 0 if failed is None else 1, 12.0, {"test_error": 0.1}))
        environment = {"python": "3.11.0", "cores": 2, "commit": None, "packages": {"torch": "2.10.0", "ray": None}}
        folder.write("environment.json", json_bytes(environment))
        described = {
            "name": evaluation.dataset, "class_names": evaluation.class_names, "image_shape": [channels, 28, 28],
        }  # fmt: skip
        folder.write("dataset.json", json_bytes(described))
        rows_N = np.arange(TRAIN_ROWS + VALIDATION_ROWS)
        labels_N = np.concatenate([np.zeros(TRAIN_ROWS, np.int64), validation.labels_N])
        folder.save_labels(Labels(rows_N[:TRAIN_ROWS], rows_N[TRAIN_ROWS:], labels_N, test.labels_N))
        folder.write("evaluation.json", json_bytes(evaluation.to_json()))
        if images:
            rows = np.array([row.row for row in evaluation.disputed], np.int64)
            pictures = [digit_image(row.label, row.row) for row in evaluation.disputed]
            stack = np.stack([np.repeat(one, channels, axis=0) for one in pictures])
            folder.write("disputed.npz", npz_bytes({"rows": rows, "images": stack}))
        log = "".join(json.dumps({"time": float(i), **to_json(event)}) + "\n" for i, event in enumerate(events))
        (folder.path / "events.jsonl").write_text(log)
        folder.record_events()
    assert yaml.safe_load((root / name / "config.yaml").read_text()) == config
    return root / name


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four members with a fifth that failed."""
    return write_run(tmp_path_factory.mktemp("runs"), failed=4, asked=5)


@pytest.fixture(scope="session")
def page_path(run_path: Path) -> Path:
    """The report of that run."""
    return write_report([run_path])


@pytest.fixture(scope="session")
def evaluation_of() -> Callable[..., Evaluation]:
    """Makes evaluations of random votes; see make_evaluation."""
    return lambda **options: make_evaluation(**options)[0]


@pytest.fixture(scope="session")
def run_of() -> Callable[..., Path]:
    """Makes run folders; see write_run."""
    return write_run
