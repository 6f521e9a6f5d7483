"""Where this program keeps what it can make again, and whether what lies there may be trusted.

What is loaded from a cache decides what this process does, so it must be one's own: in a folder that others may write,
anybody could have put it there. Whatever is not one's own is made anew.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from pathlib import Path
from typing import IO, Any, TypeVar

from ensemble.outside.paths import given_path

T = TypeVar("T")
TEMPORARY = ".writing"  # ends the names of files that are not whole yet
CACHE_VARIABLE = "ENSEMBLE_CACHE"
_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def cache_folder() -> Path:
    """$ENSEMBLE_CACHE or ~/.cache/ensemble.

    Raises RuntimeError where there is neither that nor a home folder, ConfigError where the variable holds no path.
    """
    if given := os.environ.get(CACHE_VARIABLE):
        return given_path(given, f"${CACHE_VARIABLE}")
    return Path.home() / ".cache" / "ensemble"


def own_folder(name: str) -> Path:
    """A folder of this user's in the cache, which nobody else can write; in a shared cache one with the user's number.

    Raises OSError where none can be made, RuntimeError and ConfigError as `cache_folder`.
    """
    root = cache_folder()
    for folder in (root / name, root / f"{name}-{os.geteuid()}"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid == os.geteuid():
            with contextlib.suppress(OSError):  # a file system without modes; then the check below decides
                folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~_OF_OTHERS)
        if is_own(folder):
            return folder
    raise PermissionError(errno.EPERM, "belongs to another user, or others may write to it", str(folder))


def is_own(path: Path) -> bool:
    """True for a file or folder of this user's or root's that nobody else can write, and that is no link."""
    try:
        facts = path.lstat()
    except OSError:
        return False
    mine = facts.st_uid in (os.geteuid(), 0)
    return mine and not stat.S_ISLNK(facts.st_mode) and not facts.st_mode & _OF_OTHERS


def private(path: Path, mode: str) -> IO[Any]:
    """The file, open, and nobody else's to read or write, whatever the umask: what others may write is not trusted."""
    file = path.open(mode)
    with contextlib.suppress(OSError):  # a file system without modes
        os.fchmod(file.fileno(), 0o600)
    return file


def keep_json(path: Path, value: T) -> T:
    """Write a small file whole or not at all; returns the value. Raises OSError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    with private(temporary, "w") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return value
