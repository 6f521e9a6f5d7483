"""A tracker of one's own: `python examples/own_tracker.py [FOLDER]`, in some seconds on a CPU.

A tracker hears every event of a run while it happens. This one writes a line of CSV for every epoch, and for the judgement at
the end, beside the run's other files. It has a key under `tracking` by its name, which says where.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from pydantic import Field

import ensemble
from ensemble.events import EpochFinished, Event, RunFinished


@ensemble.register_tracker("csv_lines")
class CsvLinesConfig(ensemble.TrackerSection):
    """A line of CSV for every epoch."""

    file: str = Field("epochs.csv", min_length=1, description="its name in the run folder")

    def build(self, job: ensemble.TrackerJob) -> CsvLines:
        return CsvLines(job, job.folder / self.file)


class CsvLines:
    """The whole file is written anew by each start of the run: first what earlier starts have seen."""

    def __init__(self, job: ensemble.TrackerJob, path: Path) -> None:
        self._file = path.open("w", newline="")
        self._lines = csv.writer(self._file)
        self._lines.writerow(["time", "member", "epoch", "validation_error"])
        for time, event in job.earlier():
            if isinstance(event, EpochFinished):
                self.handle(event, time)
        job.notify(f"epochs as CSV: {path}")

    def handle(self, event: Event, time: float) -> None:
        """An exception here is said once, and leaves this tracker out; training goes on."""
        match event:
            case EpochFinished():
                self._lines.writerow([time, event.member, event.epoch, event.validation_error])
            case RunFinished():
                self._lines.writerow([time, "all", "", event.headline["error/test"]])
            case _:
                pass

    def close(self, ok: bool) -> None:  # noqa: ARG002 - it ends the same way either way
        self._file.close()


if __name__ == "__main__":
    run = ensemble.train(
        name="tracked",
        output_dir=sys.argv[1] if len(sys.argv) > 1 else "runs",
        model="mlp",
        data="digits",
        method="bagging",
        num_members=4,
        training={"epochs": 3},
        tracking={"csv_lines": {"file": "every_epoch.csv"}},
    )
    print(run.evaluation.verdict.sentence)
    print((run.path / "every_epoch.csv").read_text())
