"""Whatever lies in a person's folders is used or named, and folders are not taken for what they are not."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ensemble.config.schema import DataConfig
from ensemble.data import Dataset, load_dataset
from ensemble.data.picture_tree import CIRCLE, HIDDEN, NOWHERE, pictures_below
from ensemble.errors import ConfigError, DataError
from tests.amounts import examples

DRAW = np.random.default_rng(0)


def picture(path: Path, level: int = 90) -> None:
    """A small picture, whatever the ending of its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(DRAW.integers(0, level, (6, 6, 3)).astype(np.uint8)).save(path, "PNG")


def pictures(root: Path, classes: str = "abc", count: int = 4) -> Path:
    for name in classes:
        for i in range(count):
            picture(root / name / f"{i}.png")
    return root


def load(root: Path, **keys: object) -> Dataset:
    return load_dataset(DataConfig(name="image_folder", root=str(root), **{"image_size": 4, **keys}))


def said(data: Dataset) -> str:
    return "\n".join(remark.text for remark in data.account.remarks())


def used(data: Dataset) -> int:
    return len(data.train_labels_N) + len(data.test_labels_N)


def test_every_start_says_what_was_used(tmp_path):
    data = load(pictures(tmp_path / "sky", "ab", 5))
    assert "sky: 10 pictures of 2 classes: a 5, b 5" in said(data)
    assert "2 of these are held back as the test part" in said(data)
    assert not any(remark.warning for remark in data.account.remarks())
    pictures(tmp_path / "parts" / "train", "ab", 5)
    pictures(tmp_path / "parts" / "test", "b", 2)
    assert "train: 10 pictures of 2 classes: a 5, b 5\ntest: 2 pictures of 1 classes: b 2" in said(
        load(tmp_path / "parts")
    )


def test_what_is_left_out_is_counted_by_class_and_reason(tmp_path):
    root = pictures(tmp_path / "imgs")
    for i in range(3):
        picture(root / "b" / f"{i}.gif")
    picture(root / "b" / ".hidden.png")
    picture(root / "c" / ".thumbs" / "x.png")
    (root / "c" / "notes").write_text("x")
    (root / "c" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    picture(root / "loose.png")
    data = load(root)
    assert used(data) == 12
    warnings = [remark.text for remark in data.account.remarks() if remark.warning]
    assert warnings[0] == (
        "imgs: left out 8 files: 4 in b (3 .gif, 1 hidden), 3 in c (1 hidden, 1 link to nowhere, 1 without an ending), "
        "1 in no class (1 beside the class folders)"
    )
    assert data.account.to_json()["parts"]["imgs"]["left_out"]["b"] == {".gif": 3, "hidden": 1}
    for path in (root / "b").glob("[0-9].png"):
        path.unlink()
    with pytest.raises(DataError, match=r"no pictures in b, which holds 3 \.gif, 1 hidden"):
        load(root)


def test_links_are_followed_but_not_in_circles(tmp_path):
    root = pictures(tmp_path / "imgs", "ab", 4)
    pictures(tmp_path / "elsewhere", "m", 3)
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere" / "m")
    (root / "a" / "again").symlink_to(tmp_path / "elsewhere" / "m")
    (root / "a" / "self").symlink_to(root / "a")
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "loop").symlink_to("loop")
    (root / "b" / "one.png").symlink_to(root / "a" / "0.png")
    found = pictures_below(root / "a")
    assert len(found.files) == 7
    assert sorted(left.reason for left in found.left_out) == sorted([CIRCLE, CIRCLE, CIRCLE, NOWHERE])
    assert used(load(root)) == 4 + 3 + 5


def test_what_is_no_regular_file_is_not_waited_for(tmp_path):
    root = pictures(tmp_path, "ab", 4)
    os.mkfifo(root / "a" / "pipe.png")
    (root / "a" / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as place, contextlib.chdir(root / "b"):  # a socket's name has at most 107 bytes
        place.bind("socket.png")
    (root / "b" / "folder.png").mkdir()
    picture(root / "b" / "folder.png" / "x.png")
    data = load(root)
    assert used(data) == 9
    assert "1 pipe" in said(data)
    assert "1 device" in said(data)
    assert "1 socket" in said(data)


NAMES = st.sampled_from(
    ["x.png", "X.JPG", "y.gif", "z.txt", ".png", ".hidden.png", "no ending", "w.tar.gz", "é.png", "p.webp"]
)
FOLDERS = st.sampled_from(["a", "a/deep", "a/deep/er", "b", "b/.git", "b/.git/objects", "."])


@given(st.lists(st.tuples(FOLDERS, NAMES), max_size=25))
@settings(max_examples=examples(25), deadline=None)
def test_files_in_the_tree_are_used_or_counted(extra):
    root = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    try:
        pictures(root, "ab", 3)
        for folder, name in extra:
            picture(root / folder / name)
        data = load(root)
        lost = data.account.to_json()["parts"][root.name]["left_out"]
        files = sum(len(names) for _, _, names in os.walk(root))
        assert used(data) + sum(sum(reasons.values()) for reasons in lost.values()) == files
    finally:
        shutil.rmtree(root)


def test_a_damaged_picture_stops_or_is_counted(tmp_path):
    root = pictures(tmp_path, "ab", 5)
    (root / "a" / "1.png").write_bytes(b"")
    (root / "b" / "2.png").write_bytes((root / "b" / "1.png").read_bytes()[:60])
    with pytest.raises(
        DataError, match=r"2 of 10 pictures cannot be used(.|\n)*1\.png: found an empty file(.|\n)*=skip"
    ):
        load(root)
    data = load(root, on_bad_image="skip")
    assert used(data) == 8
    assert "left out 2 files: 1 in a (1 damaged), 1 in b (1 damaged)" in said(data)
    for path in (root / "b").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="b has 0"):
        load(root, on_bad_image="skip")


LAYOUTS = {  # folders with four pictures each -> the training classes and the size of the test part, or the refusal
    "a b": ("ab", None),
    "train/a train/b test/a test/b": ("ab", 8),
    "Train/a Train/b Test/a Test/b": ("ab", 8),
    "TRAIN/a TRAIN/b": ("ab", None),
    "Training/a Training/b Testing/a": ("ab", 4),
    "training_set/a training_set/b test_set/b": ("ab", 4),
    "train/a train/b val/a val/b": ("ab", None),
    "train/a train/b val/a val/b test/a": ("ab", 4),
    "train/a train/b test/a valid/a": "valid: found no folder of b; expected one of every class",
    "train/a train/b val/a val/b valid/a valid/b": "found train, val, valid; expected one folder to train on, one to choose by",
    "train/a train/b extra/a": "found the folders extra beside train",
    "train/a train/b Training/a": "found Training, train; expected one folder to train on",
    "val/a val/b test/a test/b": "found test, val, which look like parts",
    "Test/a Test/b a b": "found Test, which look like parts",
    "fold1/a fold1/b fold2/a fold2/b": "found fold1, fold2, which have no pictures of their own but the same folders a, b",
    "a/train a/test b/train b/test": "the class folder a holds test, train, which look like parts",
    "a/Train a/Val b": "the class folder a holds Train, Val",
    "set/a set/b": "found only set, which holds a, b .*set data.root to .*set",
    "set/train/a set/train/b set/test/a": "found only set, which holds test, train",
    "train/set/a train/set/b": "found only set, which holds a, b",
    "train bus car": (("bus", "car", "train"), None),
    "a/2019 a/2020 b": ("ab", None),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_public_data_sets_have(layout, tmp_path):
    for folder in layout.split():
        pictures(tmp_path / Path(folder).parent, [Path(folder).name])
    expected = LAYOUTS[layout]
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            load(tmp_path)
        return
    data = load(tmp_path)
    assert data.class_names == tuple(expected[0])
    assert expected[1] in (None, len(data.test_labels_N))


def test_names_are_compared_as_they_are_read(tmp_path):
    composed, decomposed = "K\u00e4se", "Ka\u0308se"
    pictures(tmp_path / "one" / "train", [composed, "Brot"])
    pictures(tmp_path / "one" / "test", [decomposed, "Brot"])
    data = load(tmp_path / "one")
    assert data.class_names == ("Brot", composed)
    assert np.bincount(data.test_labels_N).tolist() == [4, 4]
    pictures(tmp_path / "two", [composed, decomposed])
    with pytest.raises(DataError, match="differ only in how letters are composed"):
        load(tmp_path / "two")


def test_names_that_are_not_utf8(tmp_path):
    root = pictures(tmp_path / "imgs", "ab")
    shutil.copytree(os.fsencode(root / "a"), os.fsencode(root) + b"/K\xe4se")
    picture(Path(os.fsdecode(os.fsencode(root) + b"/b/\xff.png")))
    data = load(root)
    assert data.class_names == (r"K\xe4se", "a", "b")
    assert used(data) == 13
    (root / "b" / os.fsdecode(b"\xff.png")).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"\\xff\.png: found no picture"):
        load(root)


def test_what_may_not_be_looked_at_is_named(tmp_path, monkeypatch):
    root = pictures(tmp_path / "imgs", "ab")
    listed = os.scandir

    def refuse(folder: Path) -> object:
        if Path(folder).name in ("imgs", "deep"):
            raise PermissionError(13, "Permission denied", str(folder))
        return listed(folder)

    monkeypatch.setattr("ensemble.data.regular_files.os.scandir", refuse)
    with pytest.raises(DataError, match="imgs: cannot be listed: Permission denied"):
        load(root)
    (tmp_path / "other").mkdir()
    pictures(tmp_path / "other", "ab")
    (tmp_path / "other" / "a" / "deep").mkdir()
    with pytest.raises(DataError, match="deep: cannot be listed"):
        load(tmp_path / "other")


@pytest.mark.parametrize("root", ["~nobody_of_this_name/x", "a\0b", "x" * 5000, "loop/loop"])
def test_roots_that_cannot_be(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("loop").symlink_to("loop")
    with pytest.raises((ConfigError, DataError), match=r"data\.root"):
        load(Path(root))


def test_hidden_means_hidden(tmp_path):
    picture(tmp_path / ".x" / "y.png")
    assert [left.reason for left in pictures_below(tmp_path).left_out] == [HIDDEN]
