"""The process that has imported the program, and what a child of it does. Started by `client.py`: python -c CODE SOCKET.

It runs no thread and computes nothing, so that a fork is whole. It ends when its standard input does, which is held open by
the process that started it; children that are still there go on.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import random
import runpy
import select
import signal
import socket
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.preloaded.protocol import answer, asked

# What training, judging and reporting import. Not Ray and W&B: they are quick to import, and read variables that tests set.
MODULES = (
    "torch", "accelerate", "PIL.Image", "ensemble.commands.main", "ensemble.run.compose", "ensemble.tracking.console",
    "ensemble.training.loop", "ensemble.training.set_votes", "ensemble.data.prepared",
)  # fmt: skip


def serve(path: str) -> list[str] | None:
    """Fork a child for each request until the standard input ends. Returns the words in children, and at the end None."""
    for name in MODULES:
        importlib.import_module(name)
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, f"importing {MODULES} has started {len(threads) - 1} threads, and a fork would lack them"
    gc.freeze()  # or the first collection of each child copies all of it
    begins = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in begins:  # which a terminal or a test sends to whole groups
        signal.signal(number, signal.SIG_IGN)
    door = socket.socket(socket.AF_UNIX)
    door.bind(f"{path}.begun")
    door.listen(64)
    Path(f"{path}.begun").rename(path)
    children: dict[int, socket.socket] = {}  # by the file that tells of their end
    while True:
        ready, _, _ = select.select([0, door, *children], [], [])
        for ended in [each for each in ready if each in children]:
            status = os.waitid(os.P_PIDFD, ended, os.WEXITED)
            os.close(ended)
            with children.pop(ended) as channel, contextlib.suppress(ConnectionError):
                answer(channel, -status.si_status if status.si_code != os.CLD_EXITED else status.si_status)
        if 0 in ready:
            return None
        if door not in ready:
            continue
        channel, _ = door.accept()
        try:
            request, files = asked(channel)
        except (EOFError, ConnectionError):
            channel.close()
            continue
        if (child := os.fork()) == 0:
            for number, handler in begins.items():
                signal.signal(number, handler)
            for each in (door, channel, *children.values()):
                each.close()
            for each in children:
                os.close(each)
            _take(request, files)
            return request["words"]
        for file in files:
            os.close(file)
        with contextlib.suppress(ConnectionError):
            answer(channel, child)
        children[os.pidfd_open(child)] = channel


def _take(request: Mapping[str, Any], files: list[int]) -> None:
    """In a child: the streams, environment and place that it was asked to have, and nothing of the server's."""
    for stream, file in enumerate(files):
        os.dup2(file, stream)
    for file in files:
        os.close(file)
    if request["session"]:
        os.setsid()
    os.umask(request["umask"])
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    like = sys.__stdin__
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(
        io.BufferedReader(io.FileIO(0, closefd=False)), like.encoding, like.errors
    )
    for number, name in ((1, "stdout"), (2, "stderr")):
        like = getattr(sys, f"__{name}__")
        raw = io.FileIO(number, "w", closefd=False)
        raw.name = f"<{name}>"
        lines = number == 2 or raw.isatty()
        buffer = raw if unbuffered else io.BufferedWriter(raw)
        stream = io.TextIOWrapper(
            buffer, like.encoding, like.errors, line_buffering=lines, write_through=unbuffered
        )  # fmt: skip
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    random.seed()
    sys.modules["numpy"].random.seed()


def execute(words: list[str]) -> None:
    """What the interpreter does with these words behind its own name."""
    sys.orig_argv = [sys.executable, *words]
    kind, *rest = words
    if kind == "-m":
        sys.argv = ["-m", *rest[1:]]
        sys.path[0] = str(Path.cwd())
        runpy._run_module_as_main(rest[0])
        return
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if kind == "-c":
        code, sys.argv, sys.path[0] = compile(rest[0], "<string>", "exec"), ["-c", *rest[1:]], ""
    else:
        code, sys.argv, sys.path[0] = (
            compile(Path(kind).read_bytes(), kind, "exec"),
            words,
            str(Path(kind).resolve().parent),
        )
        main.__file__ = kind
    exec(code, main.__dict__)


def main() -> None:
    """Serve; in a child, execute the command, whose end is the end of this interpreter."""
    words = serve(sys.argv[1])
    if words is not None:
        execute(words)
