"""Runs whose code is the user's: every executor has it from the driver, and the run folder does without the files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner

from ensemble.commands.main import main
from tests import preloaded

DOORS = {
    "inline": ["-m", "ensemble", "train", "own.yaml", "-q"],
    "ray": ["-m", "ensemble", "train", "own.yaml", "-q", "compute.executor=ray", "compute.slots=2"],
    "ranks": [
        "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "ensemble.launch.accelerate_run", "own.yaml",
        "compute.executor=accelerate",
    ],
}  # fmt: skip


def same_weights_through_every_door(home: Path, members: int) -> None:
    """Train own.yaml of a folder, which is the working directory, through each; the weights must be equal to the bit."""
    for name, words in DOORS.items():
        command = [sys.executable, *words, f"output_dir={name}"]
        start = subprocess.run if name == "ranks" else preloaded.run  # a launcher looks at who started whom
        done = start(command, capture_output=True, text=True, check=False, timeout=240)
        assert done.returncode == 0, done.stderr
        for number in range(members):
            file = f"own/members/{number:04d}/weights.safetensors"
            assert (home / name / file).read_bytes() == (home / "inline" / file).read_bytes()


@contextmanager
def trained_without_its_files(home: Path, files: Iterable[str]) -> Iterator[Path]:
    """The run of own.yaml in a folder, which is the working directory; inside, the files of its code are gone.

    Whatever needs no code works then. Afterwards a member that is lost is trained again to the same bits.
    """
    files = list(files)
    assert typed("train", "own.yaml", "-q") == 0
    folder = home / "runs/own"
    file = folder / "members/0001/weights.safetensors"
    weights = file.read_bytes()
    for name in files:
        (home / name).rename(home / f"{name}.gone")
    for command in (("evaluate",), ("report",), ("check",), ("card",), ("wandb", "--mode", "offline")):
        assert typed(command[0], "runs/own", *command[1:]) == 0, command
    yield folder
    for name in files:
        (home / f"{name}.gone").rename(home / name)
    file.unlink()
    assert typed("train", "own.yaml", "-q") == 0
    assert file.read_bytes() == weights


def typed(*words: str) -> int:
    """The exit code of a command."""
    return CliRunner().invoke(main, list(words)).exit_code
