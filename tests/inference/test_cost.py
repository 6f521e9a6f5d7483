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

import ensemble
from ensemble import load_ensemble
from ensemble.commands.main import main
from ensemble.errors import DataError
from ensemble.events import Notice
from ensemble.inference import cost
from ensemble.inference.cost import BATCH, Patience, costs_text, measure
from ensemble.inference.trained import TrainedEnsemble
from ensemble.report.card import model_card
from ensemble.report.html import write_report
from ensemble.report.wording import milliseconds
from ensemble.results.judging import judge
from ensemble.results.line_costs import costs_of
from ensemble.run import kept_costs
from ensemble.run.stored import Run
from ensemble.storage import RunFolder
from ensemble.storage.names import COST
from ensemble.tracking.judged import judged_run
from ensemble.tracking.wandb_evaluation import figures
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
        evaluation={"time_predictions": False},
    )  # fmt: skip


@pytest.fixture
def measured(bagged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that run in which predictions have been measured."""
    monkeypatch.setattr(cost, "PATIENT", Patience(3, 10, 0.0))
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
    trained = load_ensemble(run_path, device="cpu")
    evaluation = judge(RunFolder.read(run_path))
    measure(trained, evaluation, Patience(3, 10, 0.0))
    assert {what: asked.count(what) for what in asked} == dict.fromkeys([(4, 1), (4, BATCH), (1, 1), (1, BATCH)], 13)
    asked.clear()
    hasty = measure(trained, evaluation, Patience(1, 3, 0.0, longest_s=0.0))
    assert {what: asked.count(what) for what in asked} == dict.fromkeys([(4, 1), (1, 1)], 4)
    assert [one.each_of_batch_ms for one in hasty] == [None, None], "a batch would take longer than it may"
    assert costs_text(hasty).splitlines()[1].endswith("  -")


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


def test_the_end_of_a_run_measures_it_and_a_second_start_leaves_it(tmp_path: Path) -> None:
    words = (
        "train", "quickstart", "num_members=2", "training.epochs=1", "data.max_train_rows=300", f"output_dir={tmp_path}",
        "compute.executor=inline",
    )  # fmt: skip
    screen = done(*words)
    run = tmp_path / "quickstart"
    stored = json.loads((run / COST).read_text())
    assert [one["kind"] for one in stored["costs"]] == ["vote", "member", "baseline"]
    vote = stored["costs"][0]
    assert screen.splitlines()[2].split()[-2:] == ["seconds", "ms"]
    assert screen.splitlines()[3].split()[-1] == milliseconds(vote["one_ms"])
    assert "ms: to predict one image" in screen
    rows = list(csv.DictReader(io.StringIO((run / "leaderboard.csv").read_text())))
    assert rows[0]["image_of_batch_ms"] == repr(vote["each_of_batch_ms"])
    board = Run(run).leaderboard()
    first = board.iloc[0] if hasattr(board, "iloc") else board[0]
    assert (first["one_image_ms"], first["image_of_batch_ms"]) == (vote["one_ms"], vote["each_of_batch_ms"])
    told = figures(judged_run(RunFolder.read(run)))
    assert told["prediction/one_image_ms"] == vote["one_ms"]
    assert done(*words) == screen
    assert json.loads((run / COST).read_text()) == stored


def test_what_cannot_be_measured_costs_the_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str, **keys: object) -> tuple[Path, list[str]]:
        heard: list[object] = []
        made = ensemble.train(
            model={"name": "mlp", "widths": (4,)}, data={"name": "digits", "max_train_rows": 200}, num_members=2,
            method="deep_ensemble", training={"epochs": 1}, name=name, output_dir=str(tmp_path), on_event=heard.append, **keys,
        )  # fmt: skip
        assert made.evaluation.headline.wrong > 0
        assert not RunFolder.read(made.path).has(COST)
        return made.path, [one.message for one in heard if isinstance(one, Notice) and "prediction" in one.message]

    monkeypatch.setattr(kept_costs, "MOST_PARAMETERS", 10)
    path, said = run("large")
    assert said == [
        "what a prediction takes was not measured: 6,380 parameters vote, and more than 10 are not read for it; `ensemble cost` measures it"
    ]
    assert f"ensemble cost {path}" in done("evaluate", str(path), "--all")
    monkeypatch.undo()

    def broken(*_: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(cost, "measure", broken)
    assert run("broken")[1] == [
        "what a prediction takes was not measured: CUDA error: out of memory; `ensemble cost` measures it"
    ]
    assert run("unasked", evaluation={"time_predictions": False})[1] == []


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


def test_a_run_whose_values_are_no_bytes_is_measured_and_answers_in_its_own_range(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels_N = np.arange(60) % 3
    images = np.clip(generator.normal(labels_N[:, None, None] - 1.0, 0.2, (60, 8, 8)), -1, 1).astype(np.float32)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels_N)
    path = train(
        tmp_path / "runs", num_members=2, model={"name": "mlp", "widths": (8,)}, training={"epochs": 1},
        data={"name": "arrays", "path": str(tmp_path / "a.npz"), "value_range": (-1.0, 1.0)},
        evaluation={"time_predictions": False},
    )  # fmt: skip
    assert "one image" in done("cost", str(path))
    trained = load_ensemble(path, device="cpu")
    assert trained.predict_proba(images[:5]).shape == (5, 3)
    with pytest.raises(DataError, match=r"type uint8 from 0 to 9; expected -1 to 1, as this ensemble was trained$"):
        trained.predict(np.array([0, 9] * 32, np.uint8).reshape(1, 1, 8, 8))
