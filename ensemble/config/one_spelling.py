"""Values that can be written in two ways, brought to one, so that like configurations compare as alike.

    one_spelling({"data": {"name": "image_folder", "image_size": [32, 32], "resize": "crop"}})     # image_size: 32, and no resize

Without data.resize, and with null for the keys that only other sources of images have, the result is what earlier versions made
of the same values: digests of theirs stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ensemble.config.data import DataConfig

# Keys that a data section of earlier versions held whatever its source; this list is closed.
_EVERYWHERE = (
    "root", "path", "image_column", "label_column", "split_column", "group_column", "channels", "image_size", "test_fraction",
    "layout", "value_range", "ground", "on_bad_image", "storage",
)  # fmt: skip

# Keys that came later, with the values that mean what their absence means.
_DEFAULTS: Mapping[str, tuple[Any, ...]] = {"resize": (None, "crop"), "duplicates": (None, "tell"), "margin": (None,)}


def one_spelling(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration, as plain values, for comparing: a square's size as one number, the default resize and duplicates left out."""
    data = config.get("data")
    if not isinstance(data, Mapping):
        return dict(config)
    written = {key: value for key, value in data.items() if value not in _DEFAULTS.get(key, ())}
    match data.get("image_size"):
        case [height, width] if height == width:
            written["image_size"] = height
    return {**config, "data": written if _of_an_earlier_version(data) else {**dict.fromkeys(_EVERYWHERE), **written}}


def _of_an_earlier_version(data: Mapping[str, Any]) -> bool:
    """True for a section with keys of other sources, of which there may have been fewer then; false too for an unknown source."""
    source = DataConfig.registry.find(str(data.get("name")))
    return source is None or any(key in data and key not in source.model_fields for key in _EVERYWHERE)
