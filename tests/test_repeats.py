"""`repeats=N`: a run for each seed, one command, and a table that tells the seeds' doing from the images'."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

import ensemble
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.config.sweeping import load_sweep
from ensemble.errors import ConfigError, DataError, StorageError
from ensemble.evaluation.repeats import two_way_difference
from ensemble.events import Event, RunFinished
from ensemble.report.repeated import print_repeats, render_repeats
from ensemble.results import repeated as repeated_module
from ensemble.results.judging import judge
from ensemble.results.repeated import judge_repeats
from ensemble.run.repeats import repeated
from ensemble.run.run import run_ensemble
from ensemble.storage import RunFolder
from tests import preloaded
from tests.test_run import digests

CONFIG: dict[str, Any] = {
    "num_members": 3, "method": {"name": "bagging"}, "model": {"name": "mlp", "widths": [16]}, "controls": ["longer"],
    "data": {"name": "digits", "max_train_rows": 200}, "training": {"epochs": 4, "lr": 0.003},
    "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}}, "seed": 5,
}  # fmt: skip
RUNS = ("some_seed5", "some_seed6", "some_seed7")


def call(root: Path, *words: str) -> Any:
    (root / "some.yaml").write_text(json.dumps(CONFIG))
    return CliRunner().invoke(main, ["train", str(root / "some.yaml"), f"output_dir={root}", *words, "-q"])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repeats")
    answer = call(root, "repeats=3")
    assert answer.exit_code == 0, answer.output
    (root / "answer.txt").write_text(answer.stdout)
    return root


def test_each_is_the_run_of_its_seed(done: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in (done / "some").iterdir() if path.is_dir()) == list(RUNS)
    assert call(tmp_path, "seed=6", "name=single").exit_code == 0
    assert digests(done / "some", RUNS[1]) == digests(tmp_path, "single")
    stored = RunFolder.read(done / "some" / RUNS[2]).config()
    assert (stored["seed"], stored["repeats"], stored["name"]) == (7, 1, RUNS[2])


def test_the_figures_are_those_of_the_runs(done: Path) -> None:
    found = judge_repeats([done / "some" / run for run in RUNS])
    assert found.seeds == (5, 6, 7)
    assert [line.what for line in found.lines] == ["vote", "best_member", "baseline", "longer", "mean_member"]
    boards = [judge(RunFolder.read(done / "some" / run)).leaderboard for run in RUNS]
    for line in found.lines:
        rows = [
            next(row for row in board if (row.headline if line.what == "vote" else row.kind == line.what))
            for board in boards
        ]
        assert line.errors == pytest.approx([row.test_error for row in rows])
        half = stats.t.ppf(0.975, 2) * np.std(line.errors, ddof=1) / np.sqrt(3)
        assert (line.lower, line.upper) == pytest.approx((max(0, line.error - half), line.error + half))
        if line.what != "vote":
            assert line.difference == pytest.approx(np.mean(found.lines[0].errors) - np.mean(line.errors))
            assert line.seeds_p == pytest.approx(stats.ttest_rel(found.lines[0].errors, line.errors).pvalue)
            assert line.difference_lower <= line.difference <= line.difference_upper
            assert (line.outcome == "not distinguishable") == (line.p_value >= 0.05)
    longer = next(line for line in found.lines if line.what == "longer")
    wrong = {"vote": [], "longer": []}  # type: dict[str, list[Any]]
    for run in RUNS:
        path = done / "some" / run
        labels = np.load(path / "labels.npz")["test_labels_N"]
        votes = np.mean([np.load(path / f"members/{m:04d}/votes.npz")["test_NK"] for m in range(3)], 0)
        wrong["vote"].append(votes.argmax(1) != labels)
        wrong["longer"].append(np.load(path / "controls/longer/votes.npz")["test_NK"].argmax(1) != labels)
    by_hand = two_way_difference(np.stack(wrong["vote"]), np.stack(wrong["longer"]), seed=0)
    assert (longer.difference, longer.p_value) == pytest.approx((by_hand.difference, by_hand.p_value))
    difference = np.stack(wrong["vote"]).astype(float) - np.stack(wrong["longer"])
    assert longer.from_seeds == pytest.approx(stats.sem(difference.mean(1)))
    assert longer.from_images == pytest.approx(stats.sem(difference.mean(0)))


def test_what_is_shown_and_written(done: Path) -> None:
    folder, answer = done / "some", (done / "answer.txt").read_text()
    stored = json.loads((folder / "repeats.json").read_text())
    page = (folder / "repeats.html").read_text()
    with (folder / "repeats.csv").open() as file:
        lines = {line["what"]: line for line in csv.DictReader(file)}
    assert answer.startswith("digits: 3 repeats of some on 355 test images\n")
    flowing = " ".join(answer.split())
    assert len(stored["sentences"]) == 3
    assert "Over 3 repeats (seeds 5, 6, 7) the soft vote of 3 members is " in stored["sentences"][0]
    for sentence in stored["sentences"]:
        assert sentence in flowing
        assert sentence.replace("'", "&#39;") in page
    assert "3 repeats say little of further seeds" in flowing
    for line in stored["lines"]:
        assert float(lines[line["what"]]["error"]) == line["error"]
        assert [float(lines[line["what"]][f"error {run}"]) for run in RUNS] == line["errors"]
        assert f"{100 * line['error']:.2f}" in page
    assert stored["lines"][0]["difference"] is None


def test_the_same_command_trains_nothing_again_and_more_repeats_add_runs(done: Path, tmp_path: Path) -> None:
    before = {run: digests(done / "some", run) for run in RUNS}
    again = call(done, "repeats=3", "--json")
    assert json.loads(again.stdout) == json.loads((done / "some" / "repeats.json").read_text())
    assert "repeat" not in again.stderr, "quiet"
    assert {run: digests(done / "some", run) for run in RUNS} == before
    assert call(tmp_path, "repeats=2", "training.epochs=1").exit_code == 0
    assert call(tmp_path, "repeats=3", "training.epochs=1").exit_code == 0
    assert json.loads((tmp_path / "some" / "repeats.json").read_text())["seeds"] == [5, 6, 7]


def test_a_killed_one_goes_on_to_the_same_bits(done: Path, tmp_path: Path) -> None:
    (tmp_path / "some.yaml").write_text(json.dumps(CONFIG))
    words = [
        sys.executable,
        "-m",
        "ensemble",
        "train",
        str(tmp_path / "some.yaml"),
        f"output_dir={tmp_path}",
        "repeats=3",
    ]
    with preloaded.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        lines = iter(process.stderr)
        assert any("repeat 2 of 3" in line for line in lines)
        assert any("train loss" in line for line in lines)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / "some" / "repeats.json").exists()
    assert call(tmp_path, "repeats=3").exit_code == 0
    assert {run: digests(tmp_path / "some", run) for run in RUNS} == {run: digests(done / "some", run) for run in RUNS}
    tables = [json.loads((root / "some" / "repeats.json").read_text()) for root in (tmp_path, done)]
    assert tables[0] == tables[1]


def test_one_repeat_is_an_ordinary_run(tmp_path: Path) -> None:
    short = ("training.epochs=1", "num_members=2", "controls=[]", "baseline=false")
    assert call(tmp_path, *short, "repeats=1").exit_code == 0
    assert (tmp_path / "some" / "manifest.json").exists()
    refused = call(tmp_path, *short, "repeats=2")
    assert refused.exit_code == StorageError.exit_code
    assert "is a run of its own" in refused.stderr


def test_other_test_images_are_no_repeats(done: Path, tmp_path: Path) -> None:
    values = {**CONFIG, "name": "x", "output_dir": str(tmp_path), "controls": (), "baseline": False, "num_members": 2}
    values |= {"model": {"name": "mlp", "widths": (4,)}, "training": {"epochs": 1}}
    from ensemble.executors import InlineExecutor

    images = np.random.default_rng(0).integers(0, 256, (60, 1, 28, 28)).astype(np.uint8)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=np.arange(60) % 10)
    values["data"] = {"name": "arrays", "path": str(tmp_path / "x.npz")}
    path = run_ensemble(parse_experiment(values), lambda *_: InlineExecutor(), lambda _: []).path
    with pytest.raises(DataError, match="was judged on other test images"):
        judge_repeats([done / "some" / RUNS[0], path])


def test_doors_that_train_one_run_refuse_it(tmp_path: Path) -> None:
    values = {**CONFIG, "model": {"name": "mlp", "widths": (16,)}, "controls": (), "name": "some", "repeats": 3}
    experiment = parse_experiment({**values, "output_dir": str(tmp_path)})
    with pytest.raises(ConfigError, match="repeats is 3, and this door trains one run"):
        run_ensemble(experiment, lambda *_: None, lambda _: [])  # type: ignore[arg-type, return-value]
    (tmp_path / "some.yaml").write_text(json.dumps({**CONFIG, "repeats": 3}))
    with pytest.raises(ConfigError, match=r"repeats: a sweep trains every setting .* use seeds=N"):
        load_sweep(tmp_path / "some.yaml", ["training.lr=0.1,0.01"])
    assert not (tmp_path / "some").exists()
    answer = call(tmp_path, "repeats=3", "--all")
    assert answer.exit_code == 2
    assert "--all has no effect" in answer.stderr
    with pytest.raises(ConfigError, match="longer than 64 signs"):
        repeated(experiment.model_copy(update={"name": "x" * 62}))


def test_sentences_tell_seed_noise_from_image_noise(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Steady over seeds on few images, and steady over images with few seeds: each says what it is not known for."""
    found = judge_repeats([done / "some" / run for run in RUNS])
    line = dataclasses.replace(found.lines[1], outcome="not distinguishable", p_value=0.2, seeds_p=0.01)
    assert "steady over the seeds (p = 0.01)" in repeated_module._sentence("It", found.lines[0], line)
    line = dataclasses.replace(line, outcome="better", p_value=0.01, seeds_p=0.2)
    said = repeated_module._sentence("It", found.lines[0], line)
    assert said.startswith("It is better than the single model")
    assert "do not show it (p = 0.2): more repeats would tell" in said
    alone = dataclasses.replace(found, lines=found.lines[:1], cautions=("one is missing",))
    assert "nothing to compare it with" in repeated_module._sentences(alone)[0]
    print_repeats(alone, "runs/x")
    assert "warning: one is missing" in capsys.readouterr().out
    assert "one is missing" in render_repeats(alone)


def from_python(root: Path, **more: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        return ensemble.train(**{**CONFIG, "name": "some", "output_dir": root, "repeats": 3, **more})


def test_python_gives_the_runs_and_their_table_and_the_same_files(done: Path, tmp_path: Path) -> None:
    heard: list[Event] = []
    found = from_python(tmp_path, on_event=heard.append)
    assert isinstance(found, ensemble.Repeats)
    assert sum(isinstance(event, RunFinished) for event in heard) == 3
    for run in RUNS:
        assert digests(tmp_path / "some", run) == digests(done / "some", run)
    for name in ("repeats.json", "repeats.csv"):
        assert (found.path / name).read_bytes() == (done / "some" / name).read_bytes()
    assert found.page.is_file()
    assert ([run.name for run in found.runs], len(found)) == (list(RUNS), 3)
    assert found.runs[1].evaluation.headline.test_error == found.judged.lines[0].errors[1]
    assert found.verdict == found.judged.sentences[0]
    table = found.table()
    stored = json.loads((found.path / "repeats.json").read_text())
    assert list(table.index) == [line.name for line in found.judged.lines]
    for line in stored["lines"][1:]:
        row = table[table["what"] == line["what"]].iloc[0]
        assert (row["error"], row["difference"], row["p_value"]) == (line["error"], line["difference"], line["p_value"])
    html = found._repr_html_()
    for sentence in found.judged.sentences:
        assert sentence.replace("'", "&#x27;") in html
    assert f"{100 * found.judged.lines[0].error:.2f}" in html
    again = ensemble.Repeats(found.path)
    assert again.judged == found.judged
    assert repr(again) == f"Repeats({str(found.path)!r})"


def test_python_without_pandas_gives_plain_rows(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    rows = ensemble.Repeats(done / "some").table()
    assert [row["what"] for row in rows] == ["vote", "best_member", "baseline", "longer", "mean_member"]
    assert rows[0]["name"] == "vote"


def test_python_takes_repeats_from_a_file_and_with_arrays(tmp_path: Path) -> None:
    short = {**CONFIG, "num_members": 2, "controls": [], "baseline": False, "training": {"epochs": 1}}
    (tmp_path / "filed.yaml").write_text(json.dumps({**short, "repeats": 2, "output_dir": str(tmp_path)}))
    assert len(ensemble.train(tmp_path / "filed.yaml")) == 2  # type: ignore[arg-type]
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 255, (200, 8, 8)).astype(np.uint8), np.arange(200) % 2
    images[:, 2, 2] = 255 * labels
    found = from_python(tmp_path, data=(images, labels), repeats=2, num_members=2, controls=[], name="arrays")
    assert found.judged.test_rows == len(found.runs[0].labels("test"))
    np.testing.assert_array_equal(found.runs[0].labels("test"), found.runs[1].labels("test"))


def test_what_python_cannot_do_with_repeats_is_said(done: Path, tmp_path: Path) -> None:
    class Ear:
        def handle(self, event: Event, time: float) -> None: ...

        def close(self, ok: bool) -> None: ...

    with pytest.raises(ConfigError, match="trackers: a tracker hears of one run"):
        from_python(tmp_path, trackers=[Ear()])
    assert not list(tmp_path.iterdir())
    with pytest.raises(StorageError, match=r"holds no repeats\.json"):
        ensemble.Repeats(done)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "repeats.json").write_text('{"name": 3}')
    with pytest.raises(StorageError, match="damaged"):
        ensemble.Repeats(broken)


@pytest.mark.parametrize("parallel", ["members", "data"])
def test_launched_processes_train_one_after_the_other(tmp_path: Path, parallel: str) -> None:
    values = {
        **CONFIG,
        "compute": {"device": "cpu", "parallel": parallel, "stack_size": 1},
        "controls": [],
        "repeats": 2,
    }
    (tmp_path / "launched.yaml").write_text(json.dumps({**values, "name": "some", "output_dir": str(tmp_path)}))
    words = ["--nproc-per-node", "2", "-m", "ensemble.launch.accelerate_run", str(tmp_path / "launched.yaml")]
    torchrun = str(Path(sys.executable).parent / "torchrun")
    answer = subprocess.run([torchrun, *words], capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-3000:]
    assert "digits: 2 repeats of some on 355 test images" in answer.stdout
    assert "repeat 2 of 2: some_seed6" in answer.stderr
    assert json.loads((tmp_path / "some" / "repeats.json").read_text())["seeds"] == [5, 6]
    if parallel == "members":  # with all processes in each member the sums have another order
        alone = tmp_path / "alone"
        alone.mkdir()
        assert call(alone, "repeats=2", "controls=[]", "compute.stack_size=1").exit_code == 0
        for run in RUNS[:2]:
            assert digests(tmp_path / "some", run) == digests(alone / "some", run)
