"""What every method offers (the suite in tests/contracts/method_contract.py spells it out)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ensemble.types import DoubleArray, MemberResult, MemberSpec


class Method(Protocol):
    @property
    def wants_weights(self) -> bool:
        """Whether `tell` reads the members' weights, not only their votes."""
        ...

    def ask(self) -> list[MemberSpec]:
        """The members of the next round, all of which may train at the same time; empty when the ensemble is done."""
        ...

    def tell(self, results: Sequence[MemberResult]) -> None:
        """Take in the finished members of the last round, in any order; failed ones are missing."""
        ...

    def vote_weights(self) -> DoubleArray | None:
        """How loud each finished member votes, by ascending index; None when the method has no opinion."""
        ...

    def report(self) -> dict[str, Any] | None:
        """What the method has to say of itself, as plain JSON values; None when that is nothing.

        Keys with a meaning to others: `rounds` (records with `round` and `members`), `dropped` (members that finished
        but may not vote), `notices` (sentences in the order they came up), `ended_early` (why the ensemble is smaller
        than asked for).
        """
        ...
