"""A real Slurm of one node: the shipped scripts, started by the lines of docs/slurm.md, train what one undisturbed process trains."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ray.core.generated.gcs_pb2 import GcsNodeInfo

from ensemble.errors import ComputeError, ConfigError
from ensemble.launch.ray_node import RESOURCE, address_towards, free_port, joined, name_of_node, resources_of_node
from tests.held_network import held, hold_of
from tests.launch.mnist_run import member_digests
from tests.launch.slurm_here import MissingError, Slurm, until

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SCRIPTS = sorted((ROOT / "launch/cluster").glob("slurm*.sh"))
CONFIG = """\
num_members: 2
method: {name: bagging}
baseline: false
data: {name: digits}
model: MODEL
training: {epochs: 30, lr: 3e-3, batch_size: 64}
compute: {stack_size: 1, device: cpu, kernels: torch}
tracking: {wandb: {mode: disabled}}
"""
pytestmark = pytest.mark.timeout(900)  # a minute and a half together; each wait has a limit of its own
GONE = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_scripts_are_valid(script: Path) -> None:
    commands = [["bash", "-n", str(script)]]
    if shutil.which("shellcheck"):
        commands.append(["shellcheck", "--external-sources", str(script)])
    for command in commands:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def command_of_the_page(beginning: str) -> list[str]:
    """The words of a line of docs/slurm.md that begins so."""
    lines = [line.strip() for line in (ROOT / "docs/slurm.md").read_text().splitlines()]
    return shlex.split(next(line for line in lines if line.startswith(beginning)), comments=True)


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """Tests of this file that another worker of pytest runs wait: they look at what is left of all Slurm jobs in /tmp."""
    with (Path(tempfile.gettempdir()) / "ensemble-tests-of-slurm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="module")
def cluster(alone: None) -> Iterator[Slurm]:
    before = set(Path("/tmp").glob("ensemble-slurm-*"))
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # short: a socket lies in it
    try:
        try:
            here = Slurm(folder, ENSEMBLE_BIN=str(BIN), ENSEMBLE_RUNS=str(folder / "runs"))
        except MissingError as missing:
            pytest.skip(f"needs Slurm: {missing} not found")
        (folder / "small.yaml").write_text(CONFIG.replace("MODEL", json.dumps(held(folder))))
        hold_of(folder).unlink()
        try:
            here.start()
            yield here
        finally:
            here.stop()
        until(lambda: not here.processes(daemons=True), 20, lambda: str(here.processes(daemons=True)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert set(Path("/tmp").glob("ensemble-slurm-*")) <= before


@pytest.fixture
def slurm(cluster: Slurm) -> Iterator[Slurm]:
    """The cluster, for one test: it leaves the next one no job."""
    yield cluster
    cluster.cancel_all()


@contextmanager
def held_back(slurm: Slurm) -> Iterator[None]:
    """Inside, no run of the cluster comes to its end."""
    hold_of(slurm.folder).touch()
    try:
        yield
    finally:
        hold_of(slurm.folder).unlink()


@pytest.fixture(scope="module")
def undisturbed(cluster: Slurm) -> dict[str, str]:
    """Digests of the run in one process."""
    words = [f"output_dir={cluster.folder}", "name=inline", "compute.executor=inline", "--quiet"]
    train = [str(BIN / "ensemble"), "train", str(cluster.folder / "small.yaml"), *words]
    done = subprocess.run(train, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return member_digests(cluster.folder / "inline")


def submit(slurm: Slurm, beginning: str, log: str, *further: str) -> str:
    """Submit a line of the page for the small configuration, the job's log to the test's folder; returns the job's number."""
    words = command_of_the_page(beginning)
    assert words[0] == "sbatch"
    words = [str(slurm.folder / "small.yaml") if word.endswith(".yaml") else word for word in words]
    words[1:1] = ["--parsable", f"--output={slurm.folder / log}"]
    return slurm.ask(*words, *further, cwd=ROOT).strip()


def log_of(slurm: Slurm, name: str) -> str:
    path = slurm.folder / name
    return path.read_text(errors="replace") if path.exists() else ""


def test_a_preempted_run_goes_back_into_the_queue_and_ends_with_the_same_bits(
    slurm: Slurm, undisturbed: dict[str, str]
) -> None:
    with held_back(slurm):
        job = submit(slurm, "sbatch --cpus-per-task=2 launch/cluster/slurm.sh", "ray.out", "compute.slots=1")
        until(lambda: "epoch " in log_of(slurm, "ray.out"), 300, slurm.said)
        wanted = ("--partition=high", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 1")
        other = slurm.ask("sbatch", "--parsable", *wanted)
        found = slurm.wait(job, ("PENDING",), 100)
    assert found["Restarts"] == "1", slurm.said()
    assert "SIGTERM to the job's steps (pre-emption): stopping at the next checkpoint" in log_of(slurm, "ray.out")
    run = slurm.folder / "runs/small"
    assert list(run.glob("checkpoints/*")), slurm.said()
    assert not list(run.glob("members/*/votes.npz"))
    slurm.wait(other.strip(), GONE, 60)
    slurm.until_quiet()
    words = command_of_the_page("scontrol update")  # Slurm would wait for two minutes
    slurm.ask(*[f"JobId={job}" if word.startswith("JobId=") else word for word in words])
    found = slurm.wait(job, GONE, 300)
    log = log_of(slurm, "ray.out")
    assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0"), slurm.said()
    assert member_digests(slurm.folder / "runs/small") == undisturbed
    slurm.until_quiet()
    assert not re.search(r"[A-Za-z0-9+/]{43}=", log), "the token in the log"


def test_an_array_trains_each_seed_and_leaves_with_the_codes_of_its_runs(
    slurm: Slurm, undisturbed: dict[str, str]
) -> None:
    job = submit(slurm, "sbatch --array=0-4", "array-%a.out")
    slurm.ask("scancel", *[f"{job}_{task}" for task in (2, 3, 4)])
    for task in (0, 1):
        found = slurm.wait(f"{job}_{task}", GONE, 300)
        assert (found["JobState"], found["ExitCode"]) == ("COMPLETED", "0:0"), slurm.said()
    assert member_digests(slurm.folder / "runs/small-seed0") == undisturbed
    assert not set(member_digests(slurm.folder / "runs/small-seed1").values()) & set(undisturbed.values())
    compare = [str(slurm.folder / "runs" / word) for word in ("small-seed0", "small-seed1")]
    done = subprocess.run(
        [str(BIN / "ensemble"), "compare", *compare], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "small-seed1" in done.stdout


def test_a_mistake_in_the_configuration_is_the_jobs_exit_code(slurm: Slurm) -> None:
    job = submit(slurm, "sbatch --array=0-4", "wrong-%a.out", "training.epoch=3")
    slurm.ask("scancel", *[f"{job}_{task}" for task in (1, 2, 3, 4)])
    found = slurm.wait(f"{job}_0", GONE, 120)
    assert (found["JobState"], found["ExitCode"]) == ("FAILED", "2:0"), slurm.said()
    assert "training.epoch" in log_of(slurm, "wrong-0.out")
    assert found["Restarts"] == "0"


def test_a_cancelled_run_keeps_its_checkpoint_and_is_not_started_again(slurm: Slurm) -> None:
    with held_back(slurm):
        job = submit(slurm, "sbatch --array=0-4", "cancelled-%a.out", "name=cancelled")
        slurm.ask("scancel", *[f"{job}_{task}" for task in (1, 2, 3, 4)])
        until(lambda: "epoch " in log_of(slurm, "cancelled-0.out"), 300, slurm.said)
        slurm.ask("scancel", f"{job}_0")
        until(lambda: not slurm.ask("squeue", "--noheader").strip(), 40, slurm.said)
    assert slurm.job(f"{job}_0")["JobState"] == "CANCELLED"
    assert list((slurm.folder / "runs/cancelled-seed0/checkpoints").iterdir())
    slurm.until_quiet()


def below(number: int) -> list[int]:
    """All processes below one."""
    found: list[int] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == number:
                child = int(path.parent.name)
                found += [child, *below(child)]
    return found


def command_line(number: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{number}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


@pytest.mark.usefixtures("alone")
def test_a_node_of_ray_ignores_sigterm_and_leaves_nothing() -> None:
    """Slurm signals every process of a step; the driver needs the cluster until it has left."""
    variables = {**os.environ, "RAY_AUTH_MODE": "disabled", "SLURMD_NODENAME": "n1", "SLURM_CPUS_PER_TASK": "1"}

    words = [sys.executable, "-m", "ensemble.launch.ray_node"]

    def ray_node(*further: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**variables, **more}
        return subprocess.run(
            [*words, *further], env=environment, cwd=ROOT, text=True, capture_output=True, timeout=120, check=False
        )

    address = ray_node("address", "127.0.0.1", "alone").stdout.strip()
    before = set(Path("/tmp").glob("ensemble-slurm-*"))
    head = subprocess.Popen([*words, "head", address], env=variables, cwd=ROOT)
    try:
        there = ray_node("wait", address, "n1")
        assert there.returncode == 0, there.stderr
        for number in [head.pid, *below(head.pid)]:
            os.kill(number, signal.SIGTERM)
        time.sleep(2)
        assert head.poll() is None
        assert any("raylet" in name for name in map(command_line, below(head.pid)))
        lonely = ray_node("wait", address, "n1", "n2", ENSEMBLE_JOIN_WITHIN_S="2")
        assert lonely.returncode == 7
        assert "of the job's 2 nodes 1 have joined" in lonely.stderr
        assert "missing: n2" in lonely.stderr
    finally:
        started = [head.pid, *below(head.pid)]
        head.send_signal(signal.SIGUSR1)
        try:
            head.wait(30)
        finally:
            head.kill()
    assert head.returncode == 0
    assert not [number for number in started if Path(f"/proc/{number}").exists()]
    assert set(Path("/tmp").glob("ensemble-slurm-*")) <= before


def test_the_loopback_interface_is_no_address_for_others() -> None:
    with pytest.raises(ComputeError, match=r"leads to the loopback interface.*ENSEMBLE_HEAD_ADDRESS"):
        address_towards("localhost")
    with pytest.raises(ComputeError, match=r"cannot reach no-such-host\.invalid"):
        address_towards("no-such-host.invalid")


def test_an_address_that_the_head_does_not_have_is_named() -> None:
    with pytest.raises(ComputeError, match=r"192\.0\.2\.77 .* is no address of .*, the job's first node"):
        free_port("192.0.2.77")


def test_ray_is_given_what_slurm_gave_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "16")
    assert resources_of_node() == ['--resources={"batch-node-node7": 1}', "--num-cpus=16", "--num-gpus=0"]
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "8")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    assert resources_of_node()[1:] == ["--num-cpus=8", "--num-gpus=4"]
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "gpu:4")
    with pytest.raises(ConfigError, match="SLURM_GPUS_ON_NODE is 'gpu:4'"):
        resources_of_node()


def test_nodes_count_once_they_are_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURMD_NODENAME", "n1")
    up = GcsNodeInfo(state=GcsNodeInfo.ALIVE, resources_total={RESOURCE + name_of_node(): 1.0, "CPU": 4.0})
    down = GcsNodeInfo(state=GcsNodeInfo.DEAD, resources_total={RESOURCE + "n2": 1.0})
    assert joined({"a": up, "b": down}) == {"n1"}
