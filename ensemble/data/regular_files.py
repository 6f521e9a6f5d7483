"""Opening what a person names: regular files and folders only, and every trouble as a DataError with the name.

    with open_regular(Path("seven.png"), "a picture") as file: ...

A pipe would be waited for without end, a device read without end, so both are refused before anything is read.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import BinaryIO, Protocol

from ensemble.data.bucket import address_of, named_object, tree_of
from ensemble.errors import DataError
from ensemble.outside import names, paths


class Entry(Protocol):
    """A name in a folder, as os.scandir gives it."""

    @property
    def name(self) -> str:
        """Without the folder."""
        ...

    def is_dir(self) -> bool:
        """True for a folder and for a link to one."""
        ...


def open_regular(path: Path, expected: str) -> BinaryIO:
    """The file, here or in object storage, open for reading. expected: what it should be, in words ("a picture").

    Raises FileNotFoundError where there is none; DataError when it cannot be opened or is no regular file.
    """
    if (content := named_object(path)) is not None:
        return io.BytesIO(content)
    try:
        return paths.open_regular(path)
    except FileNotFoundError:
        raise
    except paths.NotRegularError as error:
        raise DataError(f"{shown(path)}: found {error.kind}; expected {expected} in a regular file") from error
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be opened: {error.strerror}; expected {expected}") from error


def list_folder(folder: Path) -> list[Entry]:
    """The entries of a folder, here or in object storage, by name. Raises DataError when it cannot be listed."""
    if (tree := tree_of(folder)) is not None:
        return list(tree.entries(folder))
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{shown(folder)}: cannot be listed: {reason}; expected a folder that may be read") from error


def is_folder(entry: Entry) -> bool:
    """True for a folder and for a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle, or to where nobody may look
        return False


def shown(name: Path | str) -> str:
    """A file's name as one line of text that can be written anywhere; bytes that are no UTF-8 stand as \\xe4."""
    if isinstance(name, Path) and not name.is_absolute():
        name = address_of(name) or name
    return names.shown(os.fspath(name), names.LONGEST_PATH)
