"""Images that are in both parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.config import parse_experiment
from ensemble.config.schema import DataConfig
from ensemble.data import images_digest, load_dataset
from ensemble.data.duplicates import same_images
from ensemble.data.mapped import place_of
from ensemble.errors import ConfigError, DataError
from ensemble.results.judging import judge
from ensemble.storage import RunFolder
from tests.test_run import experiment, run

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28), (3, 64, 48)])
def test_found_are_those_that_are_equal_and_no_others(shape):
    train = GENERATOR.integers(0, 256, (2100, *shape)).astype(np.uint8)
    test = GENERATOR.integers(0, 256, (50, *shape)).astype(np.uint8)
    test[3], test[40], test[41] = train[2050], train[7], train[7]
    test[5] = train[8]
    test[5, 0, 1, 2] ^= 1  # one bit of one pixel, wherever it is looked at
    train[9], test[9] = 255, 255  # blank pages are no sign of anything
    train[2060] = train[7]
    assert same_images(train, test) == {3: 2050, 40: 7, 41: 7}


@pytest.mark.parametrize("storage", ["memory", "mapped"])
def test_duplicates_are_told_by_their_files(storage, tmp_path, monkeypatch):
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    for part, count in (("train", 10), ("test", 4)):
        for name in "ab":
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = GENERATOR.integers(0, 256, (9, 9, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / part / name / f"{i}.png")
    photos = tmp_path / "photos"
    (photos / "test/b/2.png").write_bytes((photos / "train/b/7.png").read_bytes())
    Image.open(photos / "train/a/1.png").save(photos / "test/a/0.bmp")  # another file of the same picture
    config = DataConfig(name="image_folder", root=str(photos), image_size=8, storage=storage)
    for _ in range(2):
        told = [remark.text for remark in load_dataset(config).account.remarks() if remark.warning]
        (told,) = told
        assert told.startswith("2 of 9 test images are training images too, pixel for pixel, such as ")
        assert "test/a/0.bmp and train/a/1.png" in told
    for path in (photos / "test/b/2.png", photos / "test/a/0.bmp"):
        Path(path).unlink()
    assert not [remark for remark in load_dataset(config).account.remarks() if remark.warning]


def photos_with_duplicates(root: Path, broken: bool) -> dict[str, int]:
    """train/, val/ and test/ of two classes; two test and one validation picture are training pictures too."""
    counts = {"train": 10, "val": 4, "test": 5}
    for part, count in counts.items():
        for name in "ab":
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = GENERATOR.integers(0, 256, (9, 9, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    (root / "test/b/2.png").write_bytes((root / "train/b/7.png").read_bytes())
    (root / "test/a/0.png").write_bytes((root / "train/a/1.png").read_bytes())
    (root / "val/a/3.png").write_bytes((root / "train/b/0.png").read_bytes())
    if broken:
        for name in ("train/a/5.png", "test/b/1.png", "val/b/0.png"):
            (root / name).write_bytes(b"")
    return counts


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("storage", ["memory", "mapped"])
def test_left_out_they_are_gone_and_everything_else_stays(storage, broken, tmp_path, monkeypatch):
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    photos_with_duplicates(tmp_path / "photos", broken)
    keys = {
        "name": "image_folder",
        "root": str(tmp_path / "photos"),
        "image_size": 9,
        "storage": storage,
        "on_bad_image": "skip",
    }
    told, left_out = (load_dataset(DataConfig(**keys, duplicates=how)) for how in ("tell", "leave_out"))
    again = load_dataset(DataConfig(**keys, duplicates="leave_out"))
    kept = [row for row, name in enumerate(told.test_files) if name not in ("test/b/2.png", "test/a/0.png")]
    np.testing.assert_array_equal(left_out.test_images_NCHW, told.test_images_NCHW[kept])
    np.testing.assert_array_equal(left_out.test_labels_N, told.test_labels_N[kept])
    assert left_out.test_files == tuple(told.test_files[row] for row in kept)
    rows = [row for row, name in enumerate(told.train_files) if name != "val/a/3.png"]
    np.testing.assert_array_equal(left_out.train_images_NCHW, told.train_images_NCHW[rows])
    np.testing.assert_array_equal(left_out.train_labels_N, told.train_labels_N[rows])
    assert left_out.train_files == tuple(told.train_files[row] for row in rows)
    assert [left_out.train_files[row].split("/")[0] for row in left_out.validation_rows] == ["val"] * len(
        left_out.validation_rows
    )
    assert len(left_out.validation_rows) == len(told.validation_rows) - 1
    for found in (left_out, again):
        assert found.account.duplicates == {"test": 2, "validation": 1}
        assert found.account.to_json()["duplicates"] == {"test": 2, "validation": 1}
    assert images_digest(left_out) == images_digest(again)
    assert not told.account.duplicates
    assert "duplicates" not in told.account.to_json()
    said = [remark for remark in left_out.account.remarks() if "pixel for pixel" in remark.text]
    assert [remark.warning for remark in said] == [False, False]
    assert said[0].text.endswith("they are left out")
    assert (place_of(left_out.test_images_NCHW) is not None) == (storage == "mapped")


def test_a_test_part_that_is_held_back_stays_the_same_but_for_them(tmp_path, monkeypatch):
    """Leaving an image out does not make another one a test image in its place."""
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(20):
            seed = i // 2 if i < 12 else i  # some pictures stand twice
            pixels = np.random.default_rng(seed).integers(0, 256, (9, 9, 3)).astype(np.uint8)
            pixels[0, 0] = ord(name)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    keys = {"name": "image_folder", "root": str(tmp_path / "photos"), "image_size": 9}
    told, left_out = (load_dataset(DataConfig(**keys, duplicates=how)) for how in ("tell", "leave_out"))
    assert left_out.train_files == told.train_files
    assert set(left_out.test_files) < set(told.test_files)
    assert left_out.account.duplicates["test"] == len(told.test_files) - len(left_out.test_files) > 0
    assert not same_images(left_out.train_images_NCHW, left_out.test_images_NCHW)


def arrays_with_duplicates() -> dict[str, np.ndarray]:
    images = GENERATOR.integers(0, 256, (60, 8, 8)).astype(np.uint8)
    images[50], images[55], images[41] = images[3], images[4], images[5]
    labels = np.arange(60) % 2
    return {
        "train_images": images[:40], "train_labels": labels[:40], "val_images": images[40:48], "val_labels": labels[40:48],
        "test_images": images[48:], "test_labels": labels[48:],
    }  # fmt: skip


def test_arrays_are_looked_through_as_well(tmp_path):
    arrays = arrays_with_duplicates()
    np.savez(tmp_path / "x.npz", **arrays)
    told, left_out = (
        load_dataset(DataConfig(name="arrays", path=str(tmp_path / "x.npz"), duplicates=how))
        for how in (None, "leave_out")
    )
    warnings = [remark.text for remark in told.account.remarks() if remark.warning]
    assert warnings[0].startswith(
        "2 of 12 test images are training images too, pixel for pixel, such as test row 2 and training row 3"
    )
    assert "data.duplicates=leave_out" in warnings[0]
    assert warnings[1].startswith("1 of 8 validation images are training images too")
    np.testing.assert_array_equal(left_out.test_images_NCHW[:, 0], np.delete(arrays["test_images"], [2, 7], 0))
    assert (len(left_out.train_labels_N), left_out.validation_rows.tolist()) == (47, list(range(40, 47)))
    np.testing.assert_array_equal(left_out.train_images_NCHW[40:, 0], np.delete(arrays["val_images"], 1, 0))
    assert left_out.account.duplicates == {"test": 2, "validation": 1}
    arrays["test_images"], arrays["test_labels"] = arrays["train_images"][:4], arrays["train_labels"][:4]
    np.savez(tmp_path / "all.npz", **arrays)
    with pytest.raises(DataError, match="all 4 test images are training images too"):
        load_dataset(DataConfig(name="arrays", path=str(tmp_path / "all.npz"), duplicates="leave_out"))


def test_published_sets_have_no_such_key():
    with pytest.raises(ConfigError, match="duplicates has no effect with data set digits"):
        parse_experiment(
            {
                "name": "x", "num_members": 1, "method": {"name": "bagging"}, "model": {"name": "cnn"},
                "data": {"name": "digits", "duplicates": "leave_out"},
            }
        )  # fmt: skip


def test_a_run_says_how_many_were_left_out(tmp_path):
    np.savez(tmp_path / "x.npz", **arrays_with_duplicates())
    data = {"name": "arrays", "path": str(tmp_path / "x.npz"), "duplicates": "leave_out"}
    outcome = run(experiment(tmp_path, data=data, num_members=2, model={"name": "mlp", "widths": (4,)}))
    assert outcome.evaluation.test_rows == 10
    assert outcome.evaluation.warnings[-2:] == (
        "2 test images left out, because training has the same, pixel for pixel (data.duplicates)",
        "1 validation image left out, because training has the same, pixel for pixel (data.duplicates)",
    )
    assert judge(RunFolder.read(outcome.path)).to_json() == outcome.evaluation.to_json()
