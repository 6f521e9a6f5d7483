"""Fetches missing files with torchvision, quietly and never for ever.

torchvision knows the mirrors and checks each download by MD5. It is imported only here and where its readers are
used (`cifar`, `svhn`, `stl10`), and only when a file is missing or one of these is read: loading MNIST from disk needs neither torch nor torchvision.
"""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

from ensemble.data.catalogue import IdxLayout
from ensemble.data.files import FetchError

STALL_TIMEOUT_S = 30.0

# What torchvision lets through when the network, an archive or a freshly written file is not as it should be.
_DOWNLOAD_FAULTS = (
    OSError, RuntimeError, ValueError, TypeError, KeyError, AssertionError, EOFError, zlib.error, HTTPException,
    zipfile.BadZipFile, tarfile.TarError,
)  # fmt: skip


def fetch_idx_files(root: Path, layout: IdxLayout) -> None:
    """Downloads the missing files of one data set into torchvision's folders below `root`. Raises FetchError."""
    from torchvision import datasets

    constructor = getattr(datasets, layout.torchvision_class)
    with downloading():
        for arguments in layout.torchvision_arguments:
            constructor(str(root), download=True, **arguments)


@contextlib.contextmanager
def downloading() -> Iterator[None]:
    """Keeps stdout clean and sockets from waiting for ever; turns what can go wrong into FetchError.

    torchvision offers neither a timeout nor silence, so the process-wide defaults are set and put back: downloads
    happen in the driver before anything else runs. The progress bar stays where a person can see it, on a terminal.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(STALL_TIMEOUT_S)
    progress = sys.stderr if sys.stderr.isatty() else io.StringIO()
    try:
        with contextlib.redirect_stdout(progress), contextlib.redirect_stderr(progress):
            yield
    except _DOWNLOAD_FAULTS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FetchError(reason) from error
    finally:
        socket.setdefaulttimeout(before)
