"""Hosts on one Linux machine: each has its own network address, name, processes and disks, and can break on its own.

Network, process, mount and name spaces, joined by a bridge in a network space of its own, so that nothing reaches the machine's real
interfaces. A host's /tmp, /dev/shm and /srv are its own; /srv is a folder that outlives the host, as a disk outlives a
crash. What the virtual environment holds is seen on every host, as if it were installed there. Needs root, iproute2 and util-linux.

    with Network() as network:
        host = network.host("one")
        host.start(["python", "-c", "..."], log)
        host.unplug(), host.plug_in(), host.kill(), host.boot()
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
NEEDED = {"ip": "iproute2", "nsenter": "util-linux", "unshare": "util-linux", "mount": "util-linux"}
BOOT_S = 20.0
HOME = "/tmp/home"  # noqa: S108 - on a disk that only this host has
KEPT_VARIABLES = ("LANG", "LC_ALL", "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


class NoHostsError(Exception):
    """This machine cannot have hosts; the message says what is missing."""


def check() -> None:
    """Raises NoHostsError where hosts cannot be made here."""
    missing = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    if missing:
        raise NoHostsError(f"hosts on one machine need {' and '.join(missing)}: install them (Linux only)")
    if os.geteuid() != 0:
        raise NoHostsError(f"hosts on one machine need root, and this is user {os.geteuid()}: start it with sudo")


def command(*words: str, quiet: bool = False) -> str:
    """Run a program; returns what it printed. Raises NoHostsError where it fails, unless quiet."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode and not quiet:
        raise NoHostsError(f"{' '.join(words)}: {done.stderr.strip() or f'exit code {done.returncode}'}")
    return done.stdout


@dataclass
class Host:
    """One host. `folder` is its /srv, seen from outside."""

    name: str
    number: int
    network: Network
    folder: Path
    holder: subprocess.Popen[bytes] | None = None
    init: int = 0  # the number of its first process, seen from outside

    @property
    def address(self) -> str:
        return f"{self.network.subnet}.{self.number}"

    @property
    def _port(self) -> str:
        """The host's interface at the bridge."""
        return f"port{self.number}"

    def boot(self) -> None:
        """Start the host, empty but for /srv. Raises NoHostsError where it does not come up."""
        ready = self.folder / ".ready"
        ready.unlink(missing_ok=True)
        spaces = ["--net", "--uts", "--mount", "--ipc", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        with (self.network.folder / f"{self.name}.boot").open("wb") as log:
            words = ["unshare", *spaces, "sh", "-c", self._first_steps()]
            self.holder = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + BOOT_S
        while not ready.exists():
            if self.holder.poll() is not None or time.monotonic() > deadline:
                said = (self.network.folder / f"{self.name}.boot").read_text()
                raise NoHostsError(f"the host {self.name} did not start: {said.strip()[-500:] or 'it says nothing'}")
            time.sleep(0.05)
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read_text()
        self.init = int(children.split()[0])
        inside = f"inside{self.number}"
        switch = self.network.switch
        command("ip", "-n", switch, "link", "add", inside, "type", "veth", "peer", "name", self._port)
        command("ip", "-n", switch, "link", "set", inside, "netns", str(self.init))
        enter = ("nsenter", "-t", str(self.init), "-n", "ip")
        command(*enter, "link", "set", inside, "name", "eth0")
        command(*enter, "address", "add", f"{self.address}/24", "dev", "eth0")
        command(*enter, "link", "set", "eth0", "up")
        command("ip", "-n", switch, "link", "set", self._port, "master", "bridge0")
        self.plug_in()

    def _first_steps(self) -> str:
        """What the host's first process does before it waits for its end. Paths below /tmp stay seen where they are programs."""
        programs = sorted({str(REPOSITORY), sys.prefix, sys.base_prefix})
        kept = [path for path in programs if path.startswith(("/tmp/", "/srv/"))]  # noqa: S108 - where they are
        lines = [
            "set -e", "mount --make-rprivate /", f"hostname {self.name}", "mount -t tmpfs -o size=1m kept /mnt",
            f"mkdir /mnt/srv; mount --bind {self.folder} /mnt/srv",
        ]  # fmt: skip
        lines += [f"mkdir /mnt/{i}; mount --bind {path} /mnt/{i}" for i, path in enumerate(kept)]
        lines += ["mount -t tmpfs -o size=3g,mode=1777 tmp /tmp", "mount -t tmpfs -o size=1g shm /dev/shm"]
        lines += [f"mkdir -p {path}; mount --bind /mnt/{i} {path}" for i, path in enumerate(kept)]
        lines += ["mount --bind /mnt/srv /srv", f"mkdir -p {HOME} /srv/here", "ip link set lo up"]
        return "; ".join([*lines, "touch /srv/.ready", "exec sleep infinity"])

    def kill(self) -> None:
        """Every process of the host dies at once; its connections are closed by the kernel, as after a crash of programs."""
        if self.holder is None:
            return
        for number in (self.init, self.holder.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.holder.wait(10)
        self.holder = None
        command("ip", "-n", self.network.switch, "link", "delete", self._port, quiet=True)

    def vanish(self) -> None:
        """The host is gone without a word, as after a power cut: no connection is closed."""
        self.unplug()
        self.kill()

    def unplug(self) -> None:
        """Pull the network cable; the host goes on by itself."""
        command("ip", "-n", self.network.switch, "link", "set", self._port, "down")

    def plug_in(self) -> None:
        """Put the cable back."""
        command("ip", "-n", self.network.switch, "link", "set", self._port, "up")

    def start(self, words: Sequence[str], log: Path | None = None, **variables: str) -> subprocess.Popen[str]:
        """Start a program on the host, in /srv/here; its output goes to the end of `log`, or to a pipe."""
        there = ["sh", "-c", 'cd /srv/here && exec "$@"', "sh"]
        enter = ["nsenter", "-t", str(self.init), "-a", "--", *there, *words]
        out = log.open("ab") if log else subprocess.PIPE
        try:
            return subprocess.Popen(
                enter, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, text=True, bufsize=1,
                env=self._environment(variables), start_new_session=True,
            )  # fmt: skip
        finally:
            if log:
                out.close()  # type: ignore[union-attr]

    def run(self, words: Sequence[str], timeout_s: float, **variables: str) -> tuple[int, str]:
        """Run a program on the host; returns its exit code, -9 where it took too long, and what it printed."""
        process = self.start(words, None, **variables)
        try:
            said, _ = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
        return process.returncode, said

    def processes(self, word: str) -> list[int]:
        """Numbers, seen from outside, of the host's processes that have a word in their command line."""
        own = Path(f"/proc/{self.init}/ns/pid").readlink()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and (entry / "ns" / "pid").readlink() == own:
                    words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    if word in words:
                        found.append(int(entry.name))
        return sorted(found)

    def _environment(self, variables: dict[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        return {
            **kept, "HOME": HOME, "PATH": f"{BIN}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", **variables,
        }  # fmt: skip


@dataclass
class Network:
    """A bridge and its hosts. Leaving the block ends every host and removes every trace."""

    subnet: str = "10.77.41"
    switch: str = field(default_factory=lambda: f"ensemble-hosts-{os.getpid()}")
    hosts: dict[str, Host] = field(default_factory=dict)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="ensemble-hosts-")))

    def __enter__(self) -> Network:
        try:
            check()
            command("ip", "netns", "add", self.switch)
            command("ip", "-n", self.switch, "link", "add", "bridge0", "type", "bridge")
            command("ip", "-n", self.switch, "link", "set", "bridge0", "up")
        except BaseException:
            self._remove()
            raise
        return self

    def host(self, name: str) -> Host:
        """A new host with the next address, up and connected."""
        folder = self.folder / name
        folder.mkdir()
        made = self.hosts[name] = Host(name, len(self.hosts) + 1, self, folder)
        made.boot()
        return made

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _remove(self) -> None:
        for host in self.hosts.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                host.kill()
        command("ip", "netns", "delete", self.switch, quiet=True) if shutil.which("ip") else None
        shutil.rmtree(self.folder, ignore_errors=True)
