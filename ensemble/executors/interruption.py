"""SIGTERM and Ctrl-C as one KeyboardInterrupt, raised only where it can be.

Raising out of a signal handler while Ray's native code waits ends the process with an abort. So an executor that
waits in native code defers: the handler takes a note, and the executor asks for it between its short waits.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _State:
    deferring = False
    requested = False


def install() -> None:
    """Handle both signals from now on (main thread only)."""
    for number in SIGNALS:
        signal.signal(number, _handle)


def _handle(_signal: int, _frame: Any) -> None:
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


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Put back the handlers that a library replaces inside."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
