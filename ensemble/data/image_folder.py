"""`data.name: image_folder`: one folder per class, as torchvision's ImageFolder has it.

    flowers/rose/1.jpg  flowers/tulip/2.png ...                    a test part is split off
    flowers/train/rose/1.jpg ... flowers/test/rose/9.jpg ...       the parts are given

Pictures become uint8 squares of data.image_size pixels, grey or RGB (data.channels), and are held in memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from ensemble.config.schema import DataConfig
from ensemble.data.own_parts import Part, Parts, divided
from ensemble.data.pictures import fitted, open_picture, picture_files
from ensemble.errors import DataError
from ensemble.types import ByteArray

COLOURS = 3  # channels without data.channels
SHOWN = 5


def load_image_folder(config: DataConfig) -> Parts:
    """Training and test part. Raises DataError naming the folders and pictures at fault."""
    assert config.root is not None
    assert config.image_size is not None
    root = Path(config.root).expanduser()
    if not root.is_dir():
        raise DataError(f"data.root: no folder {root}; expected one with a folder of pictures per class")
    train_root, test_root = _parts(root, config)
    read = partial(_read_picture, channels=config.channels or COLOURS, side=config.image_size)
    class_names = _class_folders(train_root)
    train, names = _read_classes(train_root, class_names, read)
    if test_root is None:
        return divided(train, names, class_names, config)
    if unknown := sorted(set(_class_folders(test_root)) - set(class_names)):
        raise DataError(
            f"{test_root}: found classes that {train_root} does not have: {', '.join(unknown[:SHOWN])}; expected only "
            f"{', '.join(class_names[:SHOWN])}{' ...' if len(class_names) > SHOWN else ''}"
        )
    present = [name for name in class_names if (test_root / name).is_dir()]
    test, _ = _read_classes(test_root, present, read)
    positions = np.array([class_names.index(name) for name in present])
    return Parts(train, Part(test.images_NCHW, positions[test.labels_N]), tuple(class_names))


def _parts(root: Path, config: DataConfig) -> tuple[Path, Path | None]:
    """Where the training pictures and, if it is given, the test part lie."""
    if not _folders(root / "train"):  # a class may be called "train"; a part holds folders
        return root, None
    if others := [name for name in _folders(root) if name not in ("train", "test")]:
        raise DataError(
            f"{root}: found the folders {', '.join(others[:SHOWN])} beside train; expected only train and test. A part "
            "to be judged on must be called test; validation images are taken from train (data.validation_fraction)"
        )
    if not (root / "test").is_dir():
        return root / "train", None
    if config.test_fraction is not None:
        raise DataError(
            f"data.test_fraction: found {config.test_fraction}, but {root / 'test'} is the test part; remove one"
        )
    return root / "train", root / "test"


def _class_folders(root: Path) -> list[str]:
    """Names of the classes, sorted: their order is the order of the class numbers."""
    names = _folders(root)
    if len(names) < 2:
        found = f"only {names[0]}" if names else "none"
        raise DataError(f"{root}: found {found}; expected at least two folders, one per class, with pictures in them")
    return names


def _folders(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _read_classes(
    root: Path, class_names: Sequence[str], read: Callable[[Path], ByteArray | str]
) -> tuple[Part, list[str]]:
    """All pictures of a part, class by class, and their paths below `root`."""
    files = [picture_files(root / name) for name in class_names]
    if empty := [name for name, found in zip(class_names, files, strict=True) if not found]:
        raise DataError(
            f"{root}: no pictures in {', '.join(empty[:SHOWN])}; expected some in every class folder; remove it or fill it"
        )
    paths = [path for found in files for path in found]
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow decodes outside the interpreter lock
        images = list(pool.map(read, paths))
    if faults := [image for image in images if isinstance(image, str)]:
        listed = "\n".join(f"  {fault}" for fault in faults[:SHOWN])
        more = f"\n  ... and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(f"{root}: {len(faults)} of {len(paths)} pictures cannot be used\n{listed}{more}")
    labels = np.repeat(np.arange(len(files), dtype=np.int64), [len(found) for found in files])
    arrays = [image for image in images if not isinstance(image, str)]
    return Part(np.stack(arrays), labels), [path.relative_to(root).as_posix() for path in paths]


def _read_picture(path: Path, channels: int, side: int) -> ByteArray | str:
    """The picture, or what is wrong with it."""
    try:
        return fitted(open_picture(path), channels, (side, side))
    except DataError as error:
        return str(error)
