"""What a folder of pictures, a file of arrays or a named set holds, seen quickly: for a first configuration.

survey("photos").image_shape    # (3, 64, 64)

Of a folder only some pictures are opened; training reads all of them, and says what cannot be used.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

from ensemble.data.array_file import ArrayFile
from ensemble.data.catalogue import DATASETS
from ensemble.data.class_folders import find_layout
from ensemble.data.picture_tree import pictures_below
from ensemble.data.pictures import decode
from ensemble.data.regular_files import list_folder, shown
from ensemble.data.shard_survey import holds_shards, survey_shards
from ensemble.data.surveyed import SAMPLE, Survey, look_at, spread, uneven
from ensemble.errors import DataError
from ensemble.outside.paths import given_path


def survey(source: str) -> Survey:
    """Look at a folder with one folder of pictures per class or with tar shards, at an .npz file, or at a set of `ensemble datasets`.

    Raises DataError for what is none of them, or cannot be trained on.
    """
    info = DATASETS.get(source)
    if info is not None and os.path.isdir(source):  # noqa: PTH112
        raise DataError(
            f"{source} is a data set of `ensemble datasets` and a folder here; write ./{source} for the folder"
        )
    if info is not None:
        rows, tests = info.train_images, info.test_images
        return Survey(source, {"name": source}, info.image_shape, len(info.class_names), rows, tests, info.flippable)
    path = given_path(source, "SOURCE")
    if os.path.isdir(path):  # noqa: PTH112  # Path.is_dir raises where the way there may not be looked at
        return _folder(path)
    if path.suffix.lower() == ".npz":
        parts = ArrayFile(name="arrays", path=str(path)).parts()
        shape = parts.train.images_NCHW.shape
        rows, tests = len(parts.train.labels_N), len(parts.test.labels_N)
        data: dict[str, str | int | list[int]] = {"name": "arrays", "path": str(path)}
        return Survey(path.stem, data, (shape[1], shape[2], shape[3]), len(parts.class_names), rows, tests)
    found = "a file that is no .npz" if os.path.exists(path) else "no such file or folder"  # noqa: PTH110
    raise DataError(
        f"{shown(path)}: {found}; expected a folder with one folder of pictures per class or with shards *.tar, an .npz file with train_images and train_labels, or one of {', '.join(DATASETS)}"
    )


def _folder(root: Path) -> Survey:
    list_folder(root)
    if holds_shards(root):
        return survey_shards(root)
    layout = find_layout(root)
    files = {name: pictures_below(folder).files for name, folder in layout.train.items()}
    tests = sum(len(pictures_below(folder).files) for folder in layout.test.values())
    total = sum(map(len, files.values()))
    if len(files) < 2 or not total:
        raise DataError(
            f"{shown(layout.train_root)}: found {len(files)} classes with {total} pictures; expected a folder per class, at least two, with pictures in them, or shards *.tar"
        )
    some = [file for each in files.values() for file in spread(each, max(1, SAMPLE // len(files)))]
    look = look_at([partial(decode, file) for file in some[:SAMPLE]])
    data: dict[str, str | int | list[int]] = {"name": "image_folder", "root": str(root), **look.keys}
    notes = (*uneven([len(each) for each in files.values()]), *look.notes)
    name = root.resolve().name or "pictures"
    return Survey(name, data, look.shape, len(files), total, tests if layout.test_root else None, notes=notes)
