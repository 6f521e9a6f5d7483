"""Names of shards as people write them: train-{000..123}.tar, train-*.tar, {a,b}/part-{0..9}.tar.

expanded("train-{08..10}.tar")                       # train-08.tar, train-09.tar, train-10.tar
named(root, "train-{000..123}.tar", "data.urls")      # the shards below a folder or an address, each there
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from glob import has_magic
from pathlib import Path

from ensemble.data.bucket import Tree
from ensemble.data.picture_tree import few
from ensemble.data.regular_files import shown
from ensemble.errors import DataError

MOST = 100_000  # names of one pattern
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expanded(pattern: str) -> list[str]:
    """The names that a pattern with braces stands for, in its order. Raises ValueError, in words, for braces that say nothing."""
    found = [""]
    rest = pattern
    while (braces := _BRACES.search(rest)) is not None:
        inside = _inside(braces.group(1))
        if len(found) * len(inside) > MOST:
            raise ValueError(f"stands for more than {MOST:,} names")
        found = [name + rest[: braces.start()] + one for name in found for one in inside]
        rest = rest[braces.end() :]
    if "{" in rest or "}" in rest or any("{" in name or "}" in name for name in found):
        raise ValueError("has a brace that is not closed, or braces in braces")
    return [name + rest for name in found]


def _inside(text: str) -> list[str]:
    """What stands between braces: 000..123, or a,b,c."""
    span = _RANGE.fullmatch(text)
    if span is None:
        if "," not in text:
            raise ValueError(
                f"has {{{text}}}, which is neither a range such as {{000..123}} nor a list such as {{a,b}}"
            )
        return text.split(",")
    first, last = (int(end) for end in span.groups())
    if last < first:
        raise ValueError(f"has the range {{{text}}}, which goes down")
    if last - first >= MOST:
        raise ValueError(f"stands for more than {MOST:,} names")
    digits = len(span.group(1)) if span.group(1).startswith("0") or len(span.group(1)) == len(span.group(2)) else 0
    return [f"{number:0{digits}d}" for number in range(first, last + 1)]


def named(root: Path, tree: Tree | None, pattern: str, key: str) -> list[str]:
    """The shards that a pattern names below a folder, or below the address of a tree, in the pattern's order.

    key: where the pattern was given, for messages. Raises DataError for patterns that say nothing, shards that are not there, and
    what is no plain .tar.
    """
    if "://" in pattern or pattern.startswith(("pipe:", "/")) or ".." in re.split(r"[/{},]", _RANGE.sub("", pattern)):
        raise DataError(
            f"{key}: found {shown(pattern)}; expected names below data.root, such as train-{{000..123}}.tar: put the folder or the address into data.root"
        )
    try:
        names = expanded(pattern)
    except ValueError as error:
        raise DataError(
            f"{key}: {shown(pattern)} {error}; expected names such as train-{{000..123}}.tar or train-*.tar"
        ) from error
    found: list[str] = []
    missing: list[str] = []
    for name in names:
        matching = _matching(root, tree, name) if has_magic(name) else [name] if _is_there(root, tree, name) else []
        found += matching
        missing += [] if matching else [name]
    if missing:
        raise DataError(
            f"{key}: {shown(pattern)}: of {len(names):,} names {len(missing):,} are not below {shown(root)}, such as {few([shown(name) for name in missing], 3)}; "
            "expected a file for each: correct the numbers, or bring the files"
        )
    if twice := sorted({name for name in found if found.count(name) > 1} if len(found) < 1000 else ()):
        raise DataError(f"{key}: {shown(pattern)}: names {few(twice, 3)} twice; expected each shard once")
    if packed := [name for name in found if not name.endswith(".tar")]:
        raise DataError(
            f"{key}: {few([shown(name) for name in packed], 3)}: expected names that end with .tar. A compressed archive can only be read from its beginning "
            "on, so that no picture can be found in it: unpack it first (gunzip shard.tar.gz)"
        )
    return found


def _matching(root: Path, tree: Tree | None, name: str) -> list[str]:
    if tree is None:
        return sorted(path.relative_to(root).as_posix() for path in root.glob(name))
    return sorted(one for one in tree.objects if one.count("/") == name.count("/") and fnmatchcase(one, name))


def _is_there(root: Path, tree: Tree | None, name: str) -> bool:
    return (root / name).exists() if tree is None else name in tree.objects
