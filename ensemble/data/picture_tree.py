"""Every file below a folder: the pictures to read, and what is left out, each with its reason.

    found = pictures_below(Path("flowers/rose"))
    found.files          # in the order of their paths
    found.left_out       # links in a circle, other kinds of files, hidden ones, ...

Links are followed, as torchvision does, with a guard against circles. Files seen = files + left out.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ensemble.data.bucket import Tree, tree_of
from ensemble.data.pictures import SUFFIXES
from ensemble.data.regular_files import is_folder, list_folder, shown
from ensemble.outside.paths import kind_of_mode

HIDDEN, NOWHERE, CIRCLE = "hidden", "link to nowhere", "link to a folder that is read already"
DAMAGED, BESIDE = "damaged", "beside the class folders"
REASONS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file or a link that is not read. reason: the ending of its name, or one of the words above."""

    path: Path
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What lies below a folder."""

    files: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


def pictures_below(folder: Path) -> Found:
    """Every picture at any depth of a folder, in the order of their paths. Raises DataError when it cannot be listed."""
    if (tree := tree_of(folder)) is not None:
        return _far_pictures_below(folder, tree)
    files: list[Path] = []
    left_out: list[LeftOut] = []
    # A link to a folder above would bring in the pictures of the other classes, and itself again.
    seen = {_identity(above) for path in (folder.absolute(), folder.resolve()) for above in (path, *path.parents)}
    _walk(folder, files, left_out, seen)
    return Found(tuple(sorted(files)), tuple(left_out))


def _far_pictures_below(folder: Path, tree: Tree) -> Found:
    files: list[Path] = []
    left_out: list[LeftOut] = []
    for path in sorted(tree.files_below(folder)):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            left_out.append(LeftOut(path, HIDDEN))
        elif (reason := _reason_of_name(path)) is None:
            files.append(path)
        else:
            left_out.append(LeftOut(path, reason))
    return Found(tuple(files), tuple(left_out))


def _walk(folder: Path, files: list[Path], left_out: list[LeftOut], seen: set[tuple[int, int]]) -> None:
    for entry in list_folder(folder):
        path = folder / entry.name
        if entry.name.startswith("."):
            left_out += hidden_below(path)
        elif is_folder(entry):
            identity = _identity(path)
            if identity in seen:
                left_out.append(LeftOut(path, CIRCLE))
                continue
            seen.add(identity)
            _walk(path, files, left_out, seen)
        elif (reason := _reason(path)) is None:
            files.append(path)
        else:
            left_out.append(LeftOut(path, reason))


def hidden_below(path: Path) -> list[LeftOut]:
    """A hidden file, or every file in a hidden folder."""
    if (tree := tree_of(path)) is not None:
        return [LeftOut(file, HIDDEN) for file in tree.files_below(path)]
    if path.is_symlink() or not path.is_dir():
        return [LeftOut(path, HIDDEN)]
    inside = [Path(root, name) for root, _, names in os.walk(path) for name in names]
    return [LeftOut(file, HIDDEN) for file in inside]


def beside(folder: Path) -> list[LeftOut]:
    """What lies in a folder of class folders without being one."""
    left_out: list[LeftOut] = []
    for entry in list_folder(folder):
        if entry.name.startswith("."):
            left_out += hidden_below(folder / entry.name)
        elif not is_folder(entry):
            left_out.append(LeftOut(folder / entry.name, BESIDE))
    return left_out


def reasons_text(left_out: Iterable[LeftOut]) -> str:
    """ "3 .gif, 1 hidden": how many for which reason, most first."""
    counts = Counter(left.reason for left in left_out).most_common()
    shown_counts = [f"{count:,} {reason}" for reason, count in counts[:REASONS_SHOWN]]
    others = sum(count for _, count in counts[REASONS_SHOWN:])
    return ", ".join([*shown_counts, *([f"{others:,} others"] if others else [])])


def few(names: Sequence[str], most: int = 5) -> str:
    """The first names of a list, and how many more there are."""
    more = f" ... and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _reason(path: Path) -> str | None:
    """Why a file is left out; None for a picture."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return NOWHERE
    if not stat.S_ISREG(mode):
        return kind_of_mode(mode).removeprefix("a ")
    return _reason_of_name(path)


def _reason_of_name(path: Path) -> str | None:
    suffix = path.suffix.lower()
    return None if suffix in SUFFIXES else shown(suffix) or "without an ending"


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino
