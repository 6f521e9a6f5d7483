"""A disk that fails, or a process that is killed, at a chosen call: what storage does to files below a folder, counted."""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


class Killed(BaseException):
    """The process ends here: nothing that comes later reaches the disk."""


class Disk:
    """Counts the calls that concern files below `root`; from `at` on, does what `fault` says.

    error: errno of the failure, None for a kill. once: only that call fails.
    """

    def __init__(self, root: Path, at: int | None = None, error: int | None = None, once: bool = True) -> None:
        self.root, self.at, self.error, self.once = str(root), at, error, once
        self.calls: list[str] = []

    def step(self, name: str, path: Any) -> None:
        """One call; raises what the disk or the kill would make of it."""
        if not str(path).startswith(self.root):
            return
        number = len(self.calls)
        self.calls.append(f"{name} {str(path).removeprefix(self.root)}")
        if self.at is None or number < self.at or (number > self.at and self.once and self.error is not None):
            return
        if self.error is None:
            raise Killed(self.calls[-1])
        raise OSError(self.error, os.strerror(self.error), str(path))


class _File:
    """An open file whose writes are calls of their own; a write that fails has written its first half."""

    def __init__(self, file: Any, disk: Disk, path: Path) -> None:
        self._file, self._disk, self._path = file, disk, path

    def write(self, content: Any) -> Any:
        try:
            self._disk.step("write", self._path)
        except BaseException:
            self._file.write(content[: len(content) // 2])
            self._file.flush()
            raise
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)


def attach(disk: Disk, patch: pytest.MonkeyPatch) -> None:
    """From here on, calls go through the disk."""
    opened, handles = pathlib.Path.open, dict[int, str]()

    def open_path(self: Path, mode: str = "r", *words: Any, **more: Any) -> Any:
        disk.step(f"open({mode})", self)
        file = opened(self, mode, *words, **more)
        handles[file.fileno()] = str(self)
        return _File(file, disk, self) if mode != "rb" else file

    def counted(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(path: Any, *words: Any, **more: Any) -> Any:
            disk.step(name, path)
            return function(path, *words, **more)

        return call

    def of_handle(function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def call(handle: Any, *words: Any) -> Any:
            number = handle if isinstance(handle, int) else handle.fileno()
            disk.step(name, handles.get(number, ""))
            return function(handle if isinstance(handle, int) else number, *words)

        return call

    def open_folder(path: Any, *words: Any, **more: Any) -> int:
        disk.step("open", path)
        handle = os_open(path, *words, **more)
        handles[handle] = str(path)
        return handle

    os_open = os.open
    patch.setattr(pathlib.Path, "open", open_path)
    patch.setattr(os, "open", open_folder)
    for name in ("replace", "mkdir", "unlink", "scandir"):
        patch.setattr(os, name, counted(getattr(os, name), name))
    patch.setattr(os, "fsync", of_handle(os.fsync, "fsync"))
    patch.setattr(fcntl, "flock", of_handle(fcntl.flock, "flock"))


ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT)
