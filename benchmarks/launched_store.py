"""How fast messages pass between launched ranks, through torch's real store, and what a look for letters costs.

    python -m benchmarks.launched_store [--megabytes 130]

Two processes on this machine: rank 0, with the store's server in a thread of its own as torchrun's agent has it, and a
receiver. Prints a table; docs/log.md keeps what was measured.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from typing import Any

import numpy as np

from ensemble.executors import world as worlds
from ensemble.executors.world import World

_SECRET = b"of this benchmark"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=130)
    parser.add_argument("--repeats", type=int, default=3)
    words = parser.parse_args()
    from torch.distributed import TCPStore

    server = TCPStore("127.0.0.1", 0, 2, True, wait_for_workers=False)
    here = World(0, 2, server, _SECRET)
    context = multiprocessing.get_context("spawn")
    receiver = context.Process(target=_receive, args=(server.port, words.repeats))
    receiver.start()
    here.receive("ready")
    print(f"{'':24}post MB/s  receive MB/s")
    for name, value in _values(words.megabytes).items():
        speeds = [_send(here, f"{name}{i}", value, words.megabytes) for i in range(words.repeats)]
        post, receive = (sorted(column)[words.repeats // 2] for column in zip(*speeds, strict=True))
        print(f"{name:24}{post:9.0f}{receive:14.0f}")
    receiver.join()
    for ranks in (4, 64):
        print(f"a look for letters of {ranks - 1:2} ranks: {_look_us(server, ranks):.0f} us")


def _values(megabytes: int) -> dict[str, Any]:
    size = megabytes * 1_000_000
    return {
        "one uint8 array": np.random.default_rng(0).integers(0, 256, size, np.uint8),
        "float32 weights of 100": [np.zeros(size // 400, np.float32) for _ in range(100)],
        "int64 rows": np.arange(size // 8) % 60_000,
    }


def _send(here: World, key: str, value: Any, megabytes: int) -> tuple[float, float]:
    started = time.perf_counter()
    here.post(key, value)
    post = time.perf_counter() - started
    here.post(f"{key}/go", None)
    return megabytes / post, megabytes / here.receive(f"{key}/seconds")


def _receive(port: int, repeats: int) -> None:
    from torch.distributed import TCPStore

    there = World(1, 2, TCPStore("127.0.0.1", port, 2, False, wait_for_workers=False), _SECRET)
    there.post("ready", None)
    for name in _values(1):
        for i in range(repeats):
            there.receive(f"{name}{i}/go")
            started = time.perf_counter()
            there.receive(f"{name}{i}")
            there.post(f"{name}{i}/seconds", time.perf_counter() - started)


def _look_us(server: Any, ranks: int, looks: int = 200) -> float:
    here = World(0, ranks, server, _SECRET)
    worlds.POLL_S = 0.0  # every look, not one in a tenth of a second
    started = time.perf_counter()
    for _ in range(looks):
        list(here.letters())
    return (time.perf_counter() - started) / looks * 1e6


if __name__ == "__main__":
    main()
