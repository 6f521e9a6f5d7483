"""What the ranks of a launched world say to each other, and the side of every rank but 0; see `launched`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ensemble import signals
from ensemble.errors import EnsembleError
from ensemble.events import Event
from ensemble.executors.base import Arrays, Ended, Train, audible
from ensemble.executors.inline import train_here
from ensemble.executors.said_again import SaidAgain
from ensemble.executors.world import World, lost_store
from ensemble.types import Checkpoint, Pulse

_LOOK_EVERY_S = 1.0
SILENCE_SAID_S = 25.0  # signs of life come every 5 s, or every second where all ranks train together


@dataclass(frozen=True, slots=True)
class Offer:
    """A round of tasks, as rank 0 offers it. arrays: the number of the round whose arrays it uses."""

    tasks: int
    train: Train
    arrays: int
    data_parallel: bool


@dataclass(frozen=True, slots=True)
class Left:
    """A rank was asked to stop and leaves its task; the checkpoint before is what it has done."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What a rank says about the task at a position of a round. A Pulse is a sign of life."""

    round: int
    position: int
    content: Event | Checkpoint | Pulse | Ended | Left | EnsembleError


def serve(world: World | None = None) -> None:
    """The side of every rank but 0: train what rank 0 has to offer, until it has no more.

    Raises KeyboardInterrupt where this process, or all of the world, is asked to stop, ComputeError where rank 0 is gone.
    """
    with signals.deferred(), lost_store():
        world = world or World.joined()
        _serve(world)


def _serve(world: World) -> None:
    readers = world.size - 1
    arrays: Arrays = {}
    have = -1
    for number in itertools.count():
        offer: Offer | None = world.receive(f"round{number}", readers)
        if offer is None:
            return
        if have != offer.arrays:
            arrays = {}  # the old ones go before the new ones come
            arrays, have = world.receive(f"arrays{offer.arrays}", readers), offer.arrays
        if offer.data_parallel:
            for position in itertools.count():
                task = world.receive(f"task{number}/{position}", readers)
                if task is None:
                    break
                with stops_all(world):
                    train_here(task, offer.train, arrays, lambda _item: None)
        else:
            while (position := world.count(f"next{number}")) < offer.tasks:
                if world.count(claim_key(number, position)) == 0:  # else rank 0 has withdrawn it
                    _serve_task(world, number, position, offer.train, arrays)
                signals.check()


def _serve_task(world: World, number: int, position: int, train: Train, arrays: Arrays) -> None:
    """Train one task and send all it yields. An EnsembleError goes to rank 0, which ends the run with it."""

    def send(content: Any) -> None:
        world.send(Letter(number, position, content))

    send(Pulse(""))
    try:
        task = world.receive(task_key(number, position))
        with stops_with(world):
            outcome = train_here(task, audible(train, send), arrays, send)
    except EnsembleError as error:
        send(error)
    except KeyboardInterrupt:
        send(Left())
        raise
    else:
        send(Left() if outcome is None else Ended.of(outcome))


@contextmanager
def stops_with(world: World) -> Iterator[None]:
    """Inside, this process is asked to stop when a rank asks all of them to."""
    with _watching(lambda: signals.ask() if world.stop_asked() else None):
        yield


@contextmanager
def hears_all(world: World, silent: Callable[[int, float], None]) -> Iterator[None]:
    """Inside, rank 0 trains together with the others, which wait for each other without a word when one is gone.

    silent: called every SILENCE_SAID_S of a silence, in another thread, with the rank and the seconds.
    """
    counts, heard, said = [0] * (world.size - 1), [time.monotonic()] * (world.size - 1), SaidAgain()

    def look() -> None:
        if world.stop_asked():
            signals.ask()
        for place, count in enumerate(world.beats() if world.size > 1 else []):
            now = time.monotonic()
            if count != counts[place]:
                counts[place], heard[place] = count, now
                said.over(place)
            elif now - heard[place] > SILENCE_SAID_S and said.due(place, SILENCE_SAID_S):
                silent(place + 1, now - heard[place])

    with _watching(look):
        yield


@contextmanager
def stops_all(world: World) -> Iterator[None]:
    """Inside, a rank that trains together with rank 0 gives signs of life, and passes a signal on to rank 0, which has the checkpoint."""

    def look() -> None:
        world.beat()
        if signals.requested():
            world.ask_to_stop()

    with _watching(look):
        yield


@contextmanager
def _watching(look: Callable[[], None]) -> Iterator[None]:
    """Inside, another thread looks every second."""
    ended = threading.Event()

    def watch() -> None:
        from torch.distributed import DistError

        try:
            while not ended.wait(_LOOK_EVERY_S) and not signals.requested():
                look()
            if signals.requested():
                look()
        except DistError:  # the store is gone: whoever waits for it says so
            return

    thread = threading.Thread(target=watch, daemon=True)
    signals.start_deaf(thread)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def task_key(number: int, position: int) -> str:
    return f"task{number}/{position}"


def claim_key(number: int, position: int) -> str:
    return f"claim{number}/{position}"
