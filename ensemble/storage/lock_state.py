"""Whether somebody writes to a run folder at this moment, without getting in the way.

A writer holds run.lock (`listed_folder.locked`), which the kernel drops when its process ends. What the lock says holds on
the machine of the writer; on another one, whose file system may know nothing of it, a free lock proves nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import re
from pathlib import Path

LOCK = "run.lock"


def is_written_to(folder: Path) -> bool | None:
    """True while a writer holds the lock, False where none does, None where that cannot be told from here.

    Free locks are taken for a moment, shared, to see that they are free.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        holder = _HOLDER.fullmatch(os.read(descriptor, 400).decode("utf-8", "replace"))
    except BlockingIOError:
        return True
    except OSError as error:
        return True if error.errno == errno.EWOULDBLOCK else None
    finally:
        os.close(descriptor)
    return None if holder and holder[1] != platform.node() else False


_HOLDER = re.compile(r"process \d+ on (.*)")
