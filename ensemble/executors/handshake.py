"""How the ranks of a launched world make sure of each other before anything is unpickled.

Whoever reaches the store can write into it, also what was recorded in an earlier world of the same user. So every rank
puts down a fresh random number, rank 0 signs all of them together with a number of its own, and everything that follows
is signed with a key made of these: what another world has signed is not accepted in this one.

A rank whose secret is another says so before it leaves, so that no rank goes on without it.
"""

from __future__ import annotations

import hmac
import platform
import secrets
import time
from collections.abc import Callable
from typing import Any

from ensemble import signals
from ensemble.errors import ComputeError

NONCE_BYTES = 16
PATIENCE_S = 60.0  # with ranks that have joined the process group, but do not answer
_PAUSE_S = 0.05
_LINGER_S = 1.0  # the store may end with rank 0: the others must have read why
_REFUSED, _HELLO, _AGREED = "ensemble/refused", "ensemble/hello", "ensemble/agreed"
_NONE = " none"  # after the number of a rank that has no secret


def agree(rank: int, size: int, store: Any, secret: bytes, patience_s: float = PATIENCE_S) -> bytes:
    """The key with which the messages of this world are signed, once all ranks have shown that they have the secret.

    Raises ComputeError on every rank where one of them has another secret or does not answer.
    """
    own = secrets.token_bytes(NONCE_BYTES)
    store.set(_nonce(rank), own + platform.node().encode()[:200])
    deadline = time.monotonic() + patience_s
    said = [_wait(store, _nonce(other), rank, other, deadline) for other in range(size)]
    nonces = b"".join(own if other == rank else said[other][:NONCE_BYTES] for other in range(size))
    if rank == 0:
        store.set(_HELLO, _sign(secret, "hello", nonces))
    elif not hmac.compare_digest(_wait(store, _HELLO, rank, 0, deadline), _sign(secret, "hello", nonces)):
        _refuse(store, rank, rank)
    key = _sign(secret, "world", nonces)
    store.set(_reply(rank), _sign(key, "reply", str(rank).encode()))
    if rank == 0:
        for other in range(1, size):
            if not hmac.compare_digest(
                _wait(store, _reply(other), rank, other, deadline), _sign(key, "reply", str(other).encode())
            ):
                _refuse(store, 0, other)
        store.set(_AGREED, _sign(key, "agreed", b""))
    elif not hmac.compare_digest(_wait(store, _AGREED, rank, 0, deadline), _sign(key, "agreed", b"")):
        _refuse(store, rank, rank)
    return key


def key_of(rank: int, size: int, store: Any, secret: Callable[[], bytes]) -> bytes:
    """As `agree`, with a secret that may not be there: what `secret` raises is raised here, and said on every other rank."""
    try:
        found = secret()
    except ComputeError:
        _withdraw(rank, store)
        raise
    return agree(rank, size, store, found)


def _withdraw(rank: int, store: Any) -> None:
    """Say to all ranks that this one has no secret that can be used, and so takes no part."""
    store.set(_nonce(rank), secrets.token_bytes(NONCE_BYTES) + platform.node().encode()[:200])
    store.set(_REFUSED, f"{rank}{_NONE}")
    if rank == 0:
        time.sleep(_LINGER_S)


def _wait(store: Any, key: str, here: int, rank: int, deadline: float) -> bytes:
    """What a rank has put down, as soon as it has. Raises ComputeError where a secret was refused, or it never comes."""
    while not store.check([key]):
        if store.check([_REFUSED]):
            _refused(store, here)
        if time.monotonic() > deadline:
            raise ComputeError(
                f"rank {rank} of this world has joined but does not answer; look at its machine, and start all processes again"
            )
        signals.check()
        time.sleep(_PAUSE_S)
    value: bytes = store.get(key)
    return value


def _refuse(store: Any, here: int, rank: int) -> None:
    store.set(_REFUSED, str(rank))
    _refused(store, here)


def _refused(store: Any, here: int) -> None:
    word = bytes(store.get(_REFUSED)).decode(errors="replace")
    has_none = word.endswith(_NONE)
    word = word.removesuffix(_NONE)
    rank = int(word) if word.isdecimal() and len(word) < 7 else 0
    host = _host(store, rank)
    hosts = host, _host(store, 0)
    if here == 0:
        time.sleep(_LINGER_S)
    if has_none:
        raise ComputeError(
            f"rank {rank}{hosts[0]} has no secret that can be used, as its own message says; set ENSEMBLE_LAUNCH_SECRET to the same long random text for all processes and start them again"
        )
    raise ComputeError(
        f"rank {rank}{hosts[0]} has another secret than rank 0{hosts[1]}: the machines have no common home folder, or somebody else writes into this world's store; set ENSEMBLE_LAUNCH_SECRET to the same long random text for all processes and start them again"
    )


def _host(store: Any, rank: int) -> str:
    """The name of a rank's machine as it says itself, with nothing in it that a terminal would obey."""
    if not store.check([_nonce(rank)]):
        return ""
    name = bytes(store.get(_nonce(rank)))[NONCE_BYTES:].decode(errors="replace")
    return f" ({''.join(letter for letter in name if letter.isalnum() or letter in '-._')})"


def _sign(secret: bytes, purpose: str, content: bytes) -> bytes:
    return hmac.digest(secret, purpose.encode() + b"\0" + content, "sha256")


def _nonce(rank: int) -> str:
    return f"ensemble/nonce/{rank}"


def _reply(rank: int) -> str:
    return f"ensemble/reply/{rank}"
