"""Kill things at random while an ensemble trains, start it again until it is done, and compare the bits.

    python -m benchmarks.chaos --kills 30 --seed 7 [--executor processes] [--out FILE.json]

One configuration is trained twice through `ensemble train` on a local Ray, or in processes of this machine: once undisturbed, once with kills at random
moments. A kill hits the driver (SIGKILL), a worker (SIGKILL), the raylet (SIGKILL), the driver politely (SIGTERM,
which must end with exit code 75) or as `ray job stop` does (SIGTERM, and SIGKILL to all that is left 3 s later). After a kill of the driver or the raylet the same command is started
again. Printed at the end: kills by kind, exit codes, member-epochs trained in all against those an undisturbed run
needs, and whether every weight and vote file has the same SHA-256.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KINDS = {
    "ray": ("driver", "worker", "raylet", "sigterm", "job_stop"),
    "processes": ("driver", "worker", "sigterm", "job_stop"),
}
WORKERS = {
    "ray": "ray::chaos member",
    "processes": "ensemble.executors.process_worker",
}  # what their command lines have
# 75: SIGTERM; -9: killed; -15: SIGTERM before Python had begun; 1: Ray itself ends a driver whose raylet is gone.
EXPECTED = (0, 75, -9, -15, 1)
EARLY = 0.2  # share of the starts that may be hit before they train anything
JOB_STOP_PATIENCE_S = 3.0  # between SIGTERM and SIGKILL when Ray stops a job
CONFIG = """\
name: chaos
num_members: 6
method: {name: bagging}
baseline: false
data: {name: digits}
model: MODEL
training: {epochs: EPOCHS, batch_size: BATCH, lr: 1e-3}
compute: {executor: EXECUTOR, slots: 2, stack_size: 2, checkpoint_every_s: 1.0, hang_timeout_s: 60}
failures: {policy: retry, crash_retries: 50, lost_node_retries: 50}
tracking: {wandb: {mode: disabled}}
"""
BUSY = {"MODEL": "{name: mlp, widths: [128, 64]}", "BATCH": "8"}


@dataclass
class Record:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    sigterm_seconds: list[float] = field(default_factory=list)
    left_behind: int = 0  # processes that outlived a killed driver
    lost_seconds: list[float] = field(default_factory=list)  # of training by each task, at each polite stop
    starts: int = 0
    mistakes: list[str] = field(default_factory=list)  # what was printed where a start ended in no expected way


def start(config: Path, root: Path) -> subprocess.Popen[bytes]:
    """The command a person would type, in a session of its own."""
    command = [sys.executable, "-m", "ensemble", "train", str(config), f"output_dir={root}", "--quiet"]
    log = (root.parent / "log.txt").open("ab")
    return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def processes(parent: int) -> list[tuple[int, str]]:
    """Every living process below `parent`: number and command line."""
    children: dict[int, list[int]] = {}
    names: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                status = (entry / "stat").read_text()
                names[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # ended meanwhile
            children.setdefault(int(status.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, waiting = [], [parent]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.append((child, names[child]))
            waiting.append(child)
    return found


def kill(kind: str, driver: subprocess.Popen[bytes], record: Record, root: Path, executor: str) -> bool:
    """One kill; False where there was nothing of that kind to hit."""
    below = processes(driver.pid)
    if kind == "driver":
        driver.kill()
        if executor == "processes":  # which end by themselves
            record.left_behind += sum(not _ends(number) for number, _ in below)
        for number, _ in below:  # Ray would notice and leave within seconds; a lost machine takes all at once
            _signal(number, signal.SIGKILL)
    elif kind == "job_stop":
        driver.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(timeout=JOB_STOP_PATIENCE_S)
        for number in (driver.pid, *(number for number, _ in below)):
            _signal(number, signal.SIGKILL)
    elif kind == "sigterm":
        begun, asked = time.monotonic(), time.time()
        driver.terminate()
        driver.wait(timeout=60)
        record.sigterm_seconds.append(time.monotonic() - begun)
        record.lost_seconds += work_lost(root / "chaos", asked)
    else:
        word = "raylet/raylet" if kind == "raylet" else WORKERS[executor]
        victims = [number for number, name in below if word in name]
        if not victims:
            return False
        _signal(victims[0], signal.SIGKILL)
    record.kills[kind] += 1
    return True


def _ends(number: int, within_s: float = 5.0) -> bool:
    """Whether a process ends within so long."""
    deadline = time.monotonic() + within_s
    while (there := Path(f"/proc/{number}").exists()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not there


def _signal(number: int, what: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(number, what)


def disturbed(
    config: Path, root: Path, kills: int, seed: int, limit_s: float, hold: Path, executor: str = "ray"
) -> Record:
    """Train with kills until done. Raises SystemExit when it is not done in time or ends in an unexpected way.

    hold: removed after the last kill.
    """
    record, chance, deadline = Record(), random.Random(seed), time.monotonic() + limit_s  # noqa: S311 - no secret
    while True:
        before, early = epochs_in_log(root), chance.random() < EARLY
        driver = start(config, root)
        record.starts += 1
        while driver.poll() is None and time.monotonic() < deadline:
            left = kills - sum(record.kills.values())
            if left <= 0:
                hold.unlink(missing_ok=True)
            if left > 0 and (early or epochs_in_log(root) > max(before, 0)):
                time.sleep(chance.uniform(0.5, 4.0))
                if driver.poll() is None:
                    kill(chance.choice(KINDS[executor]), driver, record, root, executor)
            time.sleep(0.2)
        if driver.poll() is None:
            driver.kill()
            raise SystemExit(f"not done after {limit_s:g} s; log: {root.parent / 'log.txt'}")
        record.exits[driver.returncode] += 1
        if driver.returncode not in EXPECTED:
            record.mistakes.append((root.parent / "log.txt").read_text(errors="replace")[-3000:])
        for number, _ in processes(driver.pid):
            _signal(number, signal.SIGKILL)
        if driver.returncode == 0:
            return record


def epochs_in_log(root: Path) -> int:
    """Member-epochs the event log has; -1 before a worker has begun."""
    log = root / "chaos" / "events.jsonl"
    text = log.read_text(errors="replace") if log.exists() else ""
    return text.count('"EpochFinished"') if '"TaskStarted"' in text else -1


def work_lost(run: Path, asked: float) -> list[float]:
    """Seconds that each task under way had trained since its newest checkpoint when the run was asked to stop; 0 after one.

    asked: the time of the signal, in seconds since 1970. A task without a checkpoint loses all since it started.
    """
    log = run / "events.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    begun: dict[str, float] = {}
    members: dict[str, set[int]] = {}
    done: set[int] = set()
    for line in lines:
        if line["event"] == "RunStarted":
            begun.clear()
        elif line["event"] == "TaskStarted":
            begun[line["task"]], members[line["task"]] = line["time"], set(line["members"])
        elif line["event"] == "MemberFinished":
            done.add(line["member"])
    lost = []
    for task, since in begun.items():
        if members[task] <= done:
            continue
        kept = [path.stat().st_mtime for path in (run / "checkpoints").glob(f"{task}.*.safetensors")]
        lost.append(max(0.0, asked - max([since, *kept])))
    return lost


def digests(root: Path) -> dict[str, str]:
    """SHA-256 of every weight and vote file, from the manifest."""
    files = json.loads((root / "chaos" / "manifest.json").read_text())["files"]
    return {
        name: facts["sha256"] for name, facts in files.items() if name.endswith(("weights.safetensors", "votes.npz"))
    }


def run_chaos(
    kills: int, seed: int, epochs: int, limit_s: float, held_by: str | None = None, executor: str = "ray"
) -> dict[str, Any]:
    """Both trainings in a temporary folder; returns the figures. held_by, executor: as the options of these names."""
    with tempfile.TemporaryDirectory() as folder:
        config, hold, text = Path(folder) / "chaos.yaml", Path(folder) / "hold", CONFIG
        words = BUSY
        if held_by is not None:
            file, _, name = held_by.rpartition(":")
            shutil.copy(file, folder)
            words = {
                "MODEL": f"{{name: python, path: '{Path(file).name}:{name}', args: {{hold: '{hold}'}}}}",
                "BATCH": "128",
            }
        for word, value in {**words, "EPOCHS": str(epochs), "EXECUTOR": executor}.items():
            text = text.replace(word, value)
        config.write_text(text)
        whole, cut = Path(folder) / "whole", Path(folder) / "cut"
        undisturbed = start(config, whole)
        if undisturbed.wait(timeout=limit_s):
            raise SystemExit((Path(folder) / "log.txt").read_text()[-3000:])
        hold.touch()
        record = disturbed(config, cut, kills, seed, limit_s, hold, executor)
        expected, found = digests(whole), digests(cut)
        return {
            "kills": dict(record.kills),
            "starts": record.starts,
            "exit_codes": {str(code): count for code, count in record.exits.items()},
            "mistakes": record.mistakes,
            "sigterm_seconds_most": max(record.sigterm_seconds, default=0.0),
            "sigterm_work_lost_s_most": max(record.lost_seconds, default=0.0),
            "files": len(expected),
            "files_equal": sum(found.get(name) == digest for name, digest in expected.items()),
            "member_epochs_needed": 6 * epochs,
            "member_epochs_trained": epochs_in_log(cut),
            "left_behind": record.left_behind,
            "executor": executor,
            "seed": seed,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds for either training")
    parser.add_argument(
        "--held-by", metavar="FILE.py:CLASS", help="a network that hardly goes on while the file `hold`, its argument, is there, which is until the last kill: few epochs suffice then"
    )  # fmt: skip
    parser.add_argument("--executor", choices=sorted(KINDS), default="ray")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    figures = run_chaos(
        arguments.kills, arguments.seed, arguments.epochs, arguments.limit, arguments.held_by, arguments.executor
    )
    text = json.dumps(figures, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    if figures["files_equal"] != figures["files"]:
        raise SystemExit("the bits differ")
    if figures["left_behind"]:
        raise SystemExit("processes outlived a driver that was killed")
    if figures["mistakes"]:
        raise SystemExit("the program broke where it was only interrupted")


if __name__ == "__main__":
    main()
