"""Which configurations may share a run folder: those that give the same members, bit for bit.

Where a run is executed and how it is watched may change between starts; anything that could change a weight may not.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from ensemble.config.loading import WITHOUT, parse_stored
from ensemble.config.one_spelling import one_spelling
from ensemble.errors import ConfigError

# Dotted keys (or their parents) that cannot change a member.
NEUTRAL = frozenset({
    "name", "output_dir", "aggregator", "baseline", "controls", "evaluation.sets", "tracking", "failures", "data.root", "data.path", "data.download", "compute.executor",
    "compute.slots", "compute.gpu_type", "compute.ray_address", "compute.placement_timeout_s", "compute.device",
    "compute.checkpoint_every_s", "compute.hang_timeout_s",
    # How the images are read: whether that gives the same ones is told by their digest, which the run keeps.
    "data.layout", "data.value_range", "data.ground", "data.on_bad_image", "data.storage",
})  # fmt: skip

_LEFT_OUT = {"data.resize": "crop", "data.duplicates": "tell", "data.margin": "none"}  # what `one_spelling` leaves out


def differences(stored: dict[str, Any], current: dict[str, Any], device: str | None = None) -> list[str]:
    """Lines "key: old -> new" for every difference that matters between two resolved configurations.

    A key that the stored one lacks, because an older version wrote it, counts with its default. device: that of the
    run's plan, "cpu" or "cuda", where it is known; what only a GPU heeds does not matter on a CPU.
    """
    old, new = map(comparable_values, (stored, current))
    without_effect = {"compute.cuda_graph"} if device == "cpu" else set()
    return [
        _difference(key, *(values.get(key, _LEFT_OUT.get(key, "absent")) for values in (old, new)))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not is_neutral(key) and key not in without_effect
    ]


def comparable_values(stored: dict[str, Any]) -> dict[str, Any]:
    """The values of a stored configuration by dotted key, keys that it lacks with their defaults, as `differences` compares them."""
    return _by_digest(_with_ranks(flat(_completed(stored))))


def as_begun(stored: dict[str, Any], current: dict[str, Any], left_open: Sequence[str]) -> dict[str, Any]:
    """The current configuration with the stored values of keys that nobody gave, so that a new default changes no run."""
    return {**current, **{key: stored.get(key, WITHOUT.get(key)) for key in left_open}}


def is_neutral(key: str) -> bool:
    """Whether no member depends on the value of a dotted key."""
    parts = key.split(".")
    return any(".".join(parts[:n]) in NEUTRAL for n in range(1, len(parts) + 1))


def _difference(key: str, old: Any, new: Any) -> str:
    """Both values; of longer texts the lines that differ."""
    if not all(isinstance(value, str) and "\n" in value for value in (old, new)):
        return f"{key}: {old!r} in the folder, {new!r} now"
    lines = list(difflib.unified_diff(old.splitlines(), new.splitlines(), "in the folder", "now", lineterm="", n=1))
    return "\n    ".join([f"{key}:", *lines[:40], *(["..."] if len(lines) > 40 else [])])


def _with_ranks(values: dict[str, Any]) -> dict[str, Any]:
    """Shares of a GPU change no bit; several GPUs per task, which add up parts of a batch, do."""
    shared = values.get("compute.gpus_per_task")
    return values if shared is None else {**values, "compute.gpus_per_task": max(1.0, float(shared))}


def _by_digest(values: dict[str, Any]) -> dict[str, Any]:
    """A file of weights, or of probabilities, is known by its digest, wherever it lies."""
    return {
        key: None if key.endswith(("model.weights", ".probabilities")) and values.get(f"{key}_sha256") else value
        for key, value in values.items()
    }


def _completed(stored: dict[str, Any]) -> dict[str, Any]:
    try:
        return one_spelling(parse_stored(stored).model_dump(mode="json"))
    except ConfigError:  # of a version with other keys: compared as it is
        return stored


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested sections by dotted keys; sections in lists by their position, other lists whole."""
    if isinstance(value, dict):
        return {k: v for name, inner in value.items() for k, v in flat(inner, f"{prefix}{name}.").items()}
    if isinstance(value, list | tuple):
        if not any(isinstance(item, dict) for item in value):
            return {prefix.rstrip("."): list(value)}
        return {k: v for i, inner in enumerate(value) for k, v in flat(inner, f"{prefix}{i}.").items()}
    return {prefix.rstrip("."): value}
