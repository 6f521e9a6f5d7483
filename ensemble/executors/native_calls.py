"""Calls into Ray that may wait for a minute and longer, made so that signals are answered meanwhile.

`ray.init` and `ray.shutdown` wait for a raylet that hangs, and Python handles no signal while native code waits. So they
run in a thread of their own that lives as long as the process.

`ray.init` also lays a native handler over Python's for SIGTERM, which writes a stack trace and aborts the process when
that takes more than 3 s. It must never run: the signals are blocked meanwhile, and taken from the queue of those that
wait. Ray's own processes begin a session of their own, so that what is sent to the driver's process group (by `timeout`,
by a closed terminal) does not end the workers before they have handed in their checkpoints; they still end with the driver.
"""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import TypeAlias, TypeVar

from ensemble import signals

_LOOK_AGAIN_S = 0.05
_Answer = TypeVar("_Answer")
_Calls: TypeAlias = "SimpleQueue[tuple[Callable[[], object], Future[object]]]"


class _State:
    calls: _Calls | None = None  # for the thread that makes them, which the first one starts
    abandoned = False  # a call has not come back in time, and the thread waits for it
    calling = False
    groups: int | None = None  # where the processes that a call starts write the numbers of their groups
    hooked = False


def run_interruptibly(call: Callable[[], object], patience_s: float = math.inf, groups: int | None = None) -> bool:
    """Make a call that may wait in native code; False where it has not ended within the patience.

    groups: a file descriptor on which each process that it starts writes the number of its group, on a line. A
    KeyboardInterrupt, or the end of patience, leaves the call to itself. Raises what the call raises.
    """
    if threading.current_thread() is not threading.main_thread():  # signals are handled elsewhere
        call()
        return True
    if _State.abandoned:  # the thread still waits
        return False
    done: Future[object] = Future()
    with _signals_queued(groups):
        if _State.calls is None:
            _State.calls = SimpleQueue()
            signals.start_deaf(threading.Thread(target=_make_calls, args=(_State.calls,), daemon=True))
        _State.calls.put((call, done))
        deadline = time.monotonic() + patience_s
        asked_before = signals.requested()  # then this call is the way out
        try:
            while not done.done() and time.monotonic() < deadline:
                wait([done], timeout=_LOOK_AGAIN_S)
                signal.alarm(0)  # of the native handler, should another thread have got the signal
                if (taken := _next_queued()) is not None:
                    signals.signalled(taken)
                if not asked_before:
                    signals.check()
        finally:
            if not done.done():
                _State.abandoned = True
                signals.never_wait()
                if (
                    signals.requested()
                ):  # Ray's threads go on until the process ends, without the cluster that has ended
                    threading.excepthook = _nothing_said
    if done.done():
        done.result()
    return done.done()


def _nothing_said(_: threading.ExceptHookArgs) -> None: ...


def answer_within(call: Callable[[], _Answer], seconds: float) -> _Answer:
    """What a question to the cluster is answered. Raises TimeoutError where the cluster takes longer.

    Signals are answered meanwhile where they are deferred: by going on without the answer.
    """
    done: Future[_Answer] = Future()

    def ask() -> None:
        try:
            done.set_result(call())
        except BaseException as error:  # raised where somebody waits for it
            done.set_exception(error)

    signals.start_deaf(threading.Thread(target=ask, daemon=True))
    asked_before, deadline = signals.requested(), time.monotonic() + seconds
    while not wait([done], timeout=_LOOK_AGAIN_S).done:
        if time.monotonic() > deadline or (signals.requested() and not asked_before):
            signals.never_wait()
            raise TimeoutError(f"no answer within {seconds:g} s")
    return done.result()


def _next_queued() -> int | None:
    """The number of one of the signals that wait in the queue, taken out of it."""
    if not hasattr(signal, "sigtimedwait"):  # macOS
        waiting = signal.sigpending() & set(signals.SIGNALS)
        return signal.sigwait(waiting) if waiting else None
    taken = signal.sigtimedwait(signals.SIGNALS, 0)
    return None if taken is None else taken.si_signo


@contextmanager
def _signals_queued(groups: int | None) -> Iterator[None]:
    """Inside, signals wait for whoever takes them, in this thread and in those that it starts; not in their children."""
    if not _State.hooked:
        _State.hooked = True
        os.register_at_fork(after_in_child=_begin_child)
    handlers = {number: signal.getsignal(number) for number in signals.SIGNALS}
    _State.calling, _State.groups = True, groups
    signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if handler is not None:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
        _State.calling, _State.groups = False, None


def _begin_child() -> None:
    """In a process that Ray starts: signals are its own again, and those to the driver's group or terminal do not reach it."""
    if _State.calling:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals.SIGNALS)
        os.setsid()
        if _State.groups is not None:
            with suppress(OSError):  # nobody reads it any more
                os.write(_State.groups, f"{os.getpid()}\n".encode())


def _make_calls(calls: _Calls) -> None:
    """Never ends: Linux stops Ray's own processes when the thread that started them ends (PR_SET_PDEATHSIG)."""
    while True:
        call, done = calls.get()
        try:
            done.set_result(call())
        except BaseException as error:  # raised where somebody waits for it
            done.set_exception(error)
