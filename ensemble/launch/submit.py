"""Submits a configuration to a Ray cluster, follows its log, and leaves with the job's own exit code.

    python -m ensemble.launch.submit CONFIG --address http://HEAD:8265 [--insecure] [--install] [--no-wait] [key=value ...]

`ray job submit` does the same by hand, but always fails with 1. Nothing secret goes into the submission: a W&B key
belongs into the cluster's environment. Ctrl-C stops the job, which keeps its finished members and checkpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import click

from ensemble.config import load_config
from ensemble.errors import EXIT_INTERRUPTED, ComputeError
from ensemble.launch.training import guarded
from ensemble.outside import json_lines

EXCLUDES = (
    ".git",
    ".venv",
    "venv",
    "runs",
    "data",
    "wandb",
    "**/__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
)
# Ray answers `stop` by SIGTERM and kills after this long; a driver needs a moment to make its state durable.
STOP_WAIT_S = 30
CONNECT_S = 3.0
HEARTBEAT_S = 2.0  # between questions whether the job still runs
ANSWER_S = 10.0  # for the head to answer one
SILENCE_S = 25.0  # after which it is given up
LAST_LINES_S = 5.0  # for the end of the log, when the job has ended
# What Ray's client and the libraries below it raise where the head is gone.
_LOST = (OSError, RuntimeError, ValueError, TimeoutError)
_NO_AGENT = "No available agent"  # what Ray says after having waited for one
AGENT_HELP = "the agent that takes jobs is not up on any node: the cluster may have only just started, or the agent's port (52365) is taken on that machine, as by a second cluster: ray start --dashboard-agent-listen-port=PORT"
TOKEN_HELP = "Ray authenticates by token since 2.59: export RAY_AUTH_MODE=token and the cluster's RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) here, or, on a trusted host only, start the cluster and this with RAY_AUTH_MODE=disabled"  # noqa: S105 - no secret, a sentence


def check_address(address: str, insecure: bool) -> None:
    """Refuse to send code over an unencrypted, token-less line to another machine. Raises ComputeError."""
    found = urlparse(address)
    try:
        sound = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:
        sound = False
    if not sound:
        raise ComputeError(f"--address {address!r}: expected the dashboard's URL, such as http://127.0.0.1:8265")
    has_token = os.environ.get("RAY_AUTH_MODE") == "token" or "RAY_AUTH_TOKEN" in os.environ
    if insecure or found.scheme == "https" or _is_loopback(found.hostname or "") or has_token:
        return
    raise ComputeError(
        f"--address {address}: another machine, without encryption or token: whoever can reach it can run code there, and read this job's. Use https, an SSH tunnel (ssh -L 8265:127.0.0.1:8265 HEAD), or a token ({TOKEN_HELP}); --insecure overrides this"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def submission(config: Path, overrides: tuple[str, ...], install: bool) -> dict[str, Any]:
    """The arguments of Ray's submit_job: command, code and environment, with nothing secret in them."""
    environment: dict[str, Any] = {
        "working_dir": ".",
        "excludes": list(EXCLUDES),
        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
    }
    if wanted := os.environ.get(json_lines.VARIABLE):
        environment["env_vars"][json_lines.VARIABLE] = wanted  # the job's lines as ours
    if install:
        environment["pip"] = {"packages": Path("requirements.txt").read_text().splitlines()}
    return {
        "entrypoint": shlex.join(["python", "-m", "ensemble.launch.ray_job", str(config), *overrides]),
        "runtime_env": environment,
        "metadata": {"ensemble": load_config(config, overrides).experiment.name},
    }


def follow(client: Any, job: str, address: str) -> int:
    """Print the job's log until it ends; returns its exit code.

    Between lines the head is asked every few seconds whether the job still runs: a connection that is lost without a word
    would be waited for without end. Raises ComputeError where the head does not answer for SILENCE_S.
    """
    log = threading.Thread(target=_print_log, args=(client, job), daemon=True)
    log.start()
    answered = time.monotonic()
    while True:
        try:
            info = _answer(lambda: client.get_job_info(job))
            answered = time.monotonic()
            if info.status.is_terminal():
                break
        except _LOST as error:
            if time.monotonic() - answered > SILENCE_S:
                raise ComputeError(
                    f"the head of the cluster at {address} has not answered for {SILENCE_S:g} s ({_short(error)}): it has ended, or the line to it; the job {job} may still run. When the cluster is back, the same command goes on where the run folder is"
                ) from error
        time.sleep(HEARTBEAT_S)
    log.join(LAST_LINES_S)
    json_lines.tell(f"job {job}: {info.status}")
    if info.driver_exit_code is not None:
        return int(info.driver_exit_code)
    return 0 if str(info.status) == "SUCCEEDED" else EXIT_INTERRUPTED if str(info.status) == "STOPPED" else 1


def _print_log(client: Any, job: str) -> None:
    """Print what the job says, until it ends or the line does; `follow` finds out which."""

    async def tail() -> None:
        async for lines in client.tail_job_logs(job):
            sys.stdout.write(lines)
            sys.stdout.flush()

    with contextlib.suppress(*_LOST):
        asyncio.run(tail())


def _answer(ask: Callable[[], Any]) -> Any:
    """What the head answers, within ANSWER_S: Ray's client itself would wait without end."""
    done: Future[Any] = Future()

    def call() -> None:
        try:
            done.set_result(ask())
        except BaseException as error:  # raised where somebody waits for it
            done.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return done.result(ANSWER_S)


def _short(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("config", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--address", required=True, help="The cluster's dashboard, such as http://127.0.0.1:8265.")
@click.option("--insecure", is_flag=True, help="Allow an unencrypted, token-less line to another machine.")
@click.option("--install", is_flag=True, help="Install requirements.txt on the cluster first (slow the first time).")
@click.option("--no-wait", is_flag=True, help="Do not follow the log; print the job's id.")
@click.pass_context
def cli(
    context: click.Context,
    config: Path,
    overrides: tuple[str, ...],
    address: str,
    insecure: bool,
    install: bool,
    no_wait: bool,
) -> None:
    """Train the ensemble of a CONFIG file on a Ray cluster."""
    context.obj = lambda: submit(config, overrides, address, insecure, install, no_wait)


def submit(config: Path, overrides: tuple[str, ...], address: str, insecure: bool, install: bool, no_wait: bool) -> int:
    """Submit, follow, and return the job's exit code. Raises ComputeError where the cluster does not answer."""
    check_address(address, insecure)
    arguments = submission(config, overrides, install)
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    for name in ("ray", "ray.dashboard"):  # its packaging names every file it leaves out
        logging.getLogger(name).setLevel(logging.ERROR)
    _knock(address)
    try:
        client: Any = JobSubmissionClient(address)
        job = client.submit_job(**arguments)
    except (*_LOST, RayError) as error:
        remedy = AGENT_HELP if _NO_AGENT in str(error) else TOKEN_HELP
        raise ComputeError(f"the cluster at {address} did not take the job: {_short(error)}; {remedy}") from error
    json_lines.tell(f"job {job}")
    if no_wait:
        click.echo(job)
        return 0
    try:
        return follow(client, job, address)
    except KeyboardInterrupt:
        json_lines.tell(f"stopping {job} ...")
        with contextlib.suppress(*_LOST):  # a head that is gone runs nothing
            _answer(lambda: client.stop_job(job))
            deadline = time.monotonic() + STOP_WAIT_S + 10
            while not _answer(lambda: client.get_job_info(job)).status.is_terminal() and time.monotonic() < deadline:
                time.sleep(0.5)
        raise


def _knock(address: str) -> None:
    """Raises ComputeError within seconds where nobody answers at the dashboard's address."""
    found = urlparse(address)
    port = found.port or (443 if found.scheme == "https" else 80)
    try:
        socket.create_connection((found.hostname or "", port), CONNECT_S).close()
    except OSError as error:
        raise ComputeError(
            f"the cluster at {address} could not be reached within {CONNECT_S:g} s: {error.strerror or error}; check --address and that the head is up"
        ) from error


def main() -> int:
    """Read the command line and submit."""
    context = cli.make_context("python -m ensemble.launch.submit", sys.argv[1:])
    with context:
        cli.invoke(context)
        return int(context.obj())


def start() -> None:
    """Run this door and leave with its exit code."""
    try:
        guarded(main, "the same command")
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)


if __name__ == "__main__":
    start()
