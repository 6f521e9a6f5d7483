"""`data.name: arrays`: images and labels in one .npz file.

    numpy.savez("mine.npz", train_images=..., train_labels=..., test_images=..., test_labels=..., class_names=[...])

How they are read is in `arrays`. Nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from ensemble.config.data import OwnArrays, register_data
from ensemble.data.arrays import NEEDED, Arrays, check_names, parts_of_arrays
from ensemble.data.bucket import given_place
from ensemble.data.dataset import Dataset, dataset_from
from ensemble.data.own_parts import Parts
from ensemble.data.regular_files import open_regular, shown
from ensemble.errors import ConfigError, DataError, StorageError


@register_data
class ArrayFile(OwnArrays):
    """Images and labels in one .npz file."""

    in_short: ClassVar[str] = "your .npz with train_images, train_labels (and the same of val and test, class_names)"
    needed: ClassVar[str] = "path, the .npz file with train_images and train_labels"
    name: Literal["arrays"]
    path: str = Field(description="arrays: the .npz file with images and labels; or the address of one")

    def parts(self) -> Parts:
        """Training and test part. Raises DataError naming the file, the array, what was found and expected."""
        path = given_place(self.path, "data.path")
        return parts_of_arrays(_read(path), path, self)

    def build(self) -> Dataset:
        """See DataConfig."""
        return dataset_from(self.path, self.name, self.parts())


def _read(path: Path) -> Arrays:
    expected = f"an .npz file with {', '.join(NEEDED)}"
    try:
        with open_regular(path, expected) as file:
            loaded = np.load(file, allow_pickle=False)
            if not isinstance(loaded, np.lib.npyio.NpzFile):
                raise DataError(f"{shown(path)}: found a single array; expected {expected}")
            with loaded as archive:
                arrays = {name: np.asarray(archive[name]) for name in archive.files}
                arrays |= {name: _column(array) for name, array in arrays.items() if name.endswith("_labels")}
    except FileNotFoundError as error:
        raise DataError(f"data.path: no file {shown(path)}; expected {expected}") from error
    except (DataError, ConfigError, StorageError):
        raise
    except Exception as error:  # damaged archives make numpy raise nearly anything, MemoryError among it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{shown(path)}: cannot be read as .npz of plain arrays: {reason}; write it with numpy.savez, without objects"
        ) from error
    check_names(path, arrays)
    return arrays


def _column(labels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Labels [N, 1], which some write, as [N]."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
