"""Repeats of one configuration as a table, as JSON, as CSV and as a page."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from pydantic import TypeAdapter, ValidationError

from ensemble.errors import StorageError, first_line
from ensemble.outside.names import shown
from ensemble.report import wording
from ensemble.report.keeping import mark_of
from ensemble.report.notebook_table import HtmlRow, table_html
from ensemble.results.repeated import Repeated, RepeatedLine
from ensemble.storage.atomic import json_bytes, write_bytes
from ensemble.storage.listed_folder import is_file

if TYPE_CHECKING:
    from rich.console import Console

TABLE, CSV, PAGE = "repeats.json", "repeats.csv", "repeats.html"
HEADERS = ("", "error %", "95 % int.", "difference", "95 % int.", "p", "p seeds", "by seeds", "by images")
NARROW = 6  # columns of a narrow terminal
NOTES = (
    "error: mean over the repeats, with Student's t interval over them, from three repeats on. difference: of the vote to the line, in points.",
    "p and the interval of the difference: for further seeds judged on further images (pigeonhole bootstrap). p seeds: on these very images, Student's paired t test over the repeats, from three on. Each line is a question of its own; none is adjusted for the others.",
    "by seeds, by images: standard error of the difference, in points, that each of the two would make by itself.",
)


def cells(line: RepeatedLine) -> tuple[str, ...]:
    """One line of the table, in the order of HEADERS."""
    ends = line.difference_lower, line.difference_upper
    between = wording.NONE if line.what == "vote" else f"{wording.points(ends[0])} to {wording.points(ends[1])}"
    return (
        line.name,
        wording.percent(line.error),
        wording.percent_interval(line.lower, line.upper),
        wording.points(line.difference),
        between,
        wording.p_value(line.p_value),
        wording.p_value(line.seeds_p),
        wording.points(line.from_seeds).lstrip("+"),
        wording.points(line.from_images).lstrip("+"),
    )


def title(found: Repeated) -> str:
    """What the table is of."""
    return (
        f"{shown(found.dataset)}: {len(found.runs)} repeats of {shown(found.name)} on {found.test_rows:,} test images"
    )


def print_repeats(found: Repeated, folder: Path | str) -> None:
    """Table, verdict and what belongs beside it on stdout."""
    from ensemble.tracking.terminal import open_table_console

    console = open_table_console()
    if console.is_terminal:
        _show(console, found, folder)
        return
    with console.capture() as captured:
        _show(console, found, folder)
    # rich fills every line up with spaces, which a file or a diff has no use for.
    console.file.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def _show(console: Console, found: Repeated, folder: Path | str) -> None:
    from rich.table import Table
    from rich.text import Text

    from ensemble.tracking.terminal import OPEN, marked

    count = len(HEADERS) if console.width >= 110 else NARROW
    table = Table(box=None, header_style="bold", padding=(0, 1, 0, 0), pad_edge=False)
    for place, header in enumerate(HEADERS[:count]):
        table.add_column(header, justify="right" if place else "left", no_wrap=place > 0)
    for line in found.lines:
        table.add_row(*cells(line)[:count], style="bold" if line.what == "vote" else "")
    console.print(Text(title(found), style="bold"))
    console.print()
    console.print(table)
    console.print()
    for place, sentence in enumerate(found.sentences):
        console.print(Text(sentence, style="" if place else "bold"))
    for note in NOTES if count == len(HEADERS) else NOTES[:2]:
        console.print(Text(note, style="dim"))
    for caution in found.cautions:
        console.print(marked(f"warning: {caution}", "warning:", OPEN))
    console.print(Text(f"runs, {TABLE}, {CSV} and {PAGE}: {shown(str(folder), 4096)}"), soft_wrap=True)


def write_repeats(found: Repeated, folder: Path) -> None:
    """The table as JSON, CSV and page, in the folder of the runs."""
    write_bytes(folder / TABLE, json_bytes(found.to_json()))
    write_bytes(folder / CSV, repeats_csv(found).encode())
    write_bytes(folder / PAGE, render_repeats(found).encode())


def read_repeats(folder: Path) -> Repeated:
    """The judgement that `write_repeats` has left. Raises StorageError where there is none, or a damaged one."""
    where = folder / TABLE
    if not is_file(where):
        raise StorageError(
            f"{folder}: holds no {TABLE}, so it is no folder of repeats; give that of a training with repeats=N"
        )
    try:
        found: Repeated = TypeAdapter(Repeated).validate_json(where.read_bytes())
    except (OSError, ValidationError) as error:
        raise StorageError(
            f"{where}: damaged: {first_line(error)}; start the same training with repeats=N again, which writes it anew and trains nothing"
        ) from error
    return found


def repeats_html(found: Repeated) -> str:
    """The table for a notebook."""
    rows = [HtmlRow(cells(line), line.what == "vote") for line in found.lines]
    cautions = [f"warning: {caution}" for caution in found.cautions]
    return table_html(HEADERS, rows, [title(found), *found.sentences, *NOTES, *cautions])


def repeats_csv(found: Repeated) -> str:
    """Every field of every line, rates as fractions; errors of the runs in columns of their own."""
    text, names = io.StringIO(), [field.name for field in fields(RepeatedLine) if field.name != "errors"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, *(f"error {run}" for run in found.runs)])
    for line in found.lines:
        values = (getattr(line, name) for name in names)
        plain = ["" if isinstance(value, float) and math.isnan(value) else value for value in values]
        writer.writerow([*plain, *line.errors])
    return text.getvalue()


def render_repeats(found: Repeated) -> str:
    """The page, as text."""
    environment = Environment(
        loader=PackageLoader("ensemble.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    runs = [
        (shown(run), seed, members, [wording.percent(line.errors[place]) for line in found.lines])
        for place, (run, seed, members) in enumerate(zip(found.runs, found.seeds, found.members, strict=True))
    ]
    return environment.get_template("repeats.html").render(
        title=title(found), headers=HEADERS, rows=[cells(line) for line in found.lines], runs=runs, found=found, notes=NOTES,
        mark=mark_of("repeats", found.runs),
    )  # fmt: skip
