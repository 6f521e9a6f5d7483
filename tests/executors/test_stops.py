"""A run that is told to stop, as whole processes: what it leaves, at any moment of its life, by every signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ensemble.errors import EXIT_INTERRUPTED
from tests import preloaded

CONFIG = """\
name: d
num_members: 2
method: {name: bagging}
baseline: false
data: {name: digits}
model: {name: mlp, widths: [16]}
training: {epochs: EPOCHS, batch_size: 100, lr: 1e-3}
compute: {executor: inline, stack_size: 1}
tracking: {wandb: {mode: disabled}}
"""
TORCHRUN = [
    str(Path(sys.executable).parent / "torchrun"),
    "--nproc-per-node",
    "2",
    "-m",
    "ensemble.launch.accelerate_run",
]
COMMANDS = {
    "inline": [sys.executable, "-m", "ensemble", "train"],
    "processes": [sys.executable, "-m", "ensemble", "train", "compute.executor=processes", "compute.slots=2"],
    "ray": [sys.executable, "-m", "ensemble", "train", "compute.executor=ray", "compute.slots=2"],
    "members": [*TORCHRUN, "compute.executor=accelerate"],
    "data": [*TORCHRUN, "compute.executor=accelerate", "compute.parallel=data"],
}
ROOT = Path(__file__).resolve().parents[2]


def start(
    folder: Path, epochs: int, way: str = "inline", begin: type[subprocess.Popen[bytes]] = subprocess.Popen
) -> subprocess.Popen[bytes]:
    """Begin to train in a session of its own."""
    (folder / "d.yaml").write_text(CONFIG.replace("EPOCHS", str(epochs)))
    command = COMMANDS[way]
    plain = [word for word in command if "=" not in word]
    overrides = [word for word in command if "=" in word]
    with (folder / "log.txt").open("ab") as log:
        return begin(
            [*plain, str(folder / "d.yaml"), f"output_dir={folder}", *overrides],
            cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def wait_for(folder: Path, running: subprocess.Popen[bytes], epochs: int) -> None:
    """Until so many epochs of members have ended."""
    events, deadline = folder / "d" / "events.jsonl", time.monotonic() + 120
    while not (events.exists() and events.read_text().count("EpochFinished") >= epochs):
        assert running.poll() is None, (folder / "log.txt").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)


def checkpoints(folder: Path) -> list[str]:
    files = json.loads((folder / "d" / "manifest.json").read_text())["files"]
    return sorted(name for name in files if name.startswith("checkpoints/"))


def digests(folder: Path) -> dict[str, str]:
    files = json.loads((folder / "d" / "manifest.json").read_text())["files"]
    return {name: f["sha256"] for name, f in files.items() if name.endswith(("weights.safetensors", "votes.npz"))}


@pytest.fixture
def running_in(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    begun: list[subprocess.Popen[bytes]] = []
    yield begun
    for process in begun:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_every_signal_leaves_a_checkpoint(
    what: signal.Signals, tmp_path: Path, running_in: list[subprocess.Popen[bytes]]
) -> None:
    """To the whole process group and twice, as `timeout` and a terminal do."""
    running_in.append(running := start(tmp_path, 100_000, begin=preloaded.Popen))
    wait_for(tmp_path, running, 1)
    began = time.monotonic()
    os.killpg(running.pid, what)
    os.killpg(running.pid, what)
    apart_s = time.monotonic() - began
    assert running.wait(20) == EXIT_INTERRUPTED, (tmp_path / "log.txt").read_text()[-3000:]
    # On a machine that stood still in between they are two: the second says that nothing is to be waited for.
    assert len(checkpoints(tmp_path)) == 1 or apart_s > 0.5


def test_the_restart_trains_no_epoch_twice_and_ends_with_the_same_bits(
    tmp_path: Path, running_in: list[subprocess.Popen[bytes]]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    epochs = 60
    assert start(whole, epochs, begin=preloaded.Popen).wait(120) == 0
    running_in.append(running := start(cut, epochs, begin=preloaded.Popen))
    wait_for(cut, running, 5)
    running.terminate()
    assert running.wait(20) == EXIT_INTERRUPTED
    assert start(cut, epochs, begin=preloaded.Popen).wait(120) == 0
    assert digests(cut) == digests(whole)
    lines = [json.loads(line) for line in (cut / "d" / "events.jsonl").read_text().splitlines()]
    trained = [(line["member"], line["epoch"]) for line in lines if line["event"] == "EpochFinished"]
    assert sorted(trained) == [(member, epoch + 1) for member in range(2) for epoch in range(epochs)]


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("way", ["processes", "ray", "members", "data"])
def test_a_stop_on_every_executor_costs_no_epoch_and_no_bit(
    way: str, tmp_path: Path, running_in: list[subprocess.Popen[bytes]]
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    epochs = 60 if way == "data" else 300  # both processes are in every step there
    assert start(whole, epochs, way).wait(120) == 0, (whole / "log.txt").read_text()[-3000:]
    running_in.append(running := start(cut, epochs, way))
    wait_for(cut, running, 5)
    begun = time.monotonic()
    running.terminate()
    code = running.wait(40)
    assert code == (EXIT_INTERRUPTED if way in ("processes", "ray") else 1), (cut / "log.txt").read_text()[
        -3000:
    ]  # torchrun's own
    assert time.monotonic() - begun < 20
    assert len(checkpoints(cut)) == (1 if way == "data" else 2)
    assert start(cut, epochs, way).wait(120) == 0, (cut / "log.txt").read_text()[-3000:]
    assert digests(cut) == digests(whole)
    lines = [json.loads(line) for line in (cut / "d" / "events.jsonl").read_text().splitlines()]
    trained = [(line["member"], line["epoch"]) for line in lines if line["event"] == "EpochFinished"]
    assert len(trained) == len(set(trained)) == 2 * epochs


def moments(life_s: float, most: int) -> list[float]:
    """Every 50 ms of a life, or so many moments where it is longer."""
    count = min(most, int(life_s / 0.05))
    return [life_s * number / count for number in range(1, count)]


@pytest.mark.parametrize(
    ("way", "most"), [("inline", 6), pytest.param("inline", 400, marks=pytest.mark.long), *(pytest.param(way, 400, marks=pytest.mark.long) for way in ("processes", "ray"))]
)  # fmt: skip
@pytest.mark.timeout(7200)
def test_sigterm_at_any_moment_ends_with_75(
    way: str, most: int, tmp_path: Path, running_in: list[subprocess.Popen[bytes]]
) -> None:
    """From when Python runs our first line; a run that was done just then has ended with 0."""
    begun = time.monotonic()
    assert start(tmp_path, 2, way).wait(300) == 0
    life_s, found = time.monotonic() - begun, {}
    for moment in moments(life_s, most):
        folder = tmp_path / f"{moment:.3f}"
        folder.mkdir()
        running_in.append(running := start(folder, 2, way))
        try:
            found[moment] = running.wait(max(0.15, moment))
        except subprocess.TimeoutExpired:
            running.terminate()
            found[moment] = running.wait(60)
        assert found[moment] in (0, EXIT_INTERRUPTED), (moment, found, (folder / "log.txt").read_text()[-3000:])
    assert EXIT_INTERRUPTED in found.values()
