"""Which folders are the classes, and which are the parts of a data set.

    rose/1.jpg  tulip/2.png                            classes; a test part is split off
    train/rose/1.jpg  val/rose/5.jpg  test/rose/9.jpg  parts; Training and Testing, TRAIN and TEST, train_set ... too

Whatever could be taken for the other is refused by name: parts of other names, parts inside the classes, one folder
too many above them. Class names are compared by what a person reads (Unicode form NFC).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ensemble.data.own_parts import PartName
from ensemble.data.picture_tree import few
from ensemble.data.pictures import SUFFIXES
from ensemble.data.regular_files import is_folder, list_folder, shown
from ensemble.errors import DataError

TRAIN = frozenset({"train", "training", "trainset", "trainingset", "traindata", "trainingdata", "trainimages"})
TEST = frozenset({"test", "testing", "tests", "testset", "testingset", "testdata", "testingdata", "testimages"})
VALIDATION = frozenset({
    "val", "valid", "validate", "validation", "vali", "valset", "validset", "validationset", "valdata", "validdata",
    "validationdata", "dev", "devset", "eval", "evaluation", "holdout",
})  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Where the classes lie. train, validation, test: name of a class -> its folder, in the order of the class numbers.

    validation_root, test_root: None where no such part is given.
    """

    train_root: Path
    train: dict[str, Path]
    validation_root: Path | None
    validation: dict[str, Path]
    test_root: Path | None
    test: dict[str, Path]


def find_layout(root: Path) -> Layout:
    """The parts and classes below a folder. Raises DataError naming what could be taken for something else."""
    train_root, validation_root, test_root = _parts(root)
    train = _classes(train_root)
    _check_levels(train_root, train)
    validation, test = (_same_classes(part, train_root, train) for part in (validation_root, test_root))
    if validation_root is not None and (missing := [name for name in train if name not in validation]):
        raise DataError(
            f"{shown(validation_root)}: found no folder of {few(missing)}; expected one of every class, since members are chosen by "
            "validation images"
        )
    return Layout(train_root, train, validation_root, validation, test_root, test)


def _same_classes(root: Path | None, train_root: Path, train: dict[str, Path]) -> dict[str, Path]:
    """The folders of another part by the names that the training part has."""
    if root is None:
        return {}
    known = {_read_as(name): name for name in train}
    found = _by_name(root)
    if unknown := sorted(name for name in found if _read_as(name) not in known):
        raise DataError(
            f"{shown(root)}: found classes that {shown(train_root)} does not have: {few([f'{name!r}' for name in unknown])}; "
            f"expected only {few([f'{name!r}' for name in train])}; rename these folders, or remove them"
        )
    if not found:
        raise DataError(f"{shown(root)}: found no folders; expected one per class, with pictures in them")
    folders = {known[_read_as(name)]: folder for name, folder in found.items()}
    return {name: folders[name] for name in train if name in folders}


def _parts(root: Path) -> tuple[Path, Path | None, Path | None]:
    """Where the training pictures and, if they are given, the validation and the test part lie."""
    folders = _folders(root)
    parts = [folder for folder in folders if _part(folder) and _folders(folder)]  # a class may be called "train"
    training = [folder for folder in parts if _part(folder) == "train"]
    testing = [folder for folder in parts if _part(folder) == "test"]
    validating = [folder for folder in parts if _part(folder) == "validation"]
    names = few([shown(folder.name) for folder in parts])
    if not parts:
        return root, None, None
    if not training:
        raise DataError(
            f"{shown(root)}: found {names}, which look like parts of a data set, but no train beside them; expected "
            "train and test, or one folder of pictures per class. Rename the folder to train on, or move it elsewhere "
            "and set data.root to it"
        )
    if len(training) > 1 or len(testing) > 1 or len(validating) > 1:
        raise DataError(
            f"{shown(root)}: found {names}; expected one folder to train on, one to choose by and one to test on. Move the others elsewhere"
        )
    given = [folder for folder in folders if _part(folder) == "test"]  # empty as it may be
    choosing = [folder for folder in folders if _part(folder) == "validation"]
    if others := [shown(folder.name) for folder in folders if folder not in (*training, *given, *choosing)]:
        raise DataError(
            f"{shown(root)}: found the folders {few(others)} beside {shown(training[0].name)}; expected only train, val and "
            "test. A part to be judged on must be called test, one to choose members by val"
        )
    return training[0], choosing[0] if choosing else None, given[0] if given else None


def _classes(root: Path) -> dict[str, Path]:
    """The classes by name, sorted: their order is the order of the class numbers."""
    found = _by_name(root)
    if len(found) < 2:
        raise DataError(
            f"{shown(root)}: found {_only(found)}; expected at least two folders, one per class, with pictures in them"
        )
    twice = [spelling for spelling, count in Counter(map(_read_as, found)).items() if count > 1]
    if twice:
        raise DataError(
            f"{shown(root)}: found two folders each that read {few(twice)} and differ only in how letters are composed "
            "(Unicode normal forms); move the pictures of each two into one folder"
        )
    return found


def _only(found: dict[str, Path]) -> str:
    if not found:
        return "none"
    ((name, folder),) = found.items()
    inner = [shown(below.name) for below in _folders(folder)]
    if len(inner) < 2:
        return f"only {name}"
    return (
        f"only {name}, which holds {few(inner)} (if these are the classes or parts, set data.root to {shown(folder)})"
    )


def _by_name(root: Path) -> dict[str, Path]:
    return {shown(folder.name): folder for folder in _folders(root)}


def _check_levels(root: Path, classes: dict[str, Path]) -> None:
    """Raises DataError where the folders below the classes, or the classes themselves, look like parts."""
    below = {name: [shown(inner.name) for inner in _folders(folder)] for name, folder in classes.items()}
    for name, inner in below.items():
        parts = {part_of(folder) for folder in inner} - {None}
        if len(parts) > 1:
            raise DataError(
                f"{shown(root)}: the class folder {name} holds {few(inner)}, which look like parts of a data set; expected "
                f"the parts outside: train/{name} and test/{name}"
            )
    counts = Counter(_read_as(inner).casefold() for names in below.values() for inner in set(names))
    shared = sorted(name for name, count in counts.items() if count > 1)
    if shared and not any(map(_has_pictures, classes.values())):
        holders = [name for name, names in below.items() if {_read_as(n).casefold() for n in names} & set(shared)]
        raise DataError(
            f"{shown(root)}: found {few(holders)}, which have no pictures of their own but the same folders "
            f"{few(shared)}: parts of a data set, or classes? If they are parts, call them train and test; if they are "
            "classes, put the pictures of each into its own folder"
        )


def _folders(root: Path) -> list[Path]:
    """The visible folders in a folder, sorted by name."""
    return [root / entry.name for entry in list_folder(root) if is_folder(entry) and not entry.name.startswith(".")]


def _has_pictures(folder: Path) -> bool:
    return any(
        Path(entry.name).suffix.lower() in SUFFIXES and not entry.name.startswith(".") and not is_folder(entry)
        for entry in list_folder(folder)
    )


def _part(folder: Path) -> str | None:
    return part_of(folder.name)


def part_of(name: str) -> PartName | None:
    """train, test or validation where a folder's name says so; spelling and separators do not matter."""
    plain = "".join(letter for letter in name.casefold() if letter.isalnum())
    known: tuple[tuple[PartName, frozenset[str]], ...] = ("train", TRAIN), ("test", TEST), ("validation", VALIDATION)
    return next((part for part, names in known if plain in names), None)


def _read_as(name: str) -> str:
    return unicodedata.normalize("NFC", name)
