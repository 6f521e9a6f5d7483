"""SIGTERM and Ctrl-C as one KeyboardInterrupt, raised only where it can be.

Raising out of a signal handler while Ray's native code waits ends the process with an abort. So an executor that
waits in native code defers: the handler takes a note, and the executor asks for it between its short waits. What cannot
wait in short turns, Ray's start and end, is called in another thread.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, TypeAlias

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_LOOK_AGAIN_S = 0.1
_Calls: TypeAlias = "SimpleQueue[tuple[Callable[[], object], Future[object]]]"


class _State:
    deferring = False
    requested = False
    calls: _Calls | None = None  # for the thread that makes them, which the first one starts


def install() -> None:
    """Handle both signals from now on (main thread only)."""
    for number in SIGNALS:
        signal.signal(number, _handle)


def _handle(_signal: int, _frame: Any) -> None:
    signal.alarm(0)  # of Ray's native handler: see run_interruptibly
    if _State.deferring and not _State.requested:
        _State.requested = True
        return
    raise KeyboardInterrupt  # a second Ctrl-C does not wait


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, the first signal waits for `check`."""
    _State.deferring, _State.requested = True, False
    try:
        yield
    finally:
        _State.deferring = False


def check() -> None:
    """Raise the KeyboardInterrupt that a signal asked for, if one did."""
    if _State.requested:
        _State.requested = False
        raise KeyboardInterrupt


def run_interruptibly(call: Callable[[], object], patience_s: float = math.inf) -> None:
    """Make a call that may wait in native code, and answer signals meanwhile: it runs in another thread.

    For `ray.init` and `ray.shutdown`, which wait a minute and longer for a raylet that hangs. `ray.init` also lays a
    native handler over Python's for SIGTERM, which prints a trace and aborts the process 3 s later; afterwards
    Python's handlers are put back. A KeyboardInterrupt, or the end of patience, leaves the call to itself. Raises what
    the call raises.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are handled elsewhere
        call()
        return
    done: Future[object] = Future()
    if _State.calls is None:
        _State.calls = SimpleQueue()
        threading.Thread(target=_make_calls, args=(_State.calls,), daemon=True).start()
    _State.calls.put((call, done))
    deadline = time.monotonic() + patience_s
    try:
        # Short waits: the signal may come to a thread that does not wake this one.
        while not wait([done], timeout=_LOOK_AGAIN_S).done and time.monotonic() < deadline:
            pass
    finally:
        for number in SIGNALS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)
    if done.done():
        done.result()


def _make_calls(calls: _Calls) -> None:
    """Never ends: Linux stops Ray's own processes when the thread that started them ends (PR_SET_PDEATHSIG)."""
    while True:
        call, done = calls.get()
        try:
            done.set_result(call())
        except BaseException as error:  # raised where somebody waits for it
            done.set_exception(error)
