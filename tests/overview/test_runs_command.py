"""`ensemble runs` as it is read: on narrow and wide terminals, as JSON and CSV, with prices."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import pytest
from rich.cells import cell_len

from ensemble.overview.keys import KEYS
from ensemble.overview.rows import Row, read_rows
from ensemble.overview.sources import find_sources
from ensemble.overview.spending import Spent
from ensemble.overview.table import print_rows, rows_csv, rows_json
from tests.damage.commands import call, said
from tests.nasty_names import NASTY

DOCUMENT = Path(__file__).parents[2] / "docs/runs.md"


def some_rows() -> list[Row]:
    """Runs of all kinds, with more differing keys than any terminal has columns for."""
    values = {f"training.key_{number}": number for number in range(30)}
    spent = (Spent(0, "cpu", 90.0, 0.0), Spent(1, "cuda", 3600.0, 1800.0))
    made = [
        Row(f"a_run_of_some_length_{number}", f"runs/{number}", "finished", "lock", "", 8, 8, 0, 80, 80, "bagging", "lenet5", "mnist",
            0.0068, 0.0114, 0.0221, 2**20 * number, 1.7e9, {key: value + number for key, value in values.items()}, spent)
        for number in range(4)
    ]  # fmt: skip
    return [*made, Row("hurt", "runs/hurt", "damaged", problem="config.yaml: damaged: " + "long words " * 20)]


@pytest.mark.parametrize("width", [20, 40, 80, 120, 200])
@pytest.mark.parametrize("cost", [False, True])
def test_nothing_is_cut_and_what_has_no_room_is_named(capsys, monkeypatch, width, cost):
    monkeypatch.setenv("COLUMNS", str(width))
    rows = some_rows()
    print_rows(rows, cost, {"cpu": 0.04} if cost else {})
    lines = capsys.readouterr().out.splitlines()
    text = re.sub(r"\s+", " ", " ".join(lines))
    if width >= 40:
        assert all(cell_len(line) <= width for line in lines)
        for row in rows:
            assert any(line.startswith(row.name) and row.state in line for line in lines)
    head = lines[0]
    [left_out] = re.findall(r"no room for: (.*?) \(a wider terminal", text)
    titles = [key.title for key in KEYS if key.rank and (cost or not key.cost)] + [f"key_{n}" for n in range(30)]
    for title in titles:
        assert (title in left_out.split(", ")) != (f" {title} " in f" {head} "), f"{title}: shown or named, one of them"
    assert "config.yaml: damaged" in text
    assert "5 runs: 4 finished, 1 damaged" in text


def test_in_a_pipe_every_column_has_room(home: Path):
    shutil.copytree("runs/one", "runs/two")
    out = call("runs").stdout
    assert "no room for" not in out
    for key in KEYS:
        assert (key.title in out.splitlines()[0]) == (key.rank > 0 and not key.cost)


def test_filters_and_order_of_real_runs(home: Path):
    assert call("train", "one.yaml", "name=two", "training.lr=0.02", "num_members=2", "-q").exit_code == 0

    def listed(*words):
        result = call("runs", *words, "--json")
        assert result.exit_code == 0, said(result)
        return json.loads(result.stdout)

    assert [run["name"] for run in listed()["runs"]] == ["two", "one"], "the newest first"
    assert [run["name"] for run in listed("--sort", "name")["runs"]] == ["one", "two"]
    assert [run["name"] for run in listed("--sort", "-training.lr")["runs"]] == ["two", "one"]
    assert [run["name"] for run in listed("--filter", "training.lr<0.02")["runs"]] == ["one"]
    assert [run["name"] for run in listed("--filter", "method=bagging", "--filter", "members=2")["runs"]] == ["two"]
    assert listed("--filter", "state=damaged")["runs"] == []
    assert listed()["differing"] == ["training.lr"]
    assert listed("--cost", "--sort", "cpu_seconds")["runs"][0]["spent"]["seconds"].keys() == {"cpu"}
    head = call("runs").stdout.splitlines()[0].split()
    assert head[-1] == "lr"
    assert "none of 2 runs in runs meets the conditions" in call("runs", "--filter", "state=failed").stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--filter", "eror<1%"), 2, "did you mean error?"),
        (("--sort", "-metod"), 2, "did you mean method?"),
        (("--filter", "state=runing"), 2, "did you mean running?"),
        (("--price", "gpu=1"), 2, "cuda=NUMBER or cpu=NUMBER"),
        (("--json", "--csv"), 2, "choose one"),
        (("--sort", "cpu_seconds"), 2, "with --cost only"),
        (("nowhere",), 6, "nowhere: cannot be looked through"),
        (("one.yaml",), 6, "one.yaml: cannot be looked through"),
        (("--srot", "name"), 2, "--sort"),
        (("s3://key:pa55word@bucket/runs",), 2, "FOLDER"),
    ],
)
def test_mistakes_have_a_message_and_an_exit_code(home: Path, words, code, message):
    result = call("runs", *words)
    assert result.exit_code == code, said(result)
    assert message in result.stderr
    assert "pa55word" not in result.stderr
    assert result.stdout == ""


def test_before_the_first_run(home: Path):
    shutil.rmtree("runs")
    assert call("runs").stdout == "no runs in runs\n"
    assert json.loads(call("runs", "--json").stdout) == {"runs": [], "differing": []}


def test_money(home: Path):
    result = call("runs", "--price", "cpu=3600", "--json")
    document = json.loads(result.stdout)
    [run] = document["runs"]
    assert run["money"]["amount"] == pytest.approx(run["spent"]["seconds"]["cpu"])
    assert document["money"] == {"amount": run["money"]["amount"], "unpriced": []}
    assert sum(member["seconds"] for member in run["spent"]["members"]) == pytest.approx(run["spent"]["seconds"]["cpu"])
    table = call("runs", "--price", "cpu=3600").stdout
    assert f"money: {run['money']['amount']:,.2f}" in table
    assert "without idle slots, loading and judging" in table
    missing = call("runs", "--price", "cuda=1").stdout
    assert "without cpu, which has no --price" in missing


def test_names_of_all_kinds_are_shown_and_none_steers_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    rows = [Row(name, f"runs/{name}", "finished", problem="", data=name, values={"x": name}) for name in NASTY]
    print_rows(rows, False, {})
    out = capsys.readouterr().out
    assert not set(out) & set("\x1b\x07\r\u202e\x9b\x00")
    json.dumps(rows_json(rows, False, {}))
    assert [line[0] for line in csv.reader(io.StringIO(rows_csv(rows, False, {}), newline=""))][1:] == list(NASTY)


def test_json_and_csv_hold_the_same_under_documented_keys(home: Path):
    rows = read_rows(find_sources("runs"), cost=True)
    [run] = rows_json(rows, True, {"cpu": 1.0})["runs"]
    [line] = csv.DictReader(io.StringIO(rows_csv(rows, True, {"cpu": 1.0})))
    for key, value in run.items():
        if key in line and key != "money":
            assert line[key] == ("" if value is None else str(value)), key
    assert float(line["cpu_seconds"]) == run["spent"]["seconds"]["cpu"]
    assert float(line["money"]) == run["money"]["amount"]
    document = DOCUMENT.read_text()
    for key in (*run, *run["spent"], *run["spent"]["members"][0], *run["money"], *line):
        assert f"`{key}`" in document, f"docs/runs.md says nothing of {key}"
    for key in KEYS:
        assert f"`{key.name}`" in document


def test_help_has_an_example_of_each(home: Path):
    for words in (("runs",), ("runs", "ls"), ("runs", "rm"), ("watch",)):
        assert f"\n  ensemble {words[0]}" in call(*words, "--help").stdout
    assert "runs --sort error" in call("--help").stdout
    assert "watch quickstart" in call("--help").stdout
    said = call("wacth", "x").stderr
    assert "watch`?" in said
    assert said.count("Did you mean") == 1
