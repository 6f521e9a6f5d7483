"""What a prediction takes: measured on the networks that vote, and in proportion to them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble import load_ensemble
from ensemble.commands.main import main
from ensemble.inference import cost
from ensemble.inference.cost import BATCH, measure
from ensemble.inference.trained import TrainedEnsemble
from ensemble.report.card import model_card
from ensemble.report.html import write_report
from ensemble.report.line_costs import costs_of
from ensemble.results.judging import judge
from ensemble.run.stored import Run
from ensemble.storage import RunFolder
from ensemble.storage.names import COST
from tests.inference.conftest import train


def done(*words: str) -> str:
    result = CliRunner().invoke(main, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module")
def bagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three members of one recipe and the network on all rows."""
    return train(
        tmp_path_factory.mktemp("bagged"), num_members=3, model={"name": "mlp", "widths": (8,)},
        data={"name": "digits", "max_train_rows": 300}, training={"epochs": 1, "batch_size": 32, "lr": 3e-3},
    )  # fmt: skip


@pytest.fixture
def measured(bagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run in which predictions have been measured."""
    monkeypatch.setattr(cost, "_PATIENCE_S", 0.0)
    path = shutil.copytree(bagged, tmp_path / "run")
    done("cost", str(path))
    return path


def test_the_command_says_it_as_text_and_as_json(run_path: Path) -> None:
    done = CliRunner().invoke(main, ["cost", str(run_path)])
    assert done.exit_code == 0, done.output
    evaluation = judge(RunFolder.read(run_path))
    text = done.stdout.splitlines()
    assert text[2].split("  ")[-1] == f"each of {BATCH}, ms"
    assert text[3].startswith(f"{evaluation.aggregator} vote of 4 members")
    assert text[4].startswith(f"member {evaluation.verdict.member} alone")
    record = json.loads(CliRunner().invoke(main, ["cost", str(run_path), "--json"]).stdout)
    vote, alone = record["costs"]
    facts = {member.index: member.num_parameters for member in evaluation.members}
    assert vote["parameters"] == sum(facts.values()) == evaluation.headline.num_parameters
    assert alone["parameters"] == facts[evaluation.verdict.member]
    assert 0 < alone["one_ms"] < vote["one_ms"]
    assert vote["each_of_batch_ms"] < vote["one_ms"], "a batch shares the work around it"


def test_what_is_measured_are_predictions_of_one_image_and_of_batches(
    run_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int]] = []
    inner = TrainedEnsemble.predict_proba

    def noting(self: TrainedEnsemble, images: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
        asked.append((len(self.member_indices), len(images)))
        return inner(self, images)

    monkeypatch.setattr(TrainedEnsemble, "predict_proba", noting)
    monkeypatch.setattr(cost, "_PATIENCE_S", 0.0)
    trained = load_ensemble(run_path, device="cpu")
    measure(trained, judge(RunFolder.read(run_path)))
    assert {what: asked.count(what) for what in asked} == dict.fromkeys([(4, 1), (4, BATCH), (1, 1), (1, BATCH)], 13)


def test_what_was_measured_is_kept_beside_the_judgement_which_stays_as_it_was(bagged: Path, measured: Path) -> None:
    assert (measured / "evaluation.json").read_bytes() == (bagged / "evaluation.json").read_bytes()
    assert not RunFolder.read(bagged).has(COST)
    stored = json.loads((measured / COST).read_text())
    assert [one["kind"] for one in stored["costs"]] == ["vote", "member", "baseline"]
    vote, alone, baseline = stored["costs"]
    assert vote["parameters"] == 3 * alone["parameters"] == 3 * baseline["parameters"]
    assert min(one[key] for one in stored["costs"] for key in ("one_ms", "each_of_batch_ms")) > 0
    assert done("evaluate", str(measured), "--json") == done("evaluate", str(bagged), "--json")
    done("evaluate", str(measured), "--write")
    assert json.loads((measured / COST).read_text()) == stored, "judged again, it stays"


def test_every_leaderboard_has_it_where_it_was_measured(bagged: Path, measured: Path) -> None:
    folder = RunFolder.read(measured)
    evaluation = judge(folder)
    costs = costs_of(folder, evaluation)
    assert costs is not None
    wanted = {row.name: costs.of(row) for row in evaluation.leaderboard}
    reference = evaluation.verdict.member
    found = {name for name, one in wanted.items() if one is not None}
    assert {name.partition(" (")[0] for name in found} >= {
        "soft vote",
        f"member {reference}",
        "one network on all training rows",
    }
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO((measured / "leaderboard.csv").read_text()))}
    for name, one in wanted.items():
        texts = rows[name]["one_image_ms"], rows[name]["image_of_batch_ms"]
        assert texts == (("", "") if one is None else (repr(one.one_ms), repr(one.each_of_batch_ms)))
        assert float(rows[name]["num_parameters"]) > 0
    vote = costs.of(evaluation.headline)
    assert vote is not None
    said = f"{vote.one_ms:.3g} and {vote.each_of_batch_ms:.3g} ms"
    page = write_report([measured]).read_text()
    flowing = " ".join(done("evaluate", str(measured), "--all").split())
    for text in (flowing, page, model_card(measured)):
        assert f"The vote ({evaluation.headline.num_parameters:,.0f} parameters) {said}" in text
        assert "one network on all rows (" in text
    assert f"<td>{vote.one_ms:.3g}</td><td>{vote.each_of_batch_ms:.3g}</td>" in page
    assert f"<th>{vote.one_ms:.3g}</th>" in Run(measured)._repr_html_()
    assert (measured / "tables" / "leaderboard.csv").read_text() == (measured / "leaderboard.csv").read_text()
    assert f"ensemble cost {bagged}" in done("evaluate", str(bagged), "--all")


def test_the_figures_of_another_vote_are_not_taken_for_these(measured: Path) -> None:
    folder = RunFolder.read(measured)
    other = costs_of(folder, judge(folder, "hard"))
    assert other is not None
    assert other.vote is None
    assert list(other.beside) == ["baseline"]
    before = (measured / COST).read_bytes()
    done("cost", str(measured), "--aggregator", "hard")
    assert (measured / COST).read_bytes() == before


def test_a_damaged_file_is_named_with_what_to_do(measured: Path) -> None:
    (measured / COST).write_text("{}")
    result = CliRunner().invoke(main, ["report", str(measured)])
    assert result.exit_code == 6
    assert "cost.json" in result.output
    assert "measure again: `ensemble cost RUN`" in result.output
    done("cost", str(measured))
    done("report", str(measured))
