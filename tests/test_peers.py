"""The benchmark beside other libraries: what it measures of a process, and the table it writes."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks import peer_programs, peers
from ensemble.config.network import Network
from ensemble.models import build_model

RECORD = {
    "network": "lenet5", "members": 8, "epochs": 2, "environment": "a processor",
    "sides": {
        peers.OURS: {"seconds": [10.0, 12.0, 11.0], "error": [0.01, 0.02, 0.03], "memory_mib": [900.0, 1000.0, 1100.0]},
        "torch-uncertainty": {"seconds": [40.0, 36.0, 44.0], "error": [0.01] * 3, "memory_mib": [800.0] * 3},
        "bare loop": {"seconds": [20.0, 24.0, 33.0], "error": [0.01] * 3, "memory_mib": [700.0] * 3},
    },
}  # fmt: skip


def test_the_table_divides_run_by_run() -> None:
    text = peers.markdown({"8 lenet5, 2 epochs": RECORD})
    assert "| this project | 11.0 | 1.00 | 1.00-1.00 | 2.00 | 1,000 |" in text
    assert "| torch-uncertainty | 40.0 | 4.00 | 3.00-4.00 | 1.00 | 800 |" in text
    assert "| bare loop | 24.0 | 2.00 | 2.00-3.00 | 1.00 | 700 |" in text
    assert "The quickest library is torch-uncertainty: 4.00 times our time." in text


def test_memory_is_that_of_all_processes_together() -> None:
    """Two children of 300 MiB each, at the same time: what they hold is counted once each, and what their parent holds too."""
    hold = "import time; held = bytearray(b'x') * (300 << 20); time.sleep(4)"
    code = f"import subprocess, sys; [c.wait() for c in [subprocess.Popen([sys.executable, '-c', {hold!r}]) for _ in range(2)]]; print(7)"
    output, seconds, memory = peers.measured([sys.executable, "-c", code])
    assert output == "7\n"
    assert seconds > 4
    assert 600 < memory < 750


def test_a_side_that_fails_ends_the_benchmark_with_its_words() -> None:
    with pytest.raises(SystemExit, match="no such thing"):
        peers.measured([sys.executable, "-c", "raise SystemExit('no such thing')"])


@pytest.mark.parametrize("name", peer_programs.NETWORKS)
def test_everybody_trains_the_same_network(name: str) -> None:
    """Layer by layer the shapes of ours."""
    section = Network.registry.find(name)
    assert section is not None
    own = build_model(section.model_validate({"name": name}), (1, 28, 28), 10).state_dict()
    other = peer_programs.NETWORKS[name]().state_dict()
    assert [value.shape for value in other.values()] == [value.shape for value in own.values()]


@pytest.mark.parametrize("program", ["torch.func", "bare loop"])
def test_the_programs_that_need_no_library_learn(program: str, tmp_path: Path) -> None:
    """Two members on a small MNIST of two simple classes, dark and light."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 512), ("t10k", 100)):
        labels = np.arange(count) % 2
        images = generator.integers(0, 60, (count, 28, 28)) + 190 * labels[:, None, None]
        write_idx(tmp_path / f"MNIST/raw/{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / f"MNIST/raw/{part}-labels-idx1-ubyte", labels)
    np.save(tmp_path / "rows.npy", np.arange(512))
    command = [sys.executable, "benchmarks/peer_programs.py", program, "--members", "2", "--epochs", "6"]
    command += ["--root", str(tmp_path), "--rows", str(tmp_path / "rows.npy")]
    assert peers.error_of(program, peers.measured(command)[0]) < 0.05


def write_idx(path: Path, values: npt.NDArray[np.int64]) -> None:
    """A file as MNIST has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape) + values.astype(np.uint8).tobytes()
    )
