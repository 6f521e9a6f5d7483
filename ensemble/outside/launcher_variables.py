"""The environment variables by which launchers and Ray tell a process where it is: read here and nowhere else.

An empty variable is an unset one, as a shell's `WORLD_SIZE= ensemble ...` and many a job template mean it; libraries
below would take it for a number. A value that can mean nothing is refused by its name.
"""

from __future__ import annotations

import os

from ensemble.errors import ComputeError

RAY_ADDRESS = "RAY_ADDRESS"
LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def world_size() -> int:
    """How many processes a launcher started, 1 without one. Raises ComputeError for a value that is no such number."""
    return _number("WORLD_SIZE", 1, 1)


def local_world_size(default: int) -> int:
    """How many of them are on this machine."""
    return _number("LOCAL_WORLD_SIZE", default, 1)


def local_rank() -> int:
    """This process's number among those of this machine, from 0."""
    return _number("LOCAL_RANK", 0, 0)


def check_launcher() -> None:
    """Raises ComputeError where what a launcher says of this process cannot be."""
    _number("MASTER_PORT", 0, 0, 65535)
    size, rank = world_size(), _number("RANK", 0, 0)
    local, here = local_world_size(size), local_rank()
    if rank >= size:
        raise ComputeError(f"RANK is {rank}, but WORLD_SIZE {size}; expected a number below; start all by one launcher")
    if here >= local or local > size:
        raise ComputeError(
            f"LOCAL_RANK is {here}, LOCAL_WORLD_SIZE {local}, WORLD_SIZE {size}; expected LOCAL_RANK < LOCAL_WORLD_SIZE <= WORLD_SIZE; start all by one launcher"
        )


def of_launcher() -> list[str]:
    """The names of the launcher's variables that are set."""
    return [name for name in LAUNCHER if os.environ.get(name, "").strip()]


def ray_address() -> str | None:
    """The cluster that RAY_ADDRESS names; None without one, and for `local`, by which Ray means a new one."""
    address = os.environ.get(RAY_ADDRESS, "").strip()
    return address if address not in ("", "local") else None


def _number(name: str, default: int, lowest: int, highest: int = 1_000_000) -> int:
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and lowest <= int(text[:9]) <= highest):
        raise ComputeError(
            f"the environment variable {name} is {text[:60]!r}; expected a whole number from {lowest} to {highest}, as torchrun and accelerate launch set it; unset it where no launcher started this process"
        )
    return int(text)
