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

import yaml

from ensemble.errors import ConfigError
from ensemble.outside.paths import given_path, open_regular, read_regular_file

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
# Of a run folder, see ensemble/storage.
_CONFIG, _DATASET, _SHARED, _MEMBER = "config.yaml", "dataset.json", "shared", "member.json"
_MOST_BYTES = 2**24  # of one of these


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
    scale = {} if values.get("mean") is not None else _standardisation(path)
    return {**values, **scale, "weights": str(path.absolute()), "weights_sha256": digest}


def files_of(path: Path) -> list[Path]:
    """The file itself; of a member of a run that keeps what its members have alike once, that file too, first."""
    found = _run_of(path)
    shared = found[0] / _SHARED / f"{found[1]}.safetensors" if found else None
    return [shared, path] if shared is not None and shared.is_file() else [path]


def companions(path: Path) -> list[Path]:
    """Files of a run that say of a member's weights how its images were standardised; none for a file of nobody's."""
    found = _run_of(path)
    beside = [] if found is None else [path.parent / _MEMBER, found[0] / _CONFIG, found[0] / _DATASET]
    return [file for file in beside if file.is_file()]


def _run_of(path: Path) -> tuple[Path, str] | None:
    """The run folder and the group of the member whose file this is; None for a file of nobody's."""
    places = path.absolute().parents
    try:
        recipe = json.loads(read_regular_file(path.parent / _MEMBER, _MOST_BYTES))["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    known = len(places) > 2 and places[1].name == "members" and isinstance(recipe, str) and Path(recipe).name == recipe
    return (places[2], recipe) if known else None


def sha256(files: Sequence[Path], key: str = "model.weights", expected: str = "a file of weights") -> str:
    """The digest of files one after the other. key: that names them. Raises ConfigError where one cannot be read."""
    digest = hashlib.sha256()
    for path in files:
        try:
            with open_regular(path) as file:
                while part := file.read(2**20):
                    digest.update(part)
        except OSError as error:
            raise ConfigError(
                f"{key}: {path}: cannot be read: {error.strerror}; expected {expected}, beside the configuration or by its whole path"
            ) from error
    return digest.hexdigest()


def _standardisation(path: Path) -> dict[str, Any]:
    """Mean and deviation by which a member's images were standardised, where the file is that of a run's member.

    Those of its own group, if that had any, else those of the run's data. Raises ConfigError where its group is not known.
    """
    if (found := _run_of(path)) is None:
        return {}
    run, recipe = found
    try:
        config = yaml.safe_load(read_regular_file(run / _CONFIG, _MOST_BYTES))
        groups = config.get("members") or [config]
        named = [group for group in groups if group.get("name") == recipe] if len(groups) > 1 else groups
        own = {json.dumps([group["model"].get("mean"), group["model"].get("std")]) for group in named or groups}
        facts = json.loads(read_regular_file(run / _DATASET, _MOST_BYTES))
        if len(own) > 1:
            raise ConfigError(
                f"model.weights: {path}: the groups of its run standardise images in different ways; give model.mean and model.std"
            )
        mean, std = json.loads(own.pop())
        return {"mean": tuple(map(float, mean or facts["mean"])), "std": tuple(map(float, std or facts["std"]))}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return {}  # of a run that does not say
