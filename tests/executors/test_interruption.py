"""Signals while native code waits: answered at once, with Python's handlers in place afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from benchmarks.chaos import processes
from ensemble import signals
from ensemble.executors.native_calls import run_interruptibly

FROZEN = """
from ensemble import signals
from ensemble.executors.ray_cluster import connect

signals.install()
try:
    connect(None)
except KeyboardInterrupt:
    print("answered", flush=True)
    import os
    os._exit(75)
"""
LEAVING = """
import sys, time
from ensemble.executors import ray_cluster

ray_cluster._PATIENCE_S = 1.0
ray_cluster.connect(None)
print("connected", flush=True)
sys.stdin.readline()
begun = time.monotonic()
ray_cluster.disconnect()
print(time.monotonic() - begun, flush=True)
import os
os._exit(0)
"""
# What Ray's native handler of SIGTERM does: it sets an alarm whose native handler aborts, then Python's handler runs.
ALARMED = """
import signal, time
from ensemble import signals

signals.install()
signal.signal(signal.SIGALRM, signal.SIG_DFL)
signal.alarm(1)
try:
    signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt:
    time.sleep(1.5)
"""


def test_a_call_runs_and_its_error_is_raised() -> None:
    seen: list[threading.Thread] = []
    run_interruptibly(lambda: seen.append(threading.current_thread()))
    run_interruptibly(lambda: seen.append(threading.current_thread()))
    # One thread that lives on: the processes Ray starts end with the thread that started them.
    assert seen[0] is seen[1]
    assert seen[0] is not threading.main_thread()
    assert seen[0].is_alive()
    with pytest.raises(ZeroDivisionError):
        run_interruptibly(lambda: 1 // 0)


def test_outside_the_main_thread_it_is_a_plain_call() -> None:
    seen: list[threading.Thread] = []
    thread = threading.Thread(target=lambda: run_interruptibly(lambda: seen.append(threading.current_thread())))
    thread.start()
    thread.join()
    assert seen == [thread]


def _stopped(program: str) -> tuple[int, str, float]:
    """Exit code, output and seconds until the end of a program that gets SIGINT once it has said "up"."""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        said, _ = process.communicate(timeout=60)
    return process.returncode, said, time.monotonic() - begun


CLEARING_UP = """
import time
from ensemble import signals

def parts():
    try:
        yield 1
    finally:
        time.sleep(1.5)

with signals.ending_process():
    signals.install()
    try:
        print("up", flush=True)
        time.sleep(30)
    finally:
        for _ in parts():
            break
        time.sleep(1.5)
        print("cleared up", flush=True)
"""
DEFERRING = """
import time
from ensemble import signals

with signals.ending_process():
    signals.install()
    with signals.deferred():
        print("up", flush=True)
        time.sleep(3)
        print("stored", flush=True)
    print("to the end", flush=True)
"""


@pytest.mark.parametrize(("program", "what"), [(CLEARING_UP, "cleared up\n"), (DEFERRING, "stored\n")])
def test_a_stop_leaves_time_to_clear_up_and_to_store(program: str, what: str) -> None:
    code, said, _ = _stopped(program)
    assert (code, said) == (75, what)


def test_a_thread_that_no_signal_is_given_to_leaves_ours_as_they_were() -> None:
    seen: list[set[int]] = []
    thread = threading.Thread(target=lambda: seen.append(set(signal.pthread_sigmask(signal.SIG_BLOCK, []))))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    signals.start_deaf(thread)
    thread.join()
    assert set(signals.SIGNALS) <= seen[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_an_alarm_of_the_native_handler_is_taken_back() -> None:
    assert subprocess.run([sys.executable, "-c", ALARMED], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize("timed_wait", [True, False], ids=["linux", "macos"])
def test_a_signal_that_comes_during_a_call_is_told_as_soon_as_it_comes(
    timed_wait: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    monkeypatch.setattr(signals, "signalled", told.append)
    if not timed_wait:
        monkeypatch.delattr(signal, "sigtimedwait")
    main = threading.main_thread().ident
    assert main is not None

    def call() -> None:
        signal.pthread_kill(main, signal.SIGTERM)  # to that thread: another may have it unblocked
        deadline = time.monotonic() + 20
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)

    before = signal.signal(signal.SIGTERM, lambda *_: told.append(0))
    try:
        run_interruptibly(call)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [signal.SIGTERM]


@pytest.mark.parametrize("what", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_answered_while_ray_waits_for_a_frozen_raylet(what: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", FROZEN], stdout=subprocess.PIPE, text=True) as process:
        try:
            raylet = _raylet_of(process)
            os.kill(raylet, signal.SIGSTOP)
            time.sleep(2.0)  # the driver asks it meanwhile, and waits
            assert process.poll() is None
            process.send_signal(what)
            sent = time.monotonic()
            said, _ = process.communicate(timeout=60)
            taken = time.monotonic() - sent
        finally:
            process.kill()
    assert (said, process.returncode) == ("answered\n", 75)
    assert taken < 5, f"answered after {taken:.1f} s"
    assert _gone(raylet)


def test_leaving_a_cluster_whose_raylet_is_frozen_takes_no_longer_than_the_patience() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", LEAVING], stdin=pipe, stdout=pipe, text=True) as process:
        try:
            raylet = _raylet_of(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "connected\n"
            os.kill(raylet, signal.SIGSTOP)
            said, _ = process.communicate("leave\n", timeout=60)
        finally:
            process.kill()
    assert 1.0 <= float(said) < 5.0
    assert _gone(raylet)


def _raylet_of(process: subprocess.Popen[str]) -> int:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        for number, name in processes(process.pid):
            if "raylet/raylet" in name:
                return number
        time.sleep(0.02)
    raise AssertionError("no raylet came")


def _gone(number: int) -> bool:
    """The raylet goes with its driver, frozen or not."""
    for _ in range(100):
        try:
            if (Path("/proc") / str(number) / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    return False


# A signal that comes while a finalizer runs, where Python prints what is raised and goes on.
FINALIZED = """
import os, signal, sys, time
from ensemble import signals

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(100): pass  # the handler runs here

signals.install()
try:
    if sys.argv[1] == "deferred":
        with signals.deferred():
            Finalized()
            time.sleep(0.3)
            print("handed in", flush=True)
        print("not reached", flush=True)
    else:
        Finalized()
        time.sleep(30)
except KeyboardInterrupt:
    print("answered", flush=True)
"""


@pytest.mark.parametrize(("how", "said"), [("plain", "answered\n"), ("deferred", "handed in\nanswered\n")])
def test_a_signal_during_a_finalizer_is_answered_without_a_trace(how: str, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FINALIZED, how], capture_output=True, text=True, timeout=25, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == (said, "", 0)


def test_what_else_finalizers_raise_is_still_shown() -> None:
    program = "from ensemble import signals\nsignals.install()\nclass F:\n    def __del__(self): 1 // 0\nF()\n"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=25, check=False)
    assert "ZeroDivisionError" in done.stderr


# PyTorch runs Python from native code while it is loaded, and aborts where that raises.
IMPORTING = """
import os, sys, time
from pathlib import Path
from ensemble import signals
sys.path.insert(0, os.getcwd())
Path("slow.py").write_text("import time\\nprint('loading', flush=True)\\n"
    "end = time.monotonic() + 3\\nwhile time.monotonic() < end: time.sleep(0.01)\\nprint('loaded', flush=True)\\n")
with signals.ending_process():
    signals.install()
    import slow
    print("imported", flush=True)
    try:
        time.sleep(20)
        print("slept", flush=True)
    except KeyboardInterrupt:
        print("raised", flush=True)
        raise
"""
# Here the program's own code is what runs, in whatever it was imported.
IMPORTED = """
import os, sys
from pathlib import Path
sys.path.insert(0, os.getcwd())
Path("script.py").write_text("import time\\nfrom ensemble import signals\\n"
    "from ensemble.executors.native_calls import run_interruptibly\\nwith signals.ending_process():\\n"
    "    signals.install()\\n    print('loading', flush=True)\\n    run_interruptibly(lambda: time.sleep(20))\\n")
import script
"""


def _stopped_while_loading(program: str, folder: Path, times: int) -> tuple[int, str, float]:
    process = subprocess.Popen([sys.executable, "-c", program], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    began = time.monotonic()
    for again in range(times):
        if again:
            time.sleep(signals._ONE_STOP_S + 0.1)
        process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    return process.returncode, said, time.monotonic() - began


def test_an_import_is_finished_before_a_signal_is_answered(tmp_path: Path) -> None:
    assert _stopped_while_loading(IMPORTING, tmp_path, 1)[:2] == (75, "loaded\nimported\nraised\n")


def test_a_second_signal_does_not_wait_for_an_import(tmp_path: Path) -> None:
    assert _stopped_while_loading(IMPORTING, tmp_path, 2)[:2] == (75, "")


def test_own_code_that_an_import_runs_is_interrupted(tmp_path: Path) -> None:
    code, said, seconds = _stopped_while_loading(IMPORTED, tmp_path, 1)
    assert (code, said) == (75, "")
    assert seconds < 10
