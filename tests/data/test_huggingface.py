"""Data sets of the package datasets, as it writes them itself: the same images as of a folder with the same files."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ensemble.commands.main import main
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.data.mapped import place_of
from ensemble.errors import ConfigError, DataError
from ensemble.launch.upload import collect

NAMES = ("cat", "dog", "eel")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory, and caches of its own; nothing is asked of the network."""
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def png(seed: int, size: tuple[int, int] = (9, 12)) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def split(count: int, seed: int, **columns: Any) -> datasets.Dataset:
    """Rows of pictures of several sizes, classes in turn."""
    pictures = [{"bytes": png(1000 * seed + n, (9, 9 + n % 3)), "path": None} for n in range(count)]
    types = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))}
    rows = {"image": pictures, "label": [n % 3 for n in range(count)], **columns}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(types) if not columns else None)


def both() -> datasets.DatasetDict:
    return datasets.DatasetDict({"train": split(30, 1), "validation": split(6, 3), "test": split(12, 2)})


def section(path: str, **keys: Any) -> DataConfig:
    return DataConfig(name="huggingface", path=path, **{"image_size": 8, **keys})


def test_saved_ones_and_parquet_files_are_a_folder_of_the_same_pictures(home: Path) -> None:
    both().save_to_disk("saved")
    for name, rows in both().items():
        (home / "parquet").mkdir(exist_ok=True)
        rows.to_parquet(f"parquet/{name}-00000-of-00001.parquet")
        for n in range(len(rows)):
            place = home / "photos" / name / NAMES[n % 3]
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{n:04d}.png").write_bytes(
                png(1000 * {"train": 1, "test": 2, "validation": 3}[name] + n, (9, 9 + n % 3))
            )
    folder = load_dataset(DataConfig(name="image_folder", root="photos", image_size=8))
    for path in ("saved", "parquet"):
        data = load_dataset(section(path))
        assert (data.class_names, data.name) == (NAMES, f"{path} (huggingface)")
        for images, labels, theirs, their_labels in (
            (data.train_images_NCHW, data.train_labels_N, folder.train_images_NCHW, folder.train_labels_N),
            (data.test_images_NCHW, data.test_labels_N, folder.test_images_NCHW, folder.test_labels_N),
        ):
            for k in range(3):  # a folder lists one class after the other
                np.testing.assert_array_equal(images[labels == k], theirs[their_labels == k])
        assert data.validation_rows is not None
        assert data.validation_rows.tolist() == list(range(30, 36))
        assert data.test_files[1] == "test/00000001"


def test_mapped_ones_are_the_same_and_read_once(home: Path) -> None:
    both().save_to_disk("saved")
    memory = load_dataset(section("saved", image_size=(8, 10), channels=1, storage="memory"))
    for _ in range(2):
        mapped = load_dataset(section("saved", image_size=(8, 10), channels=1, storage="mapped"))
        np.testing.assert_array_equal(mapped.train_images_NCHW, memory.train_images_NCHW)
        place = place_of(mapped.test_images_NCHW)
        assert place is not None
        assert DataConfig.from_json(place.source).path == str(home / "saved")
    assert len(list((home / "cache/pictures").iterdir())) == 1


@pytest.mark.parametrize("kind", ["text", "struct"])
def test_pictures_that_rows_only_name_are_noticed_when_they_change(kind: str, home: Path) -> None:
    (home / "st").mkdir()
    for n in range(12):
        (home / f"st/{n}.png").write_bytes(png(n, (8, 8)))
    paths: list[Any] = [str(home / f"st/{n}.png") for n in range(12)]
    named = paths if kind == "text" else [{"bytes": None, "path": path} for path in paths]
    datasets.Dataset.from_dict({"image": named, "label": [n % 3 for n in range(12)]}).to_parquet("st.parquet")
    before = load_dataset(section("st.parquet", storage="mapped")).train_images_NCHW.copy()
    (home / "st/5.png").write_bytes(png(100, (8, 8)))
    (home / "st/4.png").rename(home / "st/aside.png")
    (home / "st/7.png").rename(home / "st/4.png")
    (home / "st/aside.png").rename(home / "st/7.png")
    mapped, memory = (load_dataset(section("st.parquet", storage=way)) for way in ("mapped", "memory"))
    np.testing.assert_array_equal(mapped.train_images_NCHW, memory.train_images_NCHW)
    assert (mapped.train_images_NCHW != before).any()
    (home / "st/3.png").unlink()
    with pytest.raises(DataError, match=r"row 3, \S*/st/3\.png: no such file"):
        load_dataset(section("st.parquet", storage="mapped"))


def test_one_split_is_divided_and_a_map_says_which_is_which(home: Path) -> None:
    split(30, 1).save_to_disk("one")
    data = load_dataset(section("one", test_fraction=0.3))
    assert (len(data.train_labels_N), len(data.test_labels_N)) == (21, 9)
    split(30, 1).to_parquet("one.parquet")
    np.testing.assert_array_equal(
        load_dataset(section("one.parquet", test_fraction=0.3)).train_images_NCHW, data.train_images_NCHW
    )
    datasets.DatasetDict({"first": split(30, 1), "second": split(12, 2)}).save_to_disk("odd")
    with pytest.raises(DataError, match=r"found the splits first, second; say which are used by data\.split_map"):
        load_dataset(section("odd"))
    data = load_dataset(section("odd", split_map={"train": "first", "test": "second"}))
    assert (len(data.train_labels_N), len(data.test_labels_N)) == (30, 12)


def test_classes_that_are_texts_and_columns_of_other_names(home: Path) -> None:
    words = [("eel", "ant")[n % 2] for n in range(20)]
    rows = split(20, 1, kind=words).rename_column("image", "photo")
    rows.save_to_disk("words")
    data = load_dataset(section("words", image_column="photo", label_column="kind"))
    assert data.class_names == ("ant", "eel")
    assert set(np.bincount(data.train_labels_N)) == {8}


def test_trains_and_resumes(home: Path) -> None:
    both().save_to_disk("saved")
    values = {
        "num_members": 2, "method": {"name": "bagging"}, "model": {"name": "mlp", "widths": [4]}, "training": {"epochs": 1, "batch_size": 8},
        "data": {"name": "huggingface", "path": "saved", "image_size": 8}, "compute": {"executor": "inline"}, "tracking": {"wandb": {"mode": "disabled"}},
    }  # fmt: skip
    (home / "own.yaml").write_text(json.dumps(values))
    for _ in range(2):
        done = CliRunner().invoke(main, ["train", "own.yaml", "-q"])
        assert done.exit_code == 0, done.output
    with pytest.raises(
        ConfigError, match=r"data\.path: saved: a folder of this machine.*data\.path=/shared/saved.*--with saved"
    ):
        collect(Path("own.yaml"))
    assert "saved/dataset_dict.json" in collect(Path("own.yaml"), more=["saved"]).files
    assert list(collect(Path("own.yaml"), ["data.path=owner/flowers"]).files) == ["own.yaml"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"image_column": "img"}, r"split train: no column 'img' \(data\.image_column\); found image, label"),
        ({"label_column": "kind"}, r"split train: no column 'kind' \(data\.label_column\)"),
        ({"image_column": "label"}, r"column label: found ClassLabel.*expected pictures"),
        (
            {"split_map": {"train": "tran"}},
            r"data\.split_map: found tran; expected splits of the set: train, validation, test",
        ),
        ({"split_map": {"test": "test"}}, r"data\.split_map: no split is the part train"),
        ({"test_fraction": 0.2}, r"data\.test_fraction: found 0\.2, but the split test is the test part"),
        ({"path": "owner/none"}, r"data\.path: owner/none cannot be opened as a data set"),
    ],
)
def test_mistakes_are_named(home: Path, keys: dict[str, Any], message: str) -> None:
    both().save_to_disk("saved")
    with pytest.raises(DataError, match=message):
        load_dataset(section(**{"path": "saved", **keys}))


def test_damaged_and_missing_pictures_and_the_missing_package(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = split(12, 1)
    images = [{"bytes": png(n), "path": None} for n in range(10)] + [{"bytes": b"no picture", "path": None}, None]
    types = datasets.Features({"image": datasets.Image(decode=False), "label": rows.features["label"]})
    datasets.Dataset.from_dict({"image": images, "label": [n % 3 for n in range(12)]}, features=types).save_to_disk(
        "bad"
    )
    with pytest.raises(
        DataError, match=r"2 of 12 pictures cannot be used(?s:.)*split train, row 10(?s:.)*row 11: there is no picture"
    ):
        load_dataset(section("bad"))
    assert len(load_dataset(section("bad", on_bad_image="skip")).train_labels_N) + 3 == 10
    with pytest.raises(ValueError, match="data set huggingface needs path"):
        DataConfig(name="huggingface", path="x")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r'pip install "ensemble-trainer\[huggingface\]"'):
        load_dataset(section("bad"))
