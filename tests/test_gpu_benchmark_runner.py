"""The runner of the GPU benchmark: no part can bring it down, and what was found is on disk at every moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu.cases import Cases, read_cases
from benchmarks.gpu.parts import Part
from benchmarks.gpu.results import Results
from benchmarks.gpu.runner import NO_GPU, run_parts

ROOT = Path(__file__).resolve().parents[1]
CASE = "import json, os, sys, time; print('something'); open(sys.argv[-1], 'a').write(json.dumps({'case': 'one', 'values': {'seconds': 1.5}}) + '\\n'); "


def part(name: str, code: str, limit_s: float = 60.0, least_s: float = 0.0) -> Part:
    """A part of a few words of Python, which first writes one case."""
    return Part(name, (sys.executable, "-c", CASE + code), limit_s, least_s, "a part of a test")


def ran(parts: list[Part], tmp_path: Path, budget_s: float | None = None) -> dict[str, Any]:
    """What is on disk after these parts."""
    results = Results(tmp_path / "gpu.json", {"dry_run": False, "commit": "abc"})
    run_parts(parts, results, budget_s)
    written: dict[str, Any] = json.loads((tmp_path / "gpu.json").read_text())
    assert written == json.loads(json.dumps(results.record))
    return written["parts"]  # type: ignore[no-any-return]


def test_what_a_part_does_costs_no_other_part(tmp_path: Path) -> None:
    """Raising, crashing, hanging (also a child of its own that ignores signals), and running out of everything."""
    stubborn = (
        "import signal, subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); time.sleep(600)"
    )
    started = time.monotonic()
    found = ran([
        part("raises", "raise RuntimeError('no engine for this shape')"),
        part("crashes", "os.kill(os.getpid(), 11)"),
        part("hangs", stubborn, limit_s=2.0),
        part("says no to all", "sys.exit(1)"),
        part("is well", ""),
    ], tmp_path)  # fmt: skip
    assert time.monotonic() - started < 60
    assert {name: one["state"] for name, one in found.items()} == {
        "raises": "failed", "crashes": "crashed", "hangs": "out of time", "says no to all": "failed", "is well": "passed",
    }  # fmt: skip
    assert all(
        one["cases"] == {"one": {"seconds": 1.5}} for one in found.values()
    )  # also of those that did not end well
    assert "no engine for this shape" in found["raises"]["printed"]
    assert found["crashes"]["exit_code"] == -signal.SIGSEGV
    assert "no engine for this shape" in (tmp_path / "gpu.log").read_text()
    text = (tmp_path / "gpu.md").read_text()
    assert "| hangs | out of time |" in text
    assert "| is well | passed |" in text


def test_nothing_of_a_part_outlives_its_limit(tmp_path: Path) -> None:
    note = tmp_path / "alive"
    child = f"import time; [(time.sleep(0.1), open({str(note)!r}, 'a').write('.')) for _ in range(600)]"
    ran(
        [
            part(
                "hangs", f"import subprocess; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)", 3.0
            )
        ],
        tmp_path,
    )
    assert note.exists()
    size = note.stat().st_size
    time.sleep(0.5)
    assert note.stat().st_size == size


def test_parts_that_do_not_fit_into_the_budget_are_listed(tmp_path: Path) -> None:
    found = ran(
        [part("long", "", least_s=500), part("short", "", least_s=1), part("cut", "time.sleep(600)", 600)],
        tmp_path,
        6.0,
    )
    assert {name: one["state"] for name, one in found.items()} == {
        "long": "not run", "short": "passed", "cut": "out of time",
    }  # fmt: skip
    assert found["long"]["reason"].endswith("s left, it needs at least 500 s")
    assert found["cut"]["limit_s"] <= 6


def test_without_a_gpu_no_further_part_is_tried(tmp_path: Path) -> None:
    found = ran([part("first", f"sys.exit({NO_GPU})"), part("second", "")], tmp_path)
    assert found["second"]["state"] == "not run"
    assert found["second"]["cases"] == {}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_results_survive_the_end_of_the_whole_benchmark(number: signal.Signals, tmp_path: Path) -> None:
    """Killed in its second part, it leaves the first one's results and the second's cases; the part ends with it."""
    note = tmp_path / "pid"
    hang = f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"""
import signal, sys
from pathlib import Path
from benchmarks.gpu.parts import Part
from benchmarks.gpu.results import Results
from benchmarks.gpu.runner import run_parts
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
parts = [Part(n, (sys.executable, "-c", {CASE!r} + c), 600, 0, "a part") for n, c in (("first", ""), ("second", {hang!r}))]
run_parts(parts, Results(Path({str(tmp_path / "gpu.json")!r}), {{"dry_run": False}}))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while '"second"' not in _text(tmp_path / "gpu.json") or _text(tmp_path / "gpu.json").count('"one"') < 2:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(number)
        process.wait(30)
    finally:
        process.kill()
        hanging = int(note.read_text())
        if number == signal.SIGKILL:  # parts of ours end with their runner (child.py); this one is only a few words
            os.kill(hanging, signal.SIGKILL)
    found = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert found["first"]["state"] == "passed"
    assert found["second"]["state"] == ("running" if number == signal.SIGKILL else "interrupted")
    assert found["first"]["cases"] == found["second"]["cases"] == {"one": {"seconds": 1.5}}
    assert "| first | passed |" in (tmp_path / "gpu.md").read_text()
    assert not Path(f"/proc/{hanging}").exists() or number == signal.SIGKILL


def test_a_part_ends_with_its_runner(tmp_path: Path) -> None:
    """A real one: killed while it runs, as by a machine's own time limit, the benchmark leaves no process on the GPU."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.gpu",
        "--dry-run",
        "--parts",
        "own_tests",
        "--out",
        str(tmp_path / "gpu.json"),
    ]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        children: list[str] = []
        deadline = time.monotonic() + 60
        while not children or b"benchmarks.gpu.child" not in Path(f"/proc/{children[0]}/cmdline").read_bytes():
            assert time.monotonic() < deadline
            time.sleep(0.1)
            children = _text(Path(f"/proc/{process.pid}/task/{process.pid}/children")).split()
        time.sleep(3)  # past its first lines
    finally:
        process.kill()
        process.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{children[0]}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def test_a_failed_case_costs_no_other_case(tmp_path: Path) -> None:
    cases = Cases(tmp_path / "cases.jsonl")
    for name in ("good", "bad", "good again"):
        with cases.case(name) as values:
            values["seconds"] = 2.0
            if name == "bad":
                raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
    text = (tmp_path / "cases.jsonl").read_text()
    assert read_cases(text + '{"case": "unfinished", "val') == [
        ("good", {"seconds": 2.0}),
        ("bad", {"seconds": 2.0, "error": "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB"}),
        ("good again", {"seconds": 2.0}),
    ]
    assert cases.failed == 1
