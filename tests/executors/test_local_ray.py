"""A local Ray: what listens, who may read its folder, and what is left when its driver is killed."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.chaos import processes
from ensemble.errors import ComputeError
from ensemble.executors import local_ray, ray_cluster
from tests.ports import is_loopback, listening

DRIVER = """
import sys
import ray
from ensemble.executors.ray_cluster import connect

connect(None)
ray.get([ray.remote(lambda: None).remote() for _ in range(2)])  # workers listen as well
print("up", flush=True)
sys.stdin.readline()
"""


@pytest.mark.timeout(200)
def test_everything_listens_on_the_loopback_interface_and_goes_with_a_killed_driver(tmp_path: Path) -> None:
    base = Path("/tmp") / f"t{os.getpid()}"  # names of sockets are short
    base.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "RAY_TMPDIR": str(base)},
    ) as driver:  # fmt: skip
        try:
            assert driver.stdout is not None
            assert driver.stdout.readline() == "up\n"
            below = [pid for pid, _ in processes(driver.pid)]
            found = listening([driver.pid, *below])
            (folder,) = base.iterdir()
            mode = stat.S_IMODE(folder.stat().st_mode)
        finally:
            driver.kill()
    assert len(found) >= 8, "the scan sees Ray's ports"
    assert [address for address in found if not is_loopback(address)] == []
    assert mode == 0o700
    for _ in range(200):
        left = [pid for pid in below if _lives(pid)]
        if not left and not list(base.iterdir()):
            break
        time.sleep(0.1)
    assert left == [], "Ray's agents have not outlived the driver for long"
    assert list(base.iterdir()) == []
    base.rmdir()


STARTING = """
from ensemble import signals
from ensemble.executors.ray_cluster import connect

with signals.ending_process():
    signals.install()
    connect(None)
"""


@pytest.mark.timeout(200)
@pytest.mark.parametrize("part", ["gcs_server", "raylet/raylet", "runtime_env/agent"])
@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_a_ray_is_left_that_was_starting(what: signal.Signals, part: str) -> None:
    """Agents that import a while do not see that their raylet has gone: the driver is stopped once that part of Ray is there."""
    base = Path("/tmp") / f"v{os.getpid()}"
    base.mkdir()
    environment = {**os.environ, "RAY_TMPDIR": str(base)}
    with subprocess.Popen([sys.executable, "-c", STARTING], env=environment, stderr=subprocess.PIPE) as driver:
        try:
            deadline = time.monotonic() + 100
            while not any(part in words for words in command_lines_with(base)):
                assert driver.poll() is None or time.monotonic() < deadline
                time.sleep(0.01)
            driver.send_signal(what)
            assert driver.wait(30) == (75 if what == signal.SIGTERM else -signal.SIGKILL)
            assert driver.stderr is not None
            assert driver.stderr.read() == b""
        finally:
            driver.kill()
    for _ in range(30):
        if not (left := command_lines_with(base)) and not list(base.iterdir()):
            break
        time.sleep(0.1)
    assert left == []
    assert list(base.iterdir()) == []
    base.rmdir()


def command_lines_with(base: Path) -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [words for words in found if f"{base}/" in words and "/ray/" in words]


def _lives(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_the_next_start_removes_what_nobody_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Path("/tmp") / f"u{os.getpid()}"
    base.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(base))
    held = local_ray.LocalFolder()
    left = base / f"{local_ray.PREFIX}left"
    (left / "session").mkdir(parents=True)
    (left / "lock").touch()
    other = base / "somebody's"
    other.mkdir()
    link = base / f"{local_ray.PREFIX}link"
    link.symlink_to(other)
    new = local_ray.LocalFolder()
    assert not left.exists()
    assert held.path.exists()
    assert other.exists()
    assert link.is_symlink()
    for folder in (held, new):
        folder.remove()
        assert not folder.path.exists()
    link.unlink()
    other.rmdir()
    base.rmdir()


def test_a_node_that_does_not_start_in_time_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray raises the class Exception itself then, as it does for other troubles of a node."""
    folders: list[Path] = []

    def never(**options: object) -> None:
        folders.append(Path(str(options["_temp_dir"])).parent)
        raise Exception(
            "The current node timed out during startup. This could happen because the raylet failed to start."
        )

    monkeypatch.setattr("ray.init", never)
    with pytest.raises(
        ComputeError,
        match=r"a local Ray could not be reached: .* timed out .*too busy.*start the same command again, or use",
    ):
        ray_cluster.connect(None)
    assert folders
    assert not folders[0].exists()


# Ray's end puts SIGTERM back to what ends a process at once; our handler is there again a second later.
LEAVING = """
import signal
import sys
from pathlib import Path
import ray
from ensemble.commands.main import main

leave = ray.shutdown

def looked_at(*arguments, **more):
    leave(*arguments, **more)
    hearing = []
    for task in Path("/proc/self/task").iterdir():
        facts = dict(line.split(":\\t", 1) for line in (task / "status").read_text().splitlines() if ":\\t" in line)
        if not int(facts["SigBlk"], 16) >> (signal.SIGTERM - 1) & 1:
            hearing.append(facts["Name"])
    print("hear SIGTERM:", hearing, file=sys.stderr, flush=True)

ray.shutdown = looked_at
main()
"""


@pytest.mark.timeout(200)
@pytest.mark.skipif(sys.platform != "linux", reason="threads are read from /proc")
def test_no_thread_is_ended_by_a_signal_while_ray_leaves(tmp_path: Path) -> None:
    """The main thread alone takes signals, from the queue, where every other one has them blocked."""
    words = [
        "train", "quickstart", "num_members=2", "training.epochs=1", "compute.executor=ray", "compute.device=cpu",
        "tracking.wandb.mode=offline", f"output_dir={tmp_path}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, *words], capture_output=True, text=True, timeout=180, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "hear SIGTERM: []" in done.stderr, done.stderr[-2000:]
