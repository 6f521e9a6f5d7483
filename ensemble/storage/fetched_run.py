"""A run under an address, brought to this machine for reading."""

from __future__ import annotations

import fcntl
from pathlib import Path

from ensemble.errors import StorageError
from ensemble.storage.listed_folder import InUse, is_file, locked
from ensemble.storage.manifest import MANIFEST
from ensemble.storage.remedies import unreadable
from ensemble.storage.remote import Mirror, local_root


def fetched_run(address: str) -> Path:
    """The local side of the run at an address such as s3://bucket/runs/NAME, brought to what lies there.

    Where a process of this machine writes to it, that is ahead of the address, and left alone. Raises StorageError when
    the storage cannot be reached or the copy there is damaged.
    """
    root, _, name = address.rstrip("/").rpartition("/")
    mirror, path = Mirror(root, name), local_root(root) / name
    try:
        path.mkdir(parents=True, exist_ok=True)
        with (path / "run.fetch").open("a") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # one reader after the other
            with locked(path / "run.lock"):
                mirror.fetch(path)
    except InUse:
        return path
    except OSError as error:
        raise unreadable(path, error, "used for the local copy") from error
    if not is_file(path / MANIFEST):
        raise StorageError(
            f"{address}: no run here (there is no {MANIFEST}); give the address of a run, such as s3://bucket/runs/NAME"
        )
    return path
