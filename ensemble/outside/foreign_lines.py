"""A program of its own, started by `json_lines`: lines of text from stdin to stdout, each as one JSON object.

It imports only the standard library, ignores the signals that end a run, and ends when nobody holds its stdin any more.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import UTC, datetime


def main() -> None:
    """Until stdin ends."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        text = line.decode("utf-8", "replace").rstrip()
        text = text.rpartition("\r")[2]  # of a bar that is drawn over and over, how it was last
        if not text:
            continue
        stamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        level = "error" if text.startswith(("Error: ", "error: ")) else "info"  # such as those of usage
        record = {"time": stamp, "level": level, "run": None, "message": text, "source": "stderr"}
        left = memoryview(json.dumps(record).encode() + b"\n")
        try:
            while left:
                left = left[os.write(1, left) :]
        except OSError:  # nobody reads; go on, or whoever prints would get a broken pipe
            continue


if __name__ == "__main__":
    main()
