"""The real launchers: what two processes train is what one trains, and a world that is not the one asked for is refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from ensemble.errors import ComputeError
from ensemble.launch.accelerate_run import asked_processes, compare_with_gpus
from ensemble.storage import RunFolder
from tests import preloaded
from tests.launch.mnist_run import member_digests, processes_that_trained, train_inline

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
CONFIG = """\
name: one
num_members: 4
method: {name: adaboost, folds: 2}
data: {name: digits}
model: {name: mlp, widths: [16]}
training: {epochs: 2, lr: 3e-3}
compute: {stack_size: 1, device: cpu}
tracking: {wandb: {mode: disabled}}
"""


def started(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {
        k: v for k, v in os.environ.items() if not k.startswith(("ACCELERATE_", "RANK", "WORLD_", "LOCAL_", "MASTER_"))
    }
    start = (
        preloaded.run if command[:2] == (str(BIN / "ensemble"), "train") else subprocess.run
    )  # the door looks at who started it
    return start(
        command, cwd=ROOT, env={**kept, "OMP_NUM_THREADS": "1", **environment}, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip


def digests(path: Path) -> dict[str, str]:
    files = json.loads((path / "manifest.json").read_text())["files"]
    return {k: v["sha256"] for k, v in files.items() if k.endswith(("weights.safetensors", "votes.npz", "method.json"))}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("launch")
    (home / "one.yaml").write_text(CONFIG)
    done = started(str(BIN / "ensemble"), "train", str(home / "one.yaml"), f"output_dir={home}", "-q")
    assert done.returncode == 0, done.stderr
    return home


def test_ranks_share_out_the_members(home: Path) -> None:
    """Two rounds of boosting, two tasks each: both ranks train, rank 0 alone writes and prints, the bits are the same."""
    done = started(
        str(BIN / "accelerate"), "launch", "--config_file", "configs/accelerate/cpu_2.yaml", "-m", "ensemble.launch.accelerate_run",
        str(home / "one.yaml"), f"output_dir={home}", "name=shared", ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("weighted vote *") == 1
    assert digests(home / "shared") == digests(home / "one")
    lines = (home / "shared" / "events.jsonl").read_text().splitlines()
    started_tasks = [json.loads(line) for line in lines if '"TaskStarted"' in line]
    assert len(started_tasks) == 4
    assert len({event["pid"] for event in started_tasks}) == 2


LAUNCHERS = {
    "accelerate": ["accelerate", "launch", "--config_file", "configs/accelerate/cpu_2.yaml"],
    "torchrun": ["torchrun", "--nproc-per-node", "2"],
}


def test_ranks_map_an_array_file(home: Path) -> None:
    """No pixel goes through torch's store; the bits are those of one process with the file in memory."""
    random = np.random.default_rng(0)
    labels = np.arange(400) % 4
    images = (random.integers(0, 150, (400, 3, 9, 9)) + 20 * labels[:, None, None, None]).astype(np.uint8)
    np.savez_compressed(home / "mine.npz", train_images=images, train_labels=labels)
    data = (f"data={{name: arrays, path: {home / 'mine.npz'}}}", f"output_dir={home}")
    cache = {"ENSEMBLE_CACHE": str(home / "cache")}
    alone = started(
        str(BIN / "ensemble"),
        "train",
        str(home / "one.yaml"),
        *data,
        "data.storage=memory",
        "name=arrays",
        "-q",
        **cache,
    )
    assert alone.returncode == 0, alone.stderr
    first, *words = LAUNCHERS["torchrun"]
    done = started(
        str(BIN / first), *words, "-m", "ensemble.launch.accelerate_run", str(home / "one.yaml"), *data, "data.storage=mapped",
        "name=mapped_arrays", **cache,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert digests(home / "mapped_arrays") == digests(home / "arrays")
    assert len(processes_that_trained(home / "mapped_arrays")) == 2
    assert len(list((home / "cache/pictures").glob("*/index.json"))) == 1


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ranks_train_all_of_mnist(launcher: str, home: Path, mnist_root: Path) -> None:
    """55 MB of arrays and 432 kB of rows per member: more than torch's store takes at a time (8 MiB)."""
    if not (home / "inline").exists():
        train_inline(home, mnist_root)
    first, *words = LAUNCHERS[launcher]
    done = started(
        str(BIN / first), *words, "-m", "ensemble.launch.accelerate_run", str(home / "mnist.yaml"), f"output_dir={home}",
        f"name={launcher}", f"data.root={mnist_root}", ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert member_digests(home / launcher) == member_digests(home / "inline")
    assert len(processes_that_trained(home / launcher)) == 2


def test_ranks_train_each_member_together(home: Path) -> None:
    done = started(
        str(BIN / "torchrun"), "--nproc-per-node", "2", "-m", "ensemble.launch.accelerate_run", str(home / "one.yaml"),
        f"output_dir={home}", "name=together", "compute.parallel=data", "method={name: bagging}", "num_members=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    alone = started(
        str(BIN / "ensemble"), "train", str(home / "one.yaml"), f"output_dir={home}", "-q", "name=alone",
        "method={name: bagging}", "num_members=2",
    )  # fmt: skip
    assert alone.returncode == 0
    together, single = (RunFolder.read(home / name) for name in ("together", "alone"))
    for index in range(2):
        found, expected = (folder.load_member(index, weights=True) for folder in (together, single))
        assert found.votes.test_NK.shape == expected.votes.test_NK.shape  # every test row once
        np.testing.assert_allclose(found.votes.test_NK, expected.votes.test_NK, atol=1e-4)
        for name, array in expected.weights.items():
            np.testing.assert_allclose(found.weights[name], array, atol=1e-5)


def _takes_signals_from_the_queue(process: int, what: signal.Signals) -> bool:
    """True while the main thread has a signal blocked, as it has while native code waits in another."""
    lines = dict(line.split(":\t", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return bool(int(lines["SigBlk"], 16) >> (what - 1) & 1)


@pytest.mark.parametrize(("what", "rank"), [(signal.SIGTERM, 1), (signal.SIGINT, 0)])
def test_a_rank_that_waits_for_the_others_can_be_stopped(what: signal.Signals, rank: int, home: Path) -> None:
    """Native code waits then, for minutes; launchers kill what has not ended after 30 s."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    world = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ensemble.launch.accelerate_run", str(home / "one.yaml"), f"output_dir={home}", "name=waits"],
        cwd=ROOT, env={**os.environ, **world, **place}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    deadline, seen = time.monotonic() + 120, 0
    while process.poll() is None and time.monotonic() < deadline and seen < 5:
        seen = seen + 1 if _takes_signals_from_the_queue(process.pid, what) else 0
        time.sleep(0.2)
    assert seen == 5, "it never waited"
    began = time.monotonic()
    process.send_signal(what)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 75, said
    assert time.monotonic() - began < 5
    assert "Traceback" not in said


def test_one_launched_process_gives_the_same_bits(home: Path) -> None:
    done = started(
        str(BIN / "accelerate"), "launch", "--config_file", "configs/accelerate/cpu_1.yaml", "-m", "ensemble.launch.accelerate_run",
        str(home / "one.yaml"), f"output_dir={home}", "name=launched", ACCELERATE_USE_CPU="true",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert digests(home / "launched") == digests(home / "one")


def test_a_launcher_that_quietly_starts_one_process_is_found_out(home: Path) -> None:
    done = started(
        str(BIN / "accelerate"), "launch", "--cpu", "--num_processes", "2", "-m", "ensemble.launch.accelerate_run",
        str(home / "one.yaml"), f"output_dir={home}", "name=trap",
    )  # fmt: skip
    assert done.returncode != 0
    assert "asked for 2 processes, but this is a world of 1" in done.stderr
    assert "ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2" in done.stderr
    assert not (home / "trap").exists()


def test_a_single_process_and_foreign_executors_are_sent_to_the_right_door(home: Path) -> None:
    door = [
        sys.executable,
        "-m",
        "ensemble.launch.accelerate_run",
        str(home / "one.yaml"),
        f"output_dir={home}",
        "name=x",
    ]
    done = started(*door)
    assert (done.returncode, "single process" in done.stderr) == (7, True)
    done = started(*door, "compute.executor=ray")
    assert (done.returncode, "this door's executor is accelerate" in done.stderr) == (2, True)
    done = started(
        str(BIN / "ensemble"), "train", str(home / "one.yaml"), f"output_dir={home}", "name=x", "compute.parallel=data"
    )
    assert (done.returncode, "ensemble.launch.accelerate_run" in done.stderr) == (7, True)
    assert started(sys.executable, "-m", "ensemble.launch.accelerate_run").returncode == 2


def test_what_the_launcher_was_asked_for() -> None:
    two = str(ROOT / "configs/accelerate/cpu_2.yaml")
    assert asked_processes([["python", "accelerate", "launch", "--num_processes", "3", "-m", "x"]]) == 3
    assert asked_processes([["accelerate", "launch", "--num-processes=5", "x"]]) == 5
    assert asked_processes([["torchrun", "--nproc-per-node", "2", "x"]]) == 2
    assert asked_processes([["accelerate", "launch", "--config_file", two, "x"]]) == 2
    assert asked_processes([["bash"], ["accelerate", "launch", f"--config_file={two}", "x"]]) == 2
    assert asked_processes([["accelerate", "launch", "--config_file", two, "--num_processes", "4", "x"]]) == 4
    assert asked_processes([["bash", "-c"], []]) is None


def test_processes_are_compared_with_gpus() -> None:
    """configs/accelerate/multi_gpu.yaml asks for four processes, whatever the machine has."""
    assert compare_with_gpus(4, 4, "members") is None
    assert compare_with_gpus(4, 4, "data") is None
    assert "4 processes share 1 visible GPUs" in str(compare_with_gpus(4, 1, "members"))
    assert "4 of 8 visible GPUs stay idle" in str(compare_with_gpus(4, 8, "members"))
    assert "4 of 8 visible GPUs stay idle" in str(compare_with_gpus(4, 8, "data"))
    with pytest.raises(ComputeError, match=r"4 processes on .* 2 visible GPUs.*start 2 per machine"):
        compare_with_gpus(4, 2, "data")


@pytest.mark.parametrize("path", sorted((ROOT / "configs/accelerate").glob("*.yaml")), ids=lambda path: path.stem)
def test_configuration_files_are_accelerate_s(path: Path) -> None:
    """Every key is one that accelerate's own class takes, and its launcher reads the file."""
    from accelerate.commands.config.config_args import ClusterConfig

    values = yaml.safe_load(path.read_text())
    config = ClusterConfig.from_yaml_file(str(path))
    assert config.num_processes == values["num_processes"]
    assert config.distributed_type == "MULTI_GPU"
    assert config.mixed_precision == ("bf16" if path.stem == "bf16" else "no")
