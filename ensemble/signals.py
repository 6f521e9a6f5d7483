"""Signals that ask a run to stop (SIGTERM, SIGINT, SIGHUP), as one KeyboardInterrupt that is raised only where it can be.

    signals.install()                 # in the program's first moments
    with signals.deferred():          # where training must write its state first, or native code waits
        ...
        signals.check()               # raises the KeyboardInterrupt
    signals.leave(75)

Raising out of a signal handler while Ray's native code waits ends the process with an abort, and raising in the midst of
a training step loses what was trained since the last checkpoint. So inside `deferred` the handler takes a note. Training
asks `requested` after every step: it then writes a checkpoint and stops. In workers, which no signal reaches, the note is
taken by `ask` when their driver sends word.

This module is imported before anything else and so imports only what is quick.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from ensemble.errors import EXIT_DEGRADED, EXIT_INTERRUPTED

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GRACE_S = 12.0  # for the tasks under way to hand in their checkpoints; launchers kill after 20 s and more
# Signals within this long are one stop told several times: `timeout` and a terminal signal a process and its group,
# and torchrun passes on what its processes have got already.
_ONE_STOP_S = 1.0
_COMES_AGAIN_S = 0.02
_OWN_FILES = os.path.join(os.path.dirname(__file__), "")  # noqa: PTH118, PTH120  # pathlib is not quick to import


class _State:
    asked: float | None = None  # when the first signal came
    stops = 0  # how often a stop was asked for, at least _ONE_STOP_S apart
    last = 0.0
    deferring = 0
    waits = False  # the KeyboardInterrupt could not be raised where the signal came, and will be in a moment
    sent = False  # the signal that comes now is our own, for that
    stuck = False  # a native call was given up
    hook_before: Callable[[Any], object] = sys.__unraisablehook__


def install() -> None:
    """Handle the signals from now on (main thread only). What `nohup` has switched off stays so."""
    clear()
    _State.deferring = 0
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _handle)
    if sys.unraisablehook is not _unraisable:
        _State.hook_before = sys.unraisablehook
        sys.unraisablehook = _unraisable


def _unraisable(what: Any) -> None:
    """A signal that came while Python ran a finalizer: its KeyboardInterrupt is dropped there, with a trace on stderr. Raise it later."""
    if not (issubclass(what.exc_type, KeyboardInterrupt) and requested()):
        _State.hook_before(what)
        return
    _come_again()


def _come_again() -> None:
    """Have the signal that is being handled come once more, in a moment."""
    _State.waits = True
    # No threading.Thread, which takes locks that this very thread may hold.
    _thread.start_new_thread(_signal_again, (threading.main_thread().ident,))


def _signal_again(main: int | None) -> None:
    assert main is not None, "the main thread runs"
    time.sleep(_COMES_AGAIN_S)
    _State.sent = True
    with suppress(ProcessLookupError):
        signal.pthread_kill(main, signal.SIGTERM)


def _handle(_signal: int, frame: FrameType | None) -> None:
    signal.alarm(0)  # of Ray's native handler: see executors/native_calls.py
    if _State.sent:  # the same stop once more
        waits, _State.sent, _State.waits = _State.waits, False, False
        if waits and not _State.deferring:
            _raise(frame)
        return
    now = time.monotonic()
    again = _State.asked is not None and now - _State.last < _ONE_STOP_S
    _State.last = now
    if again:
        return
    ask()
    _State.stops += 1
    if not _State.deferring:
        _raise(frame)
    if _State.stops > 2:
        leave(EXIT_INTERRUPTED)


def _raise(frame: FrameType | None) -> None:
    """Raise the KeyboardInterrupt; where code of others is being imported, as soon as that is done, unless a second signal came.

    Native code that runs Python while it is loaded, as PyTorch's does, aborts the process where that raises.
    """
    if _State.stops < 2 and _is_importing(frame):
        _come_again()
        return
    _State.waits = False
    raise KeyboardInterrupt


def _is_importing(frame: FrameType | None) -> bool:
    """True where an import, which code of this program may have begun, is nearer to this frame than any code of this program."""
    while frame is not None and not frame.f_code.co_filename.startswith(_OWN_FILES):
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def start_deaf(thread: threading.Thread) -> None:
    """Start a thread that the system gives no signal to: a native handler that a library lays over ours would run there."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def be_deaf() -> None:
    """The same, said in a thread of a pool, as its initializer."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def signalled(number: int) -> None:
    """As if the signal had come to Python's handler: for one that was taken from the queue of blocked signals."""
    _handle(number, None)


def ask() -> None:
    """Ask this process to stop, as the first signal does."""
    _State.asked = _State.asked or time.monotonic()


def clear() -> None:
    """Forget that a stop was asked for."""
    _State.asked, _State.stops, _State.waits = None, 0, False


def requested() -> bool:
    """Whether this process has been asked to stop."""
    return _State.asked is not None


def came() -> bool:
    """Whether a signal came to this very process, not word from its driver."""
    return _State.stops > 0


def waited_s() -> float:
    """Seconds since a stop was asked for; infinite where a second signal says that nothing is to be waited for."""
    if _State.stops > 1:
        return float("inf")
    return 0.0 if _State.asked is None else time.monotonic() - _State.asked


@contextmanager
def deferred() -> Iterator[None]:
    """Inside, a signal waits for `check`, at the latest for the end of this block.

    Where nobody has installed the handlers, as in a notebook, Ctrl-C is handled so inside.
    """
    _State.deferring += 1
    try:
        with _interrupts_noted():
            yield
            if _State.deferring == 1:
                check()
    finally:
        _State.deferring -= 1


@contextmanager
def _interrupts_noted() -> Iterator[None]:
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    clear()
    signal.signal(signal.SIGINT, _handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        clear()


def check() -> None:
    """Raise the KeyboardInterrupt that a signal asked for, if one did."""
    if requested():
        raise KeyboardInterrupt


@contextmanager
def ending_process() -> Iterator[None]:
    """Around a program's main: it ends with 75 where a signal ended it, in whatever words that came out.

    Only what was finished (0, or 4 with members missing) keeps its exit code. An `ended` that hangs is not waited for.
    """
    code: object = 0
    try:
        yield
    except SystemExit as error:
        code = error.code
    except BaseException as error:
        if not requested() and not isinstance(error, KeyboardInterrupt):
            raise
        code = EXIT_INTERRUPTED
    ignore()
    if code not in (None, 0, EXIT_DEGRADED) and (requested() or code == EXIT_INTERRUPTED):
        leave(EXIT_INTERRUPTED)
    if _State.stuck:
        leave(code if isinstance(code, int) else 0 if code is None else 1)
    raise SystemExit(code)


def never_wait() -> None:
    """End with `leave`: a native call was given up, or a native thread lives on, and Python's own end would hang or abort."""
    _State.stuck = True


def ignore() -> None:
    """Let no further signal disturb the end of the process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def leave(code: int) -> NoReturn:
    """End the process at once: where a signal came in the midst of an import, or Ray hangs, Python's own end would not do."""
    ignore()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # the terminal may be closed, or never have been
            stream.flush()
    os._exit(code)
