"""Values that can be written in two ways, brought to one, so that like configurations compare as alike.

    one_spelling({"data": {"image_size": [32, 32], "resize": "crop"}})     # {"data": {"image_size": 32}}

Without data.resize, the result is what versions that had no such key made of the same values: digests of theirs stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def one_spelling(config: Mapping[str, Any]) -> dict[str, Any]:
    """A resolved configuration, as plain values, for comparing: a square's size as one number, the default resize left out."""
    data = config.get("data")
    if not isinstance(data, Mapping):
        return dict(config)
    written = {key: value for key, value in data.items() if key != "resize" or value not in (None, "crop")}
    match data.get("image_size"):
        case [height, width] if height == width:
            written["image_size"] = height
    return {**config, "data": written}
