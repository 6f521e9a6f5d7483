"""What a person sees: on a terminal, in a pipe, narrow, wide and crowded."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import threading
import time as clock

import pytest
from rich.console import Console

from ensemble.events import MemberFailed, Notice, RunStarted, TaskStarted
from ensemble.outside import long_work
from ensemble.outside.long_work import heard, working
from ensemble.tracking.console import PlainConsole, open_console
from ensemble.tracking.live import LiveConsole, draw
from ensemble.tracking.progress import Progress
from tests.contracts.tracker_contract import T0, TrackerContract, a_run, epoch


class Terminal:
    """A pseudo-terminal of a given size whose output is collected."""

    def __init__(self, columns=80, rows=24):
        import fcntl
        import struct
        import termios

        self._main, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.stream = os.fdopen(follower, "w")
        self._output = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        try:
            while chunk := os.read(self._main, 4096):
                self._output += chunk
        except OSError:
            pass  # the other side was closed

    def text(self):
        self.stream.close()
        self._reader.join(5)
        os.close(self._main)
        return self._output.decode()


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("LINES", raising=False)
    return Terminal()


class TestPlainContract(TrackerContract):
    @pytest.fixture
    def tracker(self):
        return PlainConsole(io.StringIO())


class TestLiveContract(TrackerContract):
    @pytest.fixture
    def tracker(self, terminal):
        tracker = LiveConsole(terminal.stream)
        yield tracker
        tracker.close(False)
        terminal.text()


def plain(events, every_s=5.0, ok=True):
    stream = io.StringIO()
    console = PlainConsole(stream, every_s)
    for time, event in events:
        console.handle(event, time)
    console.close(ok)
    return [line.split("  ", 1)[1] if line[2:3] == ":" else line for line in stream.getvalue().splitlines()]


def test_a_piped_run_tells_its_story():
    lines = plain(a_run(), every_s=0.0)
    assert lines[:4] == [
        "bag: bagging, 3 members; inline, 1 slot",
        "training members 0000-0001: lenet5, 3 epochs on host cpu",
        "member 0000  epoch 1/3  train loss 1.5000  validation error 10.00 %",
        "member 0001  epoch 1/3  train loss 1.5000  validation error 13.33 %",
    ]
    assert "member 0001  finished: validation error 6.67 % after epoch 2, 0:08" in lines
    assert "note: the last slot is slow" in lines
    assert "member 0002  FAILED (crash, try 1): the worker died; will be tried again" in lines
    assert "member 0002  FAILED (diverged, try 2): the loss became nan; left out" in lines
    assert lines[-1] == "2 members finished, 1 failed; this start took 0:24"


def test_a_member_speaks_at_most_every_few_seconds_and_always_at_its_last_epoch():
    start = (T0, TaskStarted("t", (0, 1), "lenet5", 30, "h", 1, "cpu", 1))
    epochs = [(T0 + number + member / 10, epoch(member, number, 30)) for number in range(1, 31) for member in (0, 1)]
    spoken = [re.match(r"member (\d+)  epoch +(\d+)/30", line) for line in plain([start, *epochs])[1:]]
    assert [(int(m[1]), int(m[2])) for m in spoken if int(m[1]) == 0] == [
        (0, 1), (0, 6), (0, 11), (0, 16), (0, 21), (0, 26), (0, 30)
    ]  # fmt: skip
    assert len(spoken) == 14


def test_plain_lines_hold_no_control_codes():
    hostile = MemberFailed(0, "error", "\x1b[31mred\x1b[2J\r\nnext\x07", 1, 0.0, "drop")
    stream = io.StringIO()
    console = PlainConsole(stream)
    for time, event in [*a_run(), (T0, hostile), (T0, Notice("\x1b]0;title\x07 done"))]:
        console.handle(event, time)
    console.close(False)
    assert all(char == "\n" or char.isprintable() for char in stream.getvalue())
    assert "red next" in stream.getvalue()


def test_a_run_that_is_stopped_says_how_far_it_came():
    events = a_run()[:9]  # up to the end of member 0
    assert plain(events, ok=False)[-1] == "stopped with 1 of 3 members finished"


def screen(progress, width, height, now=T0 + 100.0):
    stream = io.StringIO()
    console = Console(file=stream, width=width, height=height, force_terminal=True, color_system=None)
    console.print(draw(progress, now, T0, width, height))
    return re.sub(r"\x1b\[[0-9;]*m", "", stream.getvalue()).splitlines()


def running(count, epochs=20):
    progress = Progress()
    progress.update(RunStarted("bag", "bagging", count + 3, 0, "ray", count), T0)
    for member in range(count):
        progress.update(TaskStarted("t", (member,), "lenet5", epochs, "node", 1, f"cuda:{member % 4}", 1), T0)
        progress.update(epoch(member, 1, epochs), T0 + 5.0)
    return progress


@pytest.mark.parametrize("width", [80, 120])
def test_one_line_per_running_member_and_a_total(width):
    progress = running(2)
    progress.update(MemberFailed(1, "crash", "x", 1, 1.0, "drop"), T0 + 6.0)
    lines = screen(progress, width, 24, now=T0 + 6.0)
    assert all(len(line) <= width for line in lines)
    heading, member, total, status = lines
    assert heading.split() == [
        "member",
        "recipe",
        *(["on"] if width == 120 else []),
        *["epoch", "train", "loss", "val.", "error", "left"],
    ]
    assert re.match(r"0000 +lenet5 +(node cuda:0 +)?\S+ +1/20 +1\.5000 +10\.00 % +…", member), (
        "one epoch says nothing of the pace"
    )
    assert re.match(r"total .* 1/80 ", total)
    assert status.startswith("0 of 5 finished · 1 running · 3 waiting · 1 failed · 0:06 elapsed")
    progress.update(epoch(0, 2, 20), T0 + 9.0)
    member = screen(progress, width, 24, now=T0 + 9.0)[1]
    assert re.search(r" 2/20 .* 1:12$", member), "18 epochs of 4 s"


@pytest.mark.parametrize("height", [8, 24, 50])
def test_a_hundred_running_members_fit_any_terminal(height):
    lines = screen(running(100), 80, height)
    assert len(lines) < height  # the cursor needs a line too
    shown = [line for line in lines if re.match(r"\d{4} ", line)]
    assert len(shown) == height - 5
    assert any(re.match(rf"… +and {100 - len(shown)} more", line) for line in lines)


def test_a_terminal_gets_the_live_view_and_failures_stay_above_it(terminal):
    console = open_console(terminal.stream)
    assert isinstance(console, LiveConsole)
    for time, event in a_run()[:-1]:
        console.handle(event, time)
    console.handle(MemberFailed(1, "error", "[bold]no markup[/] \x1b[2Jhere", 1, 0.0, "drop"), T0)
    console.close(False)
    text = terminal.text()
    assert "member 0001  FAILED (error, try 1): [bold]no markup[/] here; left out" in text
    assert "\x1b[2J" not in text
    assert "stopped with 2 of 3 members finished" in re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")  # the cursor is shown again


def test_long_work_is_told_above_the_view_and_before_the_run_has_begun_that_is_one_line(terminal, monkeypatch):
    monkeypatch.setattr(long_work, "EVERY_S", 0.05)
    past: list[str] = []
    with heard(past.append):
        console = open_console(terminal.stream)
        with working("starting Ray"):
            clock.sleep(0.12)
        console.close(False)
        with working("afterwards"):
            clock.sleep(0.12)
    text = re.sub(r"\x1b\[[0-9;]*m", "", terminal.text())
    assert "\x1b[2Kstarting Ray: 0 s so far\r\n" in text, "the view is taken off the terminal first"
    assert "preparing" in text
    assert "member  recipe" not in text
    assert set(past) == {"afterwards: 0 s so far"}


def test_notices_are_shown_after_the_run_as_well(terminal):
    console = open_console(terminal.stream)
    console.handle(a_run()[-1][1], T0)
    console.handle(Notice("not everything was sent"), T0)
    console.close(True)
    assert "not everything was sent" in terminal.text()


def test_no_color_is_honoured(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    console = open_console(terminal.stream)
    for time, event in a_run():
        console.handle(event, time)
    console.close(True)
    colours = re.findall(r"\x1b\[([0-9;]*)m", terminal.text())
    assert colours  # bold and dim stay
    assert not any(30 <= int(code) <= 107 for codes in colours for code in codes.split(";") if code)


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_dumb_terminal_gets_plain_lines(terminal, monkeypatch, term):
    monkeypatch.setenv("TERM", term)
    assert isinstance(open_console(terminal.stream), PlainConsole)
    terminal.text()


def test_piped_output_is_plain_and_stdout_stays_empty():
    code = (
        "import sys; from ensemble.tracking.console import open_console; from ensemble.events import Notice\n"
        "console = open_console(); console.handle(Notice('hello'), 0.0); console.close(True)\n"
        "assert 'rich' not in sys.modules and 'wandb' not in sys.modules\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == ""
    assert ran.stderr.endswith("note: hello\n")
    assert "\x1b" not in ran.stderr
