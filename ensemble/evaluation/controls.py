"""Control networks as the judgement takes them: what each said, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass

from ensemble.config.controls import Control
from ensemble.evaluation.aggregation import Decision, decide
from ensemble.evaluation.records import MemberFacts
from ensemble.types import FloatArray


@dataclass(frozen=True, eq=False)
class ControlVotes:
    """One network that does not vote. factor: by how much it was trained longer, or is wider, than a member. epochs: that it trained."""

    control: Control
    validation: Decision
    test: Decision
    facts: MemberFacts
    epochs: int
    factor: float

    @classmethod
    def of(
        cls,
        control: Control,
        validation_NK: FloatArray,
        test_NK: FloatArray,
        facts: MemberFacts,
        epochs: int,
        factor: float,
    ) -> ControlVotes:
        """By its probabilities on the two parts."""
        validation, test = decide("soft", validation_NK[None]), decide("soft", test_NK[None])
        return cls(control, validation, test, facts, epochs, factor)

    @property
    def name(self) -> str:
        """Its line in the leaderboard."""
        if self.control == "longer":
            return f"one network trained {self.factor:.3g} times as long"
        return f"one network {self.factor:.3g} times as wide"

    def in_words(self, parameters_together: int) -> str:
        """What it had, beside all members together."""
        if self.control == "longer":
            return f"{self.epochs:,} epochs on all training rows"
        return f"{self.facts.num_parameters:,} parameters, all members together {parameters_together:,}"
