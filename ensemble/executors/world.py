"""The ranks that a launcher started, and the messages between them.

Ranks talk through the process group's own key-value store, which needs no shared path and, unlike collectives, lets a
rank be silent for as long as its task takes. Messages are signed for this world and of any size, see `sealed`, `handshake`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ensemble import signals
from ensemble.errors import ComputeError
from ensemble.executors.diagnosis import explain
from ensemble.executors.handshake import key_of
from ensemble.executors.sealed import launch_secret, seal, unseal

POLL_S = 0.1
_FIRST_POLL_S = 0.001
_STOP = "stop"


@contextmanager
def lost_store() -> Iterator[None]:
    """Inside, a store that is gone is a ComputeError, or the end of a process that was asked to stop."""
    from torch.distributed import DistError

    try:
        yield
    except DistError as error:
        if signals.requested():
            raise KeyboardInterrupt from None
        raise ComputeError(
            f"the store of this world does not answer any more: rank 0 or its machine has ended ({explain(error)}); finished members are kept: start the same command again"
        ) from error


class World:
    """This process's place among the ranks, and the store that they share."""

    def __init__(self, rank: int, size: int, store: Any, secret: bytes) -> None:
        self.rank, self.size = rank, size
        self._store, self._secret = store, secret
        self._sent = 0
        self._taken = [0] * size  # letters taken from each rank
        self.heard: list[float] = [time.monotonic()] * size  # when a letter of each rank was last found
        self._looked = 0.0
        if rank == 0:  # a look asks for all counters at once, so they must exist
            for other in range(1, size):
                self.count(_letters(other), 0)
                self.count(_beats(other), 0)

    @classmethod
    def joined(cls) -> World:
        """The world of the process group that this process is in. Raises ComputeError where not all ranks have the secret."""
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import _get_default_store

        rank, size, store = dist.get_rank(), dist.get_world_size(), _get_default_store()
        with lost_store():
            return cls(rank, size, store, key_of(rank, size, store, launch_secret))

    def post(self, key: str, value: Any) -> None:
        """Store a message under a key that no other message has."""
        for number, part in seal(key, value, self._secret):
            self._store.set(_part(key, number), part)

    def receive(self, key: str, readers: int = 1) -> Any:
        """The message under a key, as soon as it is there; removed once so many readers have received it.

        Raises KeyboardInterrupt where this process is asked to stop meanwhile.
        """
        pause = _FIRST_POLL_S
        # Not store.wait: Python handles no signal while torch waits.
        while not self._store.check([_part(key, 0)]):
            signals.check()
            time.sleep(pause)
            pause = min(2 * pause, POLL_S)

        def read(number: int) -> bytes:
            part: bytes = self._store.get(_part(key, number))
            if readers == 1:  # at once, so that a large message is not held twice
                self._store.delete_key(_part(key, number))
            return part

        message = unseal(key, read, self._secret)
        if readers > 1 and self.count(f"{key}/readers") == readers - 1:
            self._store.delete_key(_part(key, "readers"))
            self.discard(key)
        return message

    def discard(self, key: str) -> None:
        """Remove a message that nobody will receive."""
        number = 0
        while self._store.delete_key(_part(key, number)):
            number += 1

    def count(self, key: str, step: int = 1) -> int:
        """Sum of all steps so far: 0 at the first call with this key by any rank, 1 at the second, and so on."""
        return int(self._store.add(f"ensemble/{key}", step)) - step

    def ask_to_stop(self) -> None:
        """Ask all ranks to stop."""
        self.count(_STOP)

    def stop_asked(self) -> bool:
        """Whether a rank has asked all of them to stop."""
        return bool(self._store.check([f"ensemble/{_STOP}"]))

    def beat(self) -> None:
        """Give a sign of life, besides letters."""
        self.count(_beats(self.rank))

    def beats(self) -> list[int]:
        """On rank 0: how many signs of life each other rank has given, in their order."""
        return list(map(int, self._store.multi_get([f"ensemble/{_beats(rank)}" for rank in range(1, self.size)])))

    def gone(self, key: str, within_s: float) -> bool:
        """Whether all readers have received a message, after at most so long."""
        deadline = time.monotonic() + within_s
        while self._store.check([_part(key, 0)]):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def send(self, letter: Any) -> None:
        """Send a letter to rank 0."""
        self.post(f"letter{self.rank}/{self._sent}", letter)
        self._sent += 1
        self.count(_letters(self.rank))

    def letters(self) -> Iterator[tuple[int, Any]]:
        """On rank 0: (sender, letter) of all that came since the last time; nothing within POLL_S of a look.

        A look is one request, however many ranks there are.
        """
        if self.size == 1 or time.monotonic() - self._looked < POLL_S:
            return
        self._looked = time.monotonic()
        keys = [f"ensemble/{_letters(rank)}" for rank in range(1, self.size)]
        for rank, sent in enumerate(map(int, self._store.multi_get(keys)), start=1):
            while self._taken[rank] < sent:
                letter = self.receive(f"letter{rank}/{self._taken[rank]}")
                self._taken[rank] += 1
                self.heard[rank] = time.monotonic()
                yield rank, letter


def _beats(rank: int) -> str:
    """The counter of a rank's signs of life where all ranks train together."""
    return f"beats{rank}"


def _letters(rank: int) -> str:
    """The counter of the letters that a rank has sent."""
    return f"letters{rank}"


def _part(key: str, number: int | str) -> str:
    return f"ensemble/{key}/{number}"
