"""Tasks in a world of processes that torchrun or `accelerate launch` started: the `accelerate` executor.

Rank 0 drives: it alone asks the method, writes the run folder and prints. The other ranks `serve`: they take tasks,
train them, and send back what comes of it. How they share the work is compute.parallel:

members  A queue: each rank takes the next task when it is done with one. Networks are not wrapped, or Accelerate would
         average the gradients of different members and make them all the same.
data     All ranks train each task together, each on its part of every batch, gradients averaged.

Ranks talk through the process group's own key-value store, which needs no shared path and, unlike collectives, lets a
rank be silent for as long as its task takes. What is sent is pickled and signed, see `sealed`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from ensemble.errors import EnsembleError
from ensemble.executors.base import Arrays, Emit, Outcome, Train, Wanted, always
from ensemble.executors.inline import train_here
from ensemble.executors.sealed import launch_secret, seal, unseal
from ensemble.types import Task

_FOREVER = timedelta(days=30)
_POLL_S = 0.1


class World:
    """This process's place among the ranks, and their mail."""

    def __init__(self) -> None:
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import _get_default_store

        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._store: Any = _get_default_store()
        self._secret = launch_secret()

    def post(self, key: str, value: Any) -> None:
        """Lay something down under a key."""
        self._store.set(f"ensemble/{key}", seal(key, value, self._secret))

    def wait(self, key: str) -> Any:
        """What lies under a key, as soon as it is there."""
        self._store.wait([f"ensemble/{key}"], _FOREVER)
        return unseal(key, self._store.get(f"ensemble/{key}"), self._secret)

    def take(self, key: str) -> Any:
        """What lies under a key, removed; None where there is nothing yet."""
        if not self._store.check([f"ensemble/{key}"]):
            return None
        found = self.wait(key)
        self._store.delete_key(f"ensemble/{key}")
        return found

    def count(self, key: str) -> int:
        """0 at the first call with this key by any rank, 1 at the second, and so on."""
        return int(self._store.add(f"ensemble/{key}", 1)) - 1


class LaunchedExecutor:
    """Rank 0's side; see the module."""

    name = "accelerate"

    def __init__(self, data_parallel: bool) -> None:
        self._world, self._data_parallel = World(), data_parallel
        self.slots = 1 if data_parallel else self._world.size
        self._round = 0
        self._shared: int | None = None
        self._heard = [0] * self._world.size  # letters taken from each rank

    def run(
        self,
        tasks: Sequence[Task],
        train: Train,
        arrays: Arrays,
        emit: Emit,
        wanted: Wanted = always,  # noqa: ARG002 - not asked yet
    ) -> Iterator[Outcome]:
        """See Executor.run."""
        if self._shared != id(arrays):
            self._world.post(f"arrays{self._round}", dict(arrays))
            self._shared, self._arrays_round = id(arrays), self._round
        number, self._round = self._round, self._round + 1
        self._world.post(f"round{number}", (list(tasks), train, self._arrays_round, self._data_parallel))
        if self._data_parallel:
            for task in tasks:
                yield train_here(task, train, arrays, emit)
            return
        waiting = {task.id: task for task in tasks}
        while waiting:
            mine = self._world.count(f"next{number}")
            if mine < len(tasks):
                yield from self._own(tasks[mine], train, arrays, emit, waiting)
            else:
                time.sleep(_POLL_S)
            yield from self._mail(emit, waiting)

    def _own(self, task: Task, train: Train, arrays: Arrays, emit: Emit, waiting: dict[str, Task]) -> Iterator[Outcome]:
        """Train one task here, and pass on what the others say in between."""
        ended: list[Outcome] = []

        def emit_all(item: Any) -> None:
            emit(item)
            ended.extend(self._mail(emit, waiting))

        outcome = train_here(task, train, arrays, emit_all)
        del waiting[task.id]
        yield from ended
        yield outcome

    def _mail(self, emit: Emit, waiting: dict[str, Task]) -> Iterator[Outcome]:
        """Everything that lies there from the other ranks."""
        for rank in range(1, self._world.size):
            while (letter := self._world.take(f"mail{rank}/{self._heard[rank]}")) is not None:
                self._heard[rank] += 1
                kind, content = letter
                if kind == "error":
                    raise content
                if kind == "outcome":
                    del waiting[content.task.id]
                    yield content
                else:
                    emit(content)

    def close(self) -> None:
        """Send the other ranks home."""
        self._world.post(f"round{self._round}", None)


def serve() -> None:
    """The side of every rank but 0: train what rank 0 has to offer, until it has no more."""
    world = World()
    arrays: Arrays = {}
    have, letters, number = -1, 0, 0
    while (offered := world.wait(f"round{number}")) is not None:
        tasks, train, arrays_round, data_parallel = offered
        if have != arrays_round:
            arrays, have = world.wait(f"arrays{arrays_round}"), arrays_round

        def send(kind: str, content: Any) -> None:
            nonlocal letters
            world.post(f"mail{world.rank}/{letters}", (kind, content))
            letters += 1

        if data_parallel:
            for task in tasks:
                train_here(task, train, arrays, lambda _item: None)
        else:
            while (mine := world.count(f"next{number}")) < len(tasks):
                try:
                    send("outcome", train_here(tasks[mine], train, arrays, lambda item: send("event", item)))
                except EnsembleError as error:
                    send("error", error)
                    return
        number += 1
