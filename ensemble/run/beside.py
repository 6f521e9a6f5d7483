"""The networks of a run that do not vote, each a task of its own: the baseline and the controls.

What is counted, drawn and told of a run are members; of these networks it is told by sentences when they start, fail and end, and by a
line of progress every ten seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

from ensemble.config import Experiment
from ensemble.config.controls import TIMES, WIDTH, Control, control_group, epochs_together
from ensemble.config.schema import Group
from ensemble.evaluation import written
from ensemble.events import EpochFinished, Event, Notice, TaskStarted
from ensemble.executors.base import Outcome
from ensemble.outside.long_work import working
from ensemble.storage import RunFolder
from ensemble.types import Failure, IntArray, MemberResult, MemberSpec, Task

BASELINE = "baseline"
CONTROLS: tuple[Control, ...] = get_args(Control)
_NAMES = (BASELINE, *CONTROLS)  # ids of their tasks; their place is that of their indices behind those of the members
_PROGRESS = {
    BASELINE: "baseline: epochs of the one network on all rows",
    "longer": "control longer: epochs of the one network that is trained longer",
    "wider": "control wider: epochs of the one wide network",
}


class Beside:
    """The tasks of networks that do not vote, and what comes of them."""

    def __init__(self, experiment: Experiment, folder: RunFolder, emit: Callable[[Event], None]) -> None:
        self.experiment, self.folder, self.emit = experiment, folder, emit
        self._indices = {experiment.total_members + place: which for place, which in enumerate(_NAMES)}
        self._wanted = [BASELINE] * experiment.baseline + [name for name in CONTROLS if name in experiment.controls]
        self._members = {group.name: group for group in experiment.groups}
        self.groups: dict[str, Group] = {}  # network and recipe of the controls, by the id of their task
        self._facts: dict[str, dict[str, float]] = {}
        self._said = {which: contextlib.ExitStack() for which in _NAMES}  # while it trains
        self._epoch: dict[str, Callable[[], None]] = {}

    def tasks(self, rows: IntArray, image_shape: tuple[int, int, int], num_classes: int) -> list[Task]:
        """One network each on all rows, of those that are wanted and not stored.

        Raises ConfigError where no width has as many parameters as the members have together.
        """
        if not self._wanted:
            return []
        recipe, found = self.experiment.groups[0].name, list[Task]()
        indices = {which: index for index, which in self._indices.items()}
        for which in self._wanted:
            if self.folder.has_beside(which):
                continue
            self.emit(Notice(self._prepared(which, len(rows), image_shape, num_classes)))
            what = which if which == BASELINE else f"control {which}"
            found.append(Task(which, recipe, (MemberSpec(indices[which], recipe, rows),), what=what))
        return found

    def _prepared(self, which: str, rows: int, image_shape: tuple[int, int, int], num_classes: int) -> str:
        """Note what a network is trained by, and say so."""
        own, without = self.experiment.groups[0], f"{rows:,} training rows"
        if which == "longer":
            epochs = epochs_together(self.experiment)
            self.groups[which] = control_group(self.experiment, "longer")
            self._facts[which] = {TIMES: epochs / own.epochs}
            return f"control longer: one network on all {without} is trained for {epochs:,} epochs, as many as all members together, to compare the vote with"
        if which == "wider":
            from ensemble.models.widening import as_large_as, count_parameters  # torch, which few drivers need

            together = sum(
                group.count * count_parameters(group.model, image_shape, num_classes)
                for group in self.experiment.groups
            )
            found = as_large_as(own.model, together, image_shape, num_classes)
            self.groups[which] = control_group(self.experiment, "wider", found.factor)
            self._facts[which] = {WIDTH: found.factor}
            return f"control wider: one network of {found.parameters:,} parameters, {found.factor:.3g} times as wide, is trained on all {without} to compare the vote with; all members together have {together:,}"
        return f"baseline: one network more, on all {without}, is trained to compare the vote with; baseline=false does without"

    def is_one(self, task: Task) -> bool:
        """Whether a task is one of these."""
        return task.id in _NAMES

    def group(self, task: Task) -> Group:
        """Network and recipe of any task of the run."""
        return self.groups.get(task.id) or self._members[task.recipe]

    def store(self, outcome: Outcome) -> None:
        """Keep what a task has left."""
        which = outcome.task.id
        self._said[which].close()
        for result in outcome.results:
            self.folder.save_beside(which, self._with_facts(which, result))
            error = written.percent(result.history[result.kept_epoch - 1].validation_error)
            what = "baseline: one network on all training rows" if which == BASELINE else f"control {which}:"
            self.emit(Notice(f"{what} finished, validation error {error} %"))
        if not outcome.failures:
            self.folder.drop_checkpoints(which)

    def _with_facts(self, which: str, result: MemberResult) -> MemberResult:
        return replace(result, facts={**result.facts, **self._facts.get(which, {})})

    def hears(self, event: Event) -> bool:
        """Take what is of one of these networks; False for the event of a member, which is others' business."""
        if isinstance(event, TaskStarted) and event.task in _NAMES:
            said = self._said[event.task]
            said.close()  # of an earlier try
            self._epoch[event.task] = said.enter_context(working(_PROGRESS[event.task], event.epochs))
            return True
        if isinstance(event, EpochFinished) and (which := self._indices.get(event.member)) is not None:
            if which in self._epoch:
                self._epoch[which]()
            return True
        return False

    def failed(self, failure: Failure, retry: bool) -> bool:
        """Say how one of these networks failed; False for the failure of a member."""
        which = self._indices.get(failure.index)
        if which is None:
            return False
        name = which if which == BASELINE else f"control {which}"
        then = "it is tried again" if retry else "the vote is not compared with it"
        self.emit(Notice(f"{name}: {failure.kind}: {failure.reason}; {then}", warning=True))
        return True

    def close(self) -> None:
        """End all lines of progress."""
        for said in self._said.values():
            said.close()
