"""stdin, stdout and stderr that were closed before the program began, as `ensemble ... >&-` or a service manager does."""

from __future__ import annotations

import os
import sys


def open_missing_streams() -> None:
    """Give a closed stream to nobody: else the next file that is opened takes its number, and Python has None in its place."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - a number, open as long as the process is
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
