"""In which keys of their configurations several runs differ, and what they have there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ensemble.config.one_spelling import one_spelling
from ensemble.storage.identity import flat

# What says where a run lies, how it is watched and where it runs; not what is trained.
_NOT_SHOWN = ("name", "output_dir", "tracking", "failures", "data.root", "data.download", "compute")


def changed_keys(configs: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Dotted keys whose value is not the same in all configurations, each with its values in their order.

    None stands where a configuration has no such key, as of another method; then those that have it must differ among
    themselves. Keys that all have come first, otherwise the order is that of the files; seeds come last, since runs
    that differ in nothing else repeat each other.
    """
    plain = [flat(one_spelling(dict(config))) for config in configs]
    keys = {key: None for values in plain for key in values if _is_shown(key)}
    changed = {
        key: tuple(values.get(key) for values in plain)
        for key in keys
        if len({repr(values[key]) for values in plain if key in values}) > 1
    }
    everywhere = {key for key in changed if all(key in values for values in plain)}
    return dict(sorted(changed.items(), key=lambda item: (item[0] == "seed", item[0] not in everywhere)))


def _is_shown(key: str) -> bool:
    return not key.endswith("_sha256") and not any(key == left or key.startswith(f"{left}.") for left in _NOT_SHOWN)
