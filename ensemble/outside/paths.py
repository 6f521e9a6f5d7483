"""Paths that people give: one way to read them at every door, and one way to read the small files they name.

given_path("~/runs", "output_dir")     # /home/me/runs
given_path("$HOME/runs", "output_dir") # ConfigError: nobody but a shell replaces variables
"""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import BinaryIO

from ensemble.errors import ConfigError

_VARIABLE = re.compile(r"\$([A-Za-z_]\w*|\{\w+\})", re.ASCII)


def given_path(text: str | os.PathLike[str], what: str) -> Path:
    """The path that a person means: `~` is the home folder.

    what: where it was given, for messages, such as "data.root" or "$ENSEMBLE_CACHE". Raises ConfigError for an empty
    path, for a `~` whose home folder is not known, and for a variable such as $HOME, unless a thing of that very name
    is there: who writes a variable does not mean a folder named `$HOME`.
    """
    written = os.fspath(text)
    if not written.strip():
        raise ConfigError(f"{what}: found an empty path; expected the name of a file or folder")
    if "\0" in written:
        raise ConfigError(f"{what}: {written!r} holds a null character, which no path can have; leave it out")
    try:
        path = Path(written).expanduser()
    except RuntimeError as error:
        raise ConfigError(
            f"{what}: {written}: the home folder that ~ stands for is not known; write the whole path, or ./~ for a folder of that name"
        ) from error
    variable = _VARIABLE.search(written)
    if variable and not _is_there(path):
        raise ConfigError(
            f"{what}: {written}: {variable.group()} is not replaced here, only a shell does that; write the whole path, or ~ for your home folder"
        )
    return path


def _is_there(path: Path) -> bool:
    """False also where nobody may look."""
    try:
        return path.exists()
    except OSError:
        return False


class NotRegularError(OSError):
    """A thing of that name is there, but it is no regular file. kind: what it is, in words ("a pipe")."""

    def __init__(self, path: Path, kind: str) -> None:
        super().__init__(errno.EINVAL, f"is {kind}; expected a regular file", str(path))
        self.kind = kind


def open_regular(path: Path) -> BinaryIO:
    """A regular file, open for reading: a pipe would be waited for, and a device may never end.

    Raises OSError, as opening it does (also for a name that no file can have); NotRegularError for anything else.
    """
    try:
        # Without O_NONBLOCK the opening of a pipe that nobody writes to would never return.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # a null character in the name
        raise OSError(errno.EINVAL, str(error), str(path)) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise NotRegularError(path, kind_of_mode(mode))
    return os.fdopen(descriptor, "rb")


def kind_of_mode(mode: int) -> str:
    """What an entry of a folder is, in words, by its mode as `os.stat` gives it."""
    kinds = {
        stat.S_IFREG: "a file", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    }  # fmt: skip
    return kinds.get(stat.S_IFMT(mode), "no file")


def read_regular_file(path: Path, most_bytes: int) -> bytes:
    """The whole of a small file. Raises as `open_regular`, and OSError with EFBIG for more than `most_bytes`."""
    with open_regular(path) as file:
        content = file.read(most_bytes + 1)  # sizes of files in /proc are not known beforehand
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"is larger than {most_bytes:,} bytes", str(path))
    return content
