"""torchrun over two hosts: network namespaces that share a cable, and neither home, working directory nor data."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.launch.mnist_run import CONFIG, member_digests, processes_that_trained, train_inline

BIN = Path(sys.executable).parent


def ip(*words: str, check: bool = True) -> str:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@dataclass
class Host:
    """A network namespace and a folder that is home and working directory there."""

    rank: int
    namespace: str
    folder: Path
    process: subprocess.Popen[str] | None = None

    def torchrun(self, *overrides: str, data: Path | None = None) -> None:
        """Start this host's process of a world of two."""
        kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "PYTHONDONTWRITEBYTECODE")}
        environment = {
            **kept, "HOME": str(self.folder), "OMP_NUM_THREADS": "1",
            "ENSEMBLE_LAUNCH_SECRET": "the same long random text on both hosts",
            **({"ENSEMBLE_DATA": str(data)} if data else {}),
        }  # fmt: skip
        (self.folder / "mnist.yaml").write_text(CONFIG)
        words = [
            "ip", "netns", "exec", self.namespace, str(BIN / "torchrun"), "--nnodes", "2", "--nproc-per-node", "1",
            "--node-rank", str(self.rank), "--master-addr", "10.79.1.1", "--master-port", "29500",
            "-m", "ensemble.launch.accelerate_run", "mnist.yaml", f"output_dir={self.folder}", "name=run", *overrides,
        ]  # fmt: skip
        with (self.folder / "log.txt").open("w") as log:
            self.process = subprocess.Popen(words, cwd=self.folder, env=environment, stdout=log, stderr=log, text=True)

    def exit_code(self, within_s: float) -> int:
        """The launcher's exit code, when it has ended."""
        assert self.process is not None
        try:
            return self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"host {self.rank} still runs after {within_s:g} s:\n{self.log()}")

    def log(self) -> str:
        return (self.folder / "log.txt").read_text()[-5000:]

    def kill(self) -> None:
        """End every process of the host at once, as a power cut would."""
        for pid in map(int, ip("netns", "pids", self.namespace, check=False).split()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("two hosts on one machine need root and iproute2")
    made = [Host(rank, f"ensemble-{os.getpid()}-{rank}", tmp_path / f"host{rank}") for rank in range(2)]
    try:
        try:
            for host in made:
                host.folder.mkdir()
                ip("netns", "add", host.namespace)
            first, second = (host.namespace for host in made)
            ip("link", "add", "eth0", "netns", first, "type", "veth", "peer", "name", "eth0", "netns", second)
            for host in made:
                ip("-n", host.namespace, "address", "add", f"10.79.1.{host.rank + 1}/24", "dev", "eth0")
                for interface in ("lo", "eth0"):
                    ip("-n", host.namespace, "link", "set", interface, "up")
        except OSError as error:
            pytest.skip(f"two hosts on one machine need the right to make network namespaces: {error}")
        yield made
    finally:
        for host in made:
            host.kill()
            ip("netns", "delete", host.namespace, check=False)


def test_two_hosts_train_what_one_process_trains(hosts: list[Host], mnist_root: Path, tmp_path: Path) -> None:
    """Only the first host has the images; 55 MB of them go to the other one, votes and weights come back."""
    for host in hosts:
        host.torchrun(data=mnist_root if host.rank == 0 else None)
    expected = train_inline(tmp_path, mnist_root)
    for host in hosts:
        assert host.exit_code(200) == 0, host.log()
    assert member_digests(hosts[0].folder / "run") == expected
    assert len(expected) == 8
    assert len(processes_that_trained(hosts[0].folder / "run")) == 2
    assert not (hosts[1].folder / "run").exists()
    assert not (hosts[1].folder / ".cache" / "ensemble" / "launch.key").exists()


@pytest.mark.long  # torchrun itself waits five minutes at its end for the launcher of the host that is gone
@pytest.mark.timeout(700)
def test_the_members_of_a_host_that_dies_are_trained_on_the_other_one(hosts: list[Host], mnist_root: Path) -> None:
    """torchrun on the first host hears nothing of it: without a limit it would wait for ever."""
    words = ["num_members=2", "training.epochs=30", "compute.hang_timeout_s=6"]
    for host in hosts:
        host.torchrun(*words, data=mnist_root if host.rank == 0 else None)
    run, deadline = hosts[0].folder / "run", time.monotonic() + 120
    while not (run / "events.jsonl").exists() or len(processes_that_trained(run)) < 2:
        assert time.monotonic() < deadline, hosts[0].log()
        time.sleep(0.2)
    hosts[1].kill()
    assert hosts[0].exit_code(500) == 0, hosts[0].log()
    assert "rank 1 (" in hosts[0].log()
    assert "has shown no sign of life for 6 s (compute.hang_timeout_s)" in hosts[0].log()
    assert len(member_digests(run)) == 4
