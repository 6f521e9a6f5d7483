"""Commands as processes in surroundings that lack something: right, or a message that says what to do; nothing of the run is lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.damage.commands import train_in
from tests.damage.conftest import CONFIG

ENSEMBLE = f"{sys.executable} -m ensemble"
# What a shell does first; what stands behind the command; the exit codes of reading commands, and of training.
SURROUNDINGS = {
    "umask": ("umask 777", "", {0, 6}), "no home": ("unset HOME", "", {0}), "home is gone": ("export HOME=/nonexistent/x", "", {0}),
    "no temporary folder": ("export TMPDIR=/nonexistent", "", {0}), "few files": ("ulimit -n 24", "", {0, 7}),
    "small files": ("ulimit -f 2", "", {0, 6}), "little memory": ("ulimit -v 900000", "", {0, 5, 7}),
    "ascii": ("export LC_ALL=C PYTHONIOENCODING=ascii PYTHONUTF8=0 PYTHONCOERCECLOCALE=0", "", {0}),
    "no input": ("true", "<&-", {0}), "no output": ("true", ">&-", {0}), "nothing": ("true", "<&- >&- 2>&-", {0}),
    "no terminal": ("export TERM=nonsense COLUMNS=-5 LINES=x", "", {0}), "no programs": ("export PATH=/nonexistent CC=", "", {0}),
    "no directory": ("mkdir gone; cd gone; rmdir ../gone", "", {6}), "no time zone": ("export TZ=No/Where", "", {0}),
}  # fmt: skip
COMMANDS = {
    "evaluate": "evaluate runs/d", "report": "report runs/d --out page.html", "predict": "predict runs/d x.png",
    "train": "train d.yaml name=e", "again": "train d.yaml",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = train_in(tmp_path_factory.mktemp("trained"), CONFIG)
    digit = np.zeros((40, 40), np.uint8)
    digit[8:32, 18:22] = 255
    Image.fromarray(digit).save(home / "x.png")
    return home


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("command", ["predict", "train"])
def test_in_surroundings_that_lack_something(trained: Path, tmp_path: Path, surroundings: str, command: str) -> None:
    home = tmp_path / "home"
    shutil.copytree(trained, home)
    before = {path: path.read_bytes() for path in (home / "runs/d").rglob("*") if path.is_file()}
    first, behind, codes = SURROUNDINGS[surroundings]
    done = subprocess.run(
        ["bash", "-c", f"{first}\n{ENSEMBLE} {COMMANDS[command]} {behind}"], cwd=home, capture_output=True, timeout=200,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}, check=False,
    )  # fmt: skip
    said = (done.stdout + done.stderr).decode(errors="replace")
    assert done.returncode in codes, (done.returncode, said)
    assert "Traceback" not in said
    assert "mistake of the program" not in said
    assert {path: path.read_bytes() for path in before} == before
