"""Keeps freed memory in the process, so that activations of one step serve the next.

glibc gives large blocks back to the kernel as soon as they are freed and takes them again, page by page, a moment
later: thousands of page faults per training step of a stack on a CPU. Measured gain: docs/log.md.
"""

from __future__ import annotations

import ctypes

# Parameters of mallopt(3), from malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Ask glibc not to return freed memory; False (and nothing done) with another C library. The process stays at its
    peak size, which a training process soon reaches anyway."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    settings = ((_MMAP_THRESHOLD, 1 << 30), (_TRIM_THRESHOLD, (1 << 31) - 1), (_TOP_PAD, 64 << 20))
    return all([mallopt(name, value) == 1 for name, value in settings])  # noqa: C419 - set all of them
