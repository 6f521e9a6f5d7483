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

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field

from ensemble.config.groups import Group
from ensemble.config.method import MethodJob, MethodSection, register_method
from ensemble.config.recipe import TrainingConfig, TriangularConfig
from ensemble.types import Arrays, DoubleArray, IntArray, MemberResult, MemberSpec


class ChainedConfig(MethodSection):
    """Chains in which every network begins with the weights of the one before."""

    chains: int = Field(1, ge=1, le=1000, description="independent chains side by side")

    @property
    def together(self) -> int:
        return self.chains

    @property
    def in_words(self) -> str:
        return f"{self.chains} chain(s) side by side"

    def build(self, job: MethodJob) -> Chained:
        return Chained(job.recipes, job.train_rows, self.chains)


@register_method
class SnapshotConfig(ChainedConfig):
    """One training of many falling cycles, a member at the end of each (Huang et al. 2017)."""

    name: Literal["snapshot"]
    in_short = "snapshot ensemble: one training of falling learning-rate cycles, a member at the end of each (Huang et al. 2017)"
    training_defaults = {"schedule": {"name": "cosine"}}  # noqa: RUF012 - nobody changes it

    def problem(self, training: TrainingConfig) -> str:
        found = training.schedule.name
        if training.early_stopping_epochs is not None:
            return "training.early_stopping_epochs would end snapshot's cycles before their learning rate has fallen: leave it out"
        if found == "cosine":
            return ""
        return f"snapshot takes a member at the end of every falling cycle: expected training.schedule cosine, found {found}"


@register_method
class FastGeometricConfig(ChainedConfig):
    """One training, then short cycles from where it ended, a member at the end of each (Garipov et al. 2018)."""

    name: Literal["fast_geometric"]
    in_short = "fast geometric ensemble: short cycles from the end of one training, a member at the end of each (Garipov et al. 2018)"
    cycle_epochs: int = Field(
        2, ge=1, le=100_000, description="epochs of a cycle, and so of each member after the first"
    )
    cycle_lr: float | None = Field(None, gt=0, description="highest rate of a cycle; without it training.lr")
    low_fraction: float = Field(0.01, ge=0, lt=1, description="lowest rate of a cycle, as a share of the highest")

    def groups_of(self, alike: Group) -> tuple[Group, ...]:
        """The first network of each chain by the common recipe, the others by short cycles."""
        first = alike.model_copy(update={"count": self.chains})
        if alike.count == self.chains:
            return (first,)
        schedule = TriangularConfig(name="triangular", low_fraction=self.low_fraction)
        changes = {
            "epochs": self.cycle_epochs, "schedule": schedule, "lr": self.cycle_lr or alike.training.lr,
            "warmup_epochs": 0.0, "early_stopping_epochs": None,
        }  # fmt: skip
        cycles = {"name": f"{alike.name}_cycle", "count": alike.count - self.chains}
        return first, alike.model_copy(update={**cycles, "training": alike.training.model_copy(update=changes)})

    def idle_keys(self, _training: TrainingConfig, members: int | None) -> Iterator[tuple[str, str]]:
        for key in ("cycle_epochs", "cycle_lr", "low_fraction"):
            if members == self.chains and getattr(self, key) != type(self).model_fields[key].default:
                yield f"method.{key}", "has no effect where num_members equals chains: no network comes from a cycle"


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
