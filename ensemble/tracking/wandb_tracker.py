"""The tracker for Weights & Biases: a projection of the event stream that can be made again from the event log.

Everything is handed to a process of its own (`wandb_worker.py`) through a queue, so training never waits for W&B and
nothing that happens there reaches it: no network, a bad key, a missing package and a dead service are one line each.
The files of offline runs lie in the run folder under `wandb/`.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, Any, Literal, Protocol

from ensemble import signals
from ensemble.data.showing import viewable
from ensemble.errors import EnsembleError, StorageError
from ensemble.events import Event, RunFinished, RunStarted, to_json
from ensemble.storage import RunFolder
from ensemble.storage.manifest import MANIFEST
from ensemble.storage.names import CONFIG, DATASET, ENVIRONMENT, EVENTS, LABELS, METHOD
from ensemble.storage.parsing import json_object
from ensemble.tracking.event_log import marked_attempts
from ensemble.tracking.judged import judged_run
from ensemble.tracking.wandb_mode import effective_mode
from ensemble.tracking.wandb_sweep import try_of
from ensemble.types import ByteArray

log = logging.getLogger(__name__)

TestImages = Callable[[list[int]], ByteArray]
Makers = Mapping[str, Callable[[Path, Path], None]]  # part -> what makes its file: of a run folder, into this path
CLOSE_TIMEOUT_S = {"online": 30.0, "offline": 10.0}
REPLAY_TIMEOUT_S = 600.0
FIRST_ANSWER_S = 20.0  # a server that has not answered by then is taken for one that is not there
LATER = "send it later with `ensemble wandb {}`"
# A run's identity comes from its configuration alone; these would overrule or redirect it.
TOLD = ("commit", "python", "system", "processor", "cores", "packages", "command")  # of environment.json
# Artifacts of files that are in the run folder: which, each set enough to be used alone; and of files that are made.
PARTS = {
    "run": ("*",),
    "votes": (DATASET, LABELS, METHOD, "members/*/member.json", "members/*/votes.npz", "sets/*", "votes/*"),
    "weights": (
        CONFIG,
        DATASET,
        METHOD,
        "members/*/member.json",
        "members/*/weights.safetensors",
        "shared/*",
        "code/*",
    ),
}
MADE = {"onnx": "ensemble.onnx", "report": "report.html"}
DROPPED_VARIABLES = frozenset(
    f"WANDB_{name}"
    for name in (
        "MODE", "DISABLED", "SERVICE", "DIR", "PROJECT", "NAME", "NOTES", "RUN_ID", "RUN_GROUP", "JOB_TYPE", "TAGS",
        "RESUME", "SWEEP_ID", "SWEEP_PARAM_PATH", "CONSOLE", "SILENT", "QUIET",
    )
)  # fmt: skip


class Keys(Protocol):
    """What it needs of `tracking.wandb`; the keys are described there."""

    @property
    def mode(self) -> Literal["online", "offline", "disabled"]: ...
    @property
    def project(self) -> str: ...
    @property
    def entity(self) -> str | None: ...
    @property
    def tags(self) -> tuple[str, ...]: ...
    @property
    def members(self) -> str: ...
    @property
    def name(self) -> str | None: ...
    @property
    def notes(self) -> str | None: ...
    @property
    def group(self) -> str | None: ...
    @property
    def job_type(self) -> str | None: ...
    @property
    def artifact(self) -> bool | tuple[str, ...]: ...


class WandbTracker:
    """Tells W&B what happens in a run.

    config: where and how to report. name, experiment: the run's name and resolved configuration as plain values,
    shown as the config of every W&B run; it must hold no secrets. folder: the run folder.
    earlier: events of earlier driver sessions of the same run, so that what is told now is whole.
    test_images: test rows -> their images_NCHW, for the table of the rows the members dispute; without it they are
    listed without a picture.
    notify: takes each line a person should read; called from another thread. Without it they are logged.
    close_timeout_s: how long `close` waits for what is still to be sent; live: False when nothing is being trained.
    makers: how the parts of `tracking.wandb.artifact` are made that are not in the run folder.
    """

    def __init__(
        self,
        config: Keys,
        name: str,
        experiment: Mapping[str, Any],
        folder: Path,
        *,
        earlier: Iterable[tuple[float, Event]] = (),
        test_images: TestImages | None = None,
        notify: Callable[[str], None] | None = None,
        close_timeout_s: float | None = None,
        live: bool = True,
        makers: Makers | None = None,
    ) -> None:
        self.mode = effective_mode(config.mode, os.environ)
        self.complete = False
        self.told_all = True  # False once something of the run could not be read
        self._folder = folder
        self._test_images = test_images
        self._notify = notify or log.warning
        self._given_up = False
        self._kept = ("run",) if config.artifact is True else config.artifact or ()
        self._makers = makers or {}
        self._records: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        if self.mode == "disabled":
            return
        self._timeout_s = CLOSE_TIMEOUT_S[self.mode] if close_timeout_s is None else close_timeout_s
        try:
            sweep = try_of(folder, os.environ if live else {})
            self._process = _start_worker(folder)
        except (OSError, StorageError) as error:
            self._give_up(f"its process cannot be started ({error})")
            return
        setup = {
            "mode": self.mode,
            "project": (sweep.project if sweep else None) or config.project,
            "entity": (sweep.entity if sweep else None) or config.entity,
            "sweep": sweep.sweep if sweep else None,
            "shown": {
                "tags": config.tags,
                "members": config.members,
                "name": config.name or "",
                "notes": config.notes or "",
                "group": config.group or "",
                "job_type": config.job_type or "",
                "ensemble_id": sweep.run if sweep else "",
            },
            "name": name,
            "config": experiment,
            "folder": str(folder.absolute()),
            "offline_advice": f"logging offline to {folder / 'wandb'}, {LATER.format(shlex.quote(str(folder)))}",
            "live": live,
            "driver_pid": os.getpid(),
            "patience_s": self._timeout_s,
            # Both leave room within the time that close waits: to turn to offline, and to say what was not sent.
            "init_timeout_s": max(1.0, min(FIRST_ANSWER_S, self._timeout_s / 2)),
            "finish_timeout_s": max(1.0, self._timeout_s * 0.7),
        }
        self._records.put(setup)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        signals.start_deaf(threading.Thread(target=self._write, args=(self._process.stdin,), daemon=True))
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        signals.start_deaf(self._reader)
        for time, event, stands in marked_attempts(earlier):
            self._records.put({"earlier": True, "stands": stands, "time": time, "event": to_json(event)})

    def handle(self, event: Event, time: float, stands: bool = True) -> None:
        """Pass the event on; returns at once, but for RunFinished, with which go the judgement that lies in the run folder
        by then and the artifacts.

        stands: False for an event that a later one replaced, when a log is replayed: of an earlier attempt, or the end of
        a run that was started again.
        """
        if self._process is None:
            return
        if isinstance(event, RunStarted):
            self._tell_environment()
        self._records.put({"earlier": False, "stands": stands, "time": time, "event": to_json(event)})
        if not isinstance(event, RunFinished) or not stands:
            return
        if (self._folder / MANIFEST).is_file():
            try:
                if judged := judged_run(RunFolder.read(self._folder)):
                    self.log_evaluation(judged)
            except EnsembleError as error:
                self._miss(f"the judgement is not shown there: {error}")
        for part in self._kept:
            if files := self._part(part):
                self._records.put({"artifact": part, "files": files})

    def log_evaluation(self, evaluation: Mapping[str, Any]) -> None:
        """Show a judgement, as evaluation.json holds it, in the ensemble's run; returns at once."""
        if self._process is None:
            return
        rows = [record["row"] for record in evaluation["disputed"]]
        images = self._images(rows)
        packed = {row: _pack(image_CHW) for row, image_CHW in zip(rows, images, strict=False)}
        self._records.put({"evaluation": evaluation, "images": packed})

    def _tell_environment(self) -> None:
        """What the run runs on, as its folder has it; variables of the environment are not told."""
        if not (self._folder / MANIFEST).is_file():
            return
        try:
            folder = RunFolder.read(self._folder)
            if folder.has(ENVIRONMENT):
                known = json_object(folder.read_bytes(ENVIRONMENT), self._folder / ENVIRONMENT)
                self._records.put({"environment": {key: known[key] for key in TOLD if key in known}})
        except EnsembleError as error:
            self._miss(f"what the run runs on is not shown there: {error}")

    def _part(self, part: str) -> list[tuple[str, str]]:
        """The files of an artifact: names in it, and where they lie. One that cannot be made is left out, which is said."""
        if part not in self._makers:
            return [(name, name) for name in files_of(part, listed_files(self._folder))]
        target = self._folder.absolute() / "wandb" / "made" / MADE[part]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._makers[part](self._folder, target)
        except EnsembleError as error:
            self._notify(f"W&B: the artifact {part} is left out: {error}")
            return []
        return [(MADE[part], str(target))]

    def _images(self, rows: list[int]) -> Sequence[ByteArray]:
        """The images of these rows; without them the table is shown all the same, and that they are missing is said."""
        if self._test_images is None or not rows:
            return ()
        try:
            return list(self._test_images(rows))
        except EnsembleError as error:
            self._miss(f"the disputed images are not shown there: {error}")
            return ()

    def close(self, ok: bool) -> None:
        """End the runs and wait, for a bounded time, until everything is sent; says so where it is not."""
        if self._process is None:
            return
        process, self._process = self._process, None
        self._records.put({"close": ok})
        self._records.put(None)
        try:
            process.wait(self._timeout_s)
        except subprocess.TimeoutExpired:
            self._give_up(f"not everything was sent within {self._timeout_s:.0f} s")
            os.killpg(process.pid, signal.SIGKILL)  # its own session: the process and the service it started
            process.wait()
        self._reader.join(timeout=1.0)
        if not self.complete:
            self._give_up(f"its process ended with exit code {process.returncode}")

    def _write(self, pipe: IO[bytes]) -> None:
        """Feed the process; in a thread, because a process that hangs stops reading."""
        try:
            with pipe:
                while (record := self._records.get()) is not None:
                    pipe.write(json.dumps(record, default=str).encode() + b"\n")
                    pipe.flush()
        except OSError:
            self._give_up("its process is gone")

    def _read(self, pipe: IO[bytes]) -> None:
        """Take in what the process says until it ends."""
        with pipe:
            for line in pipe:
                message = json.loads(line)
                if "notice" in message:
                    self._notify(message["notice"])
                elif "missed" in message:
                    self._miss(message["missed"])
                elif "given_up" in message:
                    self._give_up(message["given_up"])
                elif message["unsent"]:
                    self._give_up(f"{message['unsent']} runs were not sent completely")
                else:
                    self.complete = True

    def _miss(self, reason: str) -> None:
        """Say that a part of the run is not told."""
        self.told_all = False
        self._notify(f"W&B: {reason}")

    def _give_up(self, reason: str) -> None:
        """Say once that W&B misses something, and how it gets it."""
        if not self._given_up:
            self._given_up = True
            self._notify(f"W&B: {reason}; the run itself is unharmed, {LATER.format(shlex.quote(str(self._folder)))}")


def replay(
    events: Iterable[tuple[float, Event]],
    config: Keys,
    name: str,
    experiment: Mapping[str, Any],
    folder: Path,
    *,
    test_images: TestImages | None = None,
    notify: Callable[[str], None] | None = None,
    timeout_s: float = REPLAY_TIMEOUT_S,
    makers: Makers | None = None,
) -> bool:
    """Build the W&B runs of a finished, killed or offline run from its event log; True when all of it was sent.

    The runs have the ids they had, or would have had, while training, and replace those. The ensemble's run shows as
    failed unless the last driver session came to its end. Arguments as for WandbTracker.
    """
    tracker = WandbTracker(
        config,
        name,
        experiment,
        folder,
        test_images=test_images,
        notify=notify,
        close_timeout_s=timeout_s,
        live=False,
        makers=makers,
    )
    ok, marked = False, marked_attempts(events)
    judged = max((i for i, (_, event, _) in enumerate(marked) if isinstance(event, RunFinished)), default=-1)
    for i, (time, event, stands) in enumerate(marked):
        tracker.handle(event, time, stands and (i == judged or not isinstance(event, RunFinished)))
        if isinstance(event, RunStarted | RunFinished):
            ok = isinstance(event, RunFinished)
    tracker.close(ok)
    return tracker.complete and tracker.told_all


def images_of(path: Path) -> TestImages:
    """What reads a run's test images when they are asked for: after training, the few disputed ones, which the run keeps."""

    def images(rows: list[int]) -> ByteArray:
        from ensemble.results.run_data import test_images

        return test_images(RunFolder.read(path), rows)

    return images


def files_of(part: str, listed: Sequence[str]) -> list[str]:
    """Those of a run folder's files that are an artifact. part: run (all of them), votes or weights."""
    return [name for name in listed if any(fnmatchcase(name, pattern) for pattern in PARTS[part])]


def listed_files(folder: Path) -> list[str]:
    """What a run folder's manifest lists, the event log and the manifest itself."""
    if not (folder / MANIFEST).is_file():
        return []
    files = RunFolder.read(folder).files()
    return [*(name for name in sorted({*files, EVENTS}) if (folder / name).is_file()), MANIFEST]


def _start_worker(folder: Path) -> subprocess.Popen[bytes]:
    home = folder.absolute() / "wandb"
    home.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED_VARIABLES}
    # Tables and images wait here for their upload; by default that would be a folder in the user's home.
    environment["WANDB_DATA_DIR"] = str(home / "staging")
    source = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [source, environment.get("PYTHONPATH")]))
    # -P: a file or folder named wandb in the working directory must not be imported.
    command = [sys.executable, "-P", "-m", "ensemble.tracking.wandb_worker"]
    with (home / "worker.log").open("ab") as errors:
        return subprocess.Popen(  # noqa: S603 (our own module, no shell)
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the driver, which then closes this in order
        )


def _pack(image_CHW: ByteArray) -> dict[str, Any]:
    image = viewable(image_CHW)
    return {"shape": image.shape, "data": base64.b64encode(image.tobytes()).decode()}
