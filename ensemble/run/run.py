"""The way through the house: configuration in, trained members, votes, judgement out. One run, one folder.

    outcome = run_ensemble(experiment, make_executor, make_trackers)

Running the same experiment again finishes what is missing and retrains nothing that is finished.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.config import Experiment
from ensemble.config.effects import idle_here
from ensemble.config.schema import Aggregator
from ensemble.data import (
    Dataset,
    Split,
    check_augmentation,
    check_views,
    images_digest,
    load_dataset,
    normalization,
    split_of,
)
from ensemble.data.given_probabilities import read_votes
from ensemble.data.named_sets import NamedSet, load_named_sets, remarks_on
from ensemble.data.regular_files import shown
from ensemble.errors import ConfigError, StorageError
from ensemble.evaluation.records import Evaluation
from ensemble.events import Event, Notice, RunFinished, RunStarted
from ensemble.methods import build_method, check_rows
from ensemble.report.tables import leaderboard_csv, leaderboard_html
from ensemble.results.further_sets import with_sets
from ensemble.results.judging import headline_figures, judge_voters, staged_points
from ensemble.results.line_costs import LineCosts, costs_of
from ensemble.results.predictions import files_csv, predictions_csv, read_files
from ensemble.results.run_data import labels_of, require_same_data, test_images
from ensemble.results.voters import Voters, load_voters
from ensemble.run.driver import Driver, MakeExecutor
from ensemble.run.environment import describe_environment
from ensemble.run.first_plan import first_plan, kernels_in_words
from ensemble.run.kept_costs import HeldExecutor, loading_meanwhile, measure_costs
from ensemble.run.set_voting import vote_on_sets
from ensemble.run.wrong_images import keep_wrong_images
from ensemble.storage import RunFolder
from ensemble.storage.atomic import json_bytes, npz_bytes
from ensemble.storage.member_files import labels_digest
from ensemble.storage.mending import mend
from ensemble.storage.names import (
    DATASET,
    DISPUTED,
    ENVIRONMENT,
    EVALUATION,
    EVENTS,
    FILES,
    LEADERBOARD,
    METHOD,
    PREDICTIONS,
    STAGED,
    shared_weights,
)
from ensemble.tracking.base import Composite, Tracker
from ensemble.tracking.build import require_packages
from ensemble.tracking.event_log import EventLog
from ensemble.training import (
    ELSEWHERE,
    Starts,
    check_network,
    named_class_weights,
    shares_features,
    starts,
)
from ensemble.types import ByteArray, Failure, FloatArray, IntArray

MakeTrackers = Callable[[RunFolder], Sequence[Tracker]]


@dataclass(frozen=True)
class RunOutcome:
    """What a run came to. costs: what its predictions take, None where that was not measured."""

    path: Path
    evaluation: Evaluation
    failures: tuple[Failure, ...]
    trained: int
    seconds: float
    ended_early: tuple[str, ...] = ()  # why a method trained fewer members than asked for
    costs: LineCosts | None = None

    def _repr_html_(self) -> str:
        """What a notebook shows: leaderboard and verdict."""
        return leaderboard_html(self.evaluation, self.costs)


def run_ensemble(
    experiment: Experiment, make_executor: MakeExecutor, make_trackers: MakeTrackers, dataset: Dataset | None = None
) -> RunOutcome:
    """Train what is missing, judge all. Raises the EnsembleError of whatever stopped it.

    dataset: instead of the one that the experiment names.
    """
    started = time.monotonic()
    if experiment.repeats > 1:
        raise ConfigError(
            f"repeats is {experiment.repeats}, and this door trains one run; `ensemble train` trains all of them: use that, or leave repeats out and give each run its own seed and name"
        )
    require_packages(experiment)
    dataset = load_dataset(experiment.data) if dataset is None else dataset
    for group in experiment.groups:
        check_augmentation(group.training.augmentation, dataset)
    check_views(experiment.evaluation.tta, dataset)
    split = split_of(dataset, experiment.data, experiment.seed)
    check_rows(experiment, split.train_rows, dataset.train_labels_N, dataset.class_names, dataset.groups_N)
    config = experiment.model_dump(mode="json")
    notices = [Notice(f"data: {remark.text}", remark.warning) for remark in dataset.account.remarks()]
    notices += _checked_networks(experiment, dataset)
    if (tta := experiment.evaluation.tta).active:
        notices.append(Notice(f"every member votes on {tta.views} views of each image (evaluation.tta)"))
    # Both before there is a folder, which a mistake in them would leave behind.
    given = _given(experiment, dataset, split)
    sets = load_named_sets(experiment.evaluation, dataset, split)
    notices += [Notice(remark.text, remark.warning) for remark in remarks_on(sets, dataset)]

    def check(stored: RunFolder) -> None:
        require_same_data(stored, dataset, split)

    def plan() -> dict[str, Any]:
        made = first_plan(experiment, dataset, len(split.train_rows))
        notices.extend(map(Notice, kernels_in_words(made)))
        return made.to_json()

    with (
        RunFolder.open(experiment.output_dir, experiment.name, config, plan, check, experiment.left_open) as folder,
        _listening(folder, make_trackers, mend(folder)) as emit,
        closing(HeldExecutor(make_executor)) as executor,
    ):
        for notice in notices:
            emit(notice)
        kept = {"baseline": bool(folder.config()["baseline"]), "controls": tuple(folder.config()["controls"])}
        experiment = experiment.model_copy(update=kept)
        emit = loading_meanwhile(
            _with_idle_options(emit, experiment, str(folder.plan()["device"])),
            lambda: experiment.evaluation.time_predictions and executor.call is None,
        )
        driver = train_members(experiment, dataset, split, folder, executor.make, emit, given, sets)
        failures = tuple(driver.failures.values())
        voters = load_voters(folder)
        evaluation = with_sets(judge_voters(voters), voters, folder)
        _store_judgement(folder, voters, evaluation, dataset.test_images_NCHW[disputed_rows(evaluation)])
        keep_wrong_images(folder, lambda rows: dataset.test_images_NCHW[rows])
        if experiment.evaluation.time_predictions and not experiment.given_votes:  # which nobody can predict with
            reason = measure_costs(folder, experiment, evaluation, time.monotonic() - started, executor.call)
            if reason:
                emit(Notice(f"what a prediction takes was not measured: {reason}; `ensemble cost` measures it"))
        costs = costs_of(folder, evaluation)
        seconds = time.monotonic() - started
        emit(RunFinished(len(folder.finished()), len(failures), seconds, headline_figures(evaluation)))
    return RunOutcome(folder.path, evaluation, failures, driver.trained, seconds, driver.ended_early, costs)


def _checked_networks(experiment: Experiment, dataset: Dataset) -> Iterator[Notice]:
    """What is worth saying about networks that are not ours. Raises ConfigError for those that do not suit the images.

    Our own are tried where the images may have any size.
    """
    shape, classes = dataset.image_shape, dataset.num_classes
    for group in experiment.groups:
        if not group.model.foreign and experiment.data.own:
            # Imports torch, which a driver of like members can do without.
            from ensemble.models.work import multiply_adds

            multiply_adds(group.model, shape, classes)
        elif group.model.foreign:
            whole = group.count > 1 and not shares_features(group, shape, classes)
            for note in check_network(group.model, shape, classes, whole):
                yield Notice(f"{group.name}: {note}")


def _with_idle_options(emit: Callable[[Event], None], experiment: Experiment, device: str) -> Callable[[Event], None]:
    """Events go on as they are; once it is known where the tasks run, so do the options that change nothing there."""

    def heard(event: Event) -> None:
        emit(event)
        if isinstance(event, RunStarted):
            for sentence in idle_here(experiment, device, event.executor, event.slots):
                emit(Notice(sentence))

    return heard


def judge_again(path: Path, aggregator: Aggregator | None = None, trust_code: bool = False) -> Evaluation:
    """Judge a stored run from its votes and replace what it keeps of its judgement; nothing is trained.

    aggregator: another headline vote than the configured one. Raises StorageError when the folder is no run or another
    process writes to it. The disputed images are those that the run keeps; where others are disputed now, they come from
    the data set: DataError when it is not there, StorageError when it is not what it was. trust_code: see `load_run_data`.
    """
    stored = RunFolder.read(path)
    voters = load_voters(stored)
    evaluation = with_sets(judge_voters(voters, aggregator), voters, stored)
    images = test_images(stored, disputed_rows(evaluation).tolist(), trust_code)
    with RunFolder.open(path.absolute().parent, path.absolute().name, stored.config(), stored.plan()) as folder:
        _store_judgement(folder, voters, evaluation, images)
        keep_wrong_images(folder, lambda rows: test_images(stored, rows.tolist()))
    return evaluation


def disputed_rows(evaluation: Evaluation) -> IntArray:
    """The test rows whose images a run keeps."""
    return np.array([disputed.row for disputed in evaluation.disputed], np.int64)


def _store_judgement(folder: RunFolder, voters: Voters, evaluation: Evaluation, images_NCHW: ByteArray) -> None:
    """images_NCHW: of the disputed rows, in their order."""
    if staged := staged_points(folder, voters):
        folder.write(STAGED, json_bytes([asdict(point) for point in staged]))
    folder.write_all(
        {
            EVALUATION: json_bytes(evaluation.to_json()),
            LEADERBOARD: leaderboard_csv(evaluation, costs_of(folder, evaluation)).encode(),
            PREDICTIONS: predictions_csv(voters, evaluation, read_files(folder)).encode(),
            DISPUTED: npz_bytes({"rows": disputed_rows(evaluation), "images": images_NCHW}),
        }
    )


@contextmanager
def _listening(
    folder: RunFolder, make_trackers: MakeTrackers, mended: Sequence[str] = ()
) -> Iterator[Callable[[Event], None]]:
    """Inside, events go to the log on disk, whose failure stops the run, and to the trackers, whose failure does not.

    mended: what was found damaged before, to be told first.
    """
    log = EventLog(folder.path / EVENTS)
    try:
        trackers = Composite(make_trackers(folder))
    except BaseException:
        log.close(False)
        raise

    one_at_a_time = (
        threading.RLock()
    )  # executors watch their tasks in threads of their own, which may have something to say

    def emit(event: Event) -> None:
        with one_at_a_time:
            now = time.time()
            log.handle(event, now)
            trackers.handle(event, now)

    try:
        for line in mended:
            emit(Notice(line))
        yield emit
    except BaseException:
        trackers.close(False)
        with contextlib.suppress(StorageError):  # what stopped the run is what there is to tell
            log.close(False)
            folder.record_events()
        raise
    trackers.close(True)
    log.close(True)
    folder.record_events()


def train_members(
    experiment: Experiment,
    dataset: Dataset,
    split: Split,
    folder: RunFolder,
    make_executor: MakeExecutor,
    emit: Callable[[Event], None],
    given: Starts | None = None,
    sets: Sequence[NamedSet] = (),
) -> Driver:
    """Train what is missing in an open run folder, and store all that voting needs; judging is another matter.

    given: what the members start from and weigh classes by, where that has been found out already. sets: those that the
    members vote on besides validation and test.
    Raises StorageError when the folder was begun with other data, QuorumError when the failure policy says stop.
    """
    mean_C, std_C = normalization(dataset, split)
    given = given or _given(experiment, dataset, split)
    for note in given.notes:
        emit(Notice(note))
    _describe(folder, dataset, split, mean_C, std_C)
    for group, content in given.shared.items():
        if not folder.has(shared_weights(group)):
            folder.write(shared_weights(group), content)
    driver = Driver(experiment, folder, make_executor, emit, given.votes)
    method = build_method(
        experiment,
        split.train_rows,
        dataset.train_labels_N,
        dataset.num_classes,
        split.validation_rows,
        dataset.groups_N,
    )
    try:
        watch_test = any(group.training.watch_test for group in experiment.groups)
        arrays = {**_arrays(dataset, split, mean_C, std_C, watch_test), **given.arrays}
        driver.train(method, arrays, dataset.num_classes, split.train_rows)
        folder.write(METHOD, json_bytes({"vote_weights": driver.vote_weights(method), "report": method.report()}))
        for line in vote_on_sets(
            experiment, driver.plan.device, sets, folder, lambda _tasks, _images: driver.executor, emit
        ):
            emit(Notice(line, warning=True))
    finally:
        driver.close()
    return driver


def _given(experiment: Experiment, dataset: Dataset, split: Split) -> Starts:
    """What the members start from and weigh classes by, and the votes of those that have no network.

    Raises ConfigError or DataError where that cannot be had or does not fit.
    """
    found = starts(experiment.groups, dataset.image_shape, dataset.num_classes)
    found.arrays.update(named_class_weights(experiment.groups, dataset.class_names))
    for given in experiment.given_votes:
        found.votes[given.name] = read_votes(given, dataset, split)
        found.notes.append(
            f"{given.name}: votes with the probabilities in {shown(Path(given.file))}; {ELSEWHERE}. It has no network: the run cannot predict new images or be exported"
        )
    return found


def _describe(folder: RunFolder, dataset: Dataset, split: Split, mean_C: FloatArray, std_C: FloatArray) -> None:
    require_same_data(folder, dataset, split)
    folder.save_labels(labels_of(dataset, split))
    described = {
        "name": dataset.name, "class_names": list(dataset.class_names), "image_shape": list(dataset.image_shape),
        "mean": mean_C.tolist(), "std": std_C.tolist(), "images_sha256": images_digest(dataset),
        "labels_sha256": labels_digest(labels_of(dataset, split)),
        "pixels": dataset.pixels.to_json(), "pictures": dataset.account.to_json(),
    }  # fmt: skip
    contents = {ENVIRONMENT: json_bytes(describe_environment())}
    if dataset.test_files:
        contents[FILES] = files_csv(dataset.train_files, dataset.test_files).encode()
    if not folder.has(DATASET) or not described.keys() <= folder.dataset().model_dump(exclude_none=True).keys():
        contents[DATASET] = json_bytes(described)  # new, or of a version that noted less
    folder.write_all(contents)


def _arrays(dataset: Dataset, split: Split, mean_C: FloatArray, std_C: FloatArray, watch_test: bool) -> dict[str, Any]:
    arrays = {
        "train_images": dataset.kept_images[0],
        "train_labels": dataset.train_labels_N,
        "validation_rows": split.validation_rows,
        "test_images": dataset.kept_images[1],
        "mean": mean_C,
        "std": std_C,
    }
    return {**arrays, "test_labels": dataset.test_labels_N} if watch_test else arrays
