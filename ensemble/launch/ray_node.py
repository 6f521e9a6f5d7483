"""The Ray cluster of a batch job: what launch/cluster/slurm.sh starts on each of the job's nodes, and how it waits for all of them.

    python -m ensemble.launch.ray_node address HOST [alone]         # ADDRESS:PORT for the head, in the network of the machine HOST
    python -m ensemble.launch.ray_node head ADDRESS:PORT            # on the first node
    python -m ensemble.launch.ray_node join ADDRESS:PORT            # on every other one
    python -m ensemble.launch.ray_node wait ADDRESS:PORT NODE ...   # until all of these have joined

`head` and `join` stay until SIGUSR1 tells them to end; then every process below them is killed and Ray's folder removed.
SIGTERM is blocked in them and, since a blocked signal is inherited, in all of Ray: a batch system signals all processes of a
step, and the driver needs its cluster while it fetches the last checkpoints. Imported here is only what is quick.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from ensemble.errors import ComputeError, ConfigError, EnsembleError

WITHIN = "ENSEMBLE_JOIN_WITHIN_S"
RESOURCE = "batch-node-"  # each node offers a resource of this name and its own: host names have several spellings
STARTS = 3  # of Ray on a node; of a head only until it is up, since the state of the cluster ends with it
_UP = "Ray runtime started"  # what `ray start` says then
_ALIVE = 0  # the state of a node in the head's table
LAST_LINES = 2  # of Ray's own words, when it ends unasked
_ANYWHERE = "8.8.8.8"  # nothing is sent there
_PR_SET_CHILD_SUBREAPER = 36
_USAGE = "usage: python -m ensemble.launch.ray_node address HOST [alone] | head ADDRESS:PORT | join ADDRESS:PORT | wait ADDRESS:PORT NODE ..."


def main() -> int:
    """Do what the first word says; returns the exit code."""
    commands: dict[str, Callable[[Sequence[str]], int]] = {
        "address": print_address,
        "head": lambda words: Node(words, head=True).stay(),
        "join": lambda words: Node(words, head=False).stay(),
        "wait": wait_for_nodes,
    }
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        raise ConfigError(_USAGE)
    return commands[sys.argv[1]](sys.argv[2:])


def print_address(words: Sequence[str]) -> int:
    """Print this machine's address in the network of the machine that is named, and a free port.

    words: the host; and `alone` where the job has one node, which may then use whatever address there is. Raises ComputeError
    where the other machine cannot be reached, or only by the loopback interface.
    """
    host, alone = words[0], words[1:] == ["alone"]
    try:
        address = address_towards(host)
    except ComputeError:
        if not alone:
            raise
        try:
            address = address_towards(_ANYWHERE)  # as Ray itself finds it: it takes 127.0.0.1 for another name of that
        except ComputeError:
            address = "127.0.0.1"
    click.echo(f"{address}:{free_port(address)}")
    return 0


def free_port(address: str) -> int:
    """A port at which nothing listens on this machine now. Raises ComputeError where the address is not this machine's."""
    with socket.socket() as free:
        try:
            free.bind((address, 0))
        except OSError as error:
            raise ComputeError(
                f"{address} (ENSEMBLE_HEAD_ADDRESS?) is no address of {socket.gethostname()}, the job's first node: {error.strerror}; give one that it has, or leave ENSEMBLE_HEAD_ADDRESS out"
            ) from error
        return int(free.getsockname()[1])


def address_towards(host: str) -> str:
    """This machine's IPv4 address in the network by which it reaches a host. Raises ComputeError."""
    remedy = "set ENSEMBLE_HEAD_ADDRESS to the address of the job's first node in the network between the nodes"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # sends nothing: the system only chooses the way
        try:
            probe.connect((host, 9))
        except OSError as error:
            raise ComputeError(f"{socket.gethostname()} cannot reach {host}: {error}; {remedy}") from error
        address = str(probe.getsockname()[0])
    if address.startswith("127."):
        raise ComputeError(
            f"on {socket.gethostname()} the name {host} leads to the loopback interface ({address}), which no other machine reaches; {remedy}"
        )
    return address


def within_s() -> float:
    """Seconds within which a node must have joined. Raises ConfigError."""
    text = os.environ.get(WITHIN, "").strip() or "120"
    if not text.isdecimal() or not 1 <= int(text) <= 86_400:
        raise ConfigError(f"{WITHIN} is {text[:40]!r}; expected whole seconds, 1 to 86400")
    return float(text)


def name_of_node() -> str:
    """This node's name in the batch system, else the machine's."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def resources_of_node() -> list[str]:
    """Options of `ray start`: what the batch system gave this job on this node. Raises ConfigError."""
    options = [f'--resources={{"{RESOURCE}{name_of_node()}": 1}}']
    for option, names in (
        ("--num-cpus", ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")),
        ("--num-gpus", ("SLURM_GPUS_ON_NODE",)),
    ):
        name = next((name for name in names if os.environ.get(name)), None)
        if name is not None and not os.environ[name].isdecimal():
            raise ConfigError(f"{name} is {os.environ[name][:40]!r}; expected a number, as Slurm sets it")
        count = os.environ[name] if name else "0" if option == "--num-gpus" else str(len(os.sched_getaffinity(0)))
        options.append(f"{option}={count}")
    return options


class Node:
    """Ray on this node, under this process. words: the head's ADDRESS:PORT."""

    def __init__(self, words: Sequence[str], head: bool) -> None:
        self._head, self._address = head, words[0]
        self._told = False
        host, _, port = words[0].rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError(f"the head's address is {words[0][:80]!r}; expected HOST:PORT, such as 10.0.0.1:6379")
        self._host, self._port = host, port

    def stay(self) -> int:
        """Keep Ray running until told to end; returns the exit code. Raises ComputeError where Ray does not stay."""
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        signal.signal(signal.SIGUSR1, self._end)
        # Whatever loses its parent below becomes a child of this process, so that nothing is left behind.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        # Ray opens its folder to everybody; its name is short since sockets lie in it.
        folder = Path(tempfile.mkdtemp(prefix="ensemble-slurm-", dir="/tmp"))
        try:
            for start in range(1, STARTS + 1):
                code = self._run(folder)
                if self._told:
                    return 0
                kill_descendants()
                said = (folder / "log").read_text(errors="replace")
                if start == STARTS or (self._head and _UP in said):
                    break
                click.echo(
                    f"{name_of_node()}: Ray has ended here with {code} and is started again: {_end_of(said)}", err=True
                )
            raise ComputeError(
                f"{name_of_node()}: Ray has ended here with {code}; correct what it says and submit the job again: {_end_of(said)}"
            )
        finally:
            kill_descendants()
            shutil.rmtree(folder, ignore_errors=True)

    def _end(self, _number: int, _frame: Any) -> None:
        self._told = True

    def _run(self, folder: Path) -> int:
        """Start Ray and stay until it ends or this process is told to; returns Ray's code."""
        if self._head:
            client = free_port(self._host)  # the default, 10001, is another job's already where two share a node
            where = [
                "--head", f"--node-ip-address={self._host}", f"--port={self._port}", "--include-dashboard=false",
                f"--ray-client-server-port={client}",
            ]  # fmt: skip
        else:
            wait_for_head(self._address, lambda: self._told)
            own = address_towards(self._host)
            where = [f"--address={self._address}", f"--node-ip-address={own}"]
        words = [
            str(Path(sys.executable).with_name("ray")), "start", *where, *resources_of_node(),
            f"--temp-dir={folder / 'r'}", "--disable-usage-stats", "--block",
        ]  # fmt: skip
        with (folder / "log").open("wb") as log:
            ray = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603 - our own words
        while not self._told:
            with suppress(subprocess.TimeoutExpired):
                return ray.wait(0.5)
        return 0


def wait_for_head(address: str, given_up: Callable[[], bool] = lambda: False) -> None:
    """Wait until the head answers at its address, or until given_up() says so. Raises ComputeError when the time is over."""
    from ensemble.executors.knocking import knock

    patience_s = within_s()
    deadline = time.monotonic() + patience_s
    while not given_up():
        try:
            return knock(address, "the head's address")
        except ComputeError as error:
            if time.monotonic() > deadline:
                raise ComputeError(
                    f"{name_of_node()} has waited {patience_s:g} s ({WITHIN}) for the head of the job's Ray cluster: {error}"
                ) from error
        time.sleep(0.3)
    return None


def _end_of(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return " / ".join(lines[-LAST_LINES:]) or "it said nothing"


def kill_descendants() -> None:
    """Kill every process below this one: killed parents hand their children on to it (see `stay`)."""
    while children := _children():
        for number in children:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(number, 0)


def _children() -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            if int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.append(int(path.parent.name))
    return found


def wait_for_nodes(words: Sequence[str]) -> int:
    """Wait until all nodes that are named have joined the cluster; returns 0.

    Raises ComputeError that names those which have not when the time is over.
    """
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # compiled; as `ray symmetric-run` does: a driver could only ask from a node that is up
    from ray.exceptions import RpcError

    address, *names = words
    patience_s = within_s()
    deadline = time.monotonic() + patience_s
    wait_for_head(address)
    while True:
        try:
            missing = [
                name for name in names if name not in joined(GcsClient(address=address).get_all_node_info(timeout=5))
            ]
        except RpcError:  # it is being started again
            missing = names
        if not missing:
            return 0
        if time.monotonic() > deadline:
            raise ComputeError(
                f"of the job's {len(names)} nodes {len(names) - len(missing)} have joined the Ray cluster at {address} within {patience_s:g} s ({WITHIN}); missing: {', '.join(missing)}. What they said stands above in the job's log; correct that, or raise {WITHIN}"
            )
        time.sleep(0.5)


def joined(nodes: Mapping[Any, Any]) -> set[str]:
    """Names in the batch system of the nodes that are up, from what the head knows of each."""
    return {
        name.removeprefix(RESOURCE)
        for node in nodes.values()
        if node.state == _ALIVE
        for name in node.resources_total
        if name.startswith(RESOURCE)
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except EnsembleError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
