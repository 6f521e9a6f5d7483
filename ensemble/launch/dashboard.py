"""The dashboard of a Ray cluster: where it is, whether it is one, and what to say where it is not.

    cluster = connect(dashboard_address(None), insecure=False)
    cluster.answer(lambda: cluster.client.get_job_info(job))

Everything that can go wrong is one sentence with what to do: a malformed address (ConfigError), nobody there, something
that is no Ray, a token that is missing or wrong, a Ray that is too old, a cluster that does not answer (ComputeError).
"""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar
from urllib.parse import urlparse

from ensemble.errors import ComputeError, ConfigError
from ensemble.outside.foreign_variables import without_variables

CONNECT_S = 3.0
ANSWER_S = 10.0  # for the head to answer one question
SUBMIT_S = 300.0  # for it to take a job, with its files
OLDEST_RAY = (2, 52)  # what the program on the cluster needs (pyproject.toml)
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
# What Ray's client and the libraries below it raise where the head is gone.
LOST = (OSError, RuntimeError, ValueError, TimeoutError)
_NO_AGENT = "No available agent"  # what Ray says after having waited for one
AGENT_HELP = "the agent that takes jobs is not up on any node: the cluster may have only just started, or the agent's port (52365) is taken on that machine, as by a second cluster: ray start --dashboard-agent-listen-port=PORT"
TOKEN_HELP = "export RAY_AUTH_MODE=token and the cluster's token as RAY_AUTH_TOKEN (or its file as RAY_AUTH_TOKEN_PATH) here, or, on a trusted host only, start the cluster and this with RAY_AUTH_MODE=disabled"  # noqa: S105 - no secret, a sentence
_EXAMPLE = "expected the dashboard's URL, such as http://127.0.0.1:8265"
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Cluster:
    """A cluster that answers. ray_version: of its head."""

    address: str
    client: Any
    ray_version: str

    def answer(self, ask: Callable[[], _Answer], within_s: float = ANSWER_S) -> _Answer:
        """What the head answers in time: Ray's client itself would wait without end. Raises what asking raises, or TimeoutError."""
        done: Future[_Answer] = Future()

        def call() -> None:
            try:
                done.set_result(ask())
            except BaseException as error:  # raised where somebody waits for it
                done.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        return done.result(within_s)

    def info(self, job: str) -> Any:
        """What the head knows of a job. Raises ConfigError where there is no such job, ComputeError where nobody answers."""
        try:
            return self.answer(lambda: self.client.get_job_info(job))
        except LOST as error:
            if "404" in str(error) or "does not exist" in str(error):
                raise ConfigError(
                    f"there is no job {job} on the cluster at {self.address}; `ray job list --address {self.address}` shows those there are, since the cluster was started"
                ) from error
            raise ComputeError(f"the cluster at {self.address} does not answer: {short(error)}; try again") from error

    def take(self, **arguments: Any) -> str:
        """Hand a job in; returns its id. Raises ComputeError with the reason where it is refused."""
        from ray.exceptions import AuthenticationError, RayError

        try:
            return str(self.answer(lambda: self.client.submit_job(**arguments), SUBMIT_S))
        except AuthenticationError as error:
            _refused(self.address, error)
        except (*LOST, RayError) as error:
            remedy = f"; {AGENT_HELP}" if _NO_AGENT in str(error) else ""
            raise ComputeError(f"the cluster at {self.address} refused the job: {reason(error)}{remedy}") from error


def dashboard_address(given: str | None) -> tuple[str, str | None]:
    """The dashboard that is meant, and the variable that names it where --address does not. Raises ConfigError."""
    name, address = None, given
    if address is None:
        name = next((name for name in ADDRESS_VARIABLES if os.environ.get(name, "").strip()), None)
        if name is None:
            raise ConfigError(
                f"--address is missing: {_EXAMPLE} (or set {ADDRESS_VARIABLES[0]}); the port is that of `ray start --dashboard-port`"
            )
        address = os.environ[name].strip()
    if not address:
        raise ConfigError(f"--address: found an empty address; {_EXAMPLE}")
    where = "--address" if name is None else f"${name}"
    if "@" in address.partition("://")[2].partition("/")[0]:
        raise ConfigError(
            f"{where}: holds a name or a password, which would be shown; leave it out: Ray asks for a token (RAY_AUTH_TOKEN)"
        )
    try:
        found = urlparse(address)
        sound = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError as error:
        raise ConfigError(f"{where} {address!r}: {error}; {_EXAMPLE}") from error
    if found.scheme == "ray":
        raise ConfigError(f"{where} {address!r}: is for Ray's client, which this does not use; {_EXAMPLE}")
    if not sound or found.path not in ("", "/") or found.query:
        raise ConfigError(f"{where} {address!r}: {_EXAMPLE}")
    return address.rstrip("/"), name


def check_line(address: str, insecure: bool) -> None:
    """Refuse to send code over an unencrypted, token-less line to another machine. Raises ComputeError."""
    found = urlparse(address)
    has_token = os.environ.get("RAY_AUTH_MODE") == "token" or "RAY_AUTH_TOKEN" in os.environ
    if insecure or found.scheme == "https" or _is_loopback(found.hostname or "") or has_token:
        return
    raise ComputeError(
        f"{address}: another machine, without encryption or token: whoever can reach it can run code there, and read this job's. Use https, an SSH tunnel (ssh -L 8265:127.0.0.1:8265 HEAD), or a token ({TOKEN_HELP}); --insecure overrides this"
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def connect(address: str, insecure: bool) -> Cluster:
    """The cluster at an address. Raises ComputeError where the line is not safe, nobody answers, it is no Ray, or not for us."""
    check_line(address, insecure)
    _knock(address)
    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    for name in [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "ray"]:
        logging.getLogger(name).setLevel(logging.ERROR)  # it tells of every package and every connection
    cluster = Cluster(address, None, "")
    try:
        with without_variables(*ADDRESS_VARIABLES):  # Ray's client would go there, whatever it is told
            client = cluster.answer(lambda: JobSubmissionClient(address))
    except AuthenticationError as error:
        _refused(address, error)
    except TimeoutError as error:
        raise ComputeError(
            f"something at {address} takes connections and says nothing for {ANSWER_S:g} s; check the port: the dashboard's is that of `ray start --dashboard-port`, 8265 if not given"
        ) from error
    except (*LOST, KeyError, TypeError) as error:
        why = error.__context__ or error
        raise ComputeError(
            f"what answers at {address} is no Ray dashboard ({short(why)}); check the port: the dashboard's is that of `ray start --dashboard-port`, 8265 if not given, and https where it has a certificate"
        ) from error
    version = str(getattr(client, "_server_ray_version", None) or "")
    numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
    if numbers and numbers < OLDEST_RAY:
        raise ComputeError(
            f"the cluster at {address} has Ray {version}; expected {'.'.join(map(str, OLDEST_RAY))} or later, which the program needs there"
        )
    return Cluster(address, client, version)


def _refused(address: str, error: Exception) -> NoReturn:
    """Say which token is missing or wrong."""
    wrong = "Authentication failed" in str(error)
    what = (
        "does not know the token that is set here"
        if wrong
        else "asks for a token (Ray's clusters do since 2.59), and none is set here"
    )
    raise ComputeError(f"the cluster at {address} {what}; {TOKEN_HELP}") from error


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


def short(error: BaseException) -> str:
    """The first line of an error."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def reason(error: BaseException) -> str:
    """Why Ray refused something: the last line of the trace that it sends, else the first one of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    traced = any("Traceback" in line for line in lines)
    return (lines[-1].rstrip(".") if traced else short(error))[:300]
