"""`data.name: image_folder`: one folder per class, as torchvision's ImageFolder has it.

    flowers/rose/1.jpg  flowers/tulip/2.png ...                    a test part is split off
    flowers/train/rose/1.jpg ... flowers/test/rose/9.jpg ...       the parts are given

Pictures become uint8 images of data.image_size pixels (brought to it as data.resize says), grey or RGB (data.channels), and are held in memory. What lies
in the folders is used or accounted for (`account`); all pictures are read by one rule (`pixel_rule`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ensemble.config.schema import DataConfig
from ensemble.data.account import Account, PartAccount, Remark, used_by_class
from ensemble.data.class_folders import find_layout
from ensemble.data.own_parts import Part, Parts, held_back, parts_of
from ensemble.data.picture_reading import PictureReader, Reading, pixel_remarks
from ensemble.data.picture_tree import DAMAGED, Found, LeftOut, beside, few, pictures_below, reasons_text
from ensemble.data.pictures import SUFFIXES
from ensemble.data.regular_files import list_folder, shown
from ensemble.errors import DataError
from ensemble.outside.paths import given_path
from ensemble.types import IntArray

SHOWN = 5


@dataclass(frozen=True, eq=False)
class _Listed:
    """The files of a part. files: of all classes, one after the other, with their class numbers."""

    root: Path
    files: list[Path]
    labels_N: IntArray
    left_out: dict[str, tuple[LeftOut, ...]]


def load_image_folder(config: DataConfig) -> Parts:
    """Training and test part. Raises DataError naming the folders and pictures at fault."""
    assert config.root is not None
    root = given_path(config.root, "data.root")
    if not os.path.isdir(root):  # noqa: PTH112  # Path.is_dir raises where the way there may not be looked at
        raise DataError(f"data.root: no folder {shown(root)}; expected one with a folder of pictures per class")
    list_folder(root)
    layout = find_layout(root)
    if layout.test_root is not None and config.test_fraction is not None:
        raise DataError(
            f"data.test_fraction: found {config.test_fraction}, but {shown(layout.test_root)} is the test part; remove one"
        )
    class_names, reader = tuple(layout.train), PictureReader(config)
    train = _listed(layout.train_root, layout.train, class_names)
    if layout.test_root is None:
        return _divided(train, class_names, reader, config)
    test = _listed(layout.test_root, layout.test, class_names)
    found = {"train": (train, reader.read(train.files)), "test": (test, reader.read(test.files))}
    _check_damage(found, config)
    rule = reader.rule(found["train"][1].extremes, shown(train.root))
    accounts, parts = [], []
    for name, (listed, reading) in found.items():
        labels_N = listed.labels_N[reading.usable_N]
        parts.append(Part(reader.images(reading, rule), labels_N, _files(root, reading.usable(listed.files))))
        accounts.append(_account(name, listed, reading, labels_N, class_names))
    if layout.train_root.parent == root and layout.train_root != root:
        accounts[0].left_out[""] = (*accounts[0].left_out.get("", ()), *beside(root))
    remarks = pixel_remarks(rule, [reading for _, reading in found.values()], [part.images_NCHW for part in parts])
    if unjudged := len(found["test"][1].faults):
        remarks.append(
            Remark(f"{unjudged:,} damaged pictures of the test part are not judged: no error rate counts them", True)
        )
    return Parts(parts[0], parts[1], class_names, rule, Account(tuple(accounts), tuple(remarks)))


def _divided(whole: _Listed, class_names: tuple[str, ...], reader: PictureReader, config: DataConfig) -> Parts:
    """A folder without a test part, of which one is held back."""
    reading = reader.read(whole.files)
    _check_damage({"": (whole, reading)}, config)
    labels_N = whole.labels_N[reading.usable_N]
    names = [path.relative_to(whole.root).as_posix() for path in reading.usable(whole.files)]
    test_N = held_back(labels_N, names, class_names, config)
    rows = np.flatnonzero(~test_N)
    rule = reader.rule([extremes for n in rows if (extremes := reading.extremes[n]) is not None], shown(whole.root))
    files = _files(whole.root, reading.usable(whole.files))
    train, test = parts_of(reader.images(reading, rule), labels_N, test_N, files)
    account = _account(shown(whole.root.name), whole, reading, labels_N, class_names)
    split = Remark(f"{len(test.labels_N):,} of these are held back as the test part (data.test_fraction)")
    remarks = pixel_remarks(rule, [reading], [train.images_NCHW, test.images_NCHW])
    if reading.faults:
        remarks.append(
            Remark(f"{len(reading.faults):,} damaged pictures are in no part, so that nothing judges them", True)
        )
    return Parts(train, test, class_names, rule, Account((account,), (split, *remarks)))


def _files(root: Path, paths: Sequence[Path]) -> tuple[str, ...]:
    """Paths below data.root; bytes that are no text are written as \\xNN."""
    return tuple(os.fsencode(path.relative_to(root).as_posix()).decode(errors="backslashreplace") for path in paths)


def _listed(root: Path, folders: dict[str, Path], class_names: tuple[str, ...]) -> _Listed:
    """All pictures of a part, class by class. Raises DataError for classes without any."""
    found = {name: pictures_below(folder) for name, folder in folders.items()}
    if empty := [_empty(name, below) for name, below in found.items() if not below.files]:
        raise DataError(
            f"{shown(root)}: {few(empty)}; expected pictures ({', '.join(sorted(SUFFIXES))}) in every class folder: save "
            "them in one of these forms, fill the folder, or remove it"
        )
    labels = [np.full(len(below.files), class_names.index(name), np.int64) for name, below in found.items()]
    left_out = {name: below.left_out for name, below in found.items()}
    files = [path for below in found.values() for path in below.files]
    return _Listed(root, files, np.concatenate(labels), {**left_out, "": tuple(beside(root))})


def _empty(name: str, found: Found) -> str:
    held = f", which holds {reasons_text(found.left_out)}" if found.left_out else ""
    return f"no pictures in {name}{held}"


def _check_damage(found: dict[str, tuple[_Listed, Reading]], config: DataConfig) -> None:
    """Raises DataError for pictures that cannot be read, unless data.on_bad_image says skip."""
    faults = [fault for _, reading in found.values() for fault in reading.faults.values()]
    if not faults:
        return
    pictures = sum(len(listed.files) for listed, _ in found.values())
    root = next(iter(found.values()))[0].root
    if config.on_bad_image != "skip":
        listed = "\n".join(f"  {fault}" for fault in faults[:SHOWN])
        more = f"\n  ... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(
            f"{shown(root)}: {len(faults)} of {pictures} pictures cannot be used\n{listed}{more}\n"
            "Repair or remove them, or set data.on_bad_image=skip to go on without them"
        )
    for listed_part, reading in found.values():
        if not reading.usable_N.any():
            raise DataError(f"{shown(listed_part.root)}: none of its pictures can be read; the first: {faults[0]}")


def _account(
    name: str, listed: _Listed, reading: Reading, labels_N: IntArray, class_names: Sequence[str]
) -> PartAccount:
    left_out = dict(listed.left_out)
    for row in reading.faults:
        owner = class_names[listed.labels_N[row]]
        left_out[owner] = (*left_out.get(owner, ()), LeftOut(listed.files[row], DAMAGED))
    used = used_by_class(labels_N.tolist(), class_names)
    return PartAccount(name, {k: count for k, count in used.items() if k in listed.left_out}, left_out)
