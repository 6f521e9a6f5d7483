"""The process that talks to Weights & Biases; the only file that imports wandb. `wandb_tracker.py` starts it.

It reads one JSON record per line from stdin (the setup, then events, then how the run ended), carries out what
`wandb_projection.py` makes of them, and writes JSON messages to stdout. A process of its own keeps wandb's imports,
threads, exit hooks and printing out of training; it can be killed when it hangs; and when the driver is killed, stdin
ends and what was heard so far is still written to the end.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.events import from_json
from ensemble.tracking.instructions import (
    Artifact,
    Finish,
    Instruction,
    Open,
    Row,
    Settings,
    Summary,
    Table,
    TableData,
)
from ensemble.tracking.vote_so_far import vote_so_far
from ensemble.tracking.wandb_evaluation import curves, figures, tables
from ensemble.tracking.wandb_projection import Projection, Shown

NICENESS = 5  # training goes first
# W&B's own charts, and what they call the columns of their tables.
CHARTS = {
    "confusion": ("wandb/confusion_matrix/v1", ("Actual", "Predicted", "nPredictions")),
    "lines": ("wandb/lineseries/v0", ("step", "lineKey", "lineVal")),
}
Record = dict[str, Any] | None


class Session:
    """The W&B runs of one ensemble, open and closed, and how they are told things."""

    def __init__(self, wandb: Any, setup: dict[str, Any], say: Any) -> None:
        self._wandb = wandb
        self._setup = setup
        self._say = say
        self._mode: str = setup["mode"]
        self._runs: dict[str, Any] = {}
        self._finishing: dict[str, threading.Thread] = {}
        self._reached = False
        self._skipped: set[str] = set()
        self.unsent: set[str] = set()

    def carry_out(self, instruction: Instruction) -> None:
        """Do one thing. Raises whatever wandb raises, but online turns to offline when W&B was never reached."""
        if isinstance(instruction, Open):
            self._skipped.discard(instruction.id)
        if instruction.id in self._skipped:
            return
        match instruction:
            case Open():
                self._open(instruction)
            case Settings(id, values):
                self._runs[id].config.update(values, allow_val_change=True)
            case Row(id, step, time, values):
                self._runs[id].log({**values, "_timestamp": time}, step=step, commit=True)
            case Summary(id, values):
                self._runs[id].summary.update(values)
            case Table(id, step, data):
                self._runs[id].log(self._table(data), step=step, commit=False)
            case Artifact():
                self._runs[instruction.id].log_artifact(self._artifact(instruction), aliases=list(instruction.aliases))
            case Finish(id, exit_code):
                self._finish(id, exit_code)

    def wait(self) -> None:
        """Wait until every run that was ended is sent or has given up."""
        for thread in self._finishing.values():
            thread.join()

    def _open(self, run: Open) -> None:
        if run.id in self._runs:  # an attempt that is replaced
            self._finish(run.id, 1)
        if run.id in self._finishing:  # its id is taken until then
            self._finishing.pop(run.id).join()
        self.unsent.discard(run.id)
        try:
            self._runs[run.id] = self._init(run)
        except Exception as error:
            if self._mode == "offline":
                raise
            if self._reached:  # a new run would not even start offline: its id is taken until the service ends
                self._skipped.add(run.id)
                self._miss(run.id, error)
                return
            if not self._setup["live"] and type(error).__name__ == "CommError":
                raise  # whoever asks to send a stored run wants it sent, or to hear that it was not
            self._go_offline(error)
            self._runs[run.id] = self._init(run)
        self._reached = True
        for (
            curve
        ) in run.curves:  # a summary of "last" would be put one level deeper than that of a curve that says nothing
            summary = None if curve.summary == "last" else curve.summary
            self._runs[run.id].define_metric(curve.name, step_metric=curve.axis or None, summary=summary)
        if self._mode == "online" and run.kind == "ensemble":
            self._say(notice=f"W&B: {self._runs[run.id].url}")

    def _go_offline(self, error: Exception) -> None:
        """W&B was never reached: log to files from here on."""
        self._mode = "offline"
        self._say(notice=f"W&B: {_why(error)}; {self._setup['offline_advice']}")
        with contextlib.suppress(Exception, SystemExit):
            self._wandb.teardown()  # the service still holds the id of the run that could not be opened

    def _init(self, run: Open) -> Any:
        folder = Path(self._setup["folder"])
        if self._mode == "offline":
            for old in (folder / "wandb").glob(f"offline-run-*-{run.id}"):  # this run is told anew from its beginning
                if old.is_dir() and not old.is_symlink():
                    shutil.rmtree(old)
            if run.kind == "ensemble":  # the only run with tables, which wait there
                shutil.rmtree(folder / "wandb" / "staging", ignore_errors=True)
        settings = {
            "console": "off",
            "silent": True,
            "disable_git": True,
            "save_code": False,
            "reinit": "create_new",
            "init_timeout": self._setup["init_timeout_s"],
            "finish_timeout": self._setup["finish_timeout_s"],
            "finish_timeout_raises": True,
            "x_disable_meta": True,
            "x_save_requirements": False,
            # One run per driver reports how busy the machine is, and a replay has nothing to report.
            "x_disable_stats": run.kind == "member" or not self._setup["live"],
            "x_stats_pid": self._setup["driver_pid"],
        }
        if run.kind == "ensemble" and self._setup["sweep"]:  # members are no part of it
            settings["sweep_id"] = self._setup["sweep"]
        known = self._wandb.Settings.model_fields  # older versions lack some, and refuse what they do not know
        return self._wandb.init(
            mode=self._mode,
            project=self._setup["project"],
            entity=self._setup["entity"],
            dir=str(folder),
            id=run.id,
            name=run.name,
            group=run.group,
            job_type=run.job_type,
            tags=run.tags,
            notes=run.notes or None,
            config=run.config,
            settings=self._wandb.Settings(**{name: value for name, value in settings.items() if name in known}),
        )

    def _finish(self, id: str, exit_code: int) -> None:
        """End a run. Online that means waiting for an upload, so it is done beside the next records."""
        run = self._runs.pop(id)

        def finish() -> None:
            try:
                run.finish(exit_code=exit_code)
            except Exception as error:
                self._miss(id, error)

        if self._mode == "online":
            thread = threading.Thread(target=finish, daemon=True)
            thread.start()
            self._finishing = {other: t for other, t in self._finishing.items() if t.is_alive()} | {id: thread}
        else:
            finish()

    def _miss(self, id: str, error: Exception) -> None:
        self.unsent.add(id)
        print(f"{id}: {_why(error)}", file=sys.stderr, flush=True)  # noqa: T201 (stderr is the log file)

    def _table(self, data: TableData) -> dict[str, Any]:
        rows = [[self._cell(cell) for cell in row] for row in data.rows]
        table = self._wandb.Table(columns=list(data.columns), data=rows)
        if not data.chart:
            return {data.name: table}
        preset, keys = CHARTS[data.chart]
        words = {"title": data.title} | ({"xname": data.columns[0]} if data.chart == "lines" else {})
        chart = self._wandb.plot_table(preset, table, dict(zip(keys, data.columns, strict=True)), words)
        return {f"{data.name}_chart": chart}  # its table is logged with it, as ..._chart_table

    def _artifact(self, told: Artifact) -> Any:
        """Files of the run folder, and what was made of it. Members' files never change, so they are not copied."""
        artifact = self._wandb.Artifact(told.name, type=told.type, metadata=dict(told.facts))
        for name, file in told.files:
            policy = "immutable" if file.startswith("members/") else "mutable"
            artifact.add_file(str(Path(self._setup["folder"]) / file), name=name, policy=policy)
        return artifact

    def _cell(self, cell: Any) -> Any:
        return self._wandb.Image(cell) if isinstance(cell, np.ndarray) else cell


def _why(error: Exception) -> str:
    """An error of wandb as half a sentence."""
    name, text = type(error).__name__, " ".join(str(error).split())[:200]
    if "No API key" in text:
        return "no API key found"
    if name == "CommError":
        return f"the server cannot be reached ({text.split(' Consider')[0]})"
    if isinstance(error, ConnectionError) or name in ("MailboxClosedError", "HandleAbandonedError"):
        return f"its service process is gone ({name})"
    return f"{name}: {text}" if text else name


def _listen(records: queue.SimpleQueue[Record], patience_s: float) -> None:
    """Take every record off the pipe at once, so that the driver never waits; None stands for the end.

    After the end the process has `patience_s` to finish, so that it never outlives its driver for long.
    """
    for line in sys.stdin.buffer:
        if not line.endswith(b"\n"):
            break  # the driver was killed while writing
        record = json.loads(line)
        records.put(record)
        if "close" in record:
            break
    records.put(None)
    watchdog = threading.Timer(patience_s, os._exit, (3,))
    watchdog.daemon = True
    watchdog.start()


def _image(packed: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.frombuffer(base64.b64decode(packed["data"]), np.uint8).reshape(packed["shape"])


def _work(session: Session, projection: Projection, records: queue.SimpleQueue[Record]) -> int:
    """Carry out all records until the end, then end what is open; the number of runs that were not sent completely."""
    ok = False
    while (record := records.get()) is not None:
        if "close" in record:
            ok = record["close"]
        elif "evaluation" in record:
            images = {int(row): _image(packed) for row, packed in record["images"].items()}
            judged = record["evaluation"]
            for instruction in projection.judge(figures(judged), curves(judged), tables(judged, images)):
                session.carry_out(instruction)
        elif "artifact" in record:
            files = [(name, file) for name, file in record["files"]]
            for instruction in projection.keep(record["artifact"], files):
                session.carry_out(instruction)
        elif "environment" in record:
            projection.describe(record["environment"])
        elif record["earlier"]:
            projection.recall(from_json(record["event"]), record["time"], record["stands"])
        else:
            for instruction in projection.handle(from_json(record["event"]), record["time"], record["stands"]):
                session.carry_out(instruction)
    for instruction in projection.close(ok):
        session.carry_out(instruction)
    session.wait()
    return len(session.unsent)


def main() -> int:
    """Serve one driver; 0 when all was told, 1 when W&B had to be given up."""
    os.nice(NICENESS)
    # Messages keep the real stdout; whatever a library prints goes to the log file that is stderr.
    messages = os.dup(1)
    os.dup2(2, 1)

    def say(**message: object) -> None:
        with contextlib.suppress(BrokenPipeError):  # the driver is gone and nobody is left to be told
            os.write(messages, (json.dumps(message) + "\n").encode())

    setup = json.loads(sys.stdin.buffer.readline())
    records: queue.SimpleQueue[Record] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(records, setup["patience_s"]), daemon=True).start()
    try:
        import wandb

        shown = Shown(**{**setup["shown"], "tags": tuple(setup["shown"]["tags"])})
        vote = vote_so_far(Path(setup["folder"]), setup["config"].get("aggregator"), lambda reason: say(missed=reason))
        projection = Projection(setup["name"], setup["config"], shown, vote)
        unsent = _work(Session(wandb, setup, say), projection, records)
    except ImportError as error:
        say(given_up=f"the wandb package cannot be imported ({error})")
        return 1
    except Exception as error:
        say(given_up=_why(error))
        return 1
    say(ended=True, unsent=unsent)
    return 0


if __name__ == "__main__":
    sys.exit(main())
