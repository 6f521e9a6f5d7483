"""The suite's own changes of the environment, beside threads that read it without end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

READERS = """
#include <pthread.h>
#include <stdlib.h>
static void *read_for_ever(void *nothing) { for (;;) getenv("IS_NOT_THERE"); return nothing; }
void start(int threads) { pthread_t one; while (threads--) pthread_create(&one, NULL, read_for_ever, NULL); }
"""
WRITER = """
import ctypes, os, random, subprocess, sys, time
from tests import steady_environment
if sys.argv[2] == "steady":
    steady_environment.install()
ctypes.CDLL(sys.argv[1]).start(3)
ends, made, taken = time.monotonic() + float(sys.argv[3]), 0, []
while time.monotonic() < ends:
    for number in range(random.randrange(1, 40)):
        os.environ[f"V{number}"] = "x" * random.randrange(200)
        made += 1
    taken = [*taken[-50:], bytearray(random.randrange(100, 600))]  # what was freed gets other content
    for number in range(40):
        os.environ.pop(f"V{number}", None)
os.environ["TOLD"] = "a=b"
told = "import os; print(os.environ['TOLD'], 'V1' in os.environ)"
print(made > 100, subprocess.run([sys.executable, "-c", told], capture_output=True, text=True).stdout.split())
"""


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library whose threads read the environment."""
    folder = tmp_path_factory.mktemp("readers")
    (folder / "readers.c").write_text(READERS)
    library = folder / "readers.so"
    made = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(folder / "readers.c"), "-lpthread"]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no C compiler on this machine")
    return library


@pytest.mark.skipif(sys.platform != "linux", reason="threads that read the environment are Linux's trouble here")
@pytest.mark.parametrize("times", range(3))
def test_threads_read_the_environment_while_it_changes(readers: Path, times: int) -> None:
    """Without it, this process ends by signal 11 within seconds."""
    words = [sys.executable, "-c", WRITER, str(readers), "steady", "2"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stdout, done.stderr) == (0, "True ['a=b', 'False']\n", "")
