"""`data.name: image_folder`: one folder per class, as torchvision's ImageFolder has it.

    flowers/rose/1.jpg  flowers/tulip/2.png ...                                 a test part is split off
    flowers/train/rose/1.jpg ... val/rose/5.jpg ... test/rose/9.jpg ...         the parts are given, as ImageNet has them

Pictures become uint8 images of data.image_size pixels (by data.resize), grey or RGB (data.channels), see `decoding`. What lies in the folders is used
or accounted for (`account`); all pictures are read by one rule (`pixel_rule`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from ensemble.config.data import OwnPictures, register_data
from ensemble.data.bucket import tree_at
from ensemble.data.class_folders import Layout, find_layout
from ensemble.data.dataset import Dataset, dataset_from
from ensemble.data.decoding import decoded_parts
from ensemble.data.listing import Listing, PictureFiles, PicturesFarAway, Section
from ensemble.data.own_parts import PartName
from ensemble.data.picture_tree import Found, beside, few, pictures_below, reasons_text
from ensemble.data.pictures import SUFFIXES
from ensemble.data.regular_files import list_folder, shown
from ensemble.errors import DataError
from ensemble.outside.object_storage import is_address
from ensemble.outside.paths import given_path


@register_data
class ImageFolder(OwnPictures):
    """Picture files, one folder per class."""

    in_short: ClassVar[str] = "your pictures, one folder per class, or train/, val/ and test/ with one each"
    needed: ClassVar[str] = "root, a folder with one folder per class, and image_size"
    name: Literal["image_folder"]
    root: str = Field(description="image_folder: the folder itself, or its address, s3://bucket/photos")

    def build(self) -> Dataset:
        """See DataConfig."""
        return dataset_from(self.root, self.name, decoded_parts(list_image_folder(self)))

    def build_unlabelled(self) -> Dataset:
        """All pictures at any depth of the folder, in the order of their paths, as the training part; folders are no classes."""
        return dataset_from(self.root, self.name, decoded_parts(list_loose_pictures(self)))


def list_loose_pictures(config: ImageFolder) -> Listing:
    """Every picture below a folder, all of one class without a name. Raises DataError for a folder without any."""
    root, address = _root(config, "pictures in it")
    found = pictures_below(root)
    if not found.files:
        held = f" ({reasons_text(found.left_out)})" if found.left_out else ""
        raise DataError(f"{shown(root)}: no pictures in this folder{held}; expected {', '.join(sorted(SUFFIXES))}")
    name, count = shown(root.name), len(found.files)
    sections = [
        Section(name, shown(root), root, "train", count, {"": found.left_out}),
        Section("test", shown(root), root, "test", 0),
    ]
    pictures = PicturesFarAway(found.files) if address else PictureFiles(found.files)
    return Listing(root, pictures, np.zeros(count, np.int64), sections, ("",), config, address=address, labelled=False)


def _root(config: ImageFolder, holding: str) -> tuple[Path, str | None]:
    """The folder, and its address where it is in object storage. holding: what it should have, in words. Raises DataError without it."""
    address = config.root if is_address(config.root) else None
    root = tree_at(address, "data.root").root if address else given_path(config.root, "data.root")
    if address is None and not os.path.isdir(root):  # noqa: PTH112  # Path.is_dir raises where the way there may not be looked at
        raise DataError(f"data.root: no folder {shown(root)}; expected one with {holding}")
    list_folder(root)
    return root, address


def list_image_folder(config: ImageFolder) -> Listing:
    """The pictures of a folder. Raises DataError naming the folders at fault."""
    root, address = _root(config, "a folder of pictures per class")
    layout = find_layout(root)
    if layout.test_root is not None and config.test_fraction is not None:
        raise DataError(
            f"data.test_fraction: found {config.test_fraction}, but {shown(layout.test_root)} is the test part; remove one"
        )
    given = layout.test_root is not None or layout.validation_root is not None
    files: list[Path] = []
    labels: list[int] = []
    sections: list[Section] = []
    for name, part, part_root, folders in _parts(layout):
        found = {name: pictures_below(folder) for name, folder in folders.items()}
        _check_filled(part_root, found)
        for number, class_name in enumerate(layout.train):
            own = found[class_name].files if class_name in found else ()
            files += own
            labels += [number] * len(own)
        left_out = {class_name: below.left_out for class_name, below in found.items()} | {"": tuple(beside(part_root))}
        if given and not sections and part_root != root and part_root.parent == root:
            left_out[""] = (*left_out[""], *beside(root))
        rows = sum(len(below.files) for below in found.values())
        sections.append(Section(name, shown(part_root), part_root, part, rows, left_out))
    pictures = PicturesFarAway(files) if address else PictureFiles(files)
    return Listing(root, pictures, np.array(labels, np.int64), sections, tuple(layout.train), config, address=address)


def _parts(layout: Layout) -> list[tuple[str, PartName | None, Path, dict[str, Path]]]:
    """Name, use, folder and folders by class of every part that lies there, training first."""
    parts: list[tuple[str, PartName | None, Path, dict[str, Path]]] = []
    whole = layout.test_root is None and layout.validation_root is None
    name = shown(layout.train_root.name) if whole else "train"
    parts.append((name, "train" if layout.test_root else None, layout.train_root, layout.train))
    if layout.validation_root is not None:
        parts.append(("validation", "validation", layout.validation_root, layout.validation))
    if layout.test_root is not None:
        parts.append(("test", "test", layout.test_root, layout.test))
    return parts


def _check_filled(root: Path, found: dict[str, Found]) -> None:
    """Raises DataError for classes without any pictures."""
    if empty := [_empty(name, below) for name, below in found.items() if not below.files]:
        raise DataError(
            f"{shown(root)}: {few(empty)}; expected pictures ({', '.join(sorted(SUFFIXES))}) in every class folder: save "
            "them in one of these forms, fill the folder, or remove it"
        )


def _empty(name: str, found: Found) -> str:
    held = f", which holds {reasons_text(found.left_out)}" if found.left_out else ""
    return f"no pictures in {name}{held}"
