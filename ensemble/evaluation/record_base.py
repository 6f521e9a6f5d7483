"""What all records of a judgement have in common."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, ConfigDict, TypeAdapter

NAN = float("nan")
Number = Annotated[float, BeforeValidator(lambda value: NAN if value is None else value)]


class Record:
    """A field this version does not know is an error, not something to lose silently."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; NaN becomes null."""
        record: dict[str, Any] = json.loads(TypeAdapter(type(self)).dump_json(self))
        return record


@dataclass(frozen=True)
class MemberFacts(Record):
    """What is known of a member besides its votes. num_parameters: 0 where it has no network, only its votes from a file.

    shared_parameters: how many of them all members of its recipe share, as those of a frozen backbone.
    """

    index: int
    recipe: str
    num_parameters: int
    train_seconds: Number
    kept_epoch: int
    shared_parameters: int = 0


def parameters_of(members: Sequence[MemberFacts]) -> float:
    """What all of these need to predict, what they share counted once; NaN where one of them has no network."""
    if not all(member.num_parameters for member in members):
        return math.nan
    shared: dict[str, int] = {}  # members of earlier versions say nothing of it
    for member in members:
        shared[member.recipe] = max(member.shared_parameters, shared.get(member.recipe, 0))
    return sum(shared.values()) + sum(member.num_parameters - shared[member.recipe] for member in members)


def per_second(gain: float, seconds: float) -> float:
    """A gain by the time that was spent for it; NaN where none is known."""
    return gain / seconds if seconds > 0 else NAN
