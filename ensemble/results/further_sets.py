"""The votes on further sets of a run, judged: what `judging` does for validation and test, for every stored set.

evaluation = with_sets(judge_voters(voters), voters, folder)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ensemble.config.schema import WEIGHING
from ensemble.errors import ConfigError
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.set_records import ShiftedSet, UnknownSet
from ensemble.evaluation.set_votes import HowToVote, PartVotes
from ensemble.evaluation.shifted import ShiftJudge, relative_gain
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.unknown_images import judge_unknown
from ensemble.outside.long_work import working
from ensemble.results.voters import Voters
from ensemble.storage import RunFolder
from ensemble.storage.member_files import WEIGHTS
from ensemble.storage.names import BASELINE, member_folder
from ensemble.storage.set_files import SetFacts
from ensemble.storage.set_store import SetStore


class StoredSets:
    """The sets that all judged members of a run have voted on, with their votes; what is incomplete is told, and left out."""

    def __init__(self, folder: RunFolder, voters: Voters) -> None:
        self._folder, self._store = folder, SetStore(folder)
        self.indices = [member.index for member in voters.members]
        self._digests = {index: folder.digest(f"{member_folder(index)}/{WEIGHTS}") for index in self.indices}
        self._baseline = None if voters.baseline is None else voters.baseline.index
        if self._baseline is not None:
            self._digests[self._baseline] = folder.digest(f"{BASELINE}{WEIGHTS}")
        self.warnings: list[str] = []

    def complete(self) -> list[SetFacts]:
        """What each set is that can be judged."""
        found = []
        for name in self._store.names():
            facts = self._store.facts(name)
            if missing := self._missing(facts):
                self.warnings.append(
                    f"set {name}: not judged, since {missing}; ensemble evaluate RUN --on {name} votes on it (or the run's next start, where its configuration has the set), --forget {name} removes it"
                )
            else:
                found.append(facts)
        return found

    def labels(self, facts: SetFacts) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The class of each image."""
        return self._store.labels(facts)

    def parts(self, facts: SetFacts) -> Iterator[PartVotes]:
        """The votes on each part, one part in memory at a time."""
        for number, part in enumerate(facts.parts):
            votes = self._store.votes(facts, number)
            baseline_NK = None if self._baseline is None else votes[self._baseline][1]
            yield PartVotes(part.label, np.stack([votes[index][1] for index in self.indices]), baseline_NK)

    def _missing(self, facts: SetFacts) -> str:
        """Who has not voted on a part yet, in words; "" where everybody has."""
        for number, part in enumerate(facts.parts):
            votes = self._store.votes(facts, number)
            # The baseline's votes are no member's: both are looked up by their digests.
            absent = [one for one, digest in self._digests.items() if one not in votes or votes[one][0] != digest]
            if absent:
                who = "the baseline" if absent == [self._baseline] else f"member {absent[0]}"
                return f"{who} has not voted on {part.label if len(facts.parts) > 1 else 'its images'}"
            if bad := [one for one in self._digests if not np.isfinite(votes[one][1]).all()]:
                return f"member {bad[0]} gives no finite probabilities on {part.label}"
        return ""


def with_sets(evaluation: Evaluation, voters: Voters, folder: RunFolder) -> Evaluation:
    """The evaluation with all further sets that its members have voted on. voters: those that it is of."""
    if not SetStore(folder).names():
        return evaluation
    voters = voters.finite()
    stored, how = StoredSets(folder, voters), _how(evaluation, voters)
    shifted, unknown = list[ShiftedSet](), list[UnknownSet]()
    sets = stored.complete()
    with working("judging sets", len(sets)) as done:
        for facts in sets:
            if facts.kind == "shifted":
                shifted.append(_judge_shifted(stored, facts, how, evaluation))
            elif facts.kind == "unknown":
                unknown.append(_judge_unknown(stored, facts, how, evaluation, voters.test))
            done()
    return replace(
        evaluation,
        shifted=tuple(shifted),
        unknown=tuple(unknown),
        warnings=(*evaluation.warnings, *stored.warnings),
    )


def _how(evaluation: Evaluation, voters: Voters) -> HowToVote:
    aggregator = evaluation.aggregator
    weights_M = voters.vote_weights(aggregator) if aggregator in WEIGHING else None
    positions = [member.index for member in voters.members]
    return HowToVote(aggregator, weights_M, positions.index(evaluation.verdict.member))


def _judge_shifted(stored: StoredSets, facts: SetFacts, how: HowToVote, evaluation: Evaluation) -> ShiftedSet:
    clean = relative_gain(evaluation.verdict.vote_error, evaluation.verdict.member_error)
    judge = ShiftJudge(how, stored.labels(facts), clean)
    for part in stored.parts(facts):
        judge.take(part)
    return judge.record(facts.name, facts.source, len(stored.indices))


def _judge_unknown(
    stored: StoredSets, facts: SetFacts, how: HowToVote, evaluation: Evaluation, test: SplitVotes
) -> UnknownSet:
    """All parts of the set are unknown images alike."""
    probs_MUK = np.concatenate([part.probs_MNK for part in stored.parts(facts)], axis=1)
    promises = () if evaluation.selective is None else evaluation.selective.promises
    return judge_unknown(facts.name, facts.source, probs_MUK, test, how, promises)


def votes_on(folder: RunFolder, voters: Voters, name: str) -> tuple[SplitVotes, str]:
    """The members' votes on a further set of images of the run's classes, and what the set is (`SetFacts.definition`).

    name: of the set, and behind a colon the label of one of its parts where it has several. Votes on it choose nothing: they are
    of the kind "test". Raises ConfigError for a set that the run has not voted on, for one without classes, and for no part.
    """
    wanted, _, label = name.partition(":")
    stored = StoredSets(folder, voters)
    known = {facts.name: facts for facts in stored.complete() if facts.kind == "shifted"}
    if wanted not in known:
        listed = ", ".join(known) or "none"
        raise ConfigError(
            f"--on {name}: {folder.path} has no votes on such a set of its classes (it has: {listed}); vote on it first: ensemble evaluate {folder.path} --on {wanted}"
        )
    facts = known[wanted]
    labels = [part.label for part in facts.parts]
    if label not in labels and (label or len(labels) > 1):
        raise ConfigError(
            f"--on {name}: the set {wanted} has the parts {', '.join(labels)}; give one of them, such as --on '{wanted}:{labels[0]}'"
        )
    part = next(one for one in stored.parts(facts) if one.label == (label or labels[0]))
    return SplitVotes("test", part.probs_MNK, stored.labels(facts)), facts.definition
