"""What the machine lacks or refuses, in words: errors of the operating system, of memory and of threads that no door has named.

found = in_words(error)      # (message, exit code); None where the error is a mistake of the program
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

from ensemble.errors import ComputeError, StorageError
from ensemble.executors.diagnosis import explain, is_out_of_memory

# What is to be done does not depend on what was being done when the system had no more of these.
_LIMITS = {
    errno.EMFILE: "this process may open no more files; raise the limit (ulimit -n)",
    errno.ENFILE: "this machine can open no more files; end other programs, or raise the limit (fs.file-max)",
    errno.EAGAIN: "this user can start no more processes or threads; end other programs, or raise the limit (ulimit -u)",
}


def in_words(error: BaseException) -> tuple[str, int] | None:
    """What to say about an error that the surroundings are to blame for, and its exit code; None for any other."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _LIMITS and not _of_output(error):
        return f"{os.strerror(number)}: {_LIMITS[number]}", ComputeError.exit_code
    if is_out_of_memory(error):
        reason = explain(error).removesuffix(": MemoryError")
        return (
            f"out of memory ({reason}); end other programs, raise the limit (ulimit -v, or that of the container), or ask for less: a smaller compute.stack_size or training.batch_size, fewer images",
            ComputeError.exit_code,
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return f"no thread can be started: {_LIMITS[errno.EAGAIN]}", ComputeError.exit_code
    return _of_system(error) if isinstance(error, OSError) else None


def _of_output(error: BaseException) -> bool:
    """A terminal or pipe that takes nothing at the moment has the same number as a limit of processes."""
    return isinstance(error, BlockingIOError) and hasattr(error, "characters_written")


def _of_system(error: OSError) -> tuple[str, int]:
    reason = error.strerror or str(error)
    if error.filename is None and isinstance(error, FileNotFoundError) and not _has_working_directory():
        return "the working directory is gone; go to one that is there, and start again", StorageError.exit_code
    if "No usable temporary directory" in reason:  # of tempfile, which names no file
        return f"{reason}; set TMPDIR to a folder with free space that can be written", StorageError.exit_code
    if isinstance(error, BrokenPipeError):
        return f"the output cannot be written: {reason}; whoever read it has gone", StorageError.exit_code
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return (
            f"the network does not answer: {reason}; try again, or check addresses and proxies",
            ComputeError.exit_code,
        )
    if error.filename is None:
        return f"the output cannot be written: {reason}; free space, or send it elsewhere", StorageError.exit_code
    return f"{error.filename}: {reason}; check the path, its permissions and the free space", StorageError.exit_code


def _has_working_directory() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True
