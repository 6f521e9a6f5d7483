"""A skip that nobody expects fails the run: a test that is skipped everywhere is no test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

@pytest.mark.skip(reason="needs a CUDA device")
def test_on_a_gpu(): ...

def test_skips_itself():
    pytest.skip("needs real MNIST: set a variable")

def test_passes(): ...
"""


@pytest.mark.parametrize(
    ("allowed", "status", "named"),
    [
        (None, 0, []),
        ("needs a CUDA device\nneeds real MNIST", 0, []),
        ("needs a CUDA device", 1, ["test_sample.py::test_skips_itself: needs real MNIST"]),
        ("", 1, ["::test_skips_itself: needs real MNIST", "::test_on_a_gpu: needs a CUDA device"]),
    ],
)
def test_a_skip_that_is_not_allowed_fails_and_is_named(
    tmp_path: Path, allowed: str | None, status: int, named: list[str]
) -> None:
    shutil.copy(Path(__file__).parent / "conftest.py", tmp_path)
    (tmp_path / "test_sample.py").write_text(TESTS)
    env = {key: value for key, value in os.environ.items() if key != "ENSEMBLE_ALLOWED_SKIPS"}
    env["PYTHONPATH"] = str(Path(__file__).parents[1])  # from where it imports what the suite shares
    if allowed is not None:
        env["ENSEMBLE_ALLOWED_SKIPS"] = allowed
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        env=env, capture_output=True, text=True, cwd=tmp_path, timeout=60,
    )  # fmt: skip
    assert run.returncode == status, run.stdout + run.stderr
    for text in named:
        assert text in run.stdout
    assert ("not expected here" in run.stdout) == bool(named)
