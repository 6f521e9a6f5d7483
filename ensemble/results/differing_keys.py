"""In which keys of their configurations several runs differ, and what they have there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.storage.identity import comparable_values

# What says where a run lies, how it is watched and where it runs; not what is trained.
_NOT_SHOWN = ("name", "output_dir", "tracking", "failures", "data.root", "data.download", "compute")


def differing_keys(configurations: Sequence[Mapping[str, Any]]) -> list[str]:
    """Dotted keys with different values among the configurations that have them, in their order.

    configurations: values by dotted key, see `comparable_values`.
    """
    values: dict[str, set[str]] = {}
    for configuration in configurations:
        for key, value in configuration.items():
            values.setdefault(key, set()).add(repr(value))
    return [key for key, seen in values.items() if len(seen) > 1]


def differing_settings(stored: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The keys that say what is trained and are not the same in all stored configurations, each with its values in their order.

    None stands where a configuration has no such key, as of another method. Keys that all have come first, otherwise the
    order is that of the files; seeds come last, since runs that differ in nothing else repeat each other.
    """
    plain = [comparable_values(dict(configuration)) for configuration in stored]
    found = {key: tuple(values.get(key) for values in plain) for key in differing_keys(plain) if _is_shown(key)}
    everywhere = {key for key in found if all(key in values for values in plain)}
    return dict(sorted(found.items(), key=lambda item: (item[0] == "seed", item[0] not in everywhere)))


def _is_shown(key: str) -> bool:
    return not key.endswith("_sha256") and not any(key == left or key.startswith(f"{left}.") for left in _NOT_SHOWN)
