"""What a process on pretended devices asked of them: for scripts that run there (see README.md).

    with recorded() as records:
        train()
    count(records)              # {"kernel": 640, "copy": 12, ...}
    faults(records)             # what a real device would have refused, or not done as meant

Without the pretended runtime in front of NVIDIA's, importing this raises ImportError.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_LIBRARY = ctypes.CDLL(None)  # of this process: LD_PRELOAD has put the runtime into it
if not hasattr(_LIBRARY, "pretended_log"):
    raise ImportError("this process has no pretended CUDA runtime: start it by `python tests/gpu/run.py COMMAND`")

# Kinds of records, by the words of runtime/log.c.
LAUNCHES = frozenset({"kernel", "graph launch", "memset", "copy", "pageable copy", "collective"})
WAITS = frozenset({"synchronize", "pageable copy", "free"})
FAULTS = frozenset({"illegal in capture", "outside capture", "bad launch", "wrong device", "out of memory"})


class _Record(ctypes.Structure):
    _fields_ = [
        ("kind", ctypes.c_int), ("device", ctypes.c_int), ("capturing", ctypes.c_int), ("name", ctypes.c_char_p),
        ("amount", ctypes.c_size_t), ("stream", ctypes.c_size_t),
    ]  # fmt: skip


for _name, _result, _arguments in (
    ("count", ctypes.c_size_t, []), ("record", ctypes.POINTER(_Record), [ctypes.c_size_t]),
    ("kind", ctypes.c_char_p, [ctypes.c_int]), ("used", ctypes.c_size_t, [ctypes.c_int]),
    ("physical", ctypes.c_int, [ctypes.c_int]), ("set_memory", None, [ctypes.c_size_t]),
    ("log", None, [ctypes.c_int]), ("clear", None, []),
):  # fmt: skip
    _function = getattr(_LIBRARY, f"pretended_{_name}")
    _function.restype, _function.argtypes = _result, _arguments


@dataclass(frozen=True, slots=True)
class Record:
    """One call. amount: bytes, threads of a kernel or nodes of a graph. captured: it became part of a graph and did not run."""

    kind: str
    name: str
    amount: int
    device: int
    captured: bool


@contextmanager
def recorded() -> Iterator[list[Record]]:
    """A list that holds all records of the block once it has ended."""
    records: list[Record] = []
    _LIBRARY.pretended_clear()
    _LIBRARY.pretended_log(1)
    try:
        yield records
    finally:
        _LIBRARY.pretended_log(0)
        records.extend(_read(number) for number in range(_LIBRARY.pretended_count()))
        _LIBRARY.pretended_clear()


def position() -> int:
    """How many records there are so far, inside `recorded`."""
    return int(_LIBRARY.pretended_count())


def used(device: int = 0) -> int:
    """Bytes that this process holds on a device."""
    return int(_LIBRARY.pretended_used(device))


def physical(device: int) -> int:
    """The machine's number of a device, whatever CUDA_VISIBLE_DEVICES makes of it here."""
    return int(_LIBRARY.pretended_physical(device))


def set_memory(number: int) -> None:
    """Let devices be of so many bytes from now on."""
    _LIBRARY.pretended_set_memory(number)


def count(records: Iterable[Record]) -> dict[str, int]:
    """How many there are of each kind, without those that became part of a graph."""
    return dict(Counter(record.kind for record in records if not record.captured))


def faults(records: Iterable[Record]) -> list[str]:
    """What went wrong on the way, whether anybody noticed or not."""
    return [f"{record.kind}: {record.name}" for record in records if record.kind in FAULTS]


def not_modelled(records: Iterable[Record]) -> list[str]:
    """Functions that were called though nothing here stands for them."""
    return sorted({record.name for record in records if record.kind == "not modelled"})


def readable(names: Iterable[str]) -> list[str]:
    """Names of kernels as C++ writes them."""
    text = subprocess.run(["c++filt", "-p"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    return text.split("\n")


def _read(number: int) -> Record:
    found = _LIBRARY.pretended_record(number).contents
    kind, name = _LIBRARY.pretended_kind(found.kind).decode(), (found.name or b"").decode()
    return Record(kind, name, found.amount, found.device, bool(found.capturing))
