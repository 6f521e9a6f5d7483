"""Messages between a driver and the processes that it has started, through a pair of connected sockets that nobody else can reach.

    send(connection, TASK, (task, train))
    letter = read(connection)            # letter.kind == TASK
    task, train = letter.content()

They are not signed, unlike those of a launched world: whoever holds an end was started by the other one, which gave it that end.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal

from ensemble.executors.packed import Buffer, pack, unpack

# Of the driver: where modules are found, arrays (their file follows), a task, a function to call, a request to stop. Of a worker: an item of its
# task, its end, what a function gave, an error that is the user's to mend.
Kind = Literal["paths", "arrays", "task", "call", "stop", "item", "ended", "answer", "error"]
_KINDS: tuple[Kind, ...] = ("paths", "arrays", "task", "call", "stop", "item", "ended", "answer", "error")
_HEAD = struct.Struct("!BI")  # kind, number of arrays; the size of each follows
_FILE = b"file"
_STALLED_S = 15  # within a message: the other process is stopped, or the machine has no memory left


@dataclass(frozen=True, slots=True)
class Letter:
    """A message as it came: what it holds is made of it when it is asked for, in whatever thread that is."""

    kind: Kind
    pickled: bytes
    arrays: tuple[Buffer, ...]

    def content(self) -> Any:
        """What was sent."""
        return unpack(self.pickled, self.arrays)


def pair() -> tuple[Connection, int]:
    """Two ends: one for this process, and the descriptor of the other one, to be given to the process that is started.

    At this process's end a message that goes no further for _STALLED_S is an OSError: nobody is to wait for a process that is stopped.
    """
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(True)  # whatever the program has set as the default of its sockets
    for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
        ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", _STALLED_S, 0))
    return Connection(ours.detach()), theirs.detach()


def send(connection: Connection, kind: Kind, content: Any = None) -> None:
    """Send a message, and wait until the other side has room for it. Raises OSError where nobody reads."""
    pieces, arrays = pack(content)
    views = [memoryview(array).cast("B") for array in arrays]
    sizes = struct.pack(f"!{len(views)}Q", *(view.nbytes for view in views))
    connection.send_bytes(_HEAD.pack(_KINDS.index(kind), len(views)) + sizes)
    connection.send_bytes(b"".join(pieces))
    for view in views:
        connection.send_bytes(view)


def read(connection: Connection) -> Letter:
    """The next message. Raises EOFError or OSError where the other side has ended."""
    head = connection.recv_bytes()
    number, count = _HEAD.unpack_from(head)
    pickled = connection.recv_bytes()
    arrays = []
    for size in struct.unpack_from(f"!{count}Q", head, _HEAD.size):
        array = bytearray(size)
        connection.recv_bytes_into(array)
        arrays.append(array)
    return Letter(_KINDS[number], pickled, tuple(arrays))


def send_file(connection: Connection, descriptor: int) -> None:
    """Send an open file, right after a message that announces it."""
    with _as_socket(connection) as line:
        socket.send_fds(line, [_FILE], [descriptor])


def read_file(connection: Connection) -> int:
    """The descriptor of an open file that comes next; to be closed by whoever asked."""
    with _as_socket(connection) as line:
        word, descriptors, _, _ = socket.recv_fds(line, len(_FILE), 1)
    if word != _FILE or len(descriptors) != 1:
        raise EOFError(f"found {word!r} and {len(descriptors)} files, expected one file")
    return descriptors[0]


def _as_socket(connection: Connection) -> socket.socket:
    line = socket.socket(fileno=os.dup(connection.fileno()))
    line.setblocking(True)  # as in `pair`; both descriptors are of one socket
    return line
