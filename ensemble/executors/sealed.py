"""Objects in the mail of a launched world, signed: nothing is unpickled that a process of the same user did not send.

torch's key-value store listens on all interfaces and asks nobody for a password, so whoever reaches its port can write
into it. Each message carries an HMAC-SHA-256 over its key and content. The secret is $ENSEMBLE_LAUNCH_SECRET or a file
that only its owner can read; machines without a common home folder need the variable.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import pickle
import secrets
from pathlib import Path
from typing import Any

from ensemble.cache import cache_folder
from ensemble.errors import ComputeError

SECRET_VARIABLE = "ENSEMBLE_LAUNCH_SECRET"  # noqa: S105 - a name, not a secret
_SIGNATURE_BYTES = 32


def launch_secret() -> bytes:
    """The secret of this user's launched worlds; made at the first call. Raises ComputeError where none can be kept."""
    if given := os.environ.get(SECRET_VARIABLE):
        return given.encode()
    path = cache_folder() / "launch.key"
    try:
        if not path.exists():
            _make(path)
        return path.read_bytes()
    except OSError as error:
        raise ComputeError(
            f"{path}: cannot be used for the secret of this world: {error.strerror or error}; set {SECRET_VARIABLE} to the same long random text for all processes"
        ) from error


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


def seal(key: str, value: Any, secret: bytes) -> bytes:
    """The message to lay down under a key."""
    content = pickle.dumps(value)
    return _signature(key, content, secret) + content


def unseal(key: str, message: bytes, secret: bytes) -> Any:
    """What was sealed for this key. Raises ComputeError, and unpickles nothing, where the signature is another's."""
    signature, content = message[:_SIGNATURE_BYTES], message[_SIGNATURE_BYTES:]
    if not hmac.compare_digest(signature, _signature(key, content, secret)):
        raise ComputeError(
            f"the message {key} in this world's store is not signed with its secret: it comes from somebody else, or the machines have different secrets; set {SECRET_VARIABLE} to the same long random text on all of them"
        )
    return pickle.loads(content)  # noqa: S301 - signed by a process of the same user


def _signature(key: str, content: bytes, secret: bytes) -> bytes:
    return hmac.digest(secret, key.encode() + b"\0" + content, "sha256")
