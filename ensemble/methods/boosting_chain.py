"""One chain of boosting: its sample weights, its rounds, and what ends it.

A round asks for networks in numbered *slots* (one per fold, or a single one). When all are told, or tries are used up,
the round is judged, and becomes alphas and new weights. What each outcome does:

- useful: kept; missed rows gain weight.
- perfect on the rows that judge it: its error counts as 1/(2 rows), so alpha is finite; no weight moves; a notice.
- no better than guessing: its networks do not vote; another try with new random streams, else the chain ends.
- networks that failed, or whose votes are not finite: those alone are tried again; without tries left the round
  counts with the others, rows without a vote keep their weight, and the chain ends after it.
- weights concentrated on too few rows (`min_effective_share`): the round is kept, and the chain ends after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from ensemble.methods import samme
from ensemble.methods.boosting_rows import Division
from ensemble.types import DoubleArray, IntArray

HEAVIEST = 10
NO_VOTE = -1


@dataclass(frozen=True, eq=False)
class Judged:
    """A finished network: who it is, the positions it voted on, and the class it named for each."""

    index: int
    positions: IntArray
    classes: IntArray


@dataclass(frozen=True)
class HeavyRow:
    """A row with much weight. row: position in the data set's training images; named: the last vote on it, or None."""

    row: int
    label: int
    named: int | None
    weight: float


@dataclass(frozen=True)
class Round:
    """What a kept round came to. Rounds and chains count from 1 and 0; errors are fractions of the rows voted on.

    staged_error: of the chain's alpha-weighted vote up to here, on the same kind of rows. effective_size and
    heaviest: of the weights this round leaves to the next.
    """

    chain: int
    round: int
    members: tuple[int, ...]
    weighted_error: float
    error: float
    alpha: float
    voted_rows: int
    staged_error: float
    effective_size: float
    heaviest: tuple[HeavyRow, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class ChainKeys(Protocol):
    """What a chain needs of the method's section (`adaboost.AdaBoostConfig`)."""

    @property
    def error_rows(self) -> str: ...
    @property
    def redraws(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def min_effective_share(self) -> float: ...
    @property
    def networks_per_round(self) -> int: ...


@dataclass(eq=False)
class Chain:
    """The state of one chain; `wanted` are the slots to be trained next, empty when the chain has ended."""

    number: int
    config: ChainKeys
    num_rounds: int
    num_classes: int
    rows_N: IntArray
    labels_N: IntArray
    divisions: Sequence[Division]
    rounds: list[Round] = field(default_factory=list)
    alphas: dict[int, float] = field(default_factory=dict)
    dropped: list[int] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    stopped: str | None = None
    wanted: list[int] = field(init=False)
    _redraws: int = field(init=False)
    _done: dict[int, Judged] = field(init=False)

    def __post_init__(self) -> None:
        self.log_weights_N: DoubleArray = samme.equal_log_weights(len(self.labels_N))
        self._scores_NK = np.zeros((len(self.labels_N), self.num_classes))
        self._begin_round()

    def tell(self, told: Mapping[int, Judged]) -> None:
        """Take in the networks of `wanted` that finished, by slot; the missing ones failed."""
        self._done.update(told)
        missing = [slot for slot in self.wanted if slot not in told]
        if missing and self._redraws > 0:
            self._redraws -= 1
            self.wanted = missing
            self._note(f"{len(missing)} network(s) failed; trying again with other random streams")
        elif not self._done:
            self._stop("every network of the round failed")
        else:
            self._judge(bool(missing))

    def _begin_round(self) -> None:
        self.wanted = list(range(self.config.networks_per_round))
        self._done = {}
        self._redraws = self.config.redraws

    def _judge(self, incomplete: bool) -> None:
        votes_N = np.full(len(self.labels_N), NO_VOTE, np.int64)
        for judged in self._done.values():
            votes_N[judged.positions] = judged.classes
        voted_N, missed_N = votes_N != NO_VOTE, votes_N != self.labels_N
        done = samme.step(self.log_weights_N, missed_N, self.num_classes, self.config.learning_rate, voted_N)
        if done.verdict == "no better than guessing":
            self._refuse(done.error)
            return
        if done.verdict == "perfect":
            self._note(
                f"no error on the {int(voted_N.sum())} rows that judge it; counted as half a row, so that its vote weight is finite, and no sample weight moves. {self._advice()}"
            )
        self._keep(done, votes_N, voted_N, missed_N)
        effective_share = self.rounds[-1].effective_size / len(self.labels_N)
        if len(self.rounds) == self.num_rounds:
            self.wanted = []
        elif incomplete:
            self._stop("networks of the last round failed and no further try is left")
        elif effective_share < self.config.min_effective_share:
            self._stop(
                f"the weights sit on {self.rounds[-1].effective_size:.1f} effective rows, {effective_share:.2%} of all (method.min_effective_share is {self.config.min_effective_share:g}); a smaller method.learning_rate moves them less"
            )
        else:
            self._begin_round()

    def _refuse(self, error: float) -> None:
        self.dropped += [judged.index for judged in self._done.values()]
        guessing = 1.0 - 1.0 / self.num_classes
        found = f"weighted error {error:.4f}, and guessing has {guessing:.4f}: these networks do not vote"
        if self._redraws > 0:
            self._note(f"{found}; trying again with other random streams")
            self._redraws -= 1
            self.wanted, self._done = list(range(self.config.networks_per_round)), {}
        else:
            self._stop(found)

    def _keep(self, done: samme.Step, votes_N: IntArray, voted_N: samme.BoolArray, missed_N: samme.BoolArray) -> None:
        self.log_weights_N = done.log_weights_N
        members = tuple(sorted(judged.index for judged in self._done.values()))
        # The networks of a round share its alpha: together they are the round's one voter.
        self.alphas.update(dict.fromkeys(members, done.alpha / len(members)))
        self._scores_NK[voted_N, votes_N[voted_N]] += done.alpha
        judged_N = self._scores_NK.any(axis=1)
        staged = self._scores_NK[judged_N].argmax(axis=1) != self.labels_N[judged_N]
        self.rounds.append(
            Round(
                chain=self.number,
                round=len(self.rounds) + 1,
                members=members,
                weighted_error=done.error,
                error=float(missed_N[voted_N].mean()),
                alpha=done.alpha,
                voted_rows=int(voted_N.sum()),
                staged_error=float(staged.mean()),
                effective_size=samme.effective_size(self.log_weights_N),
                heaviest=self._heaviest(votes_N),
            )
        )

    def _heaviest(self, votes_N: IntArray) -> tuple[HeavyRow, ...]:
        weights = np.exp(self.log_weights_N)
        return tuple(
            HeavyRow(
                row=int(self.rows_N[i]),
                label=int(self.labels_N[i]),
                named=None if votes_N[i] == NO_VOTE else int(votes_N[i]),
                weight=float(weights[i]),
            )
            for i in samme.heaviest(self.log_weights_N, HEAVIEST)
        )

    def _advice(self) -> str:
        if self.config.error_rows == "training":
            return "Networks learn their training rows by heart: measure errors on others (method.error_rows=held_out)"
        return "Boosting has nothing to correct here: fewer epochs or harder data would leave it something"

    def _note(self, what: str) -> None:
        self.notices.append(f"boosting chain {self.number}, round {len(self.rounds) + 1}: {what}")

    def _stop(self, why: str) -> None:
        self.wanted = []
        kept = len(self.rounds)
        self.stopped = f"boosting chain {self.number} ended with {kept} of {self.num_rounds} rounds: {why}"
        self.notices.append(self.stopped)
