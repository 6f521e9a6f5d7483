"""Snapshot and fast geometric ensembles: every network of a chain begins where the one before ended.

Snapshot (Huang et al. 2017, "Snapshot Ensembles: Train 1, Get M for Free"): each member is one cycle of a falling
cosine, training.epochs long. Fast geometric (Garipov et al. 2018, "Loss Surfaces, Mode Connectivity, and Fast
Ensembling of DNNs"): the first member of a chain is trained by the common recipe, the later ones by short cycles up
and down; here that first network votes too. The optimiser's memory begins afresh with every cycle, where the papers
let momentum run on.

The members of one chain cannot train at the same time, since each needs the last one's weights; `chains` run side by
side and form stacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ensemble.types import Arrays, DoubleArray, IntArray, MemberResult, MemberSpec


class Chained:
    """Chains of members; member r * chains + c is number r of chain c."""

    wants_weights = True

    def __init__(self, recipes: Sequence[str], train_rows: IntArray, chains: int) -> None:
        """recipes: the group name of every member; their number is a multiple of `chains`."""
        assert len(recipes) % chains == 0, f"{len(recipes)} members in {chains} chains"
        self._recipes, self._rows, self._chains = list(recipes), train_rows, chains
        self._weights: dict[int, Arrays] = {}  # the last network of each chain
        self._living = list(range(chains))
        self._round = 0
        self._asked = False
        self._ended: list[str] = []

    def ask(self) -> list[MemberSpec]:
        """The next member of every living chain; empty when all are as long as wanted."""
        assert not self._asked, "tell the results of the last round before asking again"
        if self._round * self._chains >= len(self._recipes):
            return []
        members = [
            MemberSpec(index, self._recipes[index], self._rows, round=self._round, start=self._weights.get(chain))
            for chain in self._living
            for index in [self._round * self._chains + chain]
        ]
        self._asked = bool(members)
        return members

    def tell(self, results: Sequence[MemberResult]) -> None:
        """Take in the networks the next ones begin with; a chain whose network failed ends."""
        found = {result.index - self._round * self._chains: result.weights for result in results}
        lost = [chain for chain in self._living if chain not in found]
        done, wanted = self._round, len(self._recipes) // self._chains
        self._ended += [
            f"chain {chain} ended with {done} of {wanted} members: its next one failed, and nothing can begin from it"
            for chain in lost
        ]
        self._living = [chain for chain in self._living if chain in found]
        self._weights = {chain: found[chain] for chain in self._living}
        self._round, self._asked = self._round + 1, False

    def vote_weights(self) -> DoubleArray | None:
        """None: every member counts the same."""
        return None

    def report(self) -> dict[str, Any] | None:
        """Which chains ended early."""
        return {"notices": list(self._ended), "ended_early": list(self._ended)}
