"""The model card: every field filled, every number the run's own; and the table of a notebook."""

from __future__ import annotations

import json
import re

import yaml
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.evaluation.records import Evaluation
from ensemble.report.card import model_card
from ensemble.report.tables import leaderboard_html
from ensemble.run.run import RunOutcome


def test_every_field_is_filled_from_the_run(run_path):
    card = model_card(run_path)
    rows = [line.strip("| ").split(" | ") for line in card.splitlines() if line.startswith("| ")]
    table = {cells[0]: cells[1:] for cells in rows if len(cells) == 2}
    assert table["members"] == ["3 x lenet5 with 61,706 parameters each; 1 x cnn with 26,702 parameters each"]
    assert table["training images"] == ["1,298"]
    assert table["classes"] == ["0, 1, 2, 3, 4, 5, 6, 7, 8, 9"]
    assert table["vote"][0].startswith("weighted vote")
    assert not re.search(r"[Mm]ore [Ii]nformation [Nn]eeded|\bnan\b|\bNone\b|\bnull\b|TODO", card)
    for line in card.splitlines():
        assert not re.match(r"\|.*\|\s*\|$", line) or set(line) <= set("| -"), f"an empty field: {line}"


def test_front_matter_and_figures_are_the_evaluations(run_path):
    card = model_card(run_path)
    record = Evaluation.from_json(json.loads((run_path / "evaluation.json").read_text()))
    front = yaml.safe_load(card.split("---\n")[1])
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert {m["type"]: m["value"] for m in metrics}["accuracy"] == round(1 - record.headline.test_error, 6)
    assert front["tags"] == ["ensemble", "bagging", "lenet5", "cnn"]
    assert f"| {100 * record.headline.test_error:.2f} (" in card
    assert record.verdict.sentence in card
    for result in record.classes:
        assert f"| {result.name} | {result.rows:,} | {result.wrong:,} |" in card


def test_recipe_of_the_card_is_a_configuration(run_path):
    recipe = yaml.safe_load(re.search(r"```yaml\n(.*?)```", model_card(run_path), re.DOTALL).group(1))
    stored = yaml.safe_load((run_path / "config.yaml").read_text())
    given = {key: value for key, value in stored["members"][0]["model"].items() if value is not None}
    assert recipe["members"][0]["model"] == given
    assert recipe["training"]["lr"] == 3e-3


def test_command_writes_or_prints(run_path, tmp_path):
    printed = CliRunner().invoke(main, ["card", str(run_path)])
    written = CliRunner().invoke(main, ["card", str(run_path), "--out", str(tmp_path / "card.md")])
    assert printed.exit_code == written.exit_code == 0
    assert (tmp_path / "card.md").read_text() == printed.stdout == model_card(run_path)


def test_a_notebook_shows_leaderboard_and_verdict(run_path):
    record = Evaluation.from_json(json.loads((run_path / "evaluation.json").read_text()))
    html = RunOutcome(run_path, record, (), 4, 1.0)._repr_html_()
    assert html == leaderboard_html(record)
    lines = re.findall(r"<tr>(.*?)</tr>", html)
    assert len(lines) == 1 + len(record.leaderboard)
    assert "weighted vote *" in lines[1]
    assert f"<th>{100 * record.headline.test_error:.2f}</th>" in lines[1]
    assert record.verdict.sentence.replace("<", "&lt;") in html
