"""Advice helps: a hint is at most two edits away, exists, takes effect when it is followed, and is never what was refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ensemble.config import load_config
from ensemble.config.explain import closest, edits
from ensemble.config.keys import all_keys
from ensemble.errors import ConfigError

GOOD = "num_members: 2\nmethod: {name: bagging}\nmodel: {name: cnn}\ntraining: {epochs: 1}\n"


def refused(folder: Path, *overrides: str) -> str:
    path = folder / "x.yaml"
    path.write_text(GOOD)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "training.mixup=0.2", "training.early_stopping=true", "training.focal=1", "training.dropout=0.1",
        "model={name: lenet5, dropout: 0.1}", "model.stem=small", "method.folds=3", "training.schedule={name: step, patience: 3}",
        "compute.gpu=1", "data.augment=true", "foo=1", "tracking.wandb.x=1",
    ],
)  # fmt: skip
def test_a_hint_exists_and_is_not_the_refused_key(tmp_path: Path, override: str) -> None:
    key = override.partition("=")[0]
    text = refused(tmp_path, override)
    assert "unknown key" in text
    hint = re.search(r"did you mean ([\w.]+)\?", text)
    if hint:
        assert ".".join(hint[1].split(".")) in {".".join(key) for key in all_keys()}
        assert hint[1] != key
    else:
        assert "known here: " in text


def test_nothing_alike_gives_no_hint(tmp_path: Path) -> None:
    for key in ("training.lookahead", "training.test_time_flips"):
        assert "did you mean" not in refused(tmp_path, f"{key}=1")


def test_a_key_that_this_network_lacks(tmp_path: Path) -> None:
    text = refused(tmp_path, "model={name: lenet5, dropout: 0.1}")
    assert "model.dropout: unknown key; known here: name" in text


@pytest.mark.parametrize(
    ("given_word", "advice"),
    [
        ("compute=inline", "compute.executor=inline"), ("training.epoch=3", "training.epochs=3"),
        ("training.learning_rate=0.1", "training.lr=0.1"), ("epochs=3", "training.epochs=3"), ("failures=drop", "failures.policy=drop"),
        ("training.mixup=0.2", "training.augmentation.mixup_alpha=0.2"), ("training.warmup=0.5", "training.warmup_epochs=0.5"),
        ("training.gradient_accumulation_steps=4", "training.accumulation=4"),
        ("training.augmentation.random_erasing=0.5", "training.augmentation.erasing_probability=0.5"),
    ],
)  # fmt: skip
def test_whoever_follows_the_advice_gets_on(tmp_path: Path, given_word: str, advice: str) -> None:
    text = refused(tmp_path, given_word)
    assert re.search(rf"(did you mean|write) {re.escape(advice.partition('=')[0])}", text), text
    assert load_config(tmp_path / "x.yaml", [advice])


def test_a_network_named_by_its_place_is_told_how_to_be_given(tmp_path: Path) -> None:
    text = refused(tmp_path, "model={name: 'mypackage.nets:MyNet'}")
    assert '{name: python, path: "mypackage/nets.py:MyNet"}' in text
    assert "python, path" not in refused(tmp_path, "model={name: mynet}")


def test_edits() -> None:
    assert [edits(one, other, 5) for one, other in [("a", "a"), ("ab", "ba"), ("epoch", "epochs"), ("lr", "eps"), ("", "ab")]] == [
        0, 1, 1, 3, 2,
    ]  # fmt: skip
    assert edits("short", "much longer", 2) == 3
    assert closest("l", ["lr", "eps"]) == "lr"
    assert closest("baging", ["bagging", "adaboost"]) == "bagging"
    assert closest("mixup", ["eps", "lr"]) is None


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("training.class_weights=balnced", "= 'balnced': expected one of none, balanced, or {NAME: NUMBER, ...}; did you mean balanced?"),
        ("training.class_weights={a: -1.0}", "training.class_weights.a = -1.0: expected more than 0"),
        ("training.class_weights=[1]", "= [1]: expected one of none, balanced, or {NAME: NUMBER, ...}"),
        ("model.freeze=backbon", "= 'backbon': expected one of none, backbone, or a list; did you mean backbone?"),
        ("model.freeze={a: 1}", '= {"a": 1}: expected one of none, backbone, or a list'),
        ("model.freeze=[[a]]", 'model.freeze.0 = ["a"]: expected text'),
        ("model={name: layers, layers: [{kind: conv, channels: -1}]}", "model.layers.0.channels = -1: expected at least 1, or 'classes'"),
        ("model={name: layers, layers: [{kind: conv, channels: 1.5}]}", "model.layers.0.channels = 1.5: expected a whole number, or 'classes'"),
        ("model={name: layers, layers: [{kind: conv, channels: class}]}", "= 'class': expected one of classes, or a whole number"),
        ("model={name: layers, layers: [{kind: pool}]}", "model.layers.0.kind = 'pool': expected one of conv, max_pool, average_pool, linear"),
        ("model={name: layers, layers: [{kind: conv}]}", "model.layers.0.channels: missing, and it has no default"),
        ("model={name: layers, layers: []}", "model.layers = []: expected at least 1 entry, found 0"),
    ],
)  # fmt: skip
def test_of_a_key_with_several_forms_only_the_one_that_was_given_is_explained(
    tmp_path: Path, override: str, expected: str
) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("num_members: 2\nmethod: {name: bagging}\nmodel: {name: lenet5}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [override])
    assert expected in str(caught.value)
    assert "1 mistake in" in str(caught.value)
    assert "[" not in str(caught.value).partition(" = ")[0].rpartition(": ")[2], "names of types are not for people"


def test_a_name_of_other_programs_is_translated_exactly(tmp_path: Path) -> None:
    """`num_workers` stands for compute.slots, which is no mistyped training.loss."""
    path = tmp_path / "c.yaml"
    path.write_text("name: c\nnum_members: 2\nmethod: {name: bagging}\nmodel: {name: mlp}\ndata: {name: digits}\n")
    for word in ("training.num_workers=4", "num_workers=4", "data.num_workers=4"):
        with pytest.raises(ConfigError, match=r"unknown key; did you mean compute\.slots\?"):
            load_config(path, [word])
