"""What others print on stderr (libraries in C, programs that are started, loggers, Python's warnings) as JSON lines.

The process's stderr is a pipe from then on, and a small program (`foreign_lines.py`) turns what comes out of it into
objects. It outlives a process that is killed, so that the last words of one that crashes are there. Our own lines go
to the real stderr directly.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from types import TracebackType

from ensemble.outside import json_lines

_FOREIGN = Path(__file__).with_name("foreign_lines.py")
_readers: list[subprocess.Popen[bytes]] = []  # held, or Python would complain that it is not waited for


def begin() -> None:
    """From now on lines are JSON, where the environment asks for it."""
    if json_lines.active() or not json_lines.wanted():
        return
    stderr = os.dup(2)
    reader = subprocess.Popen(  # noqa: S603 - our own file
        [sys.executable, "-I", "-S", str(_FOREIGN)],
        stdin=subprocess.PIPE, stdout=stderr, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    _readers.append(reader)
    assert reader.stdin is not None
    json_lines.to(stderr)
    sys.stderr.flush()
    os.dup2(reader.stdin.fileno(), 2)
    reader.stdin.close()
    logging.captureWarnings(True)
    logging.getLogger().addHandler(_Handler(logging.WARNING))
    sys.excepthook = _uncaught


class _Handler(logging.Handler):
    """Warnings of loggers, ours and others'; those of Python come from the logger py.warnings."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage().strip()
        if record.exc_info and record.exc_info[1] is not None:
            message += "\n" + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        level: json_lines.Level = "warning" if record.levelno < logging.ERROR else "error"
        json_lines.write(level, record.created, message=message, logger=record.name)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    json_lines.write("critical", message="".join(traceback.format_exception(kind, error, trace)).rstrip())
