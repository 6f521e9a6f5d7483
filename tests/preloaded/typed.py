"""What `python` and `ensemble` of `client.search_path` do: a child of the server does it, and its end is theirs."""

import os
import signal
import socket
import sys

import protocol

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(door: str, early: dict[str, str], real: str) -> None:
    """Hand the command to the server at the door, or be the real program where a child of it cannot be."""
    python = f"{real.rpartition('/')[0]}/python"
    words = [real, *sys.argv[1:]]
    what = protocol.forkable(words, os.environ, python)
    if what is None or protocol.early(os.environ) != early:
        os.execv(real, words)
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(door)
    request = {
        "words": what,
        "cwd": os.getcwd(),  # noqa: PTH109 - pathlib takes longer than all else here
        "environment": dict(os.environ), "session": False, "umask": protocol.umask_here(),
    }  # fmt: skip
    protocol.ask(channel, request, (0, 1, 2))
    child = protocol.answered(channel)
    for number in _FORWARDED:
        signal.signal(number, lambda number, _: os.kill(child, number))
    ended = protocol.answered(channel)
    if ended < 0:
        signal.signal(-ended, signal.SIG_DFL)
        os.kill(os.getpid(), -ended)
    os._exit(ended)
