"""Ranks make sure of each other: another secret is said on every rank, and another world's messages are not taken."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from torch.distributed import TCPStore

from ensemble.errors import ComputeError
from ensemble.executors import handshake
from ensemble.executors.handshake import agree, key_of
from ensemble.executors.world import World

SECRET = b"of all machines of a user"


def stores(size: int) -> list[Any]:
    first = TCPStore("127.0.0.1", 0, size, True, wait_for_workers=False)
    return [first, *(TCPStore("127.0.0.1", first.port, size, False, wait_for_workers=False) for _ in range(size - 1))]


def all_ranks(size: int, call: Callable[[int, Any], bytes]) -> list[Any]:
    """What each rank comes to: its key, or the error that it raises."""
    found: list[Any] = [None] * size

    def rank(number: int, store: Any) -> None:
        try:
            found[number] = call(number, store)
        except ComputeError as error:
            found[number] = str(error)

    kept = stores(size)  # the first one is the server
    threads = [threading.Thread(target=rank, args=pair, daemon=True) for pair in enumerate(kept)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    return found


def test_all_ranks_get_one_key_and_every_world_another() -> None:
    first = all_ranks(3, lambda rank, store: agree(rank, 3, store, SECRET))
    second = all_ranks(3, lambda rank, store: agree(rank, 3, store, SECRET))
    assert len({*first}) == len({*second}) == 1
    assert isinstance(first[0], bytes)
    assert first[0] != second[0]
    assert all_ranks(1, lambda rank, store: agree(rank, 1, store, SECRET))[0]


@pytest.mark.parametrize("other", [0, 1, 2])
def test_another_secret_is_said_on_every_rank_within_seconds(other: int) -> None:
    started = time.monotonic()
    found = all_ranks(3, lambda rank, store: agree(rank, 3, store, b"another" if rank == other else SECRET))
    assert time.monotonic() - started < 10
    assert all(isinstance(word, str) and "another secret" in word for word in found), found
    assert all("ENSEMBLE_LAUNCH_SECRET" in word for word in found)
    if other:
        assert all(f"rank {other} (" in word for word in found)


@pytest.mark.parametrize("other", [0, 2])
def test_a_rank_without_a_usable_secret_is_said_on_every_rank_within_seconds(
    other: int,
) -> None:
    """Too short a secret, or a key file that others may read: that rank leaves at once, and the others do not wait for it."""

    def secret_of(rank: int) -> bytes:
        if rank == other:
            raise ComputeError("its own message")
        return SECRET

    started = time.monotonic()
    found = all_ranks(3, lambda rank, store: key_of(rank, 3, store, lambda: secret_of(rank)))
    assert time.monotonic() - started < 10
    assert found.pop(other) == "its own message"
    assert all(f"rank {other} (" in word and "has no secret that can be used" in word for word in found), found


def test_a_rank_that_does_not_answer_is_named() -> None:
    found = all_ranks(3, lambda rank, store: agree(rank, 3, store, SECRET, 1.0) if rank != 2 else b"")
    assert all("rank 2" in word and "does not answer" in word for word in found[:2]), found


def test_what_an_earlier_world_has_signed_is_not_taken() -> None:
    """Also not where the whole store of the earlier one is written into the new one."""
    old = stores(2)
    other = threading.Thread(target=agree, args=(1, 2, old[1], SECRET), daemon=True)
    other.start()
    key = agree(0, 2, old[0], SECRET)
    other.join(10)
    World(0, 2, old[0], key).post("round0", "a task of yesterday")
    names = [name.lstrip("/") for name in old[0].list_keys() if "ensemble/" in name]
    recorded = {name: old[0].get(name) for name in names}
    assert any("round0" in name for name in recorded)
    new = stores(2)
    for name, value in recorded.items():
        new[0].set(name, value)
    with pytest.raises(ComputeError, match=r"another secret|does not answer"):
        agree(1, 2, new[1], SECRET, 2.0)
    fresh = stores(2)
    stranger = World(0, 2, fresh[0], key)
    stranger.post("round0", "a task of yesterday")
    with pytest.raises(ComputeError, match="not signed with its secret"):
        World(1, 2, fresh[1], b"the key of this world").receive("round0")


def test_the_name_of_a_machine_carries_nothing_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake.platform, "node", lambda: "evil\x1b[2J\n\u202ehost")
    found = all_ranks(2, lambda rank, store: agree(rank, 2, store, SECRET if rank else b"another"))
    assert all(isinstance(word, str) and word.isprintable() for word in found), found
