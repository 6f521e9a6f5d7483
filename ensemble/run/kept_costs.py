"""What predictions take, kept with a run for its leaderboards: measured at its end, or later by `ensemble cost`."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from ensemble.config import Experiment
from ensemble.errors import EnsembleError
from ensemble.evaluation.record_base import parameters_of
from ensemble.evaluation.records import Evaluation
from ensemble.events import Event, TaskStarted
from ensemble.executors import Executor
from ensemble.executors.base import Calls, KeptOpen
from ensemble.report.tables import leaderboard_csv
from ensemble.results.judging import stored_evaluation
from ensemble.results.line_costs import costs_of
from ensemble.run.driver import MakeExecutor
from ensemble.storage import RunFolder
from ensemble.storage.cost_file import CostFile, save_costs
from ensemble.storage.names import EVALUATION, LEADERBOARD
from ensemble.types import Task

Call: TypeAlias = Callable[..., Any]  # the most seconds, a function and its arguments; see Calls.call

SHARE = 0.02  # of a run's seconds, which measuring may take
EACH_S, MEASURED = 0.25, 6  # seconds that are enough for one median, and how many there are as a rule
BATCHES_S = 2.0  # or more where the share allows it: what the batches of one vote may take
ANSWER_S = 20.0  # for another process to measure, beside that share; then it is done here
MOST_PARAMETERS = 200_000_000  # of all that vote, which would be in memory once more: 0.8 GB


def keep_costs(path: Path, costs: CostFile) -> None:
    """Keep in a stored run what predictions took, and write its leaderboard.csv with it. Raises StorageError."""
    stored = RunFolder.read(path)
    with RunFolder.open(path.absolute().parent, path.absolute().name, stored.config(), stored.plan()) as folder:
        _keep(folder, costs, stored_evaluation(folder)[1] if folder.has(EVALUATION) else None)


class HeldExecutor:
    """Makes the executor of a run, and holds one that can `call` until the run has ended, for what there is to compute after training."""

    def __init__(self, make: MakeExecutor) -> None:
        self._make = make
        self._held: Calls | None = None

    def make(self, device: str, tasks: Sequence[Task], work: float) -> Executor:
        """See MakeExecutor."""
        executor = self._make(device, tasks, work)
        if not isinstance(executor, Calls):
            return executor
        self._held = executor
        return KeptOpen(executor)

    @property
    def call(self) -> Call | None:
        """How to have a function computed in a process that has torch already; None where there is none."""
        return None if self._held is None else self._held.call

    def close(self) -> None:
        """Give back what is held."""
        if self._held is not None:
            self._held.close()
            self._held = None


def measure_costs(
    folder: RunFolder, experiment: Experiment, evaluation: Evaluation, seconds: float, call: Call | None = None
) -> str:
    """Measure what predictions of a run take, in this process, unless that is known, and keep it.

    folder: of the run, open for writing, judged. seconds: that it took. call: to measure in another process, which has torch already.
    Returns "", or why nothing was measured; what goes wrong here costs a run nothing but these figures.
    """
    known = costs_of(folder, evaluation)
    if known is not None and known.vote is not None:
        return ""
    parameters = parameters_of(evaluation.members)
    if parameters > MOST_PARAMETERS:
        return f"{parameters:,.0f} parameters vote, and more than {MOST_PARAMETERS:,} are not read for it"
    given = folder.path, experiment.compute.device, evaluation, SHARE * seconds
    costs = None
    if call is not None:
        with suppress(
            EnsembleError
        ):  # what that process does not know, such as a part of the user's own, this one does
            costs = call(ANSWER_S + 2 * SHARE * seconds, measured, *given)
    try:
        costs = costs or measured(*given)
    except (EnsembleError, RuntimeError, MemoryError) as error:
        return str(error) or type(error).__name__
    _keep(folder, costs, evaluation)
    return ""


def measured(path: Path, device: str, evaluation: Evaluation, share_s: float) -> CostFile:
    """What predictions of a stored run take in this process. share_s: seconds that measuring may take, or somewhat more.

    Raises an EnsembleError, RuntimeError or MemoryError where they cannot be made.
    """
    from ensemble.inference.cost import Patience, measure, to_store
    from ensemble.inference.stored import vote_of
    from ensemble.inference.trained import TrainedEnsemble

    patience = Patience(1, 3, min(EACH_S, share_s / MEASURED), max(BATCHES_S, share_s))
    trained = TrainedEnsemble(vote_of(RunFolder.read(path), trust_code=True), device)
    return to_store(measure(trained, evaluation, patience), trained)


def loading_meanwhile(emit: Callable[[Event], None], wanted: Callable[[], bool]) -> Callable[[Event], None]:
    """Events go on as they are. While workers train, a driver that only waits for them loads what measuring will need, where that is wanted.

    That takes a second or two, which the run would otherwise last longer. In the main thread alone: an import that two threads
    share may find half a module.
    """

    def heard(event: Event) -> None:
        emit(event)
        if isinstance(event, TaskStarted) and threading.current_thread() is threading.main_thread() and wanted():
            importlib.import_module("ensemble.inference.cost")  # and with it torch

    return heard


def _keep(folder: RunFolder, costs: CostFile, evaluation: Evaluation | None) -> None:
    save_costs(folder, costs)
    if evaluation is not None:
        folder.write(LEADERBOARD, leaderboard_csv(evaluation, costs_of(folder, evaluation)).encode())
