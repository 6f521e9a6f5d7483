"""Figures are the same whatever matplotlib was told by the surroundings; settings that it cannot read are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRAW = """
import sys
from pathlib import Path
from ensemble.errors import EnsembleError
from ensemble.report.figures import write_panels

try:
    write_panels(Path(sys.argv[1]), lambda axes: axes[0].plot([1, 3, 2], label="$a$"), 1, (2, 1))
except EnsembleError as error:
    sys.exit(f"{error.exit_code} {error}")
"""
USETEX = b"text.usetex: True\nfont.size: 30\naxes.facecolor: red\n"
# Variables, and what stands in ./matplotlibrc.
SURROUNDINGS: dict[str, tuple[dict[str, str], bytes | None]] = {
    "a notebook's backend": ({"MPLBACKEND": "module://matplotlib_inline.backend_inline"}, None),
    "a backend that is none": ({"MPLBACKEND": "rubbish"}, None),
    "settings for other figures": ({}, USETEX),
    "settings of which matplotlib takes none": ({}, b"nothing: of this\nfont.size: large please\n"),
    "a folder for settings that is not there": ({"MPLCONFIGDIR": "/proc/nowhere"}, None),
    "a file of settings that is not there": ({"MATPLOTLIBRC": "/proc/nowhere"}, None),
}


def drawn(folder: Path, variables: dict[str, str], settings: bytes | None) -> subprocess.CompletedProcess[str]:
    """Draws in a folder, into figure.png and figure.svg there."""
    folder.mkdir()
    if settings is not None:
        (folder / "matplotlibrc").write_bytes(settings)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MPL", "MATPLOTLIB"))}
    return subprocess.run(
        [sys.executable, "-c", DRAW, "figure"], cwd=folder, env={**environment, **variables},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_the_surroundings_change_no_figure(name: str, tmp_path: Path) -> None:
    for folder, surroundings in (("plain", ({}, None)), ("odd", SURROUNDINGS[name])):
        done = drawn(tmp_path / folder, *surroundings)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    for file in ("figure.png", "figure.svg"):
        assert (tmp_path / "odd" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


def test_settings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    done = drawn(tmp_path / "here", {"MATPLOTLIBRC": "elsewhere"}, b"font.size: \xff\xfe\n")
    assert done.stderr.splitlines()[-1].startswith("7 no figures can be drawn")
    assert "matplotlibrc" in done.stderr
    assert "MATPLOTLIBRC=elsewhere" in done.stderr
