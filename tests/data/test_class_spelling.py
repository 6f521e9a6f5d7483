"""Classes that may be one class, written in several ways: said, or refused where nobody could tell them apart."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.config.schema import DataConfig
from ensemble.data import Dataset, load_dataset
from ensemble.data.class_spelling import spelling_remarks
from ensemble.errors import DataError

COMPOSED, DECOMPOSED = "K\u00e4se", "Ka\u0308se"


def folders(root: Path, names: list[str]) -> DataConfig:
    for k, name in enumerate(names):
        (root / "pictures" / name).mkdir(parents=True)
        for i in range(5):
            Image.new("L", (8, 8), 40 * k + i).save(root / "pictures" / name / f"{i}.png")
    return DataConfig(name="image_folder", root=str(root / "pictures"), image_size=8, channels=1)


def table(root: Path, names: list[str]) -> DataConfig:
    folders(root, [str(k) for k in range(len(names))])
    with (root / "table.csv").open("w", newline="") as file:
        rows = [(f"pictures/{k}/{i}.png", name) for k, name in enumerate(names) for i in range(5)]
        csv.writer(file).writerows([("file", "class"), *rows])
    keys = {"image_column": "file", "label_column": "class", "image_size": 8, "channels": 1}
    return DataConfig(name="table", path=str(root / "table.csv"), **keys)


def arrays(root: Path, names: list[str]) -> DataConfig:
    labels = np.repeat(names, 5)
    images = np.random.default_rng(0).integers(0, 255, (len(labels), 8, 8), np.uint8)
    np.savez(root / "x.npz", train_images=images, train_labels=labels)
    return DataConfig(name="arrays", path=str(root / "x.npz"))


def warned(data: Dataset) -> str:
    return " ".join(remark.text for remark in data.account.remarks() if remark.warning)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("source", [folders, table, arrays])
def test_every_source_says_which_classes_are_alike(source, tmp_path):
    data = load_dataset(source(tmp_path, ["Cat", "cat", "dog"]))
    assert data.class_names == ("Cat", "cat", "dog"), "they stay what they are"
    assert "the classes 'Cat' and 'cat' differ only in how they are written" in warned(data)


@pytest.mark.parametrize("source", [folders, table, arrays])
def test_normal_forms_of_one_text_are_refused(source, tmp_path):
    with pytest.raises(DataError, match="Unicode normal forms"):
        load_dataset(source(tmp_path, [COMPOSED, DECOMPOSED, "Brot"]))


@pytest.mark.parametrize(
    "alike",
    [("cat", "cat "), ("cat", "ca\u200bt"), ("fish", "\ufb01sh"), ("hot dog", "hot_dog"), ("1", "01"), ("1", "1.0"), ("1", "1e0"), ("stra\u00dfe", "STRASSE"), ("a b", "a\u00a0b")],
)  # fmt: skip
def test_alike_names_are_said(alike):
    (remark,) = spelling_remarks("x", ["other", *alike])
    assert remark.warning
    assert "differ only in how they are written" in remark.text
    assert "other" not in remark.text


def test_many_groups_are_counted():
    (remark,) = spelling_remarks("x", [name for k in range(9) for name in (f"class {k}", f"Class {k}")])
    assert "and 6 more" in remark.text


@pytest.mark.parametrize(
    "names", [["A", "a"], ["-1", "1"], ["1", "10"], ["c", "c++"], ["none", "some"], ["a1", "a 2"], ["", "x"]]
)
def test_names_that_are_no_twins_pass(names):
    assert spelling_remarks("x", names) == []


@pytest.mark.parametrize("name", ["NaN", "nan", "N/A", "<NA>"])
def test_a_class_that_stands_for_no_value_is_said(name):
    (remark,) = spelling_remarks("x", ["cat", name])
    assert f"the class '{name}' looks like a missing value" in remark.text
