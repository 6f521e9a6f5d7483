"""Changes of the environment that threads may read meanwhile.

Threads of Ray outlive `ray.shutdown` and read the environment whenever they log. glibc's `setenv` moves and frees the array
that another thread's `getenv` walks through, and tests change the environment all the time, pytest itself four times a
test: about one full run in five ended with a segmentation fault. Here every change is a new array that is put in the old
one's place in one store, and nothing that was ever in place is freed.
"""

from __future__ import annotations

import ctypes
import os
import sys


def install() -> None:
    """From now on Python's changes of the environment, in this process, are of this kind. Only on Linux."""
    if sys.platform != "linux":
        return
    place = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "environ")

    def change(name: bytes, entry: bytes | None) -> None:
        old = ctypes.cast(place.value or 0, ctypes.POINTER(ctypes.c_void_p))
        entries = []
        while old and (here := old[len(entries)]):
            entries.append(here)
        kept = [here for here in entries if not ctypes.string_at(here).startswith(name + b"=")]
        if entry is not None:
            kept.append(ctypes.addressof(_for_ever(ctypes.create_string_buffer(entry))))
        place.value = ctypes.addressof(_for_ever((ctypes.c_void_p * (len(kept) + 1))(*kept, None)))

    os.putenv = lambda name, value: change(os.fsencode(name), os.fsencode(name) + b"=" + os.fsencode(value))
    os.unsetenv = lambda name: change(os.fsencode(name), None)


def _for_ever(memory: ctypes.Array) -> ctypes.Array:
    """Not freed when the interpreter ends either: the threads may live a moment longer."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))
    return memory
