"""The validation error of the soft vote by the members that have finished so far, for a projection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ensemble.errors import EnsembleError
from ensemble.results.running_vote import RunningVote
from ensemble.tracking.wandb_projection import VoteError


def vote_so_far(folder: Path, aggregator: object, missed: Callable[[str], None]) -> VoteError | None:
    """Of the run in `folder`; None where another vote than soft is the run's.

    missed: told once, in words, when votes cannot be read; those are left out of the curve.
    """
    if aggregator != "soft":
        return None
    vote, said = RunningVote(folder), False

    def error(member: int) -> float | None:
        nonlocal said
        try:
            return vote.add(member)
        except EnsembleError as problem:
            if not said:
                said = True
                missed(f"vote/validation_error is not shown for all members there: {problem}")
            return None

    return error
