"""`subprocess` for commands of this interpreter, whose processes are forked by a server; see the package."""

from __future__ import annotations

import atexit
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.preloaded.protocol import answered, ask, early, forkable, umask_here

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
_START = "from tests.preloaded.server import main; main()"
_BEGINS_S = 240.0  # on a busy machine
_KEPT = 2  # servers, each of which holds the memory of the imports


@dataclass(frozen=True)
class _Server:
    process: subprocess.Popen[bytes]
    path: Path
    environment: dict[str, str]  # what its modules may have read of it

    def connect(self) -> socket.socket:
        """A channel for one request, once it has imported everything."""
        until = time.monotonic() + _BEGINS_S
        while not self.path.exists():
            assert self.process.poll() is None, "the server of preloaded commands has ended"
            assert time.monotonic() < until, "the server of preloaded commands has not begun"
            time.sleep(0.02)
        channel = socket.socket(socket.AF_UNIX)
        channel.connect(str(self.path))
        return channel

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


class _Servers:
    """Those of this process, newest first."""

    def __init__(self) -> None:
        self._lock, self._all, self._folder = threading.Lock(), list[_Server](), ""

    def of(self, environment: dict[str, str]) -> _Server:
        """One whose modules were imported with the same variables."""
        wanted = early(environment)
        with self._lock:
            if not self._folder:
                self._folder = tempfile.mkdtemp(prefix="preloaded-", dir="/tmp")  # a socket's name must be short
                atexit.register(self._end, os.getpid())
            found = next((each for each in self._all if each.environment == wanted), None) or self._begin(
                wanted, environment
            )
            self._all = [found, *(each for each in self._all if each is not found)]
            for each in self._all[_KEPT:]:
                each.end()
            del self._all[_KEPT:]
            return found

    def _begin(self, wanted: dict[str, str], environment: dict[str, str]) -> _Server:
        path = Path(tempfile.mkdtemp(dir=self._folder)) / "door"
        process = subprocess.Popen(
            [sys.executable, "-c", _START, str(path)], cwd=ROOT, env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        return _Server(process, path, wanted)

    def _end(self, pid: int) -> None:
        if os.getpid() == pid:
            for each in self._all:
                each.end()
            shutil.rmtree(self._folder, ignore_errors=True)


_SERVERS = _Servers()


class Popen(subprocess.Popen[Any]):
    """`subprocess.Popen`; the process is a child of the server where it can be."""

    _channel: socket.socket | None = None

    def _execute_child(self, *given: Any) -> None:
        # The order in which the standard library hands them over (CPython 3.11 to 3.14).
        args, executable, preexec_fn, _, pass_fds, cwd, env = given[:7]
        shell, p2cread, _, _, c2pwrite, _, errwrite = given[9:16]
        _, gid, gids, uid, umask, start_new_session, process_group = given[16:23]
        environment = {os.fsdecode(k): os.fsdecode(v) for k, v in (os.environ if env is None else env).items()}
        words = [] if isinstance(args, str | bytes | os.PathLike) else [os.fsdecode(word) for word in args]
        what = forkable(words, environment, sys.executable)
        special = executable, preexec_fn, shell, gid, gids, uid
        if what is None or any(special) or pass_fds or umask != -1 or process_group != -1:
            super()._execute_child(*given)
            return
        request = {
            "words": what, "cwd": str(Path(os.fsdecode(cwd or ".")).absolute()), "environment": environment,
            "session": bool(start_new_session), "umask": umask_here(),
        }  # fmt: skip
        streams = tuple(own if own != -1 else given for own, given in ((p2cread, 0), (c2pwrite, 1), (errwrite, 2)))
        self._channel = _SERVERS.of(environment).connect()
        ask(self._channel, request, streams)
        self.pid = answered(self._channel)
        self._child_created = True
        self._close_pipe_fds(*given[10:16])

    def _ended(self, timeout: float | None) -> bool:
        """Whether the process has ended within so many seconds."""
        assert self._channel is not None
        with self._waitpid_lock:
            if self.returncode is None and select.select([self._channel], [], [], timeout)[0]:
                with self._channel:
                    self.returncode = answered(self._channel)
        return self.returncode is not None

    def _wait(self, timeout: float | None) -> int | None:
        if self._channel is None:
            return super()._wait(timeout)
        if not self._ended(timeout):
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def _internal_poll(self, *given: Any, **more: Any) -> int | None:
        if self._channel is None:
            return super()._internal_poll(*given, **more)
        if self.returncode is None:
            self._ended(0.0)
        return self.returncode


def run(
    *words: Any,
    input: Any = None,
    capture_output: bool = False,
    timeout: float | None = None,
    check: bool = False,
    **more: Any,
) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run`."""
    if capture_output:
        more |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        more["stdin"] = subprocess.PIPE
    with Popen(*words, **more) as process:
        try:
            out, errors = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, errors)
    if check:
        done.check_returncode()
    return done


def search_path(environment: Mapping[str, str]) -> str:
    """A folder with `python` and `ensemble` for shells with this environment; what they are given is handed to a server."""
    server = _SERVERS.of(dict(environment))
    server.connect().close()
    folder = server.path.with_name("bin")
    if not folder.exists():
        folder.mkdir()
        for name in ("python", "ensemble"):
            file = folder / name
            file.write_text(
                _TYPED.format(
                    sys.executable, str(Path(__file__).parent), str(server.path), server.environment, str(BIN / name)
                )
            )
            file.chmod(0o755)
    return str(folder)


_TYPED = """\
#!{} -IS
import sys
sys.path.insert(0, {!r})
from typed import main
main({!r}, {!r}, {!r})
"""
