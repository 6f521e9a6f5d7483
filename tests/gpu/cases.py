"""Many cases in one process on pretended devices: importing torch costs more than most of them.

In a script:        if __name__ == "__main__": answer(look_at)
In its test file:   SCRIPT = "train_recipes.py", tests parametrised by `case`, and the fixture `outcome_of` of conftest.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from pretended_gpu import HERE, run_command

FULL = pytest.mark.gpu_full  # left to `make test-gpu`
Case = Sequence[Any]  # what JSON can hold
_MARK = "outcome: "


def answer(look_at: Callable[..., Any]) -> None:
    """Look at each case that the first argument lists in JSON, and print what was found, or the error, a line each."""
    for case in json.loads(sys.argv[1]):
        try:
            found = look_at(*case)
        except Exception:
            found = traceback.format_exc()
        print(_MARK + json.dumps([case, found]), flush=True)


def key_of(case: Case) -> str:
    """A case as a key."""
    return json.dumps(case)


def run_cases(script: str, cases: Sequence[Case], gpus: int, mib: int, timeout: float) -> dict[str, Any]:
    """What the script found for each case, by `key_of`; a string where there was an error, or its process ended.

    The cases behind one that ends the process are given to another.
    """
    found: dict[str, Any] = {}
    left = list(cases)
    while left:
        command = [sys.executable, str(HERE / script), json.dumps(left)]
        try:
            done = run_command(command, gpus, mib, timeout)
            printed, end = done.stdout, f"ended with {done.returncode}: {done.stderr[-3000:]}"
        except subprocess.TimeoutExpired as error:
            printed, end = (error.stdout or b"").decode(), f"did not end within {timeout:g} s"
        for line in printed.splitlines():
            if line.startswith(_MARK):
                case, outcome = json.loads(line.removeprefix(_MARK))
                found[key_of(case)] = outcome
        left = [case for case in left if key_of(case) not in found]
        if left:
            found[key_of(left.pop(0))] = f"{script} {end}"
    return found
