"""What `benchmarks.hosts` trains, and what is read from a log and a run folder when it has ended."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.namespaces import Host

NAME = "hosts"
MEMBERS, STACK, EPOCHS = 12, 2, 24  # the epochs unless others are asked for
HANG_TIMEOUT_S = 60  # under torchrun; on Ray the default of ten minutes
SILENCE_S = 30.0  # the longest that a log may say nothing
CONFIG = f"""\
name: {NAME}
seed: 11
num_members: {MEMBERS}
method: {{name: bagging}}
baseline: false
data: {{name: digits}}
model: {{name: mlp, widths: [128, 64]}}
training: {{epochs: EPOCHS, batch_size: 16, lr: 1e-3}}
compute: {{device: cpu, stack_size: {STACK}, kernels: torch, threads_per_task: 1, checkpoint_every_s: 2}}
tracking: {{wandb: {{mode: disabled}}}}
"""


@dataclass(frozen=True)
class Work:
    """What is trained in every case, and the digests of the weights and votes that must come of it."""

    epochs: int = EPOCHS
    expected: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> str:
        return CONFIG.replace("EPOCHS", str(self.epochs))


class NeverBegunError(Exception):
    """A case could not be tried, since the run did not come so far; the message is its log."""


@dataclass
class Measured:
    """One case. silence_s: the longest time in which the log said nothing. holds: what it should have been, it was."""

    case: str
    exit_codes: list[int | None]
    seconds: float
    silence_s: float
    stored_twice: int
    epochs_twice: int
    hosts: dict[str, int]  # members trained by each
    bits: str  # equal, different, or what is missing
    holds: bool
    remark: str = ""
    log: str = field(default="", repr=False)

    def row(self) -> str:
        codes = ", ".join("-" if code is None else str(code) for code in self.exit_codes)
        hosts = ", ".join(f"{name} {count}" for name, count in sorted(self.hosts.items())) or "-"
        return (
            f"| {self.case} | {codes} | {self.seconds:.0f} | {self.silence_s:.0f} | {self.stored_twice} | "
            f"{self.epochs_twice} | {hosts} | {self.bits} | {'yes' if self.holds else '**no**'} | {self.remark} |"
        )

    def to_json(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "log"}


HEADER = """\
| case | exit codes | seconds | longest silence, s | members stored twice | epochs trained twice | members by host | weights and votes | holds | remark |
|---|---|---:|---:|---:|---:|---|---|---|---|"""


class Follower:
    """A program on a host, and when it said what."""

    def __init__(self, host: Host, words: list[str], **variables: str) -> None:
        self.started = time.monotonic()
        self.lines: list[tuple[float, str]] = []
        self.process = host.start(words, None, **variables)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((time.monotonic(), line.rstrip("\n")))

    def end(self, within_s: float) -> int | None:
        """The exit code; None where it still ran after so long, and was ended."""
        try:
            code: int | None = self.process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = None
        self.ended = time.monotonic()
        self._reader.join(5)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()
        return code

    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def said(self, words: str) -> float | None:
        """Seconds after its start at which a line with these words came; None where none did."""
        return next((when - self.started for when, line in list(self.lines) if words in line), None)

    def silence_s(self) -> float:
        """The longest time between two lines, or a line and the start or the end."""
        times = [self.started, *(when for when, _ in self.lines), self.ended]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


def undisturbed(folder: Path, epochs: int) -> Work:
    """Train the same inline, in one process on no host."""
    (folder / "hosts.yaml").write_text(Work(epochs).config)
    words = [
        sys.executable,
        "-m",
        "ensemble",
        "train",
        "hosts.yaml",
        "compute.executor=inline",
        f"output_dir={folder}/runs",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "ENSEMBLE_"))}
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the undisturbed run failed: {done.stderr[-2000:]}")
    return Work(epochs, digests(folder / "runs" / NAME))


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of every weight and vote file, from the manifest; empty where there is none."""
    try:
        files = json.loads((run / "manifest.json").read_text())["files"]
    except (OSError, json.JSONDecodeError):
        return {}
    return {name: f["sha256"] for name, f in files.items() if name.endswith(("weights.safetensors", "votes.npz"))}


def events(run: Path) -> list[dict[str, Any]]:
    """The event log of a run that may still be written."""
    try:
        lines = (run / "events.jsonl").read_text().splitlines(keepends=True)
    except OSError:
        return []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def compared(found: dict[str, str], expected: dict[str, str]) -> str:
    """Whether the files are those of the undisturbed run."""
    if missing := set(expected) - set(found):
        return f"{len(missing)} of {len(expected)} missing"
    different = sum(found[name] != digest for name, digest in expected.items())
    return f"{different} of {len(expected)} different" if different else "equal"


def measure(
    case: str, run: Path, followers: list[Follower], codes: list[int | None], work: Work, remark: str = ""
) -> Measured:
    """The figures of a case that has ended, from its logs and its run folder."""
    happened = events(run)
    finished = Counter(event["member"] for event in happened if event["event"] == "MemberFinished")
    epochs = sum(event["event"] == "EpochFinished" for event in happened)
    place: dict[int, str] = {}
    for event in happened:
        if event["event"] == "TaskStarted":
            place |= dict.fromkeys(event["members"], event["host"])
    twice, bits = sum(count - 1 for count in finished.values()), compared(digests(run), work.expected)
    silence = max(follower.silence_s() for follower in followers)
    holds = codes[-1] == 0 and bits == "equal" and twice == 0 and silence <= SILENCE_S
    return Measured(
        case, codes, followers[-1].ended - followers[0].started, silence, twice, max(0, epochs - MEMBERS * work.epochs),
        dict(Counter(place[member] for member in finished if member in place)), bits, holds, remark,
        "\n----\n".join(follower.text() for follower in followers),
    )  # fmt: skip


def not_tried(case: str, why: str) -> Measured:
    """The row of a case that did not come so far."""
    return Measured(case, [], 0.0, 0.0, 0, 0, {}, "-", False, "not tried: the run did not come so far", why)
