"""Boosting by filtering: three networks, the later ones on images that the earlier ones choose.

Drucker, Schapire and Simard 1993, "Boosting Performance in Neural Networks"; LeCun et al. 1998, section III-C, where
three LeNet-4 do so ("boosted LeNet-4", 0.7 % on MNIST). The first network trains as usual. The second trains on new
images half of which the first gets wrong, the third on new images about which the first two disagree. So good are the
networks that only an endless source has enough such images: the training rows, deformed anew in every pass. The
outputs are added, here as probabilities (the soft vote).

The paper's comparison lacks a network that saw as many deformed images, and a plain vote of three: both are in
docs/results. The three of a chain must train one after the other; several chains run side by side and form stacks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from ensemble.config.method import MethodJob, MethodSection, register_method
from ensemble.config.recipe import TrainingConfig
from ensemble.types import Arrays, DoubleArray, Filter, IntArray, MemberResult, MemberSpec

_RULES: tuple[None, Literal["half_wrong"], Literal["disagree"]] = (None, "half_wrong", "disagree")


@register_method
class FilterBoostingConfig(MethodSection):
    """Three networks, the later ones on deformed images that the earlier ones choose (Drucker et al. 1993)."""

    name: Literal["filter_boosting"]
    in_short = (
        "boosting by filtering: later members train on deformed images that earlier ones choose (Drucker et al. 1993)"
    )
    max_passes: int = Field(
        100, ge=1, le=100_000, description="how often, at most, every training image is deformed and looked at"
    )

    @property
    def together(self) -> int:
        return 3

    @property
    def in_words(self) -> str:
        return "chains of three networks"

    def side_by_side(self, members: int) -> int:
        return members // 3

    def problem(self, training: TrainingConfig) -> str:
        if training.augmentation.deforms:
            return ""
        return "filter_boosting draws from an endless source of deformed images: switch on some of training.augmentation, such as rotation_degrees"

    def build(self, job: MethodJob) -> FilterBoosting:
        return FilterBoosting(self, len(job.recipes), job.recipes[0], job.train_rows)


class FilterBoosting:
    """Chains of three; member r * chains + c is number r of chain c."""

    wants_weights = True

    def __init__(self, config: FilterBoostingConfig, num_members: int, recipe: str, train_rows: IntArray) -> None:
        assert num_members % len(_RULES) == 0, f"{num_members} members are no chains of three"
        self._config, self._recipe, self._rows = config, recipe, train_rows
        self._chains = num_members // len(_RULES)
        self._weights: dict[int, list[Arrays]] = {chain: [] for chain in range(self._chains)}
        self._round = 0
        self._asked = False
        self._records: list[dict[str, Any]] = []
        self._ended: list[str] = []

    def ask(self) -> list[MemberSpec]:
        """The next network of every living chain."""
        assert not self._asked, "tell the results of the last round before asking again"
        if self._round == len(_RULES):
            return []
        members = [self._member(chain, weights) for chain, weights in self._weights.items()]
        self._asked = bool(members)
        return members

    def tell(self, results: Sequence[MemberResult]) -> None:
        """Take in the networks that choose for the next ones; a chain whose network failed ends."""
        found = {result.index - self._round * self._chains: result for result in results}
        for chain in [chain for chain in self._weights if chain not in found]:
            del self._weights[chain]
            self._ended.append(
                f"chain {chain} ended with {self._round} of {len(_RULES)} networks: its next one failed, and no later one can be chosen for"
            )
        for chain in sorted(found):
            self._weights[chain].append(found[chain].weights)
            facts = found[chain].facts
            self._records.append({"round": self._round + 1, "chain": chain, "members": [found[chain].index], **facts})
            if facts and facts["filter_distinct"] < len(self._rows):
                self._ended_dry(found[chain].index, facts)
        self._round, self._asked = self._round + 1, False

    def vote_weights(self) -> DoubleArray | None:
        """None: the outputs of the three are added."""
        return None

    def report(self) -> dict[str, Any]:
        """Per network how many images were looked at and how many distinct ones taken, and chains that ended early."""
        return {"rounds": self._records, "notices": self._notices, "ended_early": list(self._ended)}

    @property
    def _notices(self) -> list[str]:
        return [record["notice"] for record in self._records if "notice" in record] + self._ended

    def _ended_dry(self, index: int, facts: Any) -> None:
        self._records[-1]["notice"] = (
            f"member {index}: {facts['filter_distinct']:,.0f} distinct images found among {facts['filter_looked_at']:,.0f} (method.max_passes is {self._config.max_passes}); they stand several times in its set of {len(self._rows):,}"
        )

    def _member(self, chain: int, judges: Sequence[Arrays]) -> MemberSpec:
        rule = _RULES[self._round]
        chosen = None if rule is None else Filter(rule, tuple(judges), len(self._rows), self._config.max_passes)
        index = self._round * self._chains + chain
        return MemberSpec(index, self._recipe, self._rows, round=self._round, filter=chosen)
