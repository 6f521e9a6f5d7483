"""Who may vote, and what looks wrong about those who do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import numpy as np

from ensemble.errors import QuorumError
from ensemble.evaluation.records import ExcludedMember, MemberFacts
from ensemble.evaluation.splits import AnyFloatArray, SplitVotes


def finite_members(
    votes: Mapping[str, AnyFloatArray], members: Sequence[MemberFacts]
) -> tuple[list[int], list[ExcludedMember]]:
    """Positions of the members whose votes are all finite, and the others with the reason.

    votes: probabilities [M, N, K] by the name of their rows; N may be 0. Raises QuorumError where no member can vote.
    """
    finite, excluded = [], []
    for m, facts in enumerate(members):
        bad = {name: int((~np.isfinite(probs_MNK[m])).any(axis=1).sum()) for name, probs_MNK in votes.items()}
        if any(bad.values()):
            places = ", ".join(f"{count} {name} rows" for name, count in bad.items() if count)
            excluded.append(ExcludedMember(facts.index, f"non-finite probabilities on {places}"))
        else:
            finite.append(m)
    if not finite:
        raise QuorumError(
            f"none of the {len(members)} members can vote: all have non-finite probabilities; expected at least one "
            "with finite votes. The members diverged: lower training.lr, or set training.gradient_clip_norm"
        )
    return finite, excluded


def duplicate_warnings(test: SplitVotes, members: Sequence[MemberFacts]) -> list[str]:
    """Members with exactly the same votes: nearly always one seed used twice."""
    groups: dict[bytes, list[int]] = {}
    for probs_NK, facts in zip(test.probs_MNK, members, strict=True):
        digest = blake2b(np.ascontiguousarray(probs_NK).tobytes(), digest_size=16).digest()
        groups.setdefault(digest, []).append(facts.index)
    return [
        f"members {', '.join(map(str, group))} have identical votes on test: they count as {len(group)} but are one"
        for group in groups.values()
        if len(group) > 1
    ]
