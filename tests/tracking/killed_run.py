"""A run in another process that is killed while its members train."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path


def killed_in_the_midst(command: list[str], log: Path, epochs: int) -> int:
    """Start a run and kill it once its event log has more than so many epochs; how many there are then."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not (log.exists() and log.read_text().count("EpochFinished") > epochs):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    return log.read_text().count("EpochFinished")
