"""AdaBoost (SAMME) for networks: each round trains on what the rounds before got wrong.

Textbook SAMME measures a member's error on the rows it was fitted to. A convolutional network learns those by heart:
its error is 0, its vote weight infinite, no sample weight moves, and boosting ends after one member. So here error
and weight update come from rows the network was not fitted to (`method.error_rows`):

held_out    The default. A round of a chain is a *fold stack*: F networks, each fitted to all folds but one. Every
            training row then has exactly one vote by a network that never saw it, in every round, so the recursion
            is SAMME's own with out-of-fold votes in place of fitted ones. The F networks share the round's alpha
            (alpha / F each): all of them vote, none is trained only to measure. They train together in one stack.
            A chain keeps its folds in all rounds, so the vote of a row's own networks is never by one that saw it.
            Price: each network sees (F - 1) / F of the rows.
out_of_bag  One network per round, on a random 63.2 % of the rows; the others judge it, and only their weights move.
            Cheapest per round, but two rows of three keep their weight each time.
training    As in the textbook, for comparison and for weak learners.

Several chains share nothing but the device: all networks they want next are asked for at once, and can form one stack.
The score of a class is the sum over all kept rounds of all chains. `boosting_chain` says what ends a chain.

A strong network misses so few rows that one round of SAMME puts 90 % of the weight on them (at 1 % error each is
multiplied by 891), and the next network learns little else. `method.learning_rate` shrinks the exponent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ensemble.config.method import MethodJob, MethodSection, register_method
from ensemble.errors import QuorumError
from ensemble.methods.boosting_chain import Chain, Judged
from ensemble.methods.boosting_rows import (
    Division,
    UseWeights,
    bag_division,
    fitting,
    fold_divisions,
    training_division,
)
from ensemble.seeding import Purpose, member_generator
from ensemble.types import DoubleArray, IntArray, MemberResult, MemberSpec

# Addresses a division of the rows behind (member, sample): longer than the draws of a round and of an epoch.
_DIVISION = (0, 0)


ErrorRows = Literal["held_out", "out_of_bag", "training"]


@register_method
class AdaBoostConfig(MethodSection):
    """SAMME boosting (Zhu et al. 2009) with errors from rows a network was not fitted to."""

    name: Literal["adaboost"]
    in_short = "SAMME boosting: each round weighs the images that earlier rounds got wrong (Zhu et al. 2009)"
    headline = "weighted"
    error_rows: ErrorRows = Field(
        "held_out", description="rows that judge a network: its fold, rows outside its bag, or those it was fitted to"
    )
    folds: int | None = Field(
        None, ge=2, le=100, description="networks per round with error_rows: held_out; without it 4"
    )
    use_weights: UseWeights = Field(
        "resample_every_epoch", description="how sample weights reach the training: rows drawn by weight, or the loss"
    )
    learning_rate: float = Field(0.5, gt=0, le=10, description="factor on every alpha; 1 is SAMME as published")
    chains: int = Field(1, ge=1, le=1000, description="independent chains that boost side by side")
    redraws: int = Field(
        1, ge=0, le=10, description="per round: further tries for networks that failed or are no better than guessing"
    )
    min_effective_share: float = Field(
        0.01, ge=0, lt=1, description="a chain stops when 1 / sum w^2 falls below this share of the training rows"
    )

    @model_validator(mode="after")
    def _folds_used(self) -> Self:
        if self.folds is not None and self.error_rows != "held_out":
            raise ValueError(f"folds has no effect with error_rows: {self.error_rows}; remove it, or use held_out")
        return self

    @property
    def networks_per_round(self) -> int:
        """How many networks one round of one chain trains."""
        return (self.folds or 4) if self.error_rows == "held_out" else 1

    @property
    def together(self) -> int:
        return self.networks_per_round * self.chains

    @property
    def in_words(self) -> str:
        return f"{self.chains} chain(s) of {self.networks_per_round} network(s) per round"

    def build(self, job: MethodJob) -> AdaBoost:
        labels_N = job.labels_N[job.train_rows]
        return AdaBoost(self, len(job.recipes), job.recipes[0], job.train_rows, labels_N, job.num_classes, job.seed)


class AdaBoost:
    """Boosting chains side by side; see the module."""

    wants_weights = False

    def __init__(
        self,
        config: AdaBoostConfig,
        num_members: int,
        recipe: str,
        train_rows: IntArray,
        train_labels_N: IntArray,
        num_classes: int,
        seed: int,
    ) -> None:
        """train_labels_N: classes of `train_rows`. num_members: a multiple of chains times networks per round."""
        assert len(train_rows) == len(train_labels_N), f"{len(train_rows)} rows, {len(train_labels_N)} labels"
        self._config, self._recipe, self._seed = config, recipe, seed
        self._rows_N = train_rows
        each = config.networks_per_round
        rounds, left = divmod(num_members, each * config.chains)
        assert rounds >= 1, f"{num_members} members are no round"
        assert left == 0, f"{num_members} members are no whole number of rounds"
        self._chains = [
            Chain(number, config, rounds, num_classes, train_rows, train_labels_N, self._fixed(number, train_labels_N))
            for number in range(config.chains)
        ]
        self._asked: dict[int, tuple[Chain, int, Division]] = {}
        self._told: set[int] = set()
        self._round = self._next_index = 0
        self._unusable: list[int] = []

    def ask(self) -> list[MemberSpec]:
        """The networks every chain wants next; empty when all chains have ended."""
        assert not self._asked, "tell the results of the last round before asking again"
        wanted = [(chain, slot) for chain in self._chains for slot in chain.wanted]
        members = [self._member(self._next_index + i, chain, slot) for i, (chain, slot) in enumerate(wanted)]
        self._next_index += len(members)
        self._round += bool(members)
        return members

    def tell(self, results: Sequence[MemberResult]) -> None:
        """Judge the round. Raises QuorumError when all chains have ended and no network may vote."""
        unknown = [result.index for result in results if result.index not in self._asked]
        assert not unknown, f"members {unknown} were not asked for"
        judged: dict[int, dict[int, Judged]] = {chain.number: {} for chain in self._chains}
        for result in results:
            chain, slot, division = self._asked[result.index]
            self._told.add(result.index)
            if np.isfinite(result.votes.rows_RK).all():
                classes = result.votes.rows_RK.argmax(axis=1).astype(np.int64)
                judged[chain.number][slot] = Judged(result.index, division.judge, classes)
            else:
                self._unusable.append(result.index)
        self._asked = {}
        for chain in self._chains:
            if chain.wanted:
                chain.tell(judged[chain.number])
        self._require_a_vote()

    def vote_weights(self) -> DoubleArray | None:
        """Each network's share of its round's alpha, by ascending index of the members told; 0 for those dropped."""
        alphas = {index: alpha for chain in self._chains for index, alpha in chain.alphas.items()}
        return np.array([alphas.get(index, 0.0) for index in sorted(self._told)])

    def report(self) -> dict[str, Any]:
        """The kept rounds of all chains, which members do not vote, what was noted, and which chains ended early."""
        rounds = [record for chain in self._chains for record in chain.rounds]
        return {
            "rounds": [record.to_json() for record in sorted(rounds, key=lambda record: (record.round, record.chain))],
            "dropped": sorted([*self._unusable, *(index for chain in self._chains for index in chain.dropped)]),
            "notices": [notice for chain in self._chains for notice in chain.notices],
            "ended_early": [chain.stopped for chain in self._chains if chain.stopped is not None],
        }

    def _fixed(self, number: int, labels_N: IntArray) -> list[Division]:
        """The divisions a chain keeps in all rounds, one per slot; none where every network draws its own."""
        if self._config.error_rows == "training":
            return [training_division(len(labels_N))]
        if self._config.error_rows == "out_of_bag":
            return []
        first = number * self._config.networks_per_round
        generator = member_generator(self._seed, first, Purpose.SAMPLE, *_DIVISION)
        return fold_divisions(labels_N, self._config.networks_per_round, generator)

    def _member(self, index: int, chain: Chain, slot: int) -> MemberSpec:
        division = (
            chain.divisions[slot]
            if chain.divisions
            else bag_division(len(self._rows_N), member_generator(self._seed, index, Purpose.SAMPLE, *_DIVISION))
        )
        self._asked[index] = (chain, slot, division)
        # Folds differ by a row, stacks may not.
        count = max(len(d.fit) for d in (division, *chain.divisions))
        generator = member_generator(self._seed, index, Purpose.SAMPLE)
        fit = fitting(division, chain.log_weights_N, self._config.use_weights, count, generator)
        return MemberSpec(
            index, self._recipe, self._rows_N[fit.positions], fit.weights, self._rows_N[division.judge],
            self._round, fit.resample,
        )  # fmt: skip

    def _require_a_vote(self) -> None:
        if any(chain.wanted or chain.rounds for chain in self._chains):
            return
        reasons = "\n".join(f"  {chain.stopped}" for chain in self._chains)
        raise QuorumError(
            f"adaboost: no network may vote; expected at least one better than guessing:\n{reasons}\nCheck training.lr and training.epochs on a single member (method.name=deep_ensemble num_members=1), or raise method.redraws"
        )
