"""Long work says where it is: a line at least every ten seconds, to whoever listens.

    with heard(print):                                             # a door, once
        with working("reading pictures", len(files)) as done:      # whoever does the work
            for file in files: read(file); done()                  # from any thread

Where nobody listens nothing is said, and no thread is started.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ensemble import signals

EVERY_S = 10.0

Say = Callable[[str], None]
_listeners: list[tuple[Say | None]] = []


@contextmanager
def heard(say: Say | None) -> Iterator[None]:
    """Inside, what long work has to say goes to this listener; None: to nobody."""
    entry = (say,)
    _listeners.append(entry)
    try:
        yield
    finally:
        # Its own entry, which need not be the last: a view is closed when its run ends, whoever began to listen since.
        _listeners[:] = [each for each in _listeners if each is not entry]


@contextmanager
def working(what: str, total: int | None = None) -> Iterator[Callable[[], None]]:
    """Inside is long work; what it gives notes that one more of `total` pieces is done."""
    (say,) = _listeners[-1] if _listeners else (None,)
    if say is None:
        yield _nothing
        return
    counter, ended = itertools.count(1), threading.Event()
    done = [0]

    def one_more() -> None:
        done[0] = next(counter)  # the next number is taken by one thread alone

    def speak() -> None:
        began = time.monotonic()
        while not ended.wait(EVERY_S):
            pieces = "" if total is None else f"{done[0]:,} of {total:,}, "
            with suppress(OSError, ValueError):  # nobody reads any more
                say(f"{what}: {pieces}{time.monotonic() - began:.0f} s so far")

    thread = threading.Thread(target=speak, name="long-work", daemon=True)
    signals.start_deaf(thread)
    try:
        yield one_more
    finally:
        ended.set()
        thread.join()


def _nothing() -> None: ...
