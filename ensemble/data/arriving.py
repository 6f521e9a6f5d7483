"""Mapped images on the machine where they are needed: the pictures are read there, once, where they are not yet.

arrays = present(arrays)      # in the process that trains
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from ensemble.config.data import DataConfig
from ensemble.data.dataset import load_dataset
from ensemble.data.mapped import Absent, Place, middle, place_of
from ensemble.errors import DataError


def present(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays, with images that this machine lacks prepared from the pictures' own folder.

    Raises DataError where that is not here, or holds other pictures.
    """
    return {name: _prepared(array.place) if isinstance(array, Absent) else array for name, array in arrays.items()}


def absent(arrays: Mapping[str, Any]) -> bool:
    """True where `present` has something to do, which may take as long as reading all pictures."""
    return any(isinstance(array, Absent) for array in arrays.values())


def _prepared(place: Place) -> Any:
    config = DataConfig.from_json(place.source)
    where = config.pictures_from
    try:
        dataset = load_dataset(config, place.labelled)
    except DataError as error:
        raise DataError(
            f"{platform.node()} has no decoded pictures and cannot read them from {where}: {error}; put it where "
            "every node sees it under the same path, or set data.storage=memory, which sends the pictures to the nodes"
        ) from error
    images = dict(zip(("train", "test"), dataset.kept_images, strict=True))[place.part]
    here = place_of(images)  # of all of it, as the margin of a place is cut off afterwards
    if here is None or here.sha256 != place.sha256:
        raise DataError(
            f"{where} on {platform.node()} holds other pictures than where the run was started, or another version of "
            "Pillow reads them; make them the same, or set data.storage=memory, which sends the pictures to the nodes"
        )
    return middle(images, place.margin)
