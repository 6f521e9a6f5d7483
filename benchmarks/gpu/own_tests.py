"""The project's own tests that need a real GPU, one case per test, as pytest prints them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.cases import Cases

ROOT = Path(__file__).resolve().parents[2]
_MARK = 'reason="needs a CUDA device"'  # of the tests' own skip marks
# Warnings of other versions or of plug-ins that happen to be installed do not decide whether training is right.
PYTEST = (sys.executable, "-m", "pytest", "-v", "--color=no", "--tb=short", "-p", "no:cacheprovider", "-W", "default",
          "-o", "timeout=100", "-k", "gpu")  # fmt: skip
_SUMMARY = re.compile(r"(FAILED|ERROR) (?P<test>.+?::.+?) - (?P<reason>.+)")
_LINE = re.compile(r"(?P<test>\S+::.+?) (?P<outcome>PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)")


def run(bench: Bench, cases: Cases) -> None:
    """All tests with "gpu" in their names; raises nothing, a failed test is a failed case."""
    passed, started = 0, time.perf_counter()
    files = sorted(str(file) for file in (ROOT / "tests").rglob("test_*.py") if _MARK in file.read_text())
    with subprocess.Popen(
        [*PYTEST, *files],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "COLUMNS": "400"},  # reasons are not cut off
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            if summary := _SUMMARY.match(line):  # at the end, with the reason: takes the place of that test's case
                with cases.case(summary["test"]):
                    raise AssertionError(summary["reason"])
            found = _LINE.match(line)
            if not found or found["outcome"] == "SKIPPED":
                continue
            with cases.case(found["test"]) as values:
                values["outcome"] = found["outcome"].lower()
                if found["outcome"] in ("FAILED", "ERROR"):
                    raise AssertionError("see what it printed")
                passed += 1
    with cases.case("all") as values:
        values.update(passed=passed, exit_code=process.returncode, seconds=time.perf_counter() - started)
        if process.returncode not in (0, 1) or (bench.on_gpu and not passed):
            raise RuntimeError("pytest did not run the tests that need a GPU")
