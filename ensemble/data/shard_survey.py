"""A first look at a folder of tar shards: which parts there are, where the labels stand, what the pictures are like.

survey_shards(Path("shards")).data     # {"name": "webdataset", "root": "shards", "urls": "train*.tar", "test_urls": "test*.tar", ...}
"""

from __future__ import annotations

import json
import tarfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.config.data import DataConfig
from ensemble.data.regular_files import shown
from ensemble.data.shard_index import indexed
from ensemble.data.shards import FileShard
from ensemble.data.surveyed import SAMPLE, Survey, look_at, spread, uneven
from ensemble.data.webdataset import WebDataset, list_shards
from ensemble.errors import DataError

# What shards of a part are called at the beginning of their names, and the key that names them.
PARTS = {"train": "urls", "val": "validation_urls", "test": "test_urls"}
LABELS = ("cls", "txt", "label", "class")  # endings of files with a label, the first there is counts
NAMES = ("label", "cls", "class", "class_id", "category", "target", "y")  # of a label in a .json


def holds_shards(root: Path) -> bool:
    """Whether a folder has shards at its top."""
    return any(_tars(root))


def survey_shards(root: Path) -> Survey:
    """Raises DataError where the shards cannot be read, or nothing in them looks like a label."""
    tars = _tars(root)
    keys = {key: f"{start}*.tar" for start, key in PARTS.items() if any(name.startswith(start) for name in tars)}
    if "urls" not in keys:
        keys = {"urls": "*.tar"}
    first = next(name for name in tars if name.startswith(keys["urls"].removesuffix("*.tar")))
    data: dict[str, str | int | list[int]] = {"name": "webdataset", "root": str(root), **keys}
    label = _label_from(root, first)
    if label != "cls":
        data["label_from"] = label
    config = DataConfig.choose({**data, "image_size": 8})
    assert isinstance(config, WebDataset)
    listing = list_shards(config)
    parts = {section.part or "train": section.rows for section in listing.sections}
    training_N = listing.labels_N[: parts["train"]]
    look = look_at([partial(listing.pictures.decode, row) for row in spread(range(len(training_N)), SAMPLE)])
    counts = np.bincount(training_N, minlength=len(listing.class_names)).tolist()
    name = root.resolve().name or "pictures"
    others = [one for one in tars if len(keys) > 1 and not one.startswith(tuple(PARTS))]
    odd = f"shards of no part, which are not read: {', '.join(map(shown, others[:5]))}"
    notes = (*((odd,) if others else ()), *uneven(counts), *look.notes)
    return Survey(name, {**data, **look.keys}, look.shape, len(counts), parts["train"], parts.get("test"), notes=notes)


def _tars(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.suffix == ".tar" and path.is_file())


def _label_from(root: Path, name: str) -> str:
    """By what the first shard has beside its pictures."""
    shard = FileShard.at(root, name)
    index = indexed(shard, LABELS[0])
    if index.samples:
        return LABELS[0]
    for ending in LABELS[1:]:
        if f".{ending}" in index.others:
            return ending
    if ".json" in index.others:
        return _name_in_json(root / name)
    found = ", ".join(shown(ending) for ending in sorted(index.others)) or "nothing"
    raise DataError(
        f"{shown(root / name)}: beside its pictures it has {found}; expected a file with the class of each, such as KEY.cls or KEY.json. Write data.label_from into a configuration of your own"
    )


def _name_in_json(path: Path) -> str:
    """Where in a .json the label stands, by the first one."""
    with tarfile.open(path) as archive:
        member = next(each for each in archive if each.isfile() and each.name.endswith(".json"))
        file = archive.extractfile(member)
        assert file is not None, "it is a file"
        try:
            values: Any = json.loads(file.read(1 << 20))
        except ValueError as error:
            raise DataError(f"{shown(path)}!{shown(member.name)}: is no JSON: {error}") from error
    plain = [key for key, value in values.items() if isinstance(value, str | int)] if isinstance(values, dict) else []
    known = [key for key in NAMES if key in plain] or (plain if len(plain) == 1 else [])
    if not known:
        raise DataError(
            f"{shown(path)}!{shown(member.name)}: which of its values is the class? It has {', '.join(map(shown, plain)) or 'none that is a name or a number'}; expected one of {', '.join(NAMES)}. Write data.label_from: json.NAME into a configuration of your own"
        )
    return f"json.{known[0]}"
