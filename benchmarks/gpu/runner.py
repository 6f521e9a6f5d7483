"""Runs parts one after another. Standard library only, so that nothing a part needs can stop the others.

A part is a process in a process group of its own. A crash, a hang or running out of memory ends that part; what it had
written by then counts. A part that does not fit into the time left is listed as not run, and smaller ones are tried.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from benchmarks.gpu.cases import read_cases
from benchmarks.gpu.parts import Part
from benchmarks.gpu.report import in_short
from benchmarks.gpu.results import Results

NO_GPU = 4  # exit code of a part: torch sees no GPU, so no other part can do better
_POLL_S = 0.2
_KILL_S = 10.0  # for a killed process to disappear; one that waits for a broken driver never does
_STATES = {0: "passed", 1: "failed", NO_GPU: "failed"}


def run_parts(
    parts: Sequence[Part], results: Results, budget_s: float | None = None, environment: Mapping[str, str] | None = None
) -> None:
    """Run the parts within `budget_s` seconds altogether; everything they print goes to the results' name with .log."""
    deadline = time.monotonic() + (float("inf") if budget_s is None else budget_s)
    no_gpu = False
    with results.file.with_suffix(".log").open("a") as log:
        for part in parts:
            left = deadline - time.monotonic()
            if no_gpu or left < part.least_s:
                reason = "torch sees no GPU" if no_gpu else f"{left:.0f} s left, it needs at least {part.least_s:.0f} s"
                results.part(part.name, about=part.about, state="not run", reason=reason)
                print(f"== {part.name}: not run ({reason})", flush=True)
                continue
            print(f"== {part.name}: {part.about}", flush=True)
            no_gpu = _run(part, min(part.limit_s, left), results, log, environment) == NO_GPU


def _run(
    part: Part, limit_s: float, results: Results, log: IO[str], environment: Mapping[str, str] | None
) -> int | None:
    """Run one part and record how it ended; its exit code, None when it was killed."""
    results.part(part.name, about=part.about, state="running", limit_s=round(limit_s))
    print(f"\n==== {part.name}", file=log, flush=True)
    printed_from, started = log.tell(), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        cases = Path(folder) / "cases.jsonl"
        cases.touch()
        process = subprocess.Popen(
            [*part.command, str(cases)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env=environment, start_new_session=True,
        )  # fmt: skip
        shown, code = 0, None
        try:
            while code is None and time.monotonic() - started < limit_s:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    code = process.wait(_POLL_S)
                shown = _take(part.name, cases, shown, results)
        except BaseException:  # Ctrl-C and SIGTERM: say where it stopped
            results.part(part.name, state="interrupted")
            raise
        finally:
            _kill(process)
        _take(part.name, cases, shown, results)
    seconds = round(time.monotonic() - started, 1)
    state = "out of time" if code is None else _STATES.get(code, "crashed")
    results.part(part.name, state=state, seconds=seconds, exit_code=code)
    if state != "passed":
        results.part(part.name, printed=_tail(results.file.with_suffix(".log"), printed_from))
    print(f"== {part.name}: {state} after {seconds} s", flush=True)
    return code


def _take(part: str, file: Path, shown: int, results: Results) -> int:
    """Move new cases from the part's file into the results; how many there are now."""
    found = read_cases(file.read_text())
    for name, values in found[shown:]:
        results.case(part, name, values)
        print(f"   {name}: {in_short(values)}", flush=True)
    return len(found)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the part's whole process group, also where only its children are left."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_S)


def _tail(log: Path, start: int, length: int = 2000) -> str:
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")[-length:]
