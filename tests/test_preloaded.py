"""A child of the process that has imported the program is, in what tests ask of it, a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import preloaded

TELLS = """
import os, sys
print(sys.argv, os.getcwd(), sys.path[0], __name__, os.environ.get("ENSEMBLE_SAID"), sys.stdin.read(), "torch" in sys.modules)
print("an error", file=sys.stderr)
sys.exit(3)
"""


def test_words_place_environment_streams_and_exit_code(tmp_path: Path) -> None:
    environment = {**os.environ, "ENSEMBLE_SAID": "x"}
    (tmp_path / "file.py").write_text(TELLS)
    for words, where in ((["-c", TELLS], ""), (["file.py"], str(tmp_path)), (["-m", "file"], str(tmp_path))):
        given = {"cwd": tmp_path, "env": environment, "input": "in", "capture_output": True, "text": True}
        there = preloaded.run([sys.executable, *words, "a b"], **given)
        alone = subprocess.run([sys.executable, *words, "a b"], **given, check=False)
        assert (there.returncode, there.stderr) == (alone.returncode, alone.stderr) == (3, "an error\n")
        assert there.stdout.split(" ", 2)[2].replace("True", "False") == alone.stdout.split(" ", 2)[2]
        assert f"{tmp_path} {where} __main__ x in" in there.stdout
        assert there.stdout.endswith("True\n"), "torch was there before"


def test_signals_sessions_and_limits() -> None:
    waits = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]
    with preloaded.Popen(waits, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout.readline() == "up\n"
        assert os.getsid(process.pid) == process.pid
        assert process.poll() is None
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    with pytest.raises(subprocess.TimeoutExpired):
        preloaded.run(waits, timeout=1, stdout=subprocess.DEVNULL)


def test_variables_that_modules_read_when_imported_are_those_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("said = 'found'")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    code = "import beside, os; print(beside.said, os.environ['PYTHONPATH'])"
    done = preloaded.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == f"found {tmp_path}\n", done.stderr


def test_what_is_typed_into_a_shell() -> None:
    environment = {**os.environ, "PATH": f"{preloaded.search_path(os.environ)}:{os.environ['PATH']}"}
    typed = "echo in | python -c 'import sys; print(sys.stdin.read(), \"torch\" in sys.modules)'; ensemble nonsense; echo $?"
    done = subprocess.run(["bash", "-c", typed], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "in\n True\n2\n"
    assert "No such command" in done.stderr
