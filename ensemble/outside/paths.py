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
        raise ConfigError(f"{what}: {written!r} holds a null character, which no path can have")
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


def read_regular_file(path: Path, most_bytes: int) -> bytes:
    """The whole of a file, which must be a regular one: a pipe would be waited for, and a device may never end.

    Raises OSError, as opening it does; with EFBIG for a file of more than `most_bytes`, and with EINVAL for what is no
    regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if stat.S_ISDIR(mode := os.fstat(descriptor).st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder; expected a file", str(path))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "is a pipe or a device; expected a regular file", str(path))
        content = file.read(most_bytes + 1)  # sizes of files in /proc are not known beforehand
    if len(content) > most_bytes:
        raise OSError(errno.EFBIG, f"is larger than {most_bytes:,} bytes", str(path))
    return content
