"""Messages of a launched world, signed and in parts: nothing is unpickled that a process of the same user did not send.

torch's key-value store listens on all interfaces and asks nobody for a password, so whoever reaches its port can write
into it. Each message carries an HMAC-SHA-256 over its key, its sizes and the digest of its content. The secret is
$ENSEMBLE_LAUNCH_SECRET or a file that only its owner can read; machines without a common home folder need the variable.

The store takes no value above 8 MiB, and MNIST has 55 MB: a message is cut into parts.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ensemble.cache import cache_folder
from ensemble.errors import ComputeError
from ensemble.executors.packed import Buffer, pack, unpack

PART_BYTES = 1 << 19  # measured: both larger and smaller parts are slower through the store (docs/log.md)
SECRET_VARIABLE = "ENSEMBLE_LAUNCH_SECRET"  # noqa: S105 - a name, not a secret
_SHORTEST = 16  # letters of a secret that somebody thinks out
_SIGNATURE_BYTES = _DIGEST_BYTES = 32
_COUNT = struct.Struct("!I")


def launch_secret() -> bytes:
    """The secret of this user's launched worlds; made at the first call.

    Raises ComputeError where none can be kept, and where another user could know the one that is there.
    """
    if given := os.environ.get(SECRET_VARIABLE):
        if len(given) < _SHORTEST:
            raise ComputeError(
                f"{SECRET_VARIABLE} has {len(given)} letters; expected at least {_SHORTEST}, since what is signed with it is trusted; make one with: openssl rand -hex 32"
            )
        return given.encode()
    path = cache_folder() / "launch.key"
    try:
        if not path.exists():
            _make(path)
        return _read(path)
    except OSError as error:
        raise ComputeError(
            f"{path}: cannot be used for the secret of this world: {error.strerror or error}; set {SECRET_VARIABLE} to the same long random text for all processes"
        ) from error


def _read(path: Path) -> bytes:
    """The secret in a file. Raises ComputeError where anybody else may have put it there or read it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        facts, content = os.fstat(descriptor), b""
        if not stat.S_ISREG(facts.st_mode):
            wrong = "is no regular file"
        elif facts.st_uid != os.geteuid():
            wrong = f"belongs to user {facts.st_uid}, and this process to {os.geteuid()}"
        elif stat.S_IMODE(facts.st_mode) & 0o077:
            wrong = f"has mode {stat.S_IMODE(facts.st_mode):04o}, so that others can read or change it; expected 0600"
        else:
            content = file.read(_SIGNATURE_BYTES + 1)
            wrong = (
                f"has {facts.st_size} bytes; expected {_SIGNATURE_BYTES}" if len(content) != _SIGNATURE_BYTES else ""
            )
    if wrong:
        raise ComputeError(
            f"{path}: {wrong}; what is signed with it is trusted. Remove it, and the next start makes a new one, or set {SECRET_VARIABLE} to the same long random text for all processes"
        )
    return content


def _make(path: Path) -> None:
    """Several processes may try at once: one wins, and the file is whole as soon as it has its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(_SIGNATURE_BYTES))
    with contextlib.suppress(FileExistsError):
        os.link(own, path)
    own.unlink()


def seal(key: str, value: Any, secret: bytes) -> Iterator[tuple[int, bytes]]:
    """The numbered parts of a message, each of PART_BYTES or little more.

    Part 0 comes last, so that whoever sees it finds all others. It holds a signed header (the sizes of the pieces, the
    digest of the content) and the beginning of the content. Parts are made one by one, from the value's own memory.
    """
    pickled, arrays = pack(value)
    sizes = [sum(len(piece) for piece in pickled), *(len(array) for array in arrays)]
    digest, first = hashlib.sha256(), b""
    for number, part in enumerate(_cut([*pickled, *arrays])):
        digest.update(part)
        if number == 0:
            first = part
        else:
            yield number, part
    header = _COUNT.pack(len(sizes)) + struct.pack(f"!{len(sizes)}Q", *sizes) + digest.digest()
    yield 0, _signature(key, header, secret) + header + first


def unseal(key: str, read: Callable[[int], bytes], secret: bytes) -> Any:
    """What was sealed for this key; `read` returns the part of a number and is asked for each once, in order.

    Raises ComputeError, and unpickles nothing, where the signature is another's or the content is not what was signed.
    """
    message = read(0)
    signature, rest = message[:_SIGNATURE_BYTES], message[_SIGNATURE_BYTES:]
    count = _COUNT.unpack_from(rest)[0] if len(rest) >= _COUNT.size else 0
    end = _COUNT.size + 8 * count + _DIGEST_BYTES
    header, first = rest[:end], rest[end:]
    if len(header) < end or not hmac.compare_digest(signature, _signature(key, header, secret)):
        raise ComputeError(
            f"the message {key} in this world's store is not signed with its secret: it comes from somebody else, or the machines have different secrets; set {SECRET_VARIABLE} to the same long random text on all of them"
        )
    sizes = struct.unpack_from(f"!{count}Q", header, _COUNT.size)
    pieces = [bytearray(size) for size in sizes]
    parts = (first if number == 0 else read(number) for number in range(max(1, -(-sum(sizes) // PART_BYTES))))
    if not hmac.compare_digest(_fill(pieces, parts), header[-_DIGEST_BYTES:]):
        raise ComputeError(
            f"the message {key} in this world's store is not what its sender signed: somebody else writes into the store; keep its port in a private network and start again"
        )
    return unpack(pieces[0], pieces[1:])


def _cut(pieces: Iterable[Buffer]) -> Iterator[bytes]:
    """The pieces one after the other, in parts of PART_BYTES; only the last one is shorter, and may be empty."""
    part = bytearray()
    for piece in pieces:
        rest = memoryview(piece)
        while len(rest):
            taken = min(len(rest), PART_BYTES - len(part))
            part += rest[:taken]
            rest = rest[taken:]
            if len(part) == PART_BYTES:
                yield bytes(part)
                part.clear()
    if part:
        yield bytes(part)


def _fill(pieces: Sequence[bytearray], parts: Iterable[bytes]) -> bytes:
    """Write the parts into the pieces, one after the other; returns the digest of what came, fitting or not."""
    digest, empty = hashlib.sha256(), deque(memoryview(piece) for piece in pieces if piece)
    for part in parts:
        digest.update(part)
        rest = memoryview(part)
        while len(rest) and empty:
            taken = min(len(rest), len(empty[0]))
            empty[0][:taken] = rest[:taken]
            rest, empty[0] = rest[taken:], empty[0][taken:]
            if not len(empty[0]):
                empty.popleft()
    return digest.digest()


def _signature(key: str, header: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, key.encode() + b"\0" + header, "sha256")
