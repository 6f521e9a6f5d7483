"""However a place is written, the same pictures are in the same parts, and what one spelling has prepared is right for another."""

from __future__ import annotations

import csv
import os
import pickle
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble.config.schema import DataConfig
from ensemble.data import Dataset, load_dataset
from ensemble.data.arriving import absent, present
from ensemble.data.listing import below
from ensemble.data.prepared import kept
from tests.data.test_webdataset import sample, shard

TABLE: dict[str, Any] = {"name": "table", "image_column": "file", "label_column": "label"}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with pictures of three classes; each tells its class by its level."""
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate("abc"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(12):
            level = np.full((8, 8, 3), 20 + 80 * k + n, np.uint8)
            Image.fromarray(level).save(tmp_path / "photos" / name / f"{n:03d}.png")
    return tmp_path


def table(path: Path, files: list[str]) -> Path:
    """A table of these files, in an order that is not the classes'; a file's class is the folder it is in."""
    order = np.random.default_rng(3).permutation(len(files))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label"])
        writer.writerows([[files[n], Path(files[n]).parent.name] for n in order])
    return path


def assert_classes_are_right(data: Dataset) -> None:
    for part in ("train", "test"):
        images, labels_N = getattr(data, f"{part}_images_NCHW"), getattr(data, f"{part}_labels_N")
        levels = images.reshape(len(images), -1).mean(axis=1)
        np.testing.assert_array_equal((levels - 20) // 80, labels_N)
        for level, file in zip(levels, getattr(data, f"{part}_files"), strict=True):
            assert int(level - 20) % 80 == int(Path(file).stem[-3:]) or "tar" in file


def assert_same(first: Dataset, second: Dataset) -> None:
    for name in ("train_images_NCHW", "train_labels_N", "test_images_NCHW", "test_labels_N"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert (first.train_files, first.test_files) == (second.train_files, second.test_files)


def assert_read_elsewhere(data: Dataset, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another machine makes of the mapped images, which it has not decoded: the same."""
    content = pickle.dumps({"train_images": data.train_images_NCHW})
    (home / "cache").rename(home / "of another machine")
    monkeypatch.chdir("/")
    arrived = pickle.loads(content)
    assert absent(arrived)
    np.testing.assert_array_equal(present(arrived)["train_images"], data.train_images_NCHW)


def by_all_ways(ways: list[dict[str, Any]]) -> list[Dataset]:
    """Each way in memory and mapped, mapped twice."""
    found = []
    for way in ways:
        for storage in ("mapped", "memory", "mapped"):
            found.append(load_dataset(DataConfig(**{"image_size": 8, "storage": storage, **way})))
            assert_classes_are_right(found[-1])
    return found


def test_a_table_of_whole_names(home: Path) -> None:
    files = [str(file) for file in sorted((home / "photos").rglob("*.png"))]
    table(home / "labels.csv", files)
    whole = str(home / "labels.csv")
    ways: list[dict[str, Any]] = [{"path": path} for path in ("labels.csv", whole, f"{home}/photos/../labels.csv")]
    ways += [{"path": whole, "root": root} for root in (".", str(home))]
    found = by_all_ways([{**TABLE, **way} for way in ways])
    for other in found[1:]:
        assert_same(found[0], other)


def test_files_that_stand_twice_stay_in_the_same_part(home: Path) -> None:
    files = [f"photos/{name}/{n:03d}.png" for name in "abc" for n in range(12)]
    table(home / "labels.csv", [*files, "photos/a/../a/003.png", str(home / "photos/b/007.png"), "./photos/c/001.png"])
    found = by_all_ways([{**TABLE, "path": "labels.csv", "root": root} for root in (".", str(home), "photos/..")])
    for other in found[1:]:
        assert_same(found[0], other)
    parts = [
        {Path(os.path.normpath(home / file)) for file in part} for part in (found[0].train_files, found[0].test_files)
    ]
    assert not parts[0] & parts[1]


def test_tables_that_divide_the_same_pictures_differently(home: Path) -> None:
    """Their names are seen from other folders, and so other ones are the test part: each must have its own order."""
    (home / "one").mkdir()
    files = sorted((home / "photos").rglob("*.png"))
    table(home / "one" / "labels.csv", [f"photos/{file.relative_to(home / 'photos')}" for file in files])
    table(home / "labels.csv", [str(file.relative_to(home / "photos")) for file in files])
    one = {**TABLE, "path": "one/labels.csv", "root": "."}
    other = {**TABLE, "path": "labels.csv", "root": "photos"}
    found = by_all_ways([one, other, one])
    assert found[0].test_files != found[3].test_files
    assert len(kept()) == 2


def test_shards_seen_from_two_folders(home: Path) -> None:
    for number in range(3):
        rows = [(k, n) for n in range(number, 12, 3) for k in range(3)]
        members = [member for k, n in rows for member in sample(f"{k}-{n:03d}", 3 * n + k, k)]
        shard(home / f"wds/tr-{number:03d}.tar", members)
    ways = [
        {"root": root, "urls": f"{below}tr-{{000..001}}.tar", "validation_urls": f"{below}tr-002.tar"}
        for root, below in (("wds", ""), (".", "wds/"))
    ]
    for way in (*ways, ways[0]):
        both = [
            load_dataset(DataConfig(name="webdataset", image_size=8, storage=storage, **way))
            for storage in ("mapped", "memory")
        ]
        assert_same(*both)


def test_another_machine_that_is_given_the_whole_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [str(file) for file in sorted((home / "photos").rglob("*.png"))]
    table(home / "labels.csv", [*files, files[0], files[20]])
    data = load_dataset(DataConfig(**TABLE, path="labels.csv", image_size=8, storage="mapped"))
    assert_read_elsewhere(data, home, monkeypatch)


def test_every_spelling_of_a_file_is_the_same_file(home: Path) -> None:
    """In a table beside the pictures; a leak between the parts is what would come of it."""
    whole = os.fspath(home / "photos")
    spellings = (
        "{}",
        "../photos/{}",
        whole + "/{}",
        "//" + whole[1:] + "/{}",
        "a/../{}",
        "../photos/b/../../photos/{}",
    )
    files = [f"{name}/{n:03d}.png" for name in "abc" for n in range(12)]
    table(home / "photos" / "twice.csv", [spelling.format(file) for spelling in spellings for file in files])
    for path in ("photos/twice.csv", f"{whole}/twice.csv", f"/{whole}/twice.csv"):
        data = load_dataset(DataConfig(**TABLE, path=path, image_size=8))
        assert data.groups_N is not None
        assert any("36 files stand in several rows" in remark.text for remark in data.account.remarks())
        levels = [
            set(np.unique(part.reshape(len(part), -1), axis=0)[:, 0].tolist())
            for part in (data.train_images_NCHW, data.test_images_NCHW)
        ]
        assert not levels[0] & levels[1]


def test_a_folder_by_a_link(home: Path) -> None:
    files = [str(file) for file in sorted((home / "photos").rglob("*.png"))]
    table(home / "photos" / "labels.csv", files)
    (home / "link").symlink_to(home / "photos")
    found = by_all_ways(
        [{**TABLE, "path": f"{folder}/labels.csv"} for folder in ("photos", "link", f"{home}/link", f"/{home}/photos")]
    )
    for other in found[1:]:
        assert_same(found[0], other)


def test_letters_with_marks_however_a_copy_writes_them(home: Path) -> None:
    rows = {}
    for form in ("NFC", "NFD"):
        for name in ("Bär", "Löwe", "Ara"):
            (home / form / unicodedata.normalize(form, name)).mkdir(parents=True)
            for n in range(12):
                level = np.full((8, 8, 3), 80 * ("BLA".index(name[0])) + n, np.uint8)
                Image.fromarray(level).save(home / form / unicodedata.normalize(form, name) / f"{n}.png")
        data = load_dataset(DataConfig(name="image_folder", root=form, image_size=8))
        rows[form] = {unicodedata.normalize("NFC", file) for file in data.test_files}
    assert rows["NFC"] == rows["NFD"]


@pytest.mark.parametrize("name", ["image_folder", "table", "huggingface"])
def test_home_is_home_on_another_machine(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(home))
    table(home / "labels.csv", [f"photos/{name}/{n:03d}.png" for name in "abc" for n in range(12)])
    keys: dict[str, Any] = {"name": "image_folder", "root": "~/photos"}
    if name == "table":
        keys = {**TABLE, "path": "~/labels.csv"}
    if name == "huggingface":
        datasets = pytest.importorskip("datasets")
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "arrow")
        files = [f"{home}/photos/{name}/{n:03d}.png" for name in "abc" for n in range(12)]
        columns = {"image": files, "label": [file.split("/")[-2] for file in files]}
        datasets.Dataset.from_dict(columns).to_parquet(home / "one.parquet")
        keys = {"name": "huggingface", "path": "~/one.parquet"}
    data = load_dataset(DataConfig(**keys, image_size=8, storage="mapped"))
    assert_read_elsewhere(data, home, monkeypatch)


@pytest.mark.parametrize(
    ("path", "root", "seen"),
    [
        ("photos/a/1.png", "photos", "a/1.png"),
        ("photos/a/1.png", ".", "photos/a/1.png"),
        ("{home}/photos/a/1.png", "photos", "a/1.png"),
        ("photos/a/1.png", "{home}/photos", "a/1.png"),
        ("{home}/photos/../photos/1.png", "photos", "1.png"),
        ("photographs/1.png", "photos", "{home}/photographs/1.png"),
        ("/1.png", "/", "1.png"),
        ("photos/../photos/1.png", "photos", "1.png"),
        ("/{home}/photos/1.png", "photos", "1.png"),
    ],
)
def test_a_path_as_seen_from_a_folder(path: str, root: str, seen: str, home: Path) -> None:
    given = [Path(each.format(home=home)) for each in (path, root)]
    assert below(*given) == seen.format(home=home)
