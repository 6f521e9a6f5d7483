"""Axes, settings and the configurations they make."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble.config import load_config
from ensemble.config.sweeping import load_sweep, split_values
from ensemble.errors import ConfigError

BASE = """\
name: base
num_members: 4
method: {name: deep_ensemble}
data: {name: digits}
model: {name: mlp, widths: [8]}
training: {epochs: 3, lr: 1e-3}
"""
SWEEP = BASE + "sweep: {seeds: 2, axes: {training.optimizer: [sgd, adam]}}\n"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    return tmp_path / "base.yaml"


def test_commas_inside_brackets_part_nothing() -> None:
    assert split_values("1,2") == ["1", "2"]
    assert split_values("[8,16],{name: x, y: [1,2]},3") == ["[8,16]", "{name: x, y: [1,2]}", "3"]
    assert split_values("[8,16]") == ["[8,16]"]


def test_a_grid_is_the_product_in_the_order_of_the_words(base: Path) -> None:
    plan = load_sweep(base, ["training.lr=0.1,0.01", "model.widths=[4],[4,8]", "training.epochs=7", "seeds=3"])
    assert [s.label for s in plan.settings] == [
        "lr=0.1 widths=[4]", "lr=0.1 widths=[4,8]", "lr=0.01 widths=[4]", "lr=0.01 widths=[4,8]",
    ]  # fmt: skip
    assert plan.in_one_run
    mixed = plan.mixed()
    assert [(g.count, g.training.lr, g.training.epochs, g.model.widths) for g in mixed.groups] == [
        (3, 0.1, 7, (4,)), (3, 0.1, 7, (4, 8)), (3, 0.01, 7, (4,)), (3, 0.01, 7, (4, 8)),
    ]  # fmt: skip
    assert mixed.total_members == 12
    assert plan.shortened(1).mixed().groups[0].training.epochs == 1


def test_a_file_s_own_axes_and_what_the_command_line_makes_of_them(base: Path) -> None:
    path = base.with_name("sweep.yaml")
    plan = load_sweep(path, [])
    assert ([s.label for s in plan.settings], plan.seeds) == (["optimizer=sgd", "optimizer=adam"], 2)
    assert len(load_sweep(path, ["training.lr=1,2"]).settings) == 4
    assert [s.label for s in load_sweep(path, ["training.optimizer=adamw,adamax,sgd"]).settings] == [
        "optimizer=adamw", "optimizer=adamax", "optimizer=sgd",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="nothing to sweep over"):
        load_sweep(path, ["training.optimizer=adam"])
    with pytest.raises(ConfigError, match=r"sweep.yaml:7: this file is a sweep .* ensemble sweep"):
        load_config(path)


def test_other_axes_need_runs_of_their_own(base: Path) -> None:
    plan = load_sweep(base, ["data.max_train_rows=100,200", "seeds=2"])
    assert not plan.in_one_run
    experiment = plan.experiment(plan.settings[1], 1)
    assert (experiment.name, experiment.seed, experiment.output_dir) == ("max_train_rows-200_seed1", 1, "runs/base")
    assert experiment.data.max_train_rows == 200
    assert experiment.total_members == 4
    assert not load_sweep(base, ["training.lr=1,2", "method.name=bagging"]).in_one_run


def test_a_draw_is_addressed_by_the_seed(base: Path) -> None:
    words = ["training.lr=1,2,3,4", "training.batch_size=1,2,3,4"]
    drawn = [[s.label for s in load_sweep(base, [*words, f"seed={seed}"], 5).settings] for seed in (1, 1, 2)]
    assert len(drawn[0]) == 5
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["training.lr"], "expected key=value"),
        (["training.lr=1,2", "seeds=0"], "seeds: expected a whole number"),
        (["training.optimizer=adam,adamm"], "training.optimizer"),
        (["training.lr=1,-2"], "training.lr"),
        ([f"training.lr={','.join(map(str, range(1, 40)))}", f"training.batch_size={','.join(map(str, range(1, 40)))}"], "use --draw N"),
    ],
)  # fmt: skip
def test_mistakes_show_before_the_first_training(base: Path, words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_sweep(base, words)


@pytest.mark.parametrize(
    "words",
    [
        ["training.lr=1e-3,0.001"],
        ["training.lr=1e-3,0.001", "model.widths=[4],[8]"],
        ["training.batch_size=32,64,32"],
        ["model={name: mlp, widths: [8]},{name: mlp, widths: [8], activation: relu}"],
        ["name=a,b"],
    ],
)
def test_one_configuration_twice_is_refused(base: Path, words: list[str]) -> None:
    with pytest.raises(ConfigError, match="are the same configuration"):
        load_sweep(base, words)


def test_seeds_of_settings_that_are_seeds_are_refused(base: Path) -> None:
    assert len(load_sweep(base, ["seed=1,2"]).settings) == 2
    with pytest.raises(ConfigError, match="seed is an axis, but seeds=2"):
        load_sweep(base, ["seed=1,2", "seeds=2"])


def test_values_that_differ_are_written_differently(base: Path) -> None:
    plan = load_sweep(base, ["training.lr=0.1234567,0.12345671"])
    assert [setting.label for setting in plan.settings] == ["lr=0.1234567", "lr=0.12345671"]


def test_screening_an_axis_of_epochs_is_refused(base: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.epochs, which is an axis"):
        load_sweep(base, ["training.epochs=1,2"]).shortened(1)


def test_settings_are_written_as_they_are_typed_and_folders_keep_their_names(base: Path) -> None:
    plan = load_sweep(base, ["data.max_train_rows=null,100", "baseline=true,false"])
    assert [setting.label for setting in plan.settings] == [
        f"max_train_rows={rows} baseline={flag}" for rows in ("null", "100") for flag in ("true", "false")
    ]
    assert plan.settings[0].name == "max_train_rows-None_baseline-True"
    for setting in plan.settings:
        words = dict(word.split("=") for word in setting.label.split())
        again = load_sweep(base, [f"data.max_train_rows={words['max_train_rows']},77", f"baseline={words['baseline']}"])
        assert again.settings[0].values["data.max_train_rows"] == setting.values["data.max_train_rows"]
