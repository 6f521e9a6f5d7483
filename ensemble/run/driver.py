"""Trains the rounds of a method: tasks to an executor, results into the run folder, failures by the run's policy."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import overload

import numpy as np
from pydantic import ConfigDict, RootModel

from ensemble.config import Experiment
from ensemble.errors import QuorumError
from ensemble.events import Event, MemberFailed, MemberFinished, Notice, RunStarted
from ensemble.executors import Executor
from ensemble.executors.base import Offered, Outcome, ended
from ensemble.methods import Method
from ensemble.run.beside import Beside
from ensemble.run.planning import Plan, longest_first, pack, training_work
from ensemble.storage import RunFolder
from ensemble.storage.atomic import json_bytes
from ensemble.storage.names import PLAN, ROUNDS
from ensemble.storage.parsing import checked, json_value
from ensemble.storage.remedies import unfit
from ensemble.training import Arrays, Trainer, shape_of
from ensemble.types import Checkpoint, Failure, IntArray, MemberResult, MemberSpec, Task, Votes


class ClosedRounds(RootModel[list[list[int]]]):
    """rounds.json: the members that each round was told of."""

    model_config = ConfigDict(strict=True)


class Stored(Sequence[MemberResult]):
    """Members of a run folder, each read when it is asked for: most methods ask for none, and thousands fill the memory."""

    def __init__(self, folder: RunFolder, indices: Sequence[int], weights: bool) -> None:
        self._folder, self._indices, self._weights = folder, indices, weights

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, place: int) -> MemberResult: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[MemberResult]: ...
    def __getitem__(self, place: int | slice) -> MemberResult | Sequence[MemberResult]:
        if isinstance(place, slice):
            return Stored(self._folder, self._indices[place], self._weights)
        return self._folder.load_member(self._indices[place], self._weights)


MakeExecutor = Callable[[str, Sequence[Task], float], Executor]  # device kind, tasks, work (planning.training_work)


class Driver:
    """Hands the rounds of a method to an executor and stores what comes back."""

    def __init__(
        self,
        experiment: Experiment,
        folder: RunFolder,
        make_executor: MakeExecutor,
        emit: Callable[[Event], None],
        given_votes: Mapping[str, Votes] | None = None,
    ) -> None:
        """given_votes: of members that have no network, by recipe."""
        self._given_votes = given_votes or {}
        self.experiment, self.folder, self.emit = experiment, folder, emit
        self.plan = _stored_plan(experiment, folder)  # of the first start, wherever that was
        self.failures: dict[int, Failure] = {}
        self.trained = 0
        self.told: set[int] = set()  # members the method knows
        self.ended_early: tuple[str, ...] = ()
        self._noted = 0
        self._noticed: set[str] = set()  # notices of tasks, many of which may have the same to say
        self._used: Counter[tuple[str, str]] = Counter()  # tries by task and kind of failure
        self._lost: dict[int, tuple[int, float]] = {}  # tries and seconds by member
        self._beside = Beside(experiment, folder, emit)
        self._make_executor = make_executor
        self._executor: Executor | None = None

    def train(self, method: Method, arrays: Arrays, num_classes: int, train_rows: IntArray) -> None:
        """Ask, train, tell, until the method has no more to ask. train_rows: all that a member may be fitted to."""
        trainer = Trainer.create(self.experiment, self.plan.device, num_classes, self.plan.ways)
        shape = shape_of(arrays, self.experiment.data.kept_margin)
        closed = self._closed_rounds()
        self._listen(method)
        previous: list[int] = []
        for number in itertools.count():
            members = self._asked(method)
            if not members:
                break
            if len(closed) < number:
                closed.append(previous)
                self.folder.write(ROUNDS, json_bytes(closed))
            wanted = {m.index for m in members} if number == len(closed) else set(closed[number])
            with_network = [member for member in members if member.recipe not in self._given_votes]
            todo = [task for task in pack(with_network, self.plan) if self._unfinished(task, wanted)]
            if number == 0:
                todo += self._beside.tasks(train_rows, shape, num_classes)
                trainer = trainer.with_own(self._beside.groups)
            if len(todo) > 1:
                todo = longest_first(todo, self._beside.group, shape, num_classes)
            if self._executor is None:
                self._executor = self._start(members, todo, shape, num_classes)
            self._take_given_votes([member for member in members if member.index in wanted])
            self._round(todo, trainer, arrays)
            previous = sorted(wanted & self.folder.finished())
            self.told.update(previous)
            method.tell(Stored(self.folder, previous, method.wants_weights))
            self._listen(method)
        if not self.failures:
            self.folder.drop_all_checkpoints()  # a start that was stopped may have left some of finished tasks

    def vote_weights(self, method: Method) -> dict[str, float] | None:
        """The method's weights of all finished members, by index; 0 for one that it was not told of, None where it has none."""
        weights = method.vote_weights()
        if weights is None:
            return None
        known = {index: float(weight) for index, weight in zip(sorted(self.told), weights, strict=True)}
        return {str(index): known.get(index, 0.0) for index in sorted(self.folder.finished())}

    def _asked(self, method: Method) -> list[MemberSpec]:
        """The members of the next round. Nobody knows which rows finished ones were trained on: none is out of their bags."""
        finished = {group.recipe for group in self.experiment.members if group.elsewhere}
        return [
            replace(member, vote_rows=np.empty(0, np.int64)) if member.recipe in finished else member
            for member in method.ask()
        ]

    def _closed_rounds(self) -> list[list[int]]:
        """The members each earlier round was told of, for the rounds that a later one was built upon.

        What follows such a round depends on which members it had: one that failed then is not tried again, or the
        stored members of the next round would answer a question that nobody asked.
        """
        if not self.folder.has(ROUNDS):
            return []
        where = self.folder.path / ROUNDS
        return list(checked(json_value(self.folder.read_bytes(ROUNDS), where), where, ClosedRounds).root)

    def _listen(self, method: Method) -> None:
        """Pass on what the method noted in the last round."""
        report = method.report() or {}
        notices = report.get("notices", [])
        for message in notices[self._noted :]:
            self.emit(Notice(message))
        self._noted = len(notices)
        self.ended_early = tuple(report.get("ended_early", ()))

    def _start(
        self, members: list[MemberSpec], todo: list[Task], shape: tuple[int, int, int], num_classes: int
    ) -> Executor:
        images: Counter[str] = Counter()
        for task in todo:
            epochs = self._beside.group(task).epochs
            images[task.recipe] += epochs * sum(len(member.rows) for member in task.members)
        work = training_work(images, self.experiment, self.plan.device, shape, num_classes)
        executor = self._make_executor(self.plan.device, todo, work)
        finished = len([member for member in members if member.index in self.folder.finished()])
        total, method = self.experiment.total_members, self.experiment.method.name
        self.emit(RunStarted(self.experiment.name, method, total, finished, executor.name, executor.slots))
        return executor

    @property
    def executor(self) -> Executor:
        """The one that trained, for further tasks."""
        assert self._executor is not None, "a round of members comes before"
        return self._executor

    def _round(self, tasks: list[Task], trainer: Trainer, arrays: Arrays) -> None:
        """Train the tasks, and those again that the failure policy gives another try."""
        assert self._executor is not None
        while tasks:
            offered = Offered(map(self._with_checkpoint, tasks))
            left = {task.id: task for task in offered}  # never started, since their size did not fit meanwhile
            again: dict[str, Task] = {}  # to be tried again, by now or in the next turn
            with ended(self._executor.run(offered, trainer, arrays, self._take, self._fits)) as outcomes:
                for outcome in outcomes:
                    del (left if outcome.task.id in left else again)[outcome.task.id]
                    self._store(outcome)
                    if self._tries_again(outcome):
                        again[outcome.task.id] = outcome.task
                        if self._fits(outcome.task):
                            offered.put_first(self._with_checkpoint(outcome.task))
            assert not any(self._fits(task) for task in left.values()), f"left out, though wanted: {list(left)}"
            tasks = self._repack([*again.values(), *left.values()])

    def _with_checkpoint(self, task: Task) -> Task:
        return replace(task, checkpoint=self.folder.load_checkpoint(task.id))

    def _store(self, outcome: Outcome) -> None:
        if self._beside.is_one(outcome.task):
            self._beside.store(outcome)
            return
        self._keep(outcome.results)
        if not outcome.failures:
            self.folder.drop_checkpoints(outcome.task.id)

    def _keep(self, results: Sequence[MemberResult]) -> None:
        """Store members that are not stored yet, and tell of them."""
        new = [result for result in results if not self.folder.has_member(result.index)]
        self.folder.save_members(new)
        self.trained += len(new)
        for result in new:
            self.failures.pop(result.index, None)
            self._lost.pop(result.index, None)
            error = self._validation_error(result)
            self.emit(MemberFinished(
                result.index, result.recipe, result.num_parameters, result.train_seconds, result.kept_epoch, error
            ))  # fmt: skip

    def _take_given_votes(self, members: Sequence[MemberSpec]) -> None:
        """Store the members whose votes came with the configuration: there is nothing to train."""
        found = [
            MemberResult(member.index, member.recipe, votes, {}, (), 0, 0.0, 0, 1)
            for member in members
            if (votes := self._given_votes.get(member.recipe)) is not None
        ]
        if found:
            self._keep(found)

    def _validation_error(self, result: MemberResult) -> float:
        if result.history:
            return result.history[result.kept_epoch - 1].validation_error
        labels = self.folder.load_labels()  # of a member that was trained elsewhere
        wrong_N = result.votes.validation_NK.argmax(1) != labels.train_labels_N[labels.validation_rows]
        return float(wrong_N.mean()) if len(wrong_N) else 0.0

    def _fits(self, task: Task) -> bool:
        """False once the plan has smaller stacks than this task, because one of its size ran out of memory."""
        return len(task.members) <= self.plan.stack_sizes[task.recipe]

    def _repack(self, tasks: list[Task]) -> list[Task]:
        """The same tasks, with the members of those that are too large now in tasks of the planned size.

        They are packed together and in their order, so that a later start of the run packs them alike.
        """
        large = [task for task in tasks if not self._fits(task)]
        for task in large:
            self.folder.drop_checkpoints(task.id)
        finished = self.folder.finished()
        members = [member for task in large for member in task.members if member.index not in finished]
        smaller = pack(sorted(members, key=lambda member: member.index), self.plan)
        return [task for task in tasks if self._fits(task)] + smaller

    def _take(self, item: Event | Checkpoint) -> None:
        """What comes from a task on its way: states to keep, and news for the listeners, a notice once."""
        if isinstance(item, Checkpoint):
            self.folder.save_checkpoint(item.task, item.content)
        elif not isinstance(item, Notice):
            if not self._beside.hears(item):
                self.emit(item)
        elif item.message not in self._noticed:
            self._noticed.add(item.message)
            self.emit(item)

    def _tries_again(self, outcome: Outcome) -> bool:
        """Apply the failure policy to a task that has ended: True where it is to be tried again.

        After a stack that ran out of memory the plan has half as many networks at a time, for later starts as well.
        """
        kinds = {failure.kind for failure in outcome.failures}
        self._used.update((outcome.task.id, kind) for kind in kinds)
        retried = [self._decide(failure, outcome.task) for failure in outcome.failures]
        if not any(retried):
            return False
        recipe, size = outcome.task.recipe, -(-len(outcome.task.members) // 2)
        if "out_of_memory" in kinds and size < self.plan.stack_sizes[recipe]:
            self.plan = replace(self.plan, stack_sizes={**self.plan.stack_sizes, recipe: size})
            self.folder.write(PLAN, json_bytes(self.plan.to_json()))
            networks = len(outcome.task.members)
            self.emit(Notice(f"{outcome.task.id}: out of memory with {networks} networks; now {size} at a time"))
        return True

    def _decide(self, failure: Failure, task: Task) -> bool:
        """Apply the failure policy to one failure: True for another try. Raises QuorumError when it says stop."""
        policy = self.experiment.failures
        tries, lost = self._lost.get(failure.index, (0, 0.0))
        tries, lost = self._lost[failure.index] = tries + 1, lost + failure.seconds_lost
        smaller = failure.kind == "out_of_memory" and policy.policy == "retry" and len(task.members) > 1
        retry = smaller or self._used[task.id, failure.kind] <= policy.retries(failure.kind)
        decision = "retry" if retry else "stop" if policy.policy == "stop" else "drop"
        if self._beside.failed(failure, retry):
            return retry
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
        self._beside.close()
        if self._executor is not None:
            self._executor.close()


def _stored_plan(experiment: Experiment, folder: RunFolder) -> Plan:
    """The plan in the run folder. Raises StorageError when it is none, or not of these groups of members."""
    where = folder.path / PLAN
    try:
        plan = Plan.from_json(folder.plan())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unfit(where, f"not a plan of tasks: {type(error).__name__}: {error}") from error
    if missing := [group.name for group in experiment.groups if group.name not in plan.stack_sizes]:
        raise unfit(where, f"stack_sizes says nothing of {missing[0]}")
    if plan.device not in ("cpu", "cuda"):
        raise unfit(where, f"device is {plan.device!r}; expected cpu or cuda")
    return plan
