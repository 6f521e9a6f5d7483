"""Every file that a person gives, mutated: read, or refused by name; never an error of another kind."""

from __future__ import annotations

import gzip
import io
import os
import re
import warnings
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.data.files import FaultyFiles
from ensemble.data.idx import IMAGES, _content, _parse
from ensemble.data.pictures import FORMATS, open_picture, quiet_decoding
from ensemble.errors import ConfigError, DataError
from ensemble.results.comparison import _file, _labels_file
from tests.amounts import examples
from tests.contracts.drawn_pictures import files_of, saved

DRAW = np.random.default_rng(1)


def refusal(door: Callable[[], object], read: str) -> str:
    """What the door says when it refuses; `read` where it does not. Errors of any other kind pass."""
    try:
        door()
    except (DataError, FaultyFiles) as error:
        return str(error)
    return read


GREY = DRAW.integers(0, 256, (16, 12)).astype(np.uint8)
JPEG = saved(Image.fromarray(GREY), "JPEG")
PICTURES = {
    **files_of(GREY),
    "photo.jpg": JPEG,
    "progressive.jpg": saved(Image.fromarray(GREY), "JPEG", progressive=True),
}


def npz(**arrays: object) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npy(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@st.composite
def mutated(draw: st.DrawFn, contents: list[bytes]) -> bytes:
    """One of the files with bytes changed, cut, doubled or put in."""
    content = bytearray(draw(st.sampled_from(contents)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(len(content) - 1, 0)))
        match draw(st.sampled_from(["byte", "cut", "insert", "repeat", "header"])):
            case "byte" if content:
                content[place] = draw(st.integers(0, 255))
            case "cut":
                del content[place:]
            case "insert":
                content[place:place] = draw(st.binary(max_size=8))
            case "repeat":
                content[place:place] = content[place : place + 20]
            case _ if content:
                content[place % min(len(content), 64)] = draw(st.integers(0, 255))
    return bytes(content)


@given(mutated(list(PICTURES.values())))
@settings(max_examples=examples(400), deadline=None)
def test_pictures(content):
    with quiet_decoding():
        assert "holiday.png" in refusal(lambda: open_picture(content, "holiday.png"), "holiday.png")


X = DRAW.integers(0, 256, (12, 4, 4)).astype(np.uint8)
ARRAYS = [npz(train_images=X, train_labels=np.arange(12) % 2), npz(train_images=X / 255, train_labels=["a", "b"] * 6)]
PROBS = np.full((10, 2), 0.5)
FILES = {
    ".npz": [npz(test_probs=PROBS, test_labels=np.arange(10) % 2), *ARRAYS],
    ".npy": [npy(PROBS), npy(np.full((2, 10, 2), 0.5, np.float32))],
    ".csv": [b"p0,p1,label\n0.5,0.5,1\n0.25,0.75,0\n", b"p0,p1\n", b"\xef\xbb\xbfp1,p0\r\n1,0\r\n", b""],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged")


@given(content=mutated(ARRAYS))
@settings(max_examples=examples(150), deadline=None)
def test_arrays(place, content):
    (place / "mine.npz").write_bytes(content)
    config = DataConfig(name="arrays", path=str(place / "mine.npz"))
    assert re.search("mine.npz|too few images of a class", refusal(lambda: load_dataset(config), "mine.npz"))


@pytest.mark.parametrize("suffix", FILES)
def test_probabilities(place, suffix):
    @given(mutated(FILES[suffix]))
    @settings(max_examples=examples(120), deadline=None)
    def check(content):
        path = place / f"theirs{suffix}"
        path.write_bytes(content)
        for door in (_file, _labels_file):
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                assert "theirs" in refusal(lambda door=door: door(path), "theirs")

    check()


@given(content=mutated([b"\0\0\x08\x03" + np.array([2, 3, 3], ">u4").tobytes() + bytes(18)]), packed=st.booleans())
@settings(max_examples=examples(150), deadline=None)
def test_idx(place, content, packed):
    for name in ("train", "train.gz"):
        (place / name).unlink(missing_ok=True)
    (place / ("train.gz" if packed else "train")).write_bytes(
        gzip.compress(content)[: len(content)] if packed else content
    )
    assert "train" in refusal(lambda: _parse(*_content(place / "train"), IMAGES), "train")


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "link in a circle", "nothing", "zero byte"])
def test_what_is_no_file_is_refused_at_once(kind, tmp_path):
    """Through every door that reads a file of a person."""
    path = tmp_path / "x.npz"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "device":
            path.symlink_to("/dev/zero")
        case "link in a circle":
            path.symlink_to(path)
        case "zero byte":
            path = tmp_path / "x\0.npz"
    doors = {
        "arrays": lambda: load_dataset(DataConfig(name="arrays", path=str(path))), "compare": lambda: _file(path),
        "labels": lambda: _labels_file(path), "predict": lambda: open_picture(path),
    }  # fmt: skip
    for door in doors.values():
        with pytest.raises((ConfigError, DataError), match=r"x.*\.npz"):
            door()
    with pytest.raises(FaultyFiles, match="x"):
        _content(path.with_name("x"))


def test_a_file_that_promises_too_much_memory(tmp_path):
    """The header of an array of 2**60 numbers, with nothing behind it."""
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1152921504606846976,), }"
    content = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npy: cannot be read"):
        _file(tmp_path / "x.npy")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run showpage\n%%EOF\n"


def test_no_picture_starts_a_program(tmp_path, monkeypatch):
    """PostScript under a picture's name, for which Pillow would call Ghostscript."""
    from PIL import EpsImagePlugin

    def started(*_a: object, **_k: object) -> None:
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    for suffix in FORMATS:
        path = tmp_path / f"x{suffix}"
        path.write_bytes(EPS)
        for source in (path, EPS):
            with pytest.raises(DataError, match="found no picture of a format that is read here"):
                open_picture(source)


@pytest.mark.parametrize("sides", [(20_000, 20_000), (1, 400_000_000 // 8)])
def test_a_picture_of_too_many_pixels_is_to_be_made_smaller(sides, tmp_path, monkeypatch):
    """Saving it again, the remedy for damaged ones, would not help."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000_000)
    Image.new("1", sides).save(tmp_path / "large.png")
    with pytest.raises(DataError, match=r"large\.png: found more than 40,000,000 pixels.*make it smaller"):
        open_picture(tmp_path / "large.png")
