"""Messages through torch's real store, from small ones to results of a ResNet-50."""

from __future__ import annotations

import time
import tracemalloc
from typing import Any

import numpy as np
import pytest

from ensemble.errors import ComputeError
from ensemble.executors.sealed import PART_BYTES
from ensemble.executors.world import POLL_S, World
from tests.executors.worlds import in_thread, make_worlds


def keys(world: World) -> int:
    """How many values the store holds."""
    count: int = world._store.num_keys()
    return count


@pytest.mark.parametrize("megabytes", [20, 130])
def test_messages_above_the_limit_of_the_store(megabytes: int) -> None:
    """torch's TCPStore refuses values above 8 MiB. Nothing of a message that was received stays in the store."""
    first, second = make_worlds(2)
    before = keys(first)
    array = np.arange(megabytes * 1_000_000 // 4, dtype=np.float32)
    first.post("weights", {"array": array, "content": bytes(3_000_000)})
    found = second.receive("weights")
    assert found["array"].dtype == np.float32
    assert np.array_equal(found["array"], array)
    assert found["content"] == bytes(3_000_000)
    assert keys(first) == before


def test_a_large_message_is_held_once_by_its_receiver() -> None:
    first, second = make_worlds(2)
    first.post("weights", np.zeros(30_000_000, np.uint8))
    tracemalloc.start()
    try:
        assert len(second.receive("weights")) == 30_000_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30_000_000 + 10 * PART_BYTES


def test_a_message_stays_until_its_last_reader_has_it() -> None:
    worlds = make_worlds(4)
    before = keys(worlds[0])
    worlds[0].post("arrays0", np.zeros(2_000_000, np.uint8))
    for world in worlds[1:]:
        deadline = time.monotonic() + 10
        while keys(world) <= before:  # what one client sets is not yet there for another as soon as it has been sent
            assert time.monotonic() < deadline, "gone before its last reader has it"
            time.sleep(0.01)
        assert len(world.receive("arrays0", readers=3)) == 2_000_000
    assert keys(worlds[0]) == before


def test_a_message_can_be_discarded() -> None:
    world, _ = make_worlds(2)
    before = keys(world)
    world.post("task0/0", bytes(2_000_000))
    world.discard("task0/0")
    world.discard("task0/1")  # never posted
    assert keys(world) == before


def test_a_reader_waits_for_its_message() -> None:
    first, second = make_worlds(2)
    found: list[Any] = []
    thread = in_thread(lambda: found.append(second.receive("round0")))
    time.sleep(0.3)
    assert not found
    first.post("round0", "there")
    thread.join(5)
    assert found == ["there"]


def test_letters_arrive_in_order_and_once() -> None:
    worlds = make_worlds(3)
    worlds[1].send("a")
    worlds[2].send(np.zeros(1_500_000, np.uint8))
    worlds[1].send("b")
    found = list(worlds[0].letters())
    assert [(rank, letter) for rank, letter in found if rank == 1] == [(1, "a"), (1, "b")]
    assert sum(rank == 2 for rank, _ in found) == 1
    time.sleep(POLL_S)
    assert list(worlds[0].letters()) == []
    worlds[2].send("c")
    time.sleep(POLL_S)
    assert list(worlds[0].letters()) == [(2, "c")]


def test_looking_for_letters_is_one_request_at_most_every_tenth_of_a_second() -> None:
    """Rank 0 looks whenever its own task says something, which a stack of many members does often."""
    world, *_ = make_worlds(16)

    class Counted:
        requests = 0

        def __getattr__(self, name: str) -> Any:
            Counted.requests += 1
            return getattr(real, name)

    real, world._store = world._store, Counted()
    started = time.monotonic()
    while time.monotonic() - started < 3.5 * POLL_S:
        assert list(world.letters()) == []
    assert 3 <= Counted.requests <= 4


def test_a_rank_with_another_secret_is_refused() -> None:
    first, second = make_worlds(2)
    stranger = World(0, 1, first._store, b"another secret")
    stranger.post("round0", bytes(3_000_000))
    with pytest.raises(ComputeError, match="ENSEMBLE_LAUNCH_SECRET"):
        second.receive("round0")
