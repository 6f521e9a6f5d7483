"""`data.name: arrays`: images and labels in one .npz file.

    numpy.savez("mine.npz", train_images=..., train_labels=..., test_images=..., test_labels=..., class_names=[...])

How they are read is in `arrays`; from a file that may be larger than memory, in `prepared_arrays`. Nothing is unpickled.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from ensemble.config.data import OwnArrays, Storage, register_data
from ensemble.data.arrays import is_images
from ensemble.data.bucket import given_place
from ensemble.data.dataset import Dataset, dataset_from
from ensemble.data.decoding import is_mapped
from ensemble.data.own_parts import Parts
from ensemble.data.prepared_arrays import parts_in_memory, prepared_parts
from ensemble.data.stored_arrays import StoredArrays
from ensemble.outside.object_storage import is_address


@register_data
class ArrayFile(OwnArrays):
    """Images and labels in one .npz file."""

    in_short: ClassVar[str] = "your .npz with train_images, train_labels (and the same of val and test, class_names)"
    needed: ClassVar[str] = "path, the .npz file with train_images and train_labels"
    name: Literal["arrays"]
    path: str = Field(description="arrays: the .npz file with images and labels; or the address of one")
    storage: Storage | None = Field(
        None,
        description="arrays: memory: read the file at every start; mapped: read it once, in blocks, into a file of this machine's cache, one byte per value, which may be larger than memory; without it auto: mapped from 64 MiB of such bytes on",
    )

    def parts(self) -> Parts:
        """Training and test part. Raises DataError naming the file, the array, what was found and expected."""
        with StoredArrays(given_place(self.path, "data.path"), whole=self.storage == "memory") as stored:
            outlines = stored.outlines()
            wants = sum(array.size for name, array in outlines.items() if is_images(name))
            if is_mapped(self.storage, wants, far=is_address(self.path)):
                return prepared_parts(stored, outlines, self, required=self.storage == "mapped")
            return parts_in_memory(stored, outlines, self)

    def build(self) -> Dataset:
        """See DataConfig."""
        return dataset_from(self.path, self.name, self.parts())
