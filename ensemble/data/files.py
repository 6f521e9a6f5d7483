"""What is done about data files that are missing or damaged: name them all, fetch once, then stop.

`load_or_fetch` runs a reader. The reader raises `FaultyFiles` with every fault it finds, so that one message can list
them all. Where downloading is allowed, damaged files are moved aside (name.damaged), the files are fetched once and
read again. Where it is not, nothing on the disk is touched.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from ensemble.config.data import DataConfig
from ensemble.data.regular_files import open_regular
from ensemble.errors import ConfigError, DataError
from ensemble.outside.object_storage import is_address
from ensemble.outside.paths import given_path

ROOT_VARIABLE = "ENSEMBLE_DATA"
DEFAULT_ROOT = "data"
T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fault:
    """One file that cannot be used. Only damaged files are ever moved aside."""

    path: Path
    kind: Literal["missing", "damaged", "unreadable"]
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}; expected {self.expected}"


class Wanted(Protocol):
    """What of a section says where its files are and whether they may be fetched."""

    @property
    def name(self) -> str:
        """Of the data set."""
        ...

    @property
    def root(self) -> str | None:
        """Folder of the data sets."""
        ...

    @property
    def download(self) -> bool:
        """Whether missing files may be fetched."""
        ...


class FaultyFiles(Exception):
    """Raised by a reader with every fault of the files it wanted."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.faults = tuple(faults)
        super().__init__("; ".join(map(str, self.faults)))


class FetchError(Exception):
    """A download that did not succeed, with its reason."""


def data_root(root: str | None = None, name: str = "") -> tuple[Path, str]:
    """The folder of the data sets and which setting it came from. root, name: of a section, where there is one."""
    if root is not None and is_address(root):
        far = [other for other, section in DataConfig.registry.all().items() if section.pictures]
        raise ConfigError(
            f"data.root: {root}: an address is read for data.name={' and '.join(far)} alone; give {name} a folder"
        )
    if root is not None:
        return given_path(root, "data.root"), "data.root"
    if from_environment := os.environ.get(ROOT_VARIABLE):
        return given_path(from_environment, f"${ROOT_VARIABLE}"), f"${ROOT_VARIABLE}"
    return Path(DEFAULT_ROOT), "the default"


def load_or_fetch(config: Wanted, folder: Path, read: Callable[[], T], fetch: Callable[[], None]) -> T:
    """What `read` returns, after one `fetch` where that is allowed and needed.

    Raises DataError naming each file, what was found and expected, and what to do.
    """
    try:
        return read()
    except FaultyFiles as problem:
        faults = problem.faults
    if not config.download:
        raise _error(config, folder, faults, "Nothing was downloaded because data.download is false.")
    if any(fault.kind == "unreadable" for fault in faults):
        raise _error(config, folder, faults, "Nothing was downloaded because a file is there but cannot be read.")
    try:
        _move_damaged_aside(faults)
        fetch()
    except (FetchError, OSError) as error:
        raise _error(config, folder, faults, f"Downloading them failed: {error}") from error
    try:
        return read()
    except FaultyFiles as problem:
        raise _error(config, folder, problem.faults, "This is after downloading once more.") from problem


def read_bytes(path: Path) -> bytes:
    """The whole file. Raises FaultyFiles when it is missing or cannot be read."""
    try:
        with open_regular(path, "a data file") as file:
            return file.read()
    except FileNotFoundError as error:
        raise FaultyFiles([Fault(path, "missing", "no such file", "a data file")]) from error
    except DataError as error:
        cause = error.__cause__
        found = str(cause.strerror) if isinstance(cause, OSError) else "no regular file"
        if isinstance(cause, NotADirectoryError) or os.path.isdir(path):  # noqa: PTH112  # which never raises
            raise FaultyFiles([Fault(path, "missing", "no such file", "a data file")]) from error
        raise FaultyFiles([Fault(path, "unreadable", found, "a readable file")]) from error
    except (OSError, MemoryError) as error:
        raise FaultyFiles([Fault(path, "unreadable", str(error) or "too large", "a readable file")]) from error


def md5(data: bytes) -> str:
    """The MD5 sum as published for older data sets: it finds accidents, not attacks."""
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def md5_faults(folder: Path, expected: Iterable[tuple[str, str]]) -> list[Fault]:
    """What is wrong with files that are known by their MD5 sums: (name, sum) of each."""
    faults: list[Fault] = []
    for name, known in expected:
        try:
            content = read_bytes(folder / name)
        except FaultyFiles as problem:
            faults.extend(problem.faults)
            continue
        if (digest := md5(content)) != known:
            found = "a web page (HTML)" if looks_like_html(content) else f"{len(content)} bytes with MD5 {digest}"
            faults.append(Fault(folder / name, "damaged", found, f"MD5 {known}"))
    return faults


def looks_like_html(data: bytes) -> bool:
    """True for a web page, which proxies and moved servers send in place of the file."""
    return data[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<head"))


def _move_damaged_aside(faults: Iterable[Fault]) -> None:
    for fault in faults:
        if fault.kind == "damaged" and os.path.exists(fault.path):  # noqa: PTH110  # Path.exists may raise
            fault.path.replace(fault.path.with_name(fault.path.name + ".damaged"))
            logger.warning("%s: moved to %s.damaged and fetched again", fault, fault.path.name)


def _error(config: Wanted, folder: Path, faults: tuple[Fault, ...], what_happened: str) -> DataError:
    root, origin = data_root(config.root, config.name)
    advice = (
        f"What to do: put the original files into {folder}, or set data.root or the environment variable {ROOT_VARIABLE} "
        f"to a folder that holds them (now {root}, from {origin})"
    )
    if not config.download:
        advice += ", or set data.download=true to fetch them"
    elif any(fault.kind != "unreadable" for fault in faults):
        advice += ", or repair the network or proxy and start again"
    listed = "\n".join(f"  {fault}" for fault in faults)
    return DataError(f"data set {config.name}: files cannot be used\n{listed}\n{what_happened}\n{advice}.")
