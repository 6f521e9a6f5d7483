"""What is given from Python as an array: lists, tensors and whatever else numpy takes, with mistakes named.

images_NHW = as_array(given, "train_images")
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ensemble.errors import DataError


def as_array(given: Any, name: str) -> npt.NDArray[Any]:
    """The array. name: what it is, for messages. Raises DataError where there is none, such as of rows of several shapes."""
    try:
        return np.asarray(given)
    except (
        ValueError,
        TypeError,
        RuntimeError,
    ) as error:  # tensors that are on a GPU, or have gradients, raise the others
        if "inhomogeneous" in str(error):
            raise DataError(
                f"{name}: found entries of several shapes; expected one shape for all: bring images to one size"
            ) from error
        raise DataError(
            f"{name}: no array can be made of it: {' '.join(str(error).split())}; expected numbers in an array"
        ) from error
