"""A Slurm of one node, of a test's own: munged, slurmctld and slurmd in a folder, at free ports, as the user who runs the tests."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue")
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
CONF = """\
ClusterName=ensemble{number}
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SwitchType=switch/none
MpiDefault=none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
ReturnToService=2
KillWait=30
JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class MissingError(Exception):
    """Slurm is not installed here."""


def until(true: Callable[[], object], within_s: float, what: Callable[[], str]) -> None:
    """Wait until something is so; fails with `what()` when the time is over."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what()}"
        time.sleep(0.2)


class Slurm:
    """The cluster: `low` is the default partition, whose jobs those of `high` pre-empt after a grace of 60 s.

    folder: must be short, since munged's socket lies in it.
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        missing = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
        if missing:
            raise MissingError(", ".join(missing))
        self.folder = folder
        self.variables = {**os.environ, "PATH": PATH, "SLURM_CONF": str(folder / "slurm.conf"), **variables}
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start the three daemons and wait until the node is idle."""
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            ports = (one.getsockname()[1], other.getsockname()[1])
        (self.folder / "slurm.conf").write_text(
            CONF.format(number=os.getpid(), host=socket.gethostname().partition(".")[0], user=getpass.getuser(), folder=self.folder, ports=ports)
        )  # fmt: skip
        munge = [f"--{name}-file={self.folder / name}" for name in ("pid", "log", "seed")]
        self._daemon(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={self.folder / 'munge.socket'}", *munge
        )
        until((self.folder / "munge.socket").exists, 20, self.said)
        self._daemon("slurmctld", "-D", "-c")
        self._daemon("slurmd", "-D")
        until(
            lambda: self.ask("sinfo", "--noheader", "--format=%t", "--partition=low", check=False).strip() == "idle",
            30,
            self.said,
        )

    def _daemon(self, *words: str) -> None:
        with (self.folder / f"{words[0]}.out").open("wb") as log:
            daemon = subprocess.Popen(
                words, env=self.variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self._daemons.append(daemon)

    def ask(self, *words: str, check: bool = True, cwd: Path | None = None) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(
            words,
            env=self.variables,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stderr}\n{self.said()}"
        return done.stdout

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job: JobState, ExitCode, Restarts and so on."""
        words = self.ask("scontrol", "show", "job", number, "--oneliner").split()
        return dict(word.partition("=")[::2] for word in words)

    def wait(self, number: str, states: tuple[str, ...], within_s: float) -> dict[str, str]:
        """Wait until a job is in one of these states; returns what is known of it then."""
        until(lambda: self.job(number)["JobState"] in states, within_s, lambda: f"{self.job(number)}\n{self.said()}")
        return self.job(number)

    def said(self) -> str:
        """The ends of all logs in the folder."""
        logs = sorted(path for path in self.folder.iterdir() if path.suffix in (".log", ".out") or path.name == "log")
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in logs)

    def processes(self, daemons: bool = False) -> dict[int, str]:
        """Numbers and command lines of all processes of this cluster, known by their environment; its daemons only if asked."""
        mark = f"SLURM_CONF={self.folder / 'slurm.conf'}".encode()
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended, or is not ours
                if mark in (path / "environ").read_bytes().split(b"\0"):
                    words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
                    its_own = Path(words[0]).name in ("munged", "slurmctld", "slurmd") or "slurmscriptd" in " ".join(
                        words
                    )
                    if daemons or not its_own:
                        found[int(path.name)] = " ".join(words)[:200]
        return found

    def until_quiet(self, within_s: float = 40) -> None:
        """Wait until no process of a job is left."""
        until(lambda: not self.processes(), within_s, lambda: str(self.processes()))

    def cancel_all(self) -> None:
        """End all jobs of this user, and wait until they are gone."""
        self.ask("scancel", "--user", getpass.getuser(), check=False)
        until(lambda: not self.ask("squeue", "--noheader", check=False).strip(), 40, self.said)

    def stop(self) -> None:
        """End jobs, daemons and all that is left of them."""
        with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
            self.cancel_all()
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(10)
            daemon.kill()
            daemon.wait(10)
        for number in self.processes(daemons=True):
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
