"""What a client and the server say to each other over a socket: one request with three open files, then two answers.

The module imports little, since the commands `python` and `ensemble` of `search_path` are started for each line of a shell.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import socket
from collections.abc import Mapping
from typing import Any

_HEAD = 8  # bytes of a length
_STREAMS = 3

# Read at the time of use by this package, by Ray and W&B, which the server does not import, and by others. A process with
# another value of any other variable gets a server of its own, since modules may have read it when they were imported.
LATE = ("ENSEMBLE_", "RAY_", "WANDB_", "AWS_", "MLFLOW_", "PYTEST_", "SLURM_", "_", "HYPOTHESIS_")
LATE_NAMES = frozenset(
    (
        "PATH", "PWD", "OLDPWD", "SHLVL", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "TMPDIR", "CC", "USER",
        "PYTHONUNBUFFERED", "MPLBACKEND", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
    )
)  # fmt: skip


def early(environment: Mapping[str, str]) -> dict[str, str]:
    """Of an environment, what modules may read when they are imported."""
    return {k: v for k, v in environment.items() if k not in LATE_NAMES and not k.startswith(LATE)}


def forkable(words: list[str], environment: Mapping[str, str], python: str) -> list[str] | None:
    """What a child is to execute; None where only a process of its own can. python: this interpreter's file."""
    if not words or environment.get("PYTHONSAFEPATH") or environment.get("PYTHONINSPECT"):
        return None
    if environment.get("OMP_NUM_THREADS") != "1":  # else numpy's library has threads, which a fork would lack
        return None
    if words[0] != python:
        return (
            words if words[0].rpartition("/")[0] == python.rpartition("/")[0] and _is_script(words[0], python) else None
        )
    if len(words) > 2 and words[1] in ("-m", "-c"):
        return words[1:]
    return words[1:] if len(words) > 1 and words[1].endswith(".py") else None


def _is_script(file: str, python: str) -> bool:
    with contextlib.suppress(OSError), open(file, "rb") as opened:  # noqa: PTH123 - pathlib takes longer than all else here
        return opened.readline().strip() == b"#!" + os.fsencode(python)
    return False


def umask_here() -> int:
    """That of this process."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def ask(channel: socket.socket, request: dict[str, Any], streams: tuple[int, int, int]) -> None:
    """Send a request with standard input, output and error."""
    content = json.dumps(request).encode()
    files = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", streams))]
    channel.sendmsg([len(content).to_bytes(_HEAD, "big")], files)
    channel.sendall(content)


def asked(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """The request and its open files. Raises EOFError where the other side went away."""
    files = array.array("i")
    head, extra, _, _ = channel.recvmsg(_HEAD, socket.CMSG_SPACE(_STREAMS * files.itemsize))
    for _, _, content in extra:
        files.frombytes(content)
    if len(head) < _HEAD:
        for file in files:
            os.close(file)
        raise EOFError
    return json.loads(_exactly(channel, int.from_bytes(head, "big"))), list(files)


def answer(channel: socket.socket, number: int) -> None:
    channel.sendall(number.to_bytes(_HEAD, "big", signed=True))


def answered(channel: socket.socket) -> int:
    """A process's number; then its exit code, or the negative number of the signal that ended it. Raises EOFError where the server has ended."""
    return int.from_bytes(_exactly(channel, _HEAD), "big", signed=True)


def _exactly(channel: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        if not (more := channel.recv(size - len(content))):
            raise EOFError
        content += more
    return content
