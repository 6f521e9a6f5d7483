"""Following a job on a Ray cluster: its log, how it ends, and what to type where the line to it breaks.

code = follow(cluster, job)     # the job's own exit code
stop(cluster, job)              # orderly: the job hands in checkpoints and leaves with 75
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
import threading
import time
from typing import Any

from ensemble.errors import EXIT_INTERRUPTED, ComputeError
from ensemble.launch.dashboard import LOST, Cluster, short
from ensemble.outside import json_lines
from ensemble.outside.names import visible

# Ray answers `stop` by SIGTERM and kills after this long; a driver needs a moment to make its state durable.
STOP_WAIT_S = 30
HEARTBEAT_S = 2.0  # between questions whether the job still runs
SILENCE_S = 25.0  # after which the head is given up
LAST_LINES_S = 5.0  # for the end of the log, when the job has ended
_NO_PROGRAM = "No module named 'ensemble'"


def command(*words: str) -> str:
    """An `ensemble submit` to type."""
    return shlex.join(["ensemble", "submit", *words])


def follow(cluster: Cluster, job: str) -> int:
    """Print the job's log until it ends; returns its exit code.

    Between lines the head is asked every few seconds whether the job still runs: a connection that is lost without a word
    would be waited for without end. Raises ComputeError where the head does not answer for SILENCE_S.
    """
    log = _Log(cluster, job)
    log.start()
    answered, waiting, away = time.monotonic(), "", False
    while True:
        try:
            info = cluster.answer(lambda: cluster.client.get_job_info(job))
            answered = time.monotonic()
            if away:
                away = False
                json_lines.tell(f"the head of the cluster at {cluster.address} answers again")
            if info.status.is_terminal():
                break
            if str(info.status) == "PENDING" and info.message != waiting:
                waiting = info.message or ""
                json_lines.tell(visible(f"job {job}: waiting: {waiting}"))
        except LOST as error:
            if time.monotonic() - answered > SILENCE_S:
                raise ComputeError(
                    f"the head of the cluster at {cluster.address} has not answered for {SILENCE_S:g} s ({short(error)}): it has ended, or the line to it; the job {job} may still run. Go on following: {command('--follow', job, '--address', cluster.address)}; where the cluster was started anew, submit the same job again: it goes on where the run folder is"
                ) from error
            if not away:
                away = True
                json_lines.tell(
                    f"the head of the cluster at {cluster.address} does not answer ({short(error)}); given up after {SILENCE_S:g} s without an answer"
                )
        time.sleep(HEARTBEAT_S)
    log.finish()
    json_lines.tell(f"job {job}: {info.status}")
    return _exit_code(info, job, log.tail)


def _exit_code(info: Any, job: str, tail: str) -> int:
    """The job's own exit code; of one that never got so far, what its end means. Raises ComputeError for what the cluster did to it."""
    if _NO_PROGRAM in tail:
        raise ComputeError(
            f"the cluster's Python has no package `ensemble`, so the job {job} could not begin; use an image or environment that has it, or send it along: --install"
        )
    code = info.driver_exit_code
    if str(info.status) == "STOPPED":
        return EXIT_INTERRUPTED
    if code is not None and int(code) >= 0:
        return int(code)
    if str(info.status) == "SUCCEEDED":
        return 0
    why = f"its driver was ended by signal {-int(code)}" if code is not None else _first(info.message)
    raise ComputeError(f"the job {job} failed on the cluster: {why}; the same submission goes on where it was")


def _first(message: str | None) -> str:
    """What Ray says of a failure; of a trace only its last line."""
    lines = [line.strip() for line in (message or "").splitlines() if line.strip()]
    traces = [n for n, line in enumerate(lines) if "Traceback" in line]
    if traces:
        lines = [*lines[: traces[0]], lines[traces[0]].partition("Traceback")[0].strip(), lines[-1]]
    return visible(" ".join(line for line in lines if line)[:400]) if lines else "Ray says no reason"


def stop(cluster: Cluster, job: str) -> bool:
    """Stop a job and wait until it has kept its state; False where it did not end in time or the head is gone."""
    with contextlib.suppress(*LOST):  # a head that is gone runs nothing
        cluster.answer(lambda: cluster.client.stop_job(job))
        deadline = time.monotonic() + STOP_WAIT_S + 10
        while time.monotonic() < deadline:
            if cluster.answer(lambda: cluster.client.get_job_info(job)).status.is_terminal():
                return True
            time.sleep(0.5)
    return False


class _Log:
    """Prints what a job says; where the line breaks it is taken up again behind what was printed."""

    def __init__(self, cluster: Cluster, job: str) -> None:
        self.tail = ""  # the last of what was printed
        self._cluster, self._job = cluster, job
        self._printed = 0
        self._whole, self._ended = threading.Event(), threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._run, daemon=True).start()

    def finish(self) -> None:
        """The job has ended: wait a moment for its last lines."""
        self._ended.set()
        self._whole.wait(LAST_LINES_S)

    def _run(self) -> None:
        from aiohttp import ClientError

        while True:
            with contextlib.suppress(*LOST, ClientError):
                asyncio.run(self._follow())
                self._whole.set()
                return
            if self._ended.wait(HEARTBEAT_S):
                return

    async def _follow(self) -> None:
        seen = 0
        async for text in self._cluster.client.tail_job_logs(self._job):
            new = text[max(self._printed - seen, 0) :]
            seen += len(text)
            if new:
                self._printed = seen
                self.tail = (self.tail + new)[-4000:]
                sys.stdout.write(new)
                sys.stdout.flush()
