"""Ranks in one process, joined by real stores."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from torch.distributed import TCPStore

from ensemble.errors import EnsembleError
from ensemble.executors.launched import LaunchedExecutor
from ensemble.executors.serving import serve
from ensemble.executors.world import World

SECRET = b"a secret of these tests"


def make_worlds(size: int) -> list[World]:
    """One World per rank, each with a TCPStore of its own; rank 0's is the server."""
    server = TCPStore("127.0.0.1", 0, size, True, wait_for_workers=False)
    stores: list[Any] = [server]
    stores += [TCPStore("127.0.0.1", server.port, size, False, wait_for_workers=False) for _ in range(size - 1)]
    return [World(rank, size, store, SECRET) for rank, store in enumerate(stores)]


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


@contextmanager
def launched(size: int, data_parallel: bool = False, hang_timeout_s: float = 60.0) -> Iterator[LaunchedExecutor]:
    """The executor of a world whose other ranks serve; at the end they must leave when they are sent home."""
    worlds = make_worlds(size)

    def rank(world: World) -> None:
        with suppress(EnsembleError, KeyboardInterrupt):  # its process would end with it, as rank 0's does
            serve(world)

    threads = [in_thread(partial(rank, world)) for world in worlds[1:]]
    executor = LaunchedExecutor(data_parallel, hang_timeout_s, worlds[0])
    yield executor
    executor.close()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
