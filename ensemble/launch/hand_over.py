"""Hands a run folder over, from the head of a Ray cluster to whoever fetches it; `fetching` sends this file and reads what it prints.

    python hand_over.py list PLACE                            # the manifest
    python hand_over.py send PLACE MANIFEST_SHA256 FROM MOST  # at most so many bytes of the listed files, one after the other
    python hand_over.py forget JOB                            # empty the log of an earlier one

It needs the standard library alone, so it works whatever is installed there. What a job prints is kept in its log on the
head, in full; so each part forgets the one before.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA, END, PROBLEM = "ensemble-data", "ensemble-end", "ensemble-problem"
LINE_BYTES = 12_000  # what Ray passes on at once is some 20,000 characters
MANIFEST = "manifest.json"


def main(words: list[str]) -> int:
    """Do what the command line says; returns the exit code. What cannot be done is printed as a line of its own."""
    try:
        what, *rest = words
        if what == "list":
            _send(iter([_read_manifest(_folder(rest[0]))]))
        elif what == "send":
            folder, digest, start, most = _folder(rest[0]), rest[1], int(rest[2]), int(rest[3])
            manifest = _read_manifest(folder)
            if hashlib.sha256(manifest).hexdigest() != digest:
                raise ValueError("the run has changed meanwhile")
            _send(_part(folder, json.loads(manifest)["files"], start, most))
        elif what == "forget":
            _forget(rest[0])
            _send(iter([]))
        else:
            raise ValueError(f"unknown word {what!r}")
    except (OSError, ValueError, KeyError, IndexError) as error:
        print(PROBLEM, json.dumps(str(error)), flush=True)  # noqa: T201 - this is what it is for
        return 1
    return 0


def _folder(place: str) -> Path:
    return Path(place).expanduser()


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST
    if not path.is_file():
        raise ValueError(f"there is no run at {folder} on {os.uname().nodename}")
    return path.read_bytes()


def _part(folder: Path, files: dict[str, Any], start: int, most: int) -> Iterator[bytes]:
    """Bytes `start` to `start + most` of all files one after the other, in the order of their names."""
    begin = 0
    for name in sorted(files):
        size = int(files[name]["bytes"])
        first, last = max(start - begin, 0), min(start + most - begin, size)
        if first < last:
            with (folder / name).open("rb") as file:
                file.seek(first)
                while first < last:
                    content = file.read(min(last - first, 1 << 20))
                    if not content:
                        raise ValueError(f"{folder / name}: shorter than the manifest says")
                    first += len(content)
                    yield content
        begin += size


def _send(contents: Iterator[bytes]) -> None:
    """Print bytes as lines with running numbers, then how many there were and their digest."""
    digest, number, total = hashlib.sha256(), 0, 0
    for content in contents:
        digest.update(content)
        total += len(content)
        for at in range(0, len(content), LINE_BYTES):
            text = base64.b64encode(content[at : at + LINE_BYTES]).decode("ascii")
            sys.stdout.write(f"{DATA} {number} {text}\n")
            number += 1
    sys.stdout.write(f"{END} {json.dumps({'lines': number, 'bytes': total, 'sha256': digest.hexdigest()})}\n")
    sys.stdout.flush()


def _forget(job: str) -> None:
    """Empty the log of an earlier job of ours, which lies beside this one's; where that is not to be seen, it stays."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", job) is None:
        raise ValueError(f"{job!r} is no job")
    try:
        own = Path(f"/proc/self/fd/{sys.stdout.fileno()}").readlink()
    except OSError:
        return
    log = own.with_name(f"job-driver-{job}.log")
    if own.name.startswith("job-driver-") and log != own and log.is_file():
        os.truncate(log, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
