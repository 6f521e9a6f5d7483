"""A Ray of this process alone: on the loopback interface, in a folder of its own that goes with it.

Ray listens on the machine's own address even where it is told 127.0.0.1, except where clusters of several machines are
switched off, as they are by default on macOS and Windows; that switch is used here. What listens then is in docs/security.md.

Ray keeps sockets and logs of every start in a folder. This one is readable by its owner only, and is removed when Ray
ends. Where the driver is killed, or stopped while Ray starts, Ray's agents would live on for a minute and the folder for ever:
a shell that waits for the driver's end clears up. What was killed together with that shell is removed by the next start, which
knows it by its lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray._private import ray_constants

from ensemble.errors import ComputeError

PREFIX = "ensemble-ray-"
_LONGEST = 40  # letters of the folder's name: Linux allows 107 for the whole name of a socket in it
_SWITCH = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
# Its input is the process groups that are to end with the driver, a line each; after a `=` only that one. The end of the input
# is the end of the driver. $1: the folder, which goes when they have, or after a second.
_CLEAR_UP = """
groups=
while read -r group; do
    case $group in
        =*) groups=${group#=} ;;
        *) groups="$groups $group" ;;
    esac
done
tries=20
while [ $tries -gt 0 ]; do
    left=
    for group in $groups; do
        kill -9 "-$group" 2>/dev/null && left=$group
    done
    [ -z "$left" ] && break
    tries=$((tries - 1))
    sleep 0.05
done
rm -rf -- "$1"
"""
_CLEARED_S = 5.0


class LocalFolder:
    """The folder of one local Ray."""

    def __init__(self) -> None:
        base = _base()
        _remove_left(base)
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        self._lock = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Ends Ray's processes and removes the folder when this process has ended, however it does.
        words = ["sh", "-c", _CLEAR_UP, "sh", str(self.path)]
        self._shell = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)  # noqa: S603 - our own words
        assert self._shell.stdin is not None
        self.groups = (
            self._shell.stdin.fileno()
        )  # where to write the number of a process group that is to end with this process

    def ends_with(self, raylet: int) -> None:
        """Of all process groups only the raylet's, which has the agents and workers, is to end with this process: the rest may be gone by then, and their numbers others'."""
        with suppress(OSError):  # somebody has ended the shell
            os.write(self.groups, f"={raylet}\n".encode())

    def remove(self) -> None:
        """Remove it with all that Ray has put there, when Ray has ended or been given up."""
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # it goes on by itself
            self._shell.wait(_CLEARED_S)
        shutil.rmtree(self.path, ignore_errors=True)  # what a process of Ray still holds goes with the next start
        os.close(self._lock)


def _base() -> Path:
    wanted = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    base = Path(wanted) if len(wanted) + len(PREFIX) + 8 <= _LONGEST else Path("/tmp")  # noqa: S108 - mkdtemp follows
    if not os.access(base, os.W_OK | os.X_OK):
        raise ComputeError(
            f"a local Ray needs a folder for its sockets, but {base} cannot be written; set TMPDIR to a folder with a short name that can, or use compute.executor=inline"
        )
    return base


def _remove_left(base: Path) -> None:
    """Remove the folders of drivers that were killed: they are this user's, and nobody holds their lock."""
    for path in base.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another start removes it at the same time, or it is another user's
            if path.is_symlink() or path.stat().st_uid != os.geteuid():
                continue
            lock = os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(lock)


def options(folder: LocalFolder) -> dict[str, Any]:
    """Arguments of `ray.init` for a Ray of this process alone."""
    return {
        "address": "local", "include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": str(folder.path / "r"),  # which Ray opens to everybody
    }  # fmt: skip


@contextmanager
def loopback_only() -> Iterator[None]:
    """Inside, what Ray starts listens on 127.0.0.1 and does not outlive this process for long."""
    several, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    before = os.environ.get(_SWITCH, "1" if several else "0")
    os.environ[_SWITCH] = "0"
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = several
        os.environ[_SWITCH] = before  # replaced, not taken out: Ray's threads may be reading the environment
