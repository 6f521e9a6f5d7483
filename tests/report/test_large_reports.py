"""Hundreds of classes and lines: sizes stay bounded, and whatever is cut is said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.errors import ConfigError
from ensemble.evaluation.comparing import compare, single_system
from ensemble.report.class_tables import CONFUSIONS_SHOWN
from ensemble.report.compared import print_comparison
from ensemble.report.html import write_report
from ensemble.report.keeping import mark_of, refuse_other
from ensemble.tracking.wandb_evaluation import tables


@pytest.mark.parametrize("classes", [50, 51, 1000])
def test_many_classes(run_of: Callable[..., Path], tmp_path: Path, classes: int) -> None:
    names = [f"class {k}" for k in range(classes)]
    path = run_of(
        tmp_path, names=names, members=2, rows=2 * classes, skill=4.0, choose=False, bags=False, images=False, epochs=1
    )
    said: list[str] = []
    page = write_report([path], tell=said.append)
    assert page.stat().st_size < 3_000_000
    text = page.read_text()
    confusion = {key: int(shown) for key, shown in re.findall(r'data-key="confusion\.([0-9.]+)">([0-9,]+)<', text)}
    matrix = np.array(json.loads((path / "evaluation.json").read_text())["confusion"])
    shown_tables = {table.name: table for table in tables(json.loads((path / "evaluation.json").read_text()), {})}
    if classes == 50:
        assert len(confusion) == 2500
        assert not said
        assert shown_tables["confusion"].chart == "confusion"
        return
    np.fill_diagonal(matrix, 0)
    largest = sorted(matrix[matrix > 0], reverse=True)[:CONFUSIONS_SHOWN]
    assert list(confusion.values()) == largest
    for key, count in confusion.items():
        true, named = map(int, key.split("."))
        assert matrix[true, named] == count
    (line,) = said
    assert (
        line
        == f"demo: {classes:,} classes: in place of the matrix the {len(largest)} largest of {(matrix > 0).sum():,} confusions; all of them are in evaluation.json"
    )
    assert line.removeprefix("demo: ") in text
    (told,) = [table for name, table in shown_tables.items() if name.startswith("confusion")]
    assert len(told.rows) <= 1000
    assert not told.chart


@pytest.mark.parametrize("systems", [2, 60])
def test_a_comparison_prints_every_line(capsys: pytest.CaptureFixture[str], systems: int) -> None:
    labels = np.arange(40) % 2
    probs = np.eye(2)[labels] * 0.8 + 0.1
    print_comparison(compare([single_system(f"n{i:03d}.npz", "file", probs) for i in range(systems)], labels, ""))
    said = capsys.readouterr().out
    assert [f"n{i:03d}.npz" in said for i in range(systems)] == [True] * systems
    assert "..." not in said


def test_the_page_of_other_runs_is_not_replaced(run_of: Callable[..., Path], tmp_path: Path) -> None:
    paths = [run_of(tmp_path, name, members=2, rows=60, choose=False, bags=False, epochs=1) for name in "abc"]
    first = write_report(paths[:2])
    before = first.read_bytes()
    with pytest.raises(ConfigError, match="the report of other runs"):
        write_report([paths[0], paths[2]])
    assert first.read_bytes() == before
    with pytest.raises(ConfigError, match="Write to another file with --out"):
        write_report([paths[2]], first)
    assert first.read_bytes() == before
    refuse_other(first, mark_of("report", ["a", "b"]), "")  # its own newer version may


def test_the_table_of_another_comparison_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    labels = np.arange(20) % 2
    for name in ("a.npz", "b.npz", "c.npz"):
        np.savez(name, test_probs=np.eye(2)[labels] * 0.8 + 0.1, test_labels=labels)

    def compared(*words: str) -> int:
        return CliRunner().invoke(main, ["compare", *words, "--out", "table.md"]).exit_code

    assert compared("a.npz", "b.npz") == 0
    before = Path("table.md").read_bytes()
    assert compared("a.npz", "c.npz") == 2
    assert Path("table.md").read_bytes() == before
    assert compared("a.npz", "b.npz") == 0
