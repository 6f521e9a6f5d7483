"""One list of nasty names through every output: shown as they are, on one line, and nothing of them is read as markup."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from ensemble.config.sweeping import Setting, SweepPlan
from ensemble.evaluation.comparing import compare, single_system
from ensemble.evaluation.records import Evaluation
from ensemble.outside.names import shown
from ensemble.report.card import model_card
from ensemble.report.compared import comparison_markdown, print_comparison
from ensemble.report.figures import PLOTS, _render
from ensemble.report.html import render_page, write_report
from ensemble.report.run_facts import read_run
from ensemble.report.sweeps import print_sweep, sweep_csv, write_sweep
from ensemble.report.tables import leaderboard_html, leaderboard_markdown, print_evaluation
from ensemble.results.sweep import Line, SweepResult, Trial
from ensemble.tracking.wandb_evaluation import tables
from ensemble.tracking.wandb_tracker import _pack
from tests.nasty_names import CONTROLS, NASTY


@pytest.fixture(scope="module")
def nasty_run(run_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("nasty"), names=NASTY, dataset=NASTY[3] + NASTY[5], skill=1.0)


def assert_harmless(text: str) -> None:
    assert not [sign for sign in CONTROLS if sign in text]
    assert max(map(len, re.findall(r"z+", text)), default=0) <= 100


def cells(row: str) -> int:
    return len(re.findall(r"(?<!\\)(?:\\\\)*\|", row))


def test_page_and_figures(nasty_run: Path) -> None:
    said: list[str] = []
    page = write_report([nasty_run], tell=said.append).read_text()
    assert_harmless(page)
    assert "<img src=x" not in page
    visible = unescape(page)
    for name in NASTY:
        assert shown(name) in visible
    assert len(page) < 2_000_000
    for path in (nasty_run / "figures").glob("*.svg"):
        text = "".join(ElementTree.fromstring(path.read_bytes()).itertext())
        assert_harmless(path.read_text())
        if path.stem in ("class_errors", "confusion"):
            assert "from_$5_to_$9 and $10" in text
            assert shown(NASTY[9], 24) in text
    for path in (nasty_run / "figures").glob("*.png"):
        with Image.open(path) as image:
            image.verify()
    assert all(line.count("\n") == 0 for line in said)  # about signs that no font here has, at most


def test_terminal_markdown_and_notebook_of_a_run(nasty_run: Path) -> None:
    evaluation = Evaluation.from_json(json.loads((nasty_run / "evaluation.json").read_text()))
    stream = io.StringIO()
    print_evaluation(evaluation, nasty_run, True, stream)
    for text in (stream.getvalue(), leaderboard_markdown(evaluation), leaderboard_html(evaluation)):
        assert_harmless(text)
    assert list(evaluation.class_names) == list(NASTY)  # JSON keeps names as they are


def test_card(nasty_run: Path) -> None:
    card = model_card(nasty_run)
    assert_harmless(card)
    front, body = card.split("---\n", 2)[1:]
    assert yaml.safe_load(front)["datasets"] == [NASTY[3] + NASTY[5]]
    assert "<img" not in body
    assert not re.search(r"(?<!\\)\]\(javascript", body)
    blocks = [block.splitlines() for block in re.split(r"\n\n", body) if block.startswith("|")]
    assert len(blocks) >= 6
    for block in blocks:
        assert len({cells(row) for row in block}) == 1, block


def test_comparison(capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.arange(40) % 2
    probs = np.eye(2)[labels] * 0.8 + 0.1
    comparison = compare([single_system(name, "file", probs) for name in NASTY], labels, NASTY[5])
    print_comparison(comparison)
    said = capsys.readouterr().out
    assert_harmless(said)
    for name in NASTY:
        assert shown(name)[:40] in said  # a longer one is folded
    markdown = comparison_markdown(comparison)
    assert_harmless(markdown)
    assert "<img" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(comparison.lines)
    assert len({cells(row) for row in rows}) == 1
    assert [line["name"] for line in comparison.to_json()["lines"]][: len(NASTY)] == list(NASTY)


def test_sweep(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [Setting(f"root={name}", f"s{i}", {"data.root": name}) for i, name in enumerate(NASTY[:-1])]
    lines = tuple(Line(one, (Trial(0.1, 0.1, 1.0, 1, "", ()), Trial(0.2, 0.1, 1.0, 1, "", ()))) for one in settings)
    plan = SweepPlan("nasty", {}, {}, "nowhere", tuple(settings), 2)
    result = SweepResult(plan, tmp_path, lines, lines[1], lines[4], 0.5, "a test")
    print_sweep(result)
    assert_harmless(capsys.readouterr().out)
    write_sweep(result)
    labels = [setting.label for setting in settings]
    rows = list(csv.reader(io.StringIO(sweep_csv(result), newline="")))
    assert [row[0] for row in rows[1:]] == labels
    assert [one["setting"] for one in json.loads((tmp_path / "sweep.json").read_text())["settings"]] == labels


def test_weights_and_biases(nasty_run: Path) -> None:
    record = json.loads((nasty_run / "evaluation.json").read_text())
    for table in tables(record, {}):
        for row in table.rows:
            for cell in row:
                if isinstance(cell, str):
                    assert_harmless(cell)


@pytest.mark.parametrize("channels", range(1, 14))
def test_images_of_any_number_of_channels(run_of: Callable[..., Path], tmp_path: Path, channels: int) -> None:
    path = run_of(tmp_path, channels=channels, members=2, rows=60, choose=False, bags=False, epochs=1)
    run = read_run(path)
    page = render_page([run], [[]])
    assert "<img" in page
    assert ("shown is the mean over them" in page) == (channels not in (1, 3))
    (sheet,) = (plot for plot in PLOTS if plot.name == "disputed")
    assert _render(sheet, run, "sheet").png.startswith(b"\x89PNG")
    image = np.zeros((channels, 6, 5), np.uint8)
    assert tuple(_pack(image)["shape"]) == ((6, 5, 3) if channels == 3 else (6, 5))
