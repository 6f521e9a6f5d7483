"""Images that are in both parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.data.duplicates import same_images

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
