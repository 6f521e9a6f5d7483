"""Knocks at the port of a cluster before Ray does: Ray waits for minutes where nobody answers."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

from ensemble.errors import ComputeError

CONNECT_S = 2.0
ANSWER_S = 5.0
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # of HTTP/2, with empty settings
_SETTINGS = 4  # the kind of the frame with which every HTTP/2 server answers
_CLIENT_PORT = 10001


def host_and_port(address: str, field: str) -> tuple[str, int] | None:
    """Where a cluster's address points; None for one that only Ray understands (`auto`, other schemes than ray://).

    field: where the address comes from, for the message. Raises ComputeError for what is no address.
    """
    scheme, _, rest = address.rpartition("://")
    if address == "auto" or scheme not in ("", "ray"):
        return None
    try:
        found = urlsplit(f"//{rest}")
        host, port = found.hostname, found.port or (_CLIENT_PORT if scheme else None)
    except ValueError:
        host = port = None
    if not host or not port or found.username or found.path not in ("", "/"):
        raise ComputeError(
            f"{field} is {address[:80]!r}; expected HOST:PORT, such as 10.0.0.1:6379, ray://HOST:10001, or auto for the cluster of this machine"
        )
    return host, port


def knock(address: str, field: str) -> None:
    """Raises ComputeError within seconds where nothing answers at a cluster's address, or nothing that speaks Ray's protocol."""
    place = host_and_port(address, field)
    if place is None:
        return
    advice = f"check {field} and that the cluster is up, or use compute.executor=inline"
    try:
        with socket.create_connection(place, CONNECT_S) as line:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return  # it would not answer this greeting
            line.settimeout(ANSWER_S)
            line.sendall(_GREETING)
            answer = line.recv(9)
    except TimeoutError as error:
        raise ComputeError(
            f"the Ray cluster at {address} ({field}) does not answer: tried for {CONNECT_S:g} s to connect and {ANSWER_S:g} s for a word; {advice}"
        ) from error
    except OSError as error:
        raise ComputeError(
            f"the Ray cluster at {address} ({field}) could not be reached: {error.strerror or error}; {advice}"
        ) from error
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise ComputeError(
            f"what listens at {address} ({field}) is no Ray cluster: it does not speak gRPC; expected the port of the head, such as 6379, or ray://HOST:10001; {advice}"
        )
