"""Lets the members of a run vote on further sets: at the end of training, or years later on a stored run.

    missing = vote_on_sets(experiment, "cpu", sets, folder, start_executor, emit)

A task is the members of one group and one part of a set. What is stored is not voted on again; a start after a kill goes on
with the parts that are missing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from safetensors.numpy import save

from ensemble.config import Experiment
from ensemble.config.controls import WIDTH, control_group
from ensemble.config.schema import Group
from ensemble.data.named_sets import SEED, NamedSet
from ensemble.errors import StorageError
from ensemble.events import Event, Notice
from ensemble.executors import Executor
from ensemble.executors.base import Outcome, ended
from ensemble.executors.labels import members_in_words
from ensemble.results.voters import voting_members
from ensemble.run.planning import Plan
from ensemble.storage import RunFolder
from ensemble.storage.member_files import WEIGHTS
from ensemble.storage.names import BESIDE, member_folder
from ensemble.storage.set_files import CastVote, PartFacts, SetFacts
from ensemble.storage.set_store import CastVotes, SetStore
from ensemble.training import Trainer
from ensemble.training.set_votes import MEMBER, PartToVote, SetVoter
from ensemble.types import ByteArray, Checkpoint, Failure, MemberSpec, Task

# Tasks, and for each group how many times an image goes through a network.
StartExecutor = Callable[[Sequence[Task], Mapping[str, int]], Executor]
Emit = Callable[[Event], None]
NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class _Voter:
    """A network that votes. digest: of the file of its weights.

    beside: "baseline", "longer" or "wider" of one that is no member, else "". group: its network, where that is not its recipe's.
    energetic: it has logits that energies are made of (`training.prediction.predict_energy`).
    """

    index: int
    recipe: str
    digest: str
    energetic: bool
    beside: str = ""
    group: Group | None = None

    def has_voted(self, votes: CastVotes, energy: bool) -> bool:
        """Whether these are votes of its weights. energy: with their energies, which earlier versions did not keep."""
        vote = votes.get(self.index)
        if vote is None or vote.digest != self.digest:
            return False
        return vote.energy_N is not None or not (energy and self.energetic)

    @property
    def name(self) -> str:
        """In a sentence."""
        if not self.beside:
            return f"member {self.index}"
        return "the baseline" if self.beside == "baseline" else f"the control {self.beside}"


@dataclass(frozen=True, eq=False)
class _Part:
    """A part of a set on which some have still to vote. have: what is stored."""

    named: NamedSet
    facts: SetFacts
    number: int
    have: CastVotes
    missing: tuple[_Voter, ...]


def vote_on_sets(
    experiment: Experiment,
    device: str,
    sets: Sequence[NamedSet],
    folder: RunFolder,
    start_executor: StartExecutor,
    emit: Emit,
) -> list[str]:
    """Store what every voting member says about these sets, and the networks that do not vote: baseline and controls.

    device: "cpu" or "cuda". start_executor: is called when there is anything to vote on. Returns a sentence for each network
    that could not vote; what it is left out of is told by the judgement too.
    """
    voters = (
        _voters(experiment, folder) if sets else []
    )  # members without a network cannot vote on further sets, and are refused any
    parts = [part for named in sets for part in _missing_parts(folder, named, voters, emit)]
    _settle_choosing(folder, sets, emit)
    if not parts:
        return []
    started = time.monotonic()
    names = list(dict.fromkeys(part.named.name for part in parts))
    emit(Notice(f"{len(voters)} networks vote on {', '.join(names)}"))
    failures = _Voting(experiment, device, folder, parts, emit).run(start_executor)
    emit(Notice(f"votes on {', '.join(names)}: {len(parts)} parts in {time.monotonic() - started:.0f} s"))
    called = {one.index: one.name for one in voters}
    return [f"{called[one.index]} did not vote on all further sets ({one.kind}: {one.reason})" for one in failures]


def _voters(experiment: Experiment, folder: RunFolder) -> list[_Voter]:
    energetic = {group.name: group.training.loss != "bce" for group in experiment.groups}
    found = [
        _Voter(index, recipe, folder.digest(f"{member_folder(index)}/{WEIGHTS}"), energetic[recipe])
        for index in voting_members(folder)
        for recipe in [folder.recipe(index)]
    ]
    for which, place in BESIDE.items():
        network = folder.load_beside(which)
        if network is not None:
            group = control_group(experiment, "wider", network.facts.get(WIDTH, 1.0)) if which == "wider" else None
            digest = folder.digest(f"{place}{WEIGHTS}")
            found.append(_Voter(network.index, network.recipe, digest, energetic[network.recipe], which, group))
    return found


def _missing_parts(folder: RunFolder, named: NamedSet, voters: Sequence[_Voter], emit: Emit) -> list[_Part]:
    """The parts of a set that some have not voted on. A set that is not what was voted on under its name is begun anew, as a damaged one."""
    store, facts = SetStore(folder), _facts_of(named)
    if named.name not in store.names():
        store.begin(facts, named.labels_N)
    elif reason := _obsolete(store, facts):
        emit(Notice(f"set {named.name}: {reason}; all vote on it anew"))
        store.begin(facts, named.labels_N)
    found = []
    for number in range(len(named.parts)):
        votes = store.votes(facts, number)
        missing = tuple(one for one in voters if not one.has_voted(votes, _energies_wanted(named)))
        if missing:
            found.append(_Part(named, facts, number, votes, missing))
    return found


def _energies_wanted(named: NamedSet) -> bool:
    return named.kind in ("unknown", "known")


def _settle_choosing(folder: RunFolder, sets: Sequence[NamedSet], emit: Emit) -> None:
    """Note on which set the score for unknown images is chosen, which may be another one than before. Votes do not depend on it."""
    store, wanted = SetStore(folder), {named.name: named.chooses_score for named in sets}
    chosen = next((name for name, chooses in wanted.items() if chooses), None)
    for name in store.names():
        facts = store.facts(name)
        chooses = wanted.get(name, facts.chooses_score and chosen is None)
        if chooses != facts.chooses_score:
            store.describe(facts.model_copy(update={"chooses_score": chooses}))
            emit(
                Notice(f"set {name}: the score for unknown images is {'now' if chooses else 'no longer'} chosen on it")
            )


def _obsolete(store: SetStore, facts: SetFacts) -> str:
    """Why stored votes under the name of a set are not on it, in words; "" where they are."""
    try:
        if store.facts(facts.name).definition != facts.definition:
            return "the votes under this name are on other images or parts"
        store.labels(facts)
        for number in range(len(facts.parts)):
            store.votes(facts, number)
    except StorageError as error:
        return str(error).partition(";")[0]
    return ""


def _facts_of(named: NamedSet) -> SetFacts:
    parts = [
        PartFacts(label="as they are")
        if one is None
        else PartFacts(corruption=one.name, level=one.level, label=one.label)
        for one in named.parts
    ]
    return SetFacts(
        name=named.name, kind=named.kind, source=named.source, images=len(named.images_NCHW),
        images_sha256=named.images_sha256, definition=named.definition, seed=SEED, parts=parts,
        chooses_score=named.chooses_score,
    )  # fmt: skip


class _Voting:
    """All tasks of some parts, given to an executor until each has ended, or has failed as often as the policy lets it."""

    def __init__(
        self, experiment: Experiment, device: str, folder: RunFolder, parts: Sequence[_Part], emit: Emit
    ) -> None:
        self._experiment, self._device, self._folder, self._emit = experiment, device, folder, emit
        self._plan = Plan.from_json(folder.plan())
        self._parts: dict[str, _Part] = {}
        self._votes: dict[str, PartToVote] = {}
        self._groups: dict[str, Group] = {}  # networks that are not their recipe's, by the id of their task
        self._tasks: list[Task] = []
        self._images: dict[str, ByteArray] = {}
        self._stored: dict[tuple[str, int], CastVotes] = {}
        self._store, self._tries, self._said = SetStore(folder), Counter[tuple[str, str]](), set[str]()
        for part in parts:
            self._stored[part.named.name, part.number] = part.have
            images, _ = part.named.images_of(part.number)
            self._images.setdefault(self._images_name(images), images)
            alike = [one for one in part.missing if one.group is None]
            for recipe in dict.fromkeys(one.recipe for one in alike):
                self._add(part, recipe, [one for one in alike if one.recipe == recipe])
            for one in part.missing:
                if one.group is not None:
                    self._add(part, one.recipe, [one], one.group)

    def _images_name(self, images: ByteArray) -> str:
        """Parts and sets of the same images share them."""
        for name, known in self._images.items():
            if known is images:
                return name
        return f"images.{len(self._images)}"

    def _add(self, part: _Part, recipe: str, voters: Sequence[_Voter], group: Group | None = None) -> None:
        """A task of networks that are alike. group: theirs, where it is not the recipe's."""
        members = tuple(MemberSpec(one.index, recipe, NO_ROWS) for one in voters)
        what = f"votes on {part.named.name} part {part.number} by {_in_words(voters)}"
        own = "" if group is None else f"-{voters[0].beside}"
        task = Task(f"{part.named.name}-{part.number:04d}-{recipe}{own}", recipe, members, what=what)
        self._tasks.append(task)
        self._parts[task.id] = part
        images, corruption = part.named.images_of(part.number)
        size = self._plan.stack_sizes[recipe]
        if group is not None:
            self._groups[task.id], size = group, 1
        self._votes[task.id] = PartToVote(
            self._images_name(images), corruption, SEED, size, _energies_wanted(part.named)
        )

    def run(self, start_executor: StartExecutor) -> list[Failure]:
        """Vote; returns the failures that remain."""
        seen = Counter[str]()
        for task in self._tasks:
            seen[task.recipe] += len(task.members) * len(self._images[self._votes[task.id].images])
        ways = self._plan.ways if self._device == self._plan.device else {}
        trainer = Trainer.create(self._experiment, self._device, len(self._folder.dataset().class_names), ways)
        own = trainer.with_own(self._groups).own
        executor, voter = start_executor(self._tasks, seen), SetVoter(trainer.jobs, self._votes, own)
        arrays = self._arrays()
        failures: dict[tuple[str, int], Failure] = {}
        tasks = self._tasks
        while tasks:
            again: list[Task] = []
            with ended(executor.run(tasks, voter, arrays, self._hear)) as outcomes:
                for outcome in outcomes:
                    self._keep(outcome)
                    left = tuple(
                        one for one in outcome.task.members if one.index in {f.index for f in outcome.failures}
                    )
                    if outcome.failures and self._tries_again(outcome):
                        again.append(replace(outcome.task, members=left))
                    else:
                        failures |= {(outcome.task.id, one.index): one for one in outcome.failures}
            tasks = again
        return list({one.index: one for one in failures.values()}.values())

    def _arrays(self) -> dict[str, Any]:
        """Images, the scale of the training rows, and the weights of all that vote."""
        described = self._folder.dataset()
        arrays: dict[str, Any] = dict(self._images)
        for name in ("mean", "std"):
            arrays[name] = np.asarray(getattr(described, name), np.float32)
        for one in {voter.index: voter for part in self._parts.values() for voter in part.missing}.values():
            if one.beside:
                kept = self._folder.load_beside(one.beside, weights=True)
                assert kept is not None, f"{one.name} votes, so it is stored"
                weights = dict(kept.weights)
            else:
                weights = self._folder.load_weights(one.index)
            content = save({name: np.require(array, requirements="C") for name, array in weights.items()})
            arrays[f"{MEMBER}{one.index}"] = np.frombuffer(content, np.uint8)
        return arrays

    def _keep(self, outcome: Outcome) -> None:
        """Store what was said about a part, beside what is known of it."""
        part = self._parts[outcome.task.id]
        digests = {one.index: one.digest for one in part.missing}
        key = part.named.name, part.number
        new = {one.index: CastVote(digests[one.index], one.probs_NK, one.energy_N) for one in outcome.votes}
        if new:
            self._stored[key] = {**self._stored[key], **new}
            self._store.save(part.facts, part.number, self._stored[key])

    def _tries_again(self, outcome: Outcome) -> bool:
        """Whether the failure policy gives the task another try; a smaller stack after it ran out of memory."""
        task, kinds = outcome.task, {failure.kind for failure in outcome.failures}
        self._tries.update((task.id, kind) for kind in kinds)
        size = self._votes[task.id].stack_size
        if "out_of_memory" in kinds and size > 1 and self._experiment.failures.policy == "retry":
            self._votes[task.id] = replace(self._votes[task.id], stack_size=-(-size // 2))
            return True
        return all(self._tries[task.id, kind] <= self._experiment.failures.retries(kind) for kind in kinds)

    def _hear(self, item: Event | Checkpoint) -> None:
        """Of what tasks say on their way, notices alone are passed on, each once."""
        if isinstance(item, Notice) and item.message not in self._said:
            self._said.add(item.message)
            self._emit(item)


def _in_words(voters: Sequence[_Voter]) -> str:
    """Who votes, such as "members 0-7, the baseline"."""
    members = [one.index for one in voters if not one.beside]
    return ", ".join([members_in_words(members)] * bool(members) + [one.name for one in voters if one.beside])
