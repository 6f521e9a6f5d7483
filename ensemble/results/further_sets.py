"""The votes on further sets of a run, judged: what `judging` does for validation and test, for every stored set.

evaluation = with_sets(judge_voters(voters), voters, folder)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ensemble.config.evaluation import TEST
from ensemble.config.schema import WEIGHING
from ensemble.errors import ConfigError
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.set_records import ShiftedSet, UnknownSet
from ensemble.evaluation.set_votes import BESIDE, Beside, HowToVote, PartVotes
from ensemble.evaluation.shifted import ShiftJudge, relative_gain
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.unknown_images import Alone, Chosen, Energies, choose_score, judge_unknown
from ensemble.outside.long_work import working
from ensemble.results.voters import Voters
from ensemble.storage import RunFolder
from ensemble.storage.member_files import WEIGHTS
from ensemble.storage.names import BESIDE as PLACES
from ensemble.storage.names import member_folder
from ensemble.storage.set_files import CastVote, SetFacts
from ensemble.storage.set_store import CastVotes, SetStore
from ensemble.types import FloatArray


class StoredSets:
    """The sets that all judged members of a run have voted on, with their votes; what is incomplete is told, and left out.

    A network that does not vote is left out by itself, where it has not been asked about a set or says nothing finite.
    """

    def __init__(self, folder: RunFolder, voters: Voters) -> None:
        self._folder, self._store = folder, SetStore(folder)
        self.indices = [member.index for member in voters.members]
        self._digests = {index: folder.digest(f"{member_folder(index)}/{WEIGHTS}") for index in self.indices}
        self._beside = {
            which: (found.index, folder.digest(f"{PLACES[which]}{WEIGHTS}")) for which, found in voters.beside.items()
        }
        self._asked: dict[
            str, tuple[Beside, ...]
        ] = {}  # by set the networks that are judged on it though they do not vote
        self.warnings: list[str] = []

    def complete(self) -> list[SetFacts]:
        """What each set is that can be judged."""
        found = []
        for name in self._store.names():
            facts = self._store.facts(name)
            if facts.kind == "known":  # nothing but the energies is taken from it
                continue
            missing, left_out = self._missing(facts)
            self._asked[name] = tuple(which for which in self._beside if which not in left_out)
            if missing:
                self.warnings.append(
                    f"set {name}: not judged, since {missing}; ensemble evaluate RUN --on {name} votes on it (or the run's next start, where its configuration has the set), --forget {name} removes it"
                )
                continue
            if facts.kind != "calibration":
                self.warnings += [
                    f"set {name}: the vote is not compared with {_called(which)} there, since it {why}; ensemble evaluate RUN --on {name} lets it vote"
                    for which, why in left_out.items()
                ]
            found.append(facts)
        return found

    def labels(self, facts: SetFacts) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The class of each image."""
        return self._store.labels(facts)

    def parts(self, facts: SetFacts) -> Iterator[PartVotes]:
        """The votes on each part of a complete set, one part in memory at a time."""
        for number, part in enumerate(facts.parts):
            votes = self._store.votes(facts, number)
            beside = {which: votes[self._beside[which][0]].probs_NK for which in self._asked[facts.name]}
            energies = _energies([votes[index] for index in self.indices])
            yield PartVotes(part.label, np.stack([votes[index].probs_NK for index in self.indices]), beside, energies)

    def known_energies(self) -> FloatArray | None:
        """Of the test images [M, N]; None where they are not stored of every member's present weights."""
        if TEST not in self._store.names():
            return None
        facts = self._store.facts(TEST)
        votes = self._store.votes(facts, 0)
        if any(_problem(votes, one, digest, "its images") for one, digest in self._digests.items()):
            return None
        return _energies([votes[index] for index in self.indices])

    def chosen_score(self, complete: Sequence[SetFacts], validation: SplitVotes, how: HowToVote) -> Chosen:
        """The score for unknown images: chosen on the set that is marked for it, else the one that is fixed before."""
        marked = [name for name in self._store.names() if self._store.facts(name).chooses_score]
        for facts in complete:
            if facts.name in marked:
                probs_MUK = np.concatenate([part.probs_MNK for part in self.parts(facts)], axis=1)
                return Chosen(choose_score(validation, probs_MUK, how), facts.name)
        self.warnings += [
            f"set {name} cannot choose the score for unknown images before all have voted on it, so it is the largest probability, as without such a set"
            for name in marked
        ]
        return Chosen()

    def _missing(self, facts: SetFacts) -> tuple[str, dict[Beside, str]]:
        """Which member has not voted on a part yet, in words ("" where all have), and which other networks have not."""
        left_out: dict[Beside, str] = {}
        for number, part in enumerate(facts.parts):
            votes, where = self._store.votes(facts, number), part.label if len(facts.parts) > 1 else "its images"
            for one, digest in self._digests.items():
                if why := _problem(votes, one, digest, where):
                    return f"member {one} {why}", left_out
            for which, (one, digest) in self._beside.items():
                if why := _problem(votes, one, digest, where):
                    left_out.setdefault(which, why)
        return "", left_out


def _problem(votes: CastVotes, index: int, digest: str, where: str) -> str:
    """Why a network cannot be judged on a part, in words; "" where it can. Votes belong to weights, which are known by their digest."""
    if index not in votes or votes[index].digest != digest:
        return f"has not voted on {where}"
    return "" if np.isfinite(votes[index].probs_NK).all() else f"gives no finite probabilities on {where}"


def _energies(cast: Sequence[CastVote]) -> FloatArray | None:
    """Of all members [M, N]; None where any has none."""
    found = [one.energy_N for one in cast if one.energy_N is not None]
    return np.stack(found) if len(found) == len(cast) and np.isfinite(found).all() else None


def _called(which: Beside) -> str:
    return "the baseline" if which == "baseline" else f"the control {which}"


def with_sets(evaluation: Evaluation, voters: Voters, folder: RunFolder) -> Evaluation:
    """The evaluation with all further sets that its members have voted on. voters: those that it is of."""
    if not SetStore(folder).names():
        return evaluation
    voters = voters.finite()
    stored, how = StoredSets(folder, voters), _how(evaluation, voters)
    shifted, unknown = list[ShiftedSet](), list[UnknownSet]()
    sets = stored.complete()
    chosen = stored.chosen_score(sets, voters.validation, how)
    with working("judging sets", len(sets)) as done:
        for facts in sets:
            if facts.kind == "shifted":
                shifted.append(_judge_shifted(stored, facts, how, evaluation))
            elif facts.kind == "unknown":
                unknown.append(_judge_unknown(stored, facts, how, evaluation, voters, chosen))
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
    return judge.record(facts.name, facts.source, len(stored.indices), _names(evaluation))


def _judge_unknown(
    stored: StoredSets, facts: SetFacts, how: HowToVote, evaluation: Evaluation, voters: Voters, chosen: Chosen
) -> UnknownSet:
    """All parts of the set are unknown images alike."""
    parts, names = list(stored.parts(facts)), _names(evaluation)
    probs_MUK = np.concatenate([part.probs_MNK for part in parts], axis=1)
    beside = {
        which: Alone(
            names[which], voters.beside[which].votes.test_NK, np.concatenate([one.beside[which] for one in parts])
        )
        for which in parts[0].beside
    }
    promises = () if evaluation.selective is None else evaluation.selective.promises
    known_MN, own = stored.known_energies(), [part.energy_MN for part in parts if part.energy_MN is not None]
    energies = None
    if known_MN is not None and len(own) == len(parts):
        energies = Energies(known_MN, np.concatenate(own, axis=1))
    return judge_unknown(facts.name, facts.source, probs_MUK, voters.test, how, promises, beside, chosen, energies)


def _names(evaluation: Evaluation) -> dict[Beside, str]:
    """What the leaderboard calls the networks that do not vote."""
    return {which: row.name for row in evaluation.leaderboard for which in BESIDE if row.kind == which}


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
