"""Files of class probabilities that a group of a configuration names: a member that was trained elsewhere, without its network.

The path and the digest of the file are filled in when a configuration is read, so that a run knows its files wherever it is started.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble.config.weights_file import sha256
from ensemble.errors import ConfigError
from ensemble.outside.paths import given_path

SUFFIX = ".npz"
# Arrays of such a file: `ensemble compare` reads TEST too. Either TRAIN, or VALIDATION with ROWS.
TEST, TRAIN, VALIDATION, ROWS = "test_probs", "train_probs", "validation_probs", "validation_rows"
EXPECTED = f"an {SUFFIX} file with {TEST} and {TRAIN} (or {VALIDATION} with {ROWS})"


def complete(group: Mapping[str, Any], folder: Path, key: str) -> Mapping[str, Any]:
    """The keys of a group with the whole path and the digest of its file of probabilities, where it names one.

    folder: where a relative path is looked for. key: where the group stands, such as members.1. Raises ConfigError where the file
    cannot be read.
    """
    given, key = group.get("probabilities"), f"{key}.probabilities"
    if not isinstance(given, str):
        return group  # none, or what the schema explains
    if not given.endswith(SUFFIX):
        single = ", since a single array cannot say which images it is of" if given.endswith(".npy") else ""
        raise ConfigError(f"{key} = {given!r}: expected {EXPECTED}{single}; numpy.savez writes one")
    path = folder / given_path(given, key)
    digest = sha256([path], key, EXPECTED)
    if group.get("probabilities_sha256") not in (None, digest):
        raise ConfigError(f"{key}_sha256 is filled in from the file itself, and {path} has {digest}; leave it out")
    return {**group, "probabilities": str(path.absolute()), "probabilities_sha256": digest}


def without_network(names: Sequence[str], run: Path, wanted: str) -> str:
    """Why a run with such members cannot do what is wanted of its networks, and what would help."""
    who = f"{names[0]} has" if len(names) == 1 else f"{', '.join(names)} have"
    return (
        f"{run}: {who} no network, only probabilities from a file, so the run's vote cannot {wanted}; "
        "begin a run (name=...) without such members, or with their networks instead: model with weights, and finished: true"
    )
