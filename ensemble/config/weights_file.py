"""The file of weights that a network starts from: where it lies, what its bytes are, how its images were standardised.

    complete({"name": "lenet5", "weights": "old.safetensors"}, folder)
    # {"name": "lenet5", "weights": "/home/me/old.safetensors", "weights_sha256": "9f86..."}

The digest, not the path, is what a run is made of. Nothing here reads the weights themselves.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ensemble.errors import ConfigError
from ensemble.outside.paths import given_path, open_regular, read_regular_file

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
_DATASET, _SHARED, _MEMBER = "dataset.json", "shared", "member.json"  # of a run folder, see ensemble/storage
_MOST_BYTES = 2**24  # of that file


def is_file_name(weights: str) -> bool:
    """True for what names a file, False for weights that a library knows by a name."""
    return weights.endswith(SUFFIXES) or "/" in weights


def complete(values: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """The keys of a network's section with the whole path of its file, its digest and, of a run's member, its standardisation.

    folder: where a relative path is looked for. Raises ConfigError where the file cannot be read.
    """
    weights = values.get("weights")
    if not isinstance(weights, str):
        return values  # none, or what the schema explains
    if not weights.endswith(SUFFIXES):
        raise ConfigError(
            f"model.weights = {weights!r}: expected a file whose name ends in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}"
        )
    path = folder / given_path(weights, "model.weights")
    digest = sha256(files_of(path))
    if values.get("weights_sha256") not in (None, digest):
        raise ConfigError(
            f"model.weights_sha256 is filled in from the file itself, and {path} has {digest}; leave it out"
        )
    return {**_standardisation(path), **values, "weights": str(path.absolute()), "weights_sha256": digest}


def files_of(path: Path) -> list[Path]:
    """The file itself; of a member of a run that keeps what its members have alike once, that file too, first."""
    run, member = path.absolute().parents[2:3], path.parent / _MEMBER
    try:
        recipe = json.loads(read_regular_file(member, _MOST_BYTES))["recipe"]
        shared = run[0] / _SHARED / f"{recipe}.safetensors"
        return [shared, path] if shared.is_file() else [path]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return [path]  # it is no member's


def sha256(files: Sequence[Path]) -> str:
    """The digest of files one after the other. Raises ConfigError where one cannot be read."""
    digest = hashlib.sha256()
    for path in files:
        try:
            with open_regular(path) as file:
                while part := file.read(2**20):
                    digest.update(part)
        except OSError as error:
            raise ConfigError(
                f"model.weights: {path}: cannot be read: {error.strerror}; expected a file of weights, beside the configuration or by its whole path"
            ) from error
    return digest.hexdigest()


def _standardisation(path: Path) -> dict[str, Any]:
    """Mean and deviation by which the images of a run were standardised, where the file is that of one of its members."""
    facts = path.absolute().parents[2:3]
    if not facts or path.absolute().parents[1].name != "members":
        return {}
    try:
        found = json.loads(read_regular_file(facts[0] / _DATASET, _MOST_BYTES))
        return {key: tuple(map(float, found[key])) for key in ("mean", "std")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # it is no run
