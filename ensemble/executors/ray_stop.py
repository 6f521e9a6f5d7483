"""How a driver asks its tasks on Ray to stop: by a key in the cluster's own key-value store, for which workers look.

Signals reach the driver alone. A task that is asked writes a checkpoint after its next step and ends (`signals`).
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import RayError
from ray.experimental import internal_kv

from ensemble import signals
from ensemble.executors.native_calls import run_interruptibly

_LOOK_EVERY_S = 1.0
_PATIENCE_S = 3.0  # with a store that does not answer: then nobody can be asked


class StopKey:
    """The key of one executor, on the driver's side."""

    def __init__(self) -> None:
        self.name = f"ensemble-stop-{uuid.uuid4().hex}"

    def post(self) -> None:
        """Ask all tasks that look for this key to stop."""
        run_interruptibly(lambda: internal_kv._internal_kv_put(self.name, b"1"), _PATIENCE_S)

    def remove(self) -> None:
        """Leave nothing in a cluster that goes on."""
        run_interruptibly(lambda: internal_kv._internal_kv_del(self.name), _PATIENCE_S)


@contextmanager
def stops_by(key: str) -> Iterator[None]:
    """Inside, this worker process is asked to stop when its driver has posted the key."""
    ended, lock = threading.Event(), threading.Lock()

    def look() -> None:
        while not ended.wait(_LOOK_EVERY_S):
            try:
                posted = internal_kv._internal_kv_exists(key)
            except RayError:  # the head is away; it may come back
                continue
            if posted:
                with lock:
                    if not ended.is_set():
                        signals.ask()
                return

    signals.start_deaf(threading.Thread(target=look, daemon=True))
    try:
        yield
    finally:
        with lock:
            ended.set()
        signals.clear()
