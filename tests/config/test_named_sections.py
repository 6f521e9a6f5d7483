"""A section that is chosen by name may be given by its name alone: it is the section with that name, for every door."""

from __future__ import annotations

from pathlib import Path

import pytest

import ensemble
from ensemble.config import load_config
from ensemble.config.json_schema import json_schema
from ensemble.config.sweeping import load_sweep
from ensemble.errors import ConfigError

SHORT = "num_members: 2\nmethod: bagging\ndata: digits\nmodel: cnn\ntraining: {epochs: 1, schedule: cosine}\n"
LONG = "num_members: 2\nmethod: {name: bagging}\ndata: {name: digits}\nmodel: {name: cnn}\ntraining: {epochs: 1, schedule: {name: cosine}}\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "x.yaml"
    path.write_text(text)
    return path


def test_in_a_file(tmp_path: Path) -> None:
    """With what suits the method, which bagging's own network on all rows shows."""
    short = load_config(written(tmp_path, SHORT)).experiment
    assert short == load_config(written(tmp_path, LONG)).experiment
    assert short.baseline


def test_in_groups_and_sets(tmp_path: Path) -> None:
    text = SHORT.replace("num_members: 2\n", "").replace("model: cnn\n", "")
    short = (
        text
        + "members: [{count: 1, model: cnn}, {count: 1, model: lenet5}]\nevaluation: {sets: [{name: other, kind: shifted, data: mnist}]}\n"
    )
    found = load_config(written(tmp_path, short)).experiment
    assert [group.model.name for group in found.groups] == ["cnn", "lenet5"]
    assert found.evaluation.sets[0].data is not None
    assert found.evaluation.sets[0].data.name == "mnist"


def test_as_an_override(tmp_path: Path) -> None:
    """It replaces the section, whose other keys are those of another network or method."""
    long = LONG.replace("{name: cnn}", "{name: cnn, widths: [4]}")
    found = load_config(written(tmp_path, long), ["method=deep_ensemble", "model=lenet5"]).experiment
    assert (found.method.name, found.model.name if found.model else "") == ("deep_ensemble", "lenet5")
    assert not found.baseline
    widened = load_config(written(tmp_path, SHORT), ["model=mlp", "model.widths=[7]"]).experiment
    assert widened.model is not None
    assert widened.model.model_dump()["widths"] == (7,)


@pytest.mark.parametrize(
    ("first", "second"),
    [("model.widths=[4]", "model=cnn"), ("training.lr=0.1", "training={epochs: 3}"), ("training.schedule.period=3", "training.schedule=cosine")],
)  # fmt: skip
def test_nothing_given_is_replaced_without_a_word(tmp_path: Path, first: str, second: str) -> None:
    key, whole = first.partition("=")[0], second.partition("=")[0]
    with pytest.raises(ConfigError, match=f"replaces the whole section, and with it {key}.*write {whole} first"):
        load_config(written(tmp_path, SHORT), [first, second])


def test_in_a_sweep(tmp_path: Path) -> None:
    plan = load_sweep(
        written(tmp_path, f"{SHORT}sweep: {{axes: {{model: [cnn, lenet5]}}}}\n"), ["method=deep_ensemble"]
    )
    models = [plan.experiment(setting).model for setting in plan.settings]
    assert [model.name for model in models if model] == ["cnn", "lenet5"]
    assert plan.in_one_run


def test_from_python(tmp_path: Path) -> None:
    run = ensemble.train(
        written(tmp_path, SHORT),
        {"model": "lenet5", "output_dir": str(tmp_path), "method": "deep_ensemble", "tracking.wandb.mode": "disabled"},
    )
    assert (run.config["model"]["name"], run.config["method"]["name"], run.config["baseline"]) == (
        "lenet5",
        "deep_ensemble",
        False,
    )


@pytest.mark.parametrize("override", ["model=lenet55", "method=baging", "data=minst"])
def test_a_name_that_there_is_not_is_said(tmp_path: Path, override: str) -> None:
    key, _, name = override.partition("=")
    with pytest.raises(ConfigError, match=f"{key}.name = '{name}': expected one of .*did you mean"):
        load_config(written(tmp_path, SHORT), [override])


@pytest.mark.parametrize("override", ["model=3", "method=true", "data=[mnist]"])
def test_what_is_no_name_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="expected a section of keys"):
        load_config(written(tmp_path, SHORT), [override])


def test_editors_know_it() -> None:
    properties = json_schema()["properties"]
    for key, name in (("model", "cnn"), ("method", "bagging"), ("data", "digits")):
        inner = properties[key]["anyOf"]
        assert any(name in part.get("enum", ()) for part in inner), key
