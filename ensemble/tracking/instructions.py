"""What a dashboard is told to do, as plain records: runs, rows, figures, tables, artifacts and ends.

`wandb_projection.py` makes them of events; whoever carries them out (`wandb_worker.py`) knows nothing of events.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from ensemble.tracking.figures import Figure

Kind = Literal["ensemble", "member"]


@dataclass(frozen=True, slots=True)
class Open:
    """Begin a run, empty, under its id. kind: what it is a run of; job_type: what it is called. curves: figures that have an axis
    or a summary of their own."""

    id: str
    kind: Kind
    name: str
    group: str
    job_type: str
    tags: tuple[str, ...]
    notes: str
    config: dict[str, Any]
    curves: tuple[Figure, ...]


@dataclass(frozen=True, slots=True)
class Settings:
    """Values of an open run's configuration that were not known when it was opened; they replace earlier ones."""

    id: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a run's history; steps rise within a run."""

    id: str
    step: int
    time: float
    values: dict[str, float]


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a run as a whole."""

    id: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class TableData:
    """Named columns; cells are plain values or uint8 images.

    chart: how it is drawn besides. confusion: its columns are actual class, predicted class and a count; lines: x, name
    of the line, y. title: over the chart.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    chart: Literal["", "confusion", "lines"] = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of a run."""

    id: str
    step: int
    data: TableData


@dataclass(frozen=True, slots=True)
class Artifact:
    """Files kept with a run, as one artifact. files: (name in the artifact, where the file lies), relative to the run folder
    or absolute."""

    id: str
    name: str
    type: str
    files: tuple[tuple[str, str], ...]
    aliases: tuple[str, ...] = ()
    facts: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Finish:
    """End a run; exit code 0 shows as finished, anything else as failed."""

    id: str
    exit_code: int


Instruction = Open | Settings | Row | Summary | Table | Artifact | Finish
