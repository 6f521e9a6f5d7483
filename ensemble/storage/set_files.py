"""What the members voted on besides validation and test, and their votes: the folder votes/SET of a run.

    votes/SET/set.json      what the set is: kind, images, parts
    votes/SET/labels.npz    labels_N: the class of each image, -1 where it is of none of the run's classes
    votes/SET/0000.npz      members_M, weights_M, probs_MNK: what each member said about the images of a part; energy_MN where it was
                            asked for: log sum exp of the logits, NaN of networks that have none

Votes belong to the weights that cast them: a member that was trained anew has none until it votes again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from ensemble.config.evaluation import UNKNOWN
from ensemble.storage.atomic import json_bytes, npz_bytes, read_npz
from ensemble.storage.names import SET_VOTES
from ensemble.storage.parsing import Stored, array_of, require_probabilities
from ensemble.storage.remedies import unfit
from ensemble.types import FloatArray, IntArray

SET, SET_LABELS = "set.json", "labels.npz"
_DIGEST = 64  # hexadecimal digits of SHA-256


class PartFacts(Stored):
    """How the images of a part were changed. corruption: None where they are as they came; level: None where it has none."""

    corruption: str | None = None
    level: float | None = None
    label: str


class SetFacts(Stored):
    """set.json. source: where the images are from, in words. definition: SHA-256 of all that the votes depend on but the weights.

    images_sha256: of the images before they are changed. seed: of the random changes. chooses_score: which score tells unknown
    images is chosen on this set.
    """

    name: str
    kind: Literal["shifted", "unknown", "calibration", "known"]
    source: str
    images: Annotated[int, Field(ge=1)]
    images_sha256: str
    definition: str
    seed: int
    parts: Annotated[list[PartFacts], Field(min_length=1)]
    chooses_score: bool = False

    def content(self) -> bytes:
        """Of set.json; what most sets do not do is not in it, as in those of earlier versions."""
        return json_bytes(self.model_dump(mode="json", exclude=None if self.chooses_score else {"chooses_score"}))


def set_folder(name: str) -> str:
    """Where the votes on a set lie in the run folder."""
    return f"{SET_VOTES}{name}"


def set_file(name: str) -> str:
    """What the set is."""
    return f"{SET_VOTES}{name}/{SET}"


def labels_file(name: str) -> str:
    """The class of each of its images."""
    return f"{SET_VOTES}{name}/{SET_LABELS}"


def part_file(name: str, part: int) -> str:
    """The votes on one of its parts."""
    return f"{SET_VOTES}{name}/{part:04d}.npz"


@dataclass(frozen=True, slots=True, eq=False)
class CastVote:
    """What one network said about a part. digest: SHA-256 of the weights that voted. probs_NK: [N, K]. energy_N: see `types.SetVotes`."""

    digest: str
    probs_NK: FloatArray
    energy_N: FloatArray | None = None


def part_bytes(votes: Mapping[int, CastVote]) -> bytes:
    """The content of a part's file. votes: by member."""
    cast = [votes[index] for index in sorted(votes)]
    probs_MNK = np.stack([one.probs_NK for one in cast]).astype(np.float32)
    arrays: dict[str, np.ndarray[Any, Any]] = {
        "members_M": np.array(sorted(votes), np.int64),
        "weights_M": np.array([list(bytes.fromhex(one.digest)) for one in cast], np.uint8),
        "probs_MNK": probs_MNK,
    }
    if any(one.energy_N is not None for one in cast):
        nothing_N = np.full(probs_MNK.shape[1], np.nan, np.float32)
        energies = [nothing_N if one.energy_N is None else one.energy_N for one in cast]
        arrays["energy_MN"] = np.stack(energies).astype(np.float32)
    return npz_bytes(arrays)


def parse_part(content: bytes, where: Path, images: int, classes: int | None) -> dict[int, CastVote]:
    """The inverse of `part_bytes`. images, classes: how many there must be."""
    arrays = read_npz(content, where)
    probs_MNK = array_of(arrays, "probs_MNK", where, "f", (None, images, classes))
    members_M = array_of(arrays, "members_M", where, "i", (len(probs_MNK),))
    weights_M = array_of(arrays, "weights_M", where, "u", (len(probs_MNK), _DIGEST // 2))
    if len(np.unique(members_M)) != len(members_M) or (len(members_M) and members_M.min() < 0):
        raise unfit(where, "members_M are not distinct members")
    for index, probs_NK in zip(members_M.tolist(), probs_MNK, strict=True):
        require_probabilities(probs_NK, f"votes of member {index}", where)
    energies: Sequence[FloatArray | None] = [None] * len(probs_MNK)
    if "energy_MN" in arrays:
        energy_MN = array_of(arrays, "energy_MN", where, "f", (len(probs_MNK), images))
        energies = [None if np.isnan(energy_N).any() else energy_N for energy_N in energy_MN]
    digests = [bytes(row.tolist()).hex() for row in weights_M]
    cast = map(CastVote, digests, probs_MNK, energies)
    return dict(zip(members_M.tolist(), cast, strict=True))


def labels_content(labels_N: IntArray) -> bytes:
    """The content of labels.npz."""
    return npz_bytes({"labels_N": labels_N.astype(np.int64)})


def parse_set_labels(content: bytes, where: Path, facts: SetFacts, classes: int) -> IntArray:
    """The class of each image of a set; all UNKNOWN in a set of unknown images, and none elsewhere."""
    labels_N: IntArray = array_of(read_npz(content, where), "labels_N", where, "i", (facts.images,))
    unknown = facts.kind == "unknown"
    fits = (labels_N == UNKNOWN).all() if unknown else ((labels_N >= 0) & (labels_N < classes)).all()
    if not fits:
        expected = f"{UNKNOWN} for every image" if unknown else f"classes from 0 to {classes - 1}"
        raise unfit(where, f"labels_N of a set of kind {facts.kind} must be {expected}")
    return labels_N
