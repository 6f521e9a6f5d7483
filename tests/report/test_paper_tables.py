"""Tables for papers: nothing in a cell is a command of LaTeX, every line has as many cells, the CSV has every digit."""

from __future__ import annotations

import csv
import dataclasses
import io
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble.evaluation.records import Evaluation
from ensemble.report.html import write_report
from ensemble.report.paper_tables import escaped, latex, run_tables
from ensemble.report.run_facts import read_run
from ensemble.report.tables import leaderboard_csv

Make = Callable[..., Evaluation]
CELL = re.compile(r"(?<!\\)&")


def body(text: str) -> list[list[str]]:
    """The cells of a LaTeX table, its head first."""
    inside = text.split(r"\toprule", 1)[1].split(r"\bottomrule", 1)[0]
    lines = [line for line in inside.splitlines() if line.strip() and line.strip() != r"\midrule"]
    assert all(line.endswith(r" \\") for line in lines)
    return [[cell.strip() for cell in CELL.split(line.removesuffix(r"\\"))] for line in lines]


def read_back(text: str) -> str:
    """What LaTeX prints of escaped text."""
    words = {
        r"\textbackslash{}": "\\",
        r"\textasciitilde{}": "~",
        r"\textasciicircum{}": "^",
        r"\textless{}": "<",
        r"\textgreater{}": ">",
    }
    pattern = re.compile("|".join(map(re.escape, words)) + r"|\\([&%$#_{}])")
    return pattern.sub(lambda found: found[1] or words[found[0]], text)


@pytest.mark.parametrize("name", ["50 % & more", r"a\b_{c}^~", "$x$ #1", "<p>", r"\input{secret}", "plain"])
def test_no_sign_is_a_command(name: str) -> None:
    text = escaped(name)
    assert read_back(text) == name
    left = re.sub(r"\\text(backslash|asciitilde|asciicircum|less|greater)\{\}|\\[&%$#_{}]", "", text)
    assert not re.search(r"[\\&%$#_{}~^<>]", left)


def test_every_table_has_as_many_cells_in_every_line(evaluation_of: Make) -> None:
    evaluation = evaluation_of(members=3)
    names = (r"50 % & \more", *evaluation.class_names[1:])
    classes = tuple(dataclasses.replace(one, name=name) for one, name in zip(evaluation.classes, names, strict=True))
    evaluation = dataclasses.replace(evaluation, class_names=names, classes=classes)
    tables = {table.name: table for table in run_tables(evaluation)}
    assert set(tables) == {"leaderboard", "classes", "size_curve", "diversity", "promises"}
    for table in tables.values():
        found = body(latex(table))
        assert {len(line) for line in found} == {len(table.headers)}
        assert len(found) == 1 + sum(row is not None for row in table.rows)
        rows = list(csv.reader(io.StringIO(table.csv)))
        assert {len(row) for row in rows} == {len(rows[0])}
    assert body(latex(tables["classes"]))[1][0] == r"50 \% \& \textbackslash{}more"
    assert next(csv.DictReader(io.StringIO(tables["classes"].csv)))["name"] == r"50 % & \more"
    head = body(latex(tables["leaderboard"]))[1]
    assert head[0] == r"\textbf{soft vote *}"
    assert f"{100 * evaluation.headline.test_error:.2f}" in head[1]
    sizes = list(csv.DictReader(io.StringIO(tables["size_curve"].csv)))
    assert [float(row["mean"]) for row in sizes] == [point.mean for point in evaluation.size_curve]


def test_braces_and_environments_are_closed(evaluation_of: Make) -> None:
    for table in run_tables(evaluation_of()):
        text = re.sub(r"\\[{}]", "", latex(table))
        assert text.count("{") == text.count("}")
        assert re.findall(r"\\begin\{(\w+)\}", text) == list(reversed(re.findall(r"\\end\{(\w+)\}", text)))


def test_report_writes_them_beside_its_figures_unless_a_file_is_named(run_path: Path, tmp_path: Path) -> None:
    write_report([run_path], tmp_path / "page.html")
    before = sorted(path.name for path in run_path.iterdir())
    write_report([run_path])
    names = {path.name for path in (run_path / "tables").iterdir()}
    assert names == {
        f"{name}.{end}"
        for name in ("leaderboard", "classes", "size_curve", "diversity", "promises")
        for end in ("tex", "csv")
    }
    assert (run_path / "tables" / "leaderboard.csv").read_text() == leaderboard_csv(read_run(run_path).evaluation)
    assert set(before) | {"tables", "figures", "report.html"} == {path.name for path in run_path.iterdir()}
