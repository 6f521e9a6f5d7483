"""The way through the house: configuration in, trained members, votes, judgement out. One run, one folder.

    outcome = run_ensemble(experiment, make_executor, make_trackers)

Running the same experiment again finishes what is missing and retrains nothing that is finished.
"""

from __future__ import annotations

import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.config import Experiment
from ensemble.config.loading import parse_stored
from ensemble.config.schema import Aggregator
from ensemble.data import (
    Dataset,
    Split,
    check_augmentation,
    images_digest,
    load_dataset,
    normalization,
    split_rows,
)
from ensemble.environment import describe_environment
from ensemble.errors import QuorumError, StorageError
from ensemble.evaluation.records import Evaluation
from ensemble.events import Event, MemberFailed, MemberFinished, Notice, RunFinished, RunStarted
from ensemble.executors import Executor, expected_slots
from ensemble.executors.base import Outcome
from ensemble.judging import DATASET, DISPUTED, EVALUATION, METHOD, STAGED, headline_figures, judge, staged_points
from ensemble.methods import Method, build_method
from ensemble.planning import Plan, longest_first, make_plan, pack
from ensemble.report.tables import leaderboard_csv, leaderboard_html
from ensemble.storage import Labels, RunFolder
from ensemble.storage.atomic import json_bytes, npz_bytes
from ensemble.storage.run_folder import EVENTS, PLAN
from ensemble.tracking.base import Composite, Tracker
from ensemble.tracking.event_log import EventLog
from ensemble.training import Arrays, Trainer, check_precision, device_kind
from ensemble.types import Checkpoint, Failure, FloatArray, MemberSpec, Task

LEADERBOARD, ROUNDS = "leaderboard.csv", "rounds.json"
MakeExecutor = Callable[[str, Sequence[Task], int], Executor]  # device kind, tasks, training images over all epochs
MakeTrackers = Callable[[RunFolder], Sequence[Tracker]]


@dataclass(frozen=True)
class RunOutcome:
    """What a run came to."""

    path: Path
    evaluation: Evaluation
    failures: tuple[Failure, ...]
    trained: int
    seconds: float
    ended_early: tuple[str, ...] = ()  # why a method trained fewer members than asked for

    def _repr_html_(self) -> str:
        """What a notebook shows: leaderboard and verdict."""
        return leaderboard_html(self.evaluation)


def run_ensemble(experiment: Experiment, make_executor: MakeExecutor, make_trackers: MakeTrackers) -> RunOutcome:
    """Train what is missing, judge all. Raises the EnsembleError of whatever stopped it."""
    started = time.monotonic()
    dataset = load_dataset(experiment.data)
    for group in experiment.groups:
        check_augmentation(group.training.augmentation, dataset)
    split = split_rows(dataset.train_labels_N, dataset.num_classes, experiment.data, experiment.seed)
    device, config = device_kind(experiment.compute), experiment.model_dump(mode="json")
    check_precision(experiment.compute, device)
    notices: list[Notice] = []

    def plan() -> dict[str, Any]:
        images = len(split.train_rows) * sum(group.count * group.training.epochs for group in experiment.groups)
        made = complete_plan(experiment, dataset, device, expected_slots(experiment.compute, device, images))
        notices.extend(_told(made))
        return made.to_json()

    with (
        RunFolder.open(experiment.output_dir, experiment.name, config, plan) as folder,
        _listening(folder, make_trackers) as emit,
    ):
        for notice in notices:
            emit(notice)
        driver = train_members(experiment, dataset, split, folder, make_executor, emit)
        evaluation = judge(folder)
        _store_judgement(folder, evaluation, dataset)
        seconds, failures = time.monotonic() - started, tuple(driver.failures.values())
        emit(RunFinished(len(folder.finished()), len(failures), seconds, headline_figures(evaluation)))
    return RunOutcome(folder.path, evaluation, failures, driver.trained, seconds, driver.ended_early)


def _told(plan: Plan) -> Iterator[Notice]:
    """What was found out about kernels, in words."""
    for recipe, ways in plan.ways.items():
        others = ", ".join(f"{layer} {way}" for layer, way in ways.convolutions.items())
        kernels = "the kernels for narrow networks" if ways.batch_last else "PyTorch's kernels"
        yield Notice(f"{recipe}: {kernels} are quickest here" + (f", with {others}" if others else ""))


def complete_plan(experiment: Experiment, dataset: Dataset, device: str, slots: int = 1) -> Plan:
    """The plan of a new run, with the quickest kernels for its stacks where compute.kernels asks to find them."""
    plan = make_plan(experiment, device, slots)
    if experiment.compute.kernels != "measured":
        return plan
    from ensemble.training.ways import (
        find_ways,
    )  # imports torch, which the driver of a CPU run can do without otherwise

    _, channels, height, width = dataset.train_images_NCHW.shape
    jobs, sizes = Trainer.create(experiment, device, dataset.num_classes).jobs, plan.stack_sizes
    return replace(
        plan, ways={name: find_ways(job, (channels, height, width), sizes[name]) for name, job in jobs.items()}
    )


def judge_again(path: Path, aggregator: Aggregator | None = None) -> Evaluation:
    """Judge a stored run from its votes and replace what it keeps of its judgement; nothing is trained.

    aggregator: another headline vote than the configured one. Raises StorageError when the folder is no run or another
    process writes to it, DataError when the data set, whose disputed images are kept too, is not there.
    """
    stored = RunFolder.read(path)
    evaluation = judge(stored, aggregator)
    dataset = load_dataset(parse_stored(stored.config(), str(path / "config.yaml")).data)
    with RunFolder.open(path.absolute().parent, path.absolute().name, stored.config(), stored.plan()) as folder:
        _store_judgement(folder, evaluation, dataset)
    return evaluation


def _store_judgement(folder: RunFolder, evaluation: Evaluation, dataset: Dataset) -> None:
    if staged := staged_points(folder):
        folder.write(STAGED, json_bytes([asdict(point) for point in staged]))
    rows = np.array([disputed.row for disputed in evaluation.disputed], np.int64)
    folder.write_all(
        {
            EVALUATION: json_bytes(evaluation.to_json()),
            LEADERBOARD: leaderboard_csv(evaluation).encode(),
            DISPUTED: npz_bytes({"rows": rows, "images": dataset.test_images_NCHW[rows]}),
        }
    )


@contextmanager
def _listening(folder: RunFolder, make_trackers: MakeTrackers) -> Iterator[Callable[[Event], None]]:
    """Inside, events go to the log on disk, whose failure stops the run, and to the trackers, whose failure does not."""
    log = EventLog(folder.path / EVENTS)
    trackers = Composite(make_trackers(folder))

    def emit(event: Event) -> None:
        now = time.time()
        log.handle(event, now)
        trackers.handle(event, now)

    ok = False
    try:
        yield emit
        ok = True
    finally:
        trackers.close(ok)
        log.close(ok)
        folder.record(EVENTS)


def train_members(
    experiment: Experiment,
    dataset: Dataset,
    split: Split,
    folder: RunFolder,
    make_executor: MakeExecutor,
    emit: Callable[[Event], None],
) -> Driver:
    """Train what is missing in an open run folder, and store all that voting needs; judging is another matter.

    Raises StorageError when the folder was begun with other data, QuorumError when the failure policy says stop.
    """
    mean_C, std_C = normalization(dataset, split)
    _describe(folder, dataset, split, mean_C, std_C)
    driver = Driver(experiment, folder, make_executor, emit)
    method = build_method(
        experiment, split.train_rows, dataset.train_labels_N, dataset.num_classes, split.validation_rows
    )
    try:
        watch_test = any(group.training.watch_test for group in experiment.groups)
        driver.train(method, _arrays(dataset, split, mean_C, std_C, watch_test), dataset.num_classes)
    finally:
        driver.close()
    folder.write(METHOD, json_bytes({"vote_weights": _weights(method, driver, folder), "report": method.report()}))
    return driver


class Driver:
    """Hands the rounds of a method to an executor and stores what comes back."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        make_executor: MakeExecutor,
        emit: Callable[[Event], None],
    ) -> None:
        self.experiment, self.folder, self.emit = experiment, folder, emit
        self.plan = Plan.from_json(folder.plan())  # of the first start, wherever that was
        self.failures: dict[int, Failure] = {}
        self.trained = 0
        self.told: set[int] = set()  # members the method knows
        self.ended_early: tuple[str, ...] = ()
        self._noted = 0
        self._noticed: set[str] = set()  # notices of tasks, many of which may have the same to say
        self._used: Counter[tuple[str, str]] = Counter()  # tries by task and kind of failure
        self._lost: dict[int, tuple[int, float]] = {}  # tries and seconds by member
        self._make_executor = make_executor
        self._executor: Executor | None = None

    def train(self, method: Method, arrays: Arrays, num_classes: int) -> None:
        """Ask, train, tell, until the method has no more to ask."""
        trainer = Trainer.create(self.experiment, self.plan.device, num_classes, self.plan.ways)
        closed = self._closed_rounds()
        previous: list[int] = []
        for number in itertools.count():
            members = method.ask()
            if not members:
                break
            if len(closed) < number:
                closed.append(previous)
                self.folder.write(ROUNDS, json_bytes(closed))
            wanted = {m.index for m in members} if number == len(closed) else set(closed[number])
            todo = [task for task in pack(members, self.plan) if self._unfinished(task, wanted)]
            if len(todo) > 1:
                todo = longest_first(todo, self.experiment, arrays["train_images"].shape[1:], num_classes)
            if self._executor is None:
                self._executor = self._start(members, todo)
            self._round(todo, trainer, arrays)
            previous = sorted(wanted & self.folder.finished())
            self.told.update(previous)
            method.tell([self.folder.load_member(index, method.wants_weights) for index in previous])
            self._listen(method)

    def _closed_rounds(self) -> list[list[int]]:
        """The members each earlier round was told of, for the rounds that a later one was built upon.

        What follows such a round depends on which members it had: one that failed then is not tried again, or the
        stored members of the next round would answer a question that nobody asked.
        """
        rounds: list[list[int]] = json.loads(self.folder.read_bytes(ROUNDS)) if self.folder.has(ROUNDS) else []
        return rounds

    def _listen(self, method: Method) -> None:
        """Pass on what the method noted in the last round."""
        report = method.report() or {}
        notices = report.get("notices", [])
        for message in notices[self._noted :]:
            self.emit(Notice(message))
        self._noted = len(notices)
        self.ended_early = tuple(report.get("ended_early", ()))

    def _start(self, members: list[MemberSpec], todo: list[Task]) -> Executor:
        images = sum(
            len(member.rows) * self.experiment.group(member.recipe).training.epochs
            for task in todo
            for member in task.members
        )
        executor = self._make_executor(self.plan.device, todo, images)
        finished = len([member for member in members if member.index in self.folder.finished()])
        total, method = self.experiment.total_members, self.experiment.method.name
        self.emit(RunStarted(self.experiment.name, method, total, finished, executor.name, executor.slots))
        return executor

    def _round(self, tasks: list[Task], trainer: Trainer, arrays: Arrays) -> None:
        """Train the tasks, and those again that the failure policy gives another try."""
        assert self._executor is not None
        while tasks:
            again: list[Task] = []
            tasks = [replace(task, checkpoint=self.folder.load_checkpoint(task.id)) for task in tasks]
            for outcome in self._executor.run(tasks, trainer, arrays, self._take):
                new = [result for result in outcome.results if result.index not in self.folder.finished()]
                self.folder.save_members(new)
                self.trained += len(new)
                for result in new:
                    self.failures.pop(result.index, None)
                    self._lost.pop(result.index, None)
                    error = result.history[result.kept_epoch - 1].validation_error
                    self.emit(MemberFinished(
                        result.index, result.recipe, result.num_parameters, result.train_seconds, result.kept_epoch, error
                    ))  # fmt: skip
                again += self._again(outcome)
                if not outcome.failures:
                    self.folder.drop_checkpoints(outcome.task.id)
            tasks = again

    def _take(self, item: Event | Checkpoint) -> None:
        """What comes from a task on its way: states to keep, and news for the listeners, a notice once."""
        if isinstance(item, Checkpoint):
            self.folder.save_checkpoint(item.task, item.content)
        elif not isinstance(item, Notice):
            self.emit(item)
        elif item.message not in self._noticed:
            self._noticed.add(item.message)
            self.emit(item)

    def _again(self, outcome: Outcome) -> list[Task]:
        """The tasks that another try of this one consists of; none where nothing failed or no try is left."""
        kinds = {failure.kind for failure in outcome.failures}
        self._used.update((outcome.task.id, kind) for kind in kinds)
        retried = [self._decide(failure, outcome.task) for failure in outcome.failures]
        if not any(retried):
            return []
        if "out_of_memory" not in kinds:
            return [outcome.task]
        self.folder.drop_checkpoints(outcome.task.id)
        # Half as many networks at a time. The plan says so from now on, so that a later start packs them alike.
        recipe, size = outcome.task.recipe, -(-len(outcome.task.members) // 2)
        self.plan = replace(self.plan, stack_sizes={**self.plan.stack_sizes, recipe: size})
        self.folder.write(PLAN, json_bytes(self.plan.to_json()))
        self.emit(
            Notice(f"{outcome.task.id}: out of memory with {len(outcome.task.members)} networks; now {size} at a time")
        )
        return pack([m for m in outcome.task.members if m.index not in self.folder.finished()], self.plan)

    def _decide(self, failure: Failure, task: Task) -> bool:
        """Apply the failure policy to one failure: True for another try. Raises QuorumError when it says stop."""
        policy = self.experiment.failures
        tries, lost = self._lost.get(failure.index, (0, 0.0))
        tries, lost = self._lost[failure.index] = tries + 1, lost + failure.seconds_lost
        smaller = failure.kind == "out_of_memory" and policy.policy == "retry" and len(task.members) > 1
        retry = smaller or self._used[task.id, failure.kind] <= policy.retries(failure.kind)
        decision = "retry" if retry else "stop" if policy.policy == "stop" else "drop"
        self.failures[failure.index] = replace(failure, tries=tries, seconds_lost=lost)
        self.emit(MemberFailed(failure.index, failure.kind, failure.reason, tries, failure.seconds_lost, decision))
        if failure.details:
            self.folder.write(f"failures/{failure.index:04d}.txt", failure.details.encode())
        if decision == "stop":
            raise QuorumError(
                f"member {failure.index} failed ({failure.kind}: {failure.reason}) and failures.policy is stop; finished members are kept: start the run again to go on"
            )
        return retry

    def _unfinished(self, task: Task, wanted: set[int]) -> bool:
        return not {member.index for member in task.members} & wanted <= self.folder.finished()

    def close(self) -> None:
        """Give the executor back."""
        if self._executor is not None:
            self._executor.close()


def _describe(folder: RunFolder, dataset: Dataset, split: Split, mean_C: FloatArray, std_C: FloatArray) -> None:
    folder.save_labels(Labels(split.train_rows, split.validation_rows, dataset.train_labels_N, dataset.test_labels_N))
    described = {
        "name": dataset.name, "class_names": list(dataset.class_names), "image_shape": list(dataset.image_shape),
        "mean": mean_C.tolist(), "std": std_C.tolist(), "images_sha256": images_digest(dataset),
    }  # fmt: skip
    if folder.has(DATASET):
        stored = json.loads(folder.read_bytes(DATASET)).get("images_sha256")
        if stored not in (None, described["images_sha256"]):
            raise StorageError(
                f"{folder.path}: the data set's images are not those this run began with; give the run another name=..."
            )
    folder.write_all({"environment.json": json_bytes(describe_environment()), DATASET: json_bytes(described)})


def _arrays(dataset: Dataset, split: Split, mean_C: FloatArray, std_C: FloatArray, watch_test: bool) -> dict[str, Any]:
    arrays = {
        "train_images": dataset.train_images_NCHW,
        "train_labels": dataset.train_labels_N,
        "validation_rows": split.validation_rows,
        "test_images": dataset.test_images_NCHW,
        "mean": mean_C,
        "std": std_C,
    }
    return {**arrays, "test_labels": dataset.test_labels_N} if watch_test else arrays


def _weights(method: Method, driver: Driver, folder: RunFolder) -> dict[str, float] | None:
    """Vote weights of all finished members; 0 for one that the method was not told of."""
    weights = method.vote_weights()
    if weights is None:
        return None
    known = {index: float(weight) for index, weight in zip(sorted(driver.told), weights, strict=True)}
    return {str(index): known.get(index, 0.0) for index in sorted(folder.finished())}
