"""The images of the surest mistakes, kept with a run, so that its page shows what the networks saw, wherever the data set is by then."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ensemble.errors import DataError, StorageError
from ensemble.results.predictions import parse_predictions, surest_mistakes
from ensemble.storage import RunFolder
from ensemble.storage.atomic import npz_bytes
from ensemble.storage.names import PREDICTIONS, WRONG
from ensemble.types import ByteArray, IntArray

KEPT = 40
_MOST_BYTES = 4_000_000  # of large images fewer are kept


def keep_wrong_images(folder: RunFolder, images_of: Callable[[IntArray], ByteArray]) -> None:
    """Keep those of the first mistakes that predictions.csv has. images_of: test images [N, C, H, W] by row.

    Where the images are gone, or are not what they were, none are kept: the page then names files and rows alone.
    """
    predictions = parse_predictions(folder.read_bytes(PREDICTIONS), folder.path / PREDICTIONS)
    most = min(KEPT, max(1, _MOST_BYTES // math.prod(folder.dataset().image_shape or (1,))))
    rows = np.array([one.row for one in surest_mistakes(predictions)[:most]], np.int64)
    try:
        images_NCHW = images_of(rows) if len(rows) else None
    except (DataError, StorageError):
        images_NCHW = None
    if images_NCHW is None:
        folder.forget([WRONG] if folder.has(WRONG) else [])
        return
    folder.write(WRONG, npz_bytes({"rows": rows, "images": images_NCHW}))
