"""The files of a run folder; those of members are in `manifest.MEMBER_FILES`."""

from __future__ import annotations

import re

CONFIG, PLAN, LABELS, EVENTS = "config.yaml", "plan.json", "labels.npz", "events.jsonl"
DATASET, ENVIRONMENT, METHOD, ROUNDS = "dataset.json", "environment.json", "method.json", "rounds.json"
EVALUATION, LEADERBOARD, DISPUTED, STAGED = "evaluation.json", "leaderboard.csv", "disputed.npz", "staged.json"
WRONG = "wrong.npz"  # the images of the surest mistakes, as the networks saw them
PREDICTIONS = "predictions.csv"  # what the vote says of every image
COST = "cost.json"  # what predictions took where it was measured; no figure of the judgement
FILES = "pictures.csv"  # the file of every image, where images are files

SHARED = "shared/"  # tensors that all members of a group have alike, one file per group
SET_VOTES = "votes/"  # what members said about further sets, one folder per set
BASELINE = "baseline/"  # a network that does not vote, in the files of a member, as those of controls
BESIDE = {
    "baseline": BASELINE,
    "longer": "controls/longer/",
    "wider": "controls/wider/",
}  # where each such network lies


def beside_of(name: str) -> str | None:
    """Which network that does not vote a file is of; None for all others."""
    return next((which for which, folder in BESIDE.items() if name.startswith(folder)), None)


def member_folder(index: int) -> str:
    """Where a member's files lie in the run folder."""
    return f"members/{index:04d}"


def member_of(name: str) -> int | None:
    """The member that a file belongs to; None for a file of the run."""
    found = _MEMBER.fullmatch(name)
    return int(found[1]) if found and name.startswith(f"{member_folder(int(found[1]))}/") else None


def is_of_the_run(name: str) -> bool:
    """Whether a file lies in the run folder itself."""
    return (
        name in DERIVED or name in (CONFIG, PLAN, LABELS, EVENTS, DATASET, ROUNDS, COST) or name.startswith("manifest.")
    )


def shared_weights(recipe: str) -> str:
    """Where those of a group lie; its members' own files then hold the others alone."""
    return f"{SHARED}{recipe}.safetensors"


_MEMBER = re.compile(r"members/(\d{4,9})/([^/]+)")

# What every start of `ensemble train` writes anew from the rest.
DERIVED = frozenset({ENVIRONMENT, METHOD, EVALUATION, LEADERBOARD, DISPUTED, WRONG, STAGED, PREDICTIONS, FILES})
