"""Real small sweeps: figures equal the stored votes, divergence is a result, a second start trains nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats

from ensemble.commands.main import main
from ensemble.config.sweeping import Setting, SweepPlan, load_sweep
from ensemble.errors import ConfigError
from ensemble.evaluation.statistics import welch_t
from ensemble.report.sweeps import verdict
from ensemble.results.sweep import Line, SweepResult, Trial, _compared, _ranked, run_sweep
from ensemble.storage import RunFolder

BASE = """\
name: small
method: {name: deep_ensemble}
data: {name: digits, max_train_rows: 400}
model: {name: mlp, widths: [16]}
training: {epochs: 3, lr: 3e-3, optimizer: sgd}
compute: {executor: inline, device: cpu}
tracking: {wandb: {mode: disabled}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("sweep")
    (home / "small.yaml").write_text(BASE)
    return home


def sweep(home: Path, *words: str) -> dict[str, object]:
    command = ["sweep", str(home / "small.yaml"), f"output_dir={home / 'runs'}", *words, "--json", "-q"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    document: dict[str, object] = json.loads(result.stdout)
    return document


def test_a_sweep_in_one_run(home: Path) -> None:
    found = sweep(home, "training.lr=1e-3,1e30,0.1", "seeds=3", "name=rates")
    settings = {s["setting"]: s for s in found["settings"]}  # type: ignore[attr-defined]
    assert found["winner"] == "lr=0.1"
    assert [s["setting"] for s in found["settings"]] == ["lr=0.1", "lr=0.001", "lr=1e+30"]  # type: ignore[attr-defined]
    folder = RunFolder.read(home / "runs" / "rates")
    labels = folder.load_labels()
    right_N = labels.train_labels_N[labels.validation_rows]
    errors = [float((folder.load_member(m).votes.validation_NK.argmax(1) != right_N).mean()) for m in (6, 7, 8)]
    line = settings["lr=0.1"]
    assert [t["validation_error"] for t in line["trials"]] == pytest.approx(errors)
    assert line["validation_error"] == pytest.approx(np.mean(errors))
    assert folder.load_member(6).stack_size == 3  # the seeds of a setting train as one
    lost = settings["lr=1e+30"]
    assert lost["state"].startswith("3 of 3 diverged")
    assert lost["validation_error"] is None
    second = [t["validation_error"] for t in settings["lr=0.001"]["trials"]]
    assert found["p_value"] == pytest.approx(stats.ttest_ind(errors, second, equal_var=False).pvalue)
    written = {path.name for path in (home / "runs" / "rates").rglob("*") if path.is_file()}
    assert {"sweep.json", "sweep.csv", "loss_curves.png", "loss_curves.svg"} <= written
    before = (home / "runs/rates/members/0006/votes.npz").stat().st_mtime_ns
    assert sweep(home, "training.lr=1e-3,1e30,0.1", "seeds=3", "name=rates") == found
    assert (home / "runs/rates/members/0006/votes.npz").stat().st_mtime_ns == before


def test_other_axes_train_a_run_for_every_setting_and_seed(home: Path) -> None:
    found = sweep(home, "data.max_train_rows=60,400", "method.name=bagging", "num_members=2", "seeds=2", "name=rows")
    assert found["winner"] == "max_train_rows=400"
    (best, _) = found["settings"]  # type: ignore[misc]
    for seed, trial in enumerate(best["trials"]):
        stored = json.loads((home / f"runs/rows/max_train_rows-400_seed{seed}/evaluation.json").read_text())
        vote = next(row for row in stored["leaderboard"] if row["headline"])
        assert (trial["validation_error"], trial["test_error"]) == (vote["validation_error"], vote["test_error"])


def test_screening_trains_only_the_better_half_in_full(home: Path) -> None:
    plan = load_sweep(
        home / "small.yaml", [f"output_dir={home / 'runs'}", "name=screened", "training.lr=1e-5,0.1,1e-4,0.05"]
    )
    from ensemble.executors import InlineExecutor
    from ensemble.run.run import run_ensemble

    epochs: list[int] = []

    def train(experiment):  # type: ignore[no-untyped-def]
        epochs.append(experiment.groups[0].training.epochs)
        return run_ensemble(experiment, lambda *_: InlineExecutor(), lambda _: []).path

    result = run_sweep(plan, train, screen=1, survivors=0.5)
    assert epochs == [1, 3]
    assert {line.setting.label for line in result.lines if not line.screened} == {"lr=0.1", "lr=0.05"}
    assert [line.state for line in result.lines if line.screened] == ["dropped after screening"] * 2
    assert {len(line.trials[0].curve) for line in result.lines if line.screened} == {1}
    with pytest.raises(ConfigError, match="keeps all 4 settings"):
        run_sweep(plan, train, screen=1, survivors=0.9)


def test_the_table_says_who_won_and_how_sure_that_is(home: Path) -> None:
    command = ["sweep", str(home / "small.yaml"), f"output_dir={home / 'runs'}", "name=rates", "seeds=3", "-q"]
    text = CliRunner().invoke(main, [*command, "training.lr=1e-3,1e30,0.1"], terminal_width=80).stdout
    assert "Lowest mean validation error: lr=0.1" in text
    assert "better than lr=0.001" in " ".join(text.split())
    assert "3 of 3 diverged" in " ".join(text.split())


@pytest.mark.parametrize("seed", range(3))
def test_welch_against_scipy(seed: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = generator.normal(size=5), generator.normal(0.5, 3, size=4)
    assert welch_t(one.tolist(), other.tolist()) == pytest.approx(stats.ttest_ind(one, other, equal_var=False).pvalue)


def test_welch_without_spread() -> None:
    """Nothing to measure a difference by is no certainty."""
    assert np.isnan(welch_t([1.0, 1.0], [1.0, 1.0]))
    assert np.isnan(welch_t([1.0, 1.0], [2.0, 2.0]))
    assert np.isnan(welch_t([1.0], [1.0, 2.0]))


def simulated(errors_LS: np.ndarray) -> SweepResult:
    """What a sweep makes of these validation errors, [settings, seeds]."""
    settings = [Setting(f"lr={i}", f"lr-{i}", {"training.lr": i}) for i in range(len(errors_LS))]
    lines = _ranked(
        [
            Line(setting, tuple(Trial(error, error, 1.0, 1, "", ()) for error in errors_S))
            for setting, errors_S in zip(settings, errors_LS.tolist(), strict=True)
        ]
    )
    plan = SweepPlan("simulated", {}, {}, "nowhere", tuple(settings), errors_LS.shape[1])
    return SweepResult(plan, Path(), tuple(lines), lines[0], lines[1], *_compared(lines[0], lines[1]))


@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("settings", [2, 4])
def test_equal_settings_win_in_at_most_five_of_a_hundred_sweeps(settings: int, seeds: int) -> None:
    """Binomial errors on 30 to 1,000 images, whose means and variances often coincide."""
    generator = np.random.default_rng([settings, seeds])
    claims, sweeps = 0, 2000
    for i in range(sweeps):
        rows, error = [(30, 0.2), (100, 0.1), (360, 0.03), (1000, 0.05)][i % 4]
        claims += "better than" in verdict(simulated(generator.binomial(rows, error, (settings, seeds)) / rows))
    assert claims / sweeps <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / sweeps)


def test_a_clear_difference_over_seeds_is_claimed() -> None:
    assert "better than lr=1" in verdict(simulated(np.array([[0.01, 0.012, 0.011], [0.05, 0.052, 0.049]])))


def test_one_seed_each_claims_nothing_of_the_settings(home: Path) -> None:
    words = ["training.lr=1e-5,0.1", f"output_dir={home / 'runs'}", "name=lone", "-q"]
    text = CliRunner().invoke(main, ["sweep", str(home / "small.yaml"), *words], terminal_width=200).stdout
    assert "better" not in text
    assert "not distinguishable" not in text
    assert "one seed each, so no test" in " ".join(text.split())
    document = json.loads((home / "runs/lone/sweep.json").read_text())
    assert document["p_value"] is None
    assert document["settings"][0]["validation_interval"] == [None, None]


def test_a_second_sweep_never_replaces_the_tables_of_another(home: Path) -> None:
    """More values or seeds may, since they hold the old ones too."""
    words = ["num_members=1", "method.name=bagging", "training.epochs=1", "name=kept"]
    sweep(home, "training.lr=1e-3,1e-2", *words)
    before = (home / "runs/kept/sweep.csv").read_bytes()
    for other in ("training.batch_size=32,64", "training.lr=1e-3,1e-1"):
        command = ["sweep", str(home / "small.yaml"), f"output_dir={home / 'runs'}", *words, other, "-q"]
        refused = CliRunner().invoke(main, command)
        assert refused.exit_code == 6, refused.output
        assert "name=kept-2" in refused.stderr
        assert (home / "runs/kept/sweep.csv").read_bytes() == before
    assert not list((home / "runs/kept").glob("batch_size*"))  # refused before anything was trained
    assert len(sweep(home, "training.lr=1e-3,1e-2,1e-1", *words)["settings"]) == 3  # type: ignore[arg-type]
    (home / "runs/kept/sweep.json").write_text("{")
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 6
    assert "cannot be read as the table of a sweep" in refused.stderr
