"""Array files that are read once, in blocks, and mapped: the images, words and errors of the same file in memory."""

from __future__ import annotations

import math
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.config.schema import DataConfig
from ensemble.data import Dataset, images_digest, load_dataset
from ensemble.data.arriving import absent, present
from ensemble.data.mapped import Absent, place_of
from ensemble.data.prepared import kept, remove
from ensemble.data.stored_arrays import StoredArrays
from ensemble.errors import DataError
from tests.amounts import examples
from tests.data.no_room import read_without_room

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 3, 6, 5)).astype(np.uint8)
LABELS = np.arange(60) % 4


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Blocks of two images, so that every array is many of them."""
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ensemble.data.prepared_arrays.BLOCK_VALUES", 2 * 3 * 6 * 5)
    return tmp_path / "cache"


def config(path: Path, storage: str | None, **keys: Any) -> DataConfig:
    return DataConfig(name="arrays", path=str(path), storage=storage, **keys)


def assert_same(mapped: Dataset, memory: Dataset) -> None:
    for part in ("train", "test"):
        mine, theirs = (getattr(data, f"{part}_images_NCHW") for data in (mapped, memory))
        np.testing.assert_array_equal(mine, theirs)
        assert mine.dtype == theirs.dtype == np.uint8
        np.testing.assert_array_equal(getattr(mapped, f"{part}_labels_N"), getattr(memory, f"{part}_labels_N"))
        assert (place_of(mine) is None, place_of(theirs)) == (False, None)
        assert not mine.flags.writeable
    assert mapped.account == memory.account
    assert mapped.pixels == memory.pixels
    assert mapped.class_names == memory.class_names
    assert mapped.name == memory.name
    assert (mapped.validation_rows is None) == (memory.validation_rows is None)
    if mapped.validation_rows is not None:
        np.testing.assert_array_equal(mapped.validation_rows, memory.validation_rows)
    assert images_digest(mapped) == images_digest(memory)


def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no pixel of an array file is."""

    def blocks(_stored: StoredArrays, name: str, rows: int) -> object:
        raise AssertionError(f"{name} was read again, {rows} rows at a time")

    monkeypatch.setattr(StoredArrays, "blocks", blocks)


FORMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bytes": (IMAGES, {}),
    "bytes, channels last": (IMAGES.transpose(0, 2, 3, 1), {"layout": "channels_last"}),
    "grey": (IMAGES[:, 0], {}),
    "by columns": (np.asfortranarray(IMAGES), {}),
    "bool": (IMAGES > 127, {}),
    "float16": ((IMAGES / 255).astype(np.float16), {}),
    "float64": (IMAGES / 255, {}),
    "12 bits": (IMAGES.astype(np.uint16) * 16, {}),
    "12 bits, other byte order": (IMAGES.astype(">u2") * 16, {}),
    "int64 of bytes": (IMAGES.astype(np.int64), {"ground": "black"}),
    "floats of a range": (IMAGES * 2.0 - 100, {"value_range": (-50.0, 300.0)}),
    "whole numbers of a range": (IMAGES.astype(np.int16) - 100, {"value_range": (-100.0, 100.0)}),
    "bytes of a range": (IMAGES, {"value_range": (20.0, 200.0)}),
    "few levels": (IMAGES // 16 + 100, {}),
}
PARTS: dict[str, dict[str, slice]] = {
    "test given": {"train": slice(0, 48), "test": slice(48, 60)},
    "test held back": {"train": slice(0, 60)},
    "validation and test given": {"train": slice(0, 40), "val": slice(40, 50), "test": slice(50, 60)},
    "validation given": {"train": slice(0, 45), "val": slice(45, 60)},
}


def written(path: Path, images: Any, parts: str, compressed: bool = False) -> Path:
    arrays = {}
    for part, rows in PARTS[parts].items():
        own = images[rows]
        arrays[f"{part}_images"] = np.asfortranarray(own) if np.isfortran(images) else own
        arrays[f"{part}_labels"] = LABELS[rows]
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("parts", list(PARTS))
def test_mapped_is_memory_when_read_and_when_found_again(form, parts, tmp_path, monkeypatch):
    images, keys = FORMS[form]
    path = written(tmp_path / "mine.npz", images, parts, compressed=len(parts) % 2 == 0)
    memory = load_dataset(config(path, "memory", **keys))
    assert_same(load_dataset(config(path, "mapped", **keys)), memory)
    nothing_is_read(monkeypatch)
    assert_same(load_dataset(config(path, "mapped", **keys)), memory)
    (found,) = kept()
    rows = len(memory.train_labels_N) + len(memory.test_labels_N)
    assert (found.complete, found.root, found.shape) == (True, str(path), (rows, *memory.image_shape))
    assert found.bytes_used < rows * math.prod(memory.image_shape) + 20_000  # no second copy is left


def test_labels_and_scales_of_parts_may_differ(tmp_path):
    """What parts have of their own: small numbers beside wide ones, texts, labels as columns, names of classes."""
    for number, (train, test) in enumerate(
        [(IMAGES.astype(np.int32) * 16, IMAGES), (IMAGES / 255, IMAGES.astype(np.uint16) * 200), (IMAGES, IMAGES > 99)]
    ):
        for labels, more in (
            (LABELS[:, None].astype(np.uint8), {}),
            (np.array(["ant", "bee", "cat", "dog"])[LABELS], {}),
            (LABELS, {"class_names": np.array(["a", "b", "c", "d"])}),
        ):
            path = tmp_path / f"{number}.npz"
            np.savez(path, train_images=train, train_labels=labels, test_images=test, test_labels=labels, **more)
            assert_same(load_dataset(config(path, "mapped")), load_dataset(config(path, "memory")))


@pytest.mark.parametrize("how", ["tell", "leave_out"])
@pytest.mark.parametrize("parts", ["test given", "validation and test given", "test held back"])
def test_images_that_parts_share(how, parts, tmp_path, monkeypatch):
    images = IMAGES.copy()
    images[[41, 47, 52, 58]] = images[[1, 2, 3, 4]]
    if parts == "test held back":
        images[:] = images[np.arange(60) // 2]
    path = written(tmp_path / "mine.npz", images, parts)
    memory = load_dataset(config(path, "memory", duplicates=how))
    assert any("pixel for pixel" in remark.text for remark in memory.account.remarks())
    assert bool(memory.account.duplicates) == (how == "leave_out")
    assert_same(load_dataset(config(path, "mapped", duplicates=how)), memory)
    nothing_is_read(monkeypatch)
    assert_same(load_dataset(config(path, "mapped", duplicates=how)), memory)
    (found,) = kept()
    assert found.shape[0] == len(memory.train_labels_N) + len(memory.test_labels_N)


def outcome(path: Path, storage: str, **keys: Any) -> Dataset | str:
    try:
        return load_dataset(config(path, storage, **keys))
    except DataError as error:
        return str(error)


WRONG: dict[str, dict[str, Any]] = {
    "floats beyond 1 in the last block": {"train_images": np.concatenate([IMAGES / 255, IMAGES[-1:] / 100])},
    "a NaN in the middle": {"train_images": np.where(np.arange(60)[:, None, None, None] == 31, np.nan, IMAGES / 255)},
    "negative numbers": {"train_images": IMAGES.astype(np.int16) - 1},
    "a test part on another scale": {"train_images": IMAGES, "test_images": IMAGES.astype(np.int32) * 16},
    "a validation part of floats": {"train_images": IMAGES, "val_images": IMAGES * 16.0},
    "an endless range": {"train_images": np.where(IMAGES > 250, np.inf, IMAGES), "value_range": (0.0, 9.0)},
    "complex numbers": {"train_images": IMAGES * 1j},
    "texts": {"train_images": IMAGES.astype("U3")},
    "rows of features": {"train_images": IMAGES.reshape(60, -1)},
    "no images": {"train_images": IMAGES[:0]},
    "objects": {"train_images": IMAGES.astype(object)},
    "labels of objects": {"train_images": IMAGES, "train_labels": LABELS.astype(object)},
    "fewer labels": {"train_images": IMAGES, "train_labels": LABELS[:9]},
    "labels that are no classes": {"train_images": IMAGES, "class_names": np.array(["a", "b", "c"])},
    "sizes that differ": {"train_images": IMAGES, "test_images": IMAGES[:, :, 1:]},
    "an array that nobody reads": {"train_images": IMAGES, "trian_images": IMAGES},
    "all test images are training images": {"train_images": IMAGES, "test_images": IMAGES, "duplicates": "leave_out"},
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_what_is_refused_is_refused_in_the_same_words(wrong, tmp_path):
    given = dict(WRONG[wrong])
    keys = {key: given.pop(key) for key in ("value_range", "duplicates") if key in given}
    arrays = {**{f"{name.partition('_')[0]}_labels": np.arange(len(a)) % 4 for name, a in given.items()}, **given}
    arrays.pop("class_labels", None)
    arrays.pop("trian_labels", None)
    np.savez(tmp_path / "mine.npz", **arrays)
    said = outcome(tmp_path / "mine.npz", "mapped", **keys)
    assert isinstance(said, str)
    assert "mine.npz" in said
    assert said == outcome(tmp_path / "mine.npz", "memory", **keys)
    assert kept() == []  # nothing half there takes room


NUMBERS = st.sampled_from(["bool", "int8", "uint8", "uint16", ">i4", "uint64", "float16", "float32", "<f8"])


@given(
    st.integers(0, 2**32 - 1), NUMBERS, NUMBERS, st.sampled_from([1, 200, 4000, 1e6]), st.sampled_from([0, -3]),
    st.sampled_from(list(PARTS)), st.sampled_from([(5, 4), (3, 5, 4), (5, 4, 3), (1, 5, 4)]), st.booleans(),
    st.sampled_from([None, (0.0, 100.0), (-5.0, 1e5)]),
)  # fmt: skip
@settings(max_examples=examples(120), deadline=None)
def test_any_numbers_become_the_same_bytes_or_are_refused_alike(
    seed, train, other, top, low, parts, shape, compressed, value_range
):
    random = np.random.default_rng(seed)
    arrays = {}
    for part, rows in PARTS[parts].items():
        dtype = np.dtype(train if part == "train" else other)
        values = random.uniform(low, top, (rows.stop - rows.start, *shape))
        if dtype.kind != "b":
            limits = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
            values = values.clip(limits.min, limits.max)
        arrays |= {f"{part}_images": values.astype(dtype), f"{part}_labels": LABELS[rows]}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as place:
        path = Path(place) / "mine.npz"
        (np.savez_compressed if compressed else np.savez)(path, **arrays)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ENSEMBLE_CACHE", place)
            patch.setattr("ensemble.data.prepared_arrays.BLOCK_VALUES", 250)
            found, expected = (outcome(path, storage, value_range=value_range) for storage in ("mapped", "memory"))
            if isinstance(expected, str):
                assert found == expected
            else:
                assert isinstance(found, Dataset)
                assert_same(found, expected)


def damaged(path: Path, how: str) -> None:
    """An array file with damage in its largest array, behind the header."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.compress_size)
    middle = largest.header_offset + largest.compress_size // 2
    if how == "a flipped bit":
        content[middle] ^= 4
    elif how == "zeros":
        content[middle : middle + 200] = bytes(200)
    elif how == "cut short":
        del content[middle:]
    elif how == "the end is missing":
        del content[-30:]
    elif how == "other sizes in the table":
        at = content.index(b"PK\x01\x02")
        content[at + 20 : at + 28] = b"\xff\xff\xff\x7f" * 2
    path.write_bytes(content)


@pytest.mark.parametrize(("how", "compressed"), [
    *((how, compressed) for how in ("a flipped bit", "zeros", "cut short", "the end is missing") for compressed in (False, True)),
    ("other sizes in the table", False),  # what is compressed says itself where it ends
])  # fmt: skip
def test_a_damaged_file_is_named_and_leaves_nothing_behind(how, compressed, tmp_path):
    path = written(tmp_path / "mine.npz", IMAGES, "test held back", compressed)
    damaged(path, how)
    for _ in range(2):
        with pytest.raises(DataError, match=r"mine\.npz: cannot be read as \.npz of plain arrays.*numpy\.savez"):
            load_dataset(config(path, "mapped"))
        assert kept() == []
    written(path, IMAGES, "test held back", compressed)
    assert_same(load_dataset(config(path, "mapped")), load_dataset(config(path, "memory")))


def test_a_header_that_promises_more_than_there_is(tmp_path):
    """Said before a disk is asked for room for it."""
    path = tmp_path / "mine.npz"
    np.savez(path, train_images=IMAGES, train_labels=LABELS)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    for shape in (b"(60, 3, 6, 55)", b"(60, 3, -6, 5)", b"(60000, 3000, 600, 5)"):
        plain = members["train_images.npy"]
        header = plain[:128].replace(b"(60, 3, 6, 5), }" + b" " * (len(shape) - 13), shape[:-1] + b"), }")
        assert len(header) == 128
        assert shape in header
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, header + content[128:] if name == "train_images.npy" else content)
        with pytest.raises(DataError, match=r"mine\.npz: cannot be read as \.npz"):
            load_dataset(config(path, "mapped"))
        with pytest.raises(DataError, match=r"mine\.npz: cannot be read as \.npz"):
            load_dataset(config(path, "memory"))


def test_an_encrypted_array_is_named(tmp_path):
    path = written(tmp_path / "mine.npz", IMAGES, "test given")
    content = bytearray(path.read_bytes())
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + at] |= 1
    path.write_bytes(content)
    for storage in ("mapped", "memory"):
        with pytest.raises(DataError, match=r"mine\.npz: cannot be read.*encrypted"):
            load_dataset(config(path, storage))


@pytest.mark.parametrize("change", ["content", "replaced", "layout", "value_range", "test_fraction"])
def test_another_file_or_way_of_reading_is_read_anew(change, tmp_path):
    path = written(tmp_path / "mine.npz", IMAGES[:, :, :3, :3], "test held back")
    first = load_dataset(config(path, "mapped", layout="channels_first"))
    keys: dict[str, Any] = {"layout": "channels_first"}
    if change == "content":
        time.sleep(0.02)  # the clock of a file system is coarse
        written(path, IMAGES[::-1, :, :3, :3], "test held back")
    elif change == "replaced":  # of the same size and time
        facts = path.stat()
        written(tmp_path / "new.npz", IMAGES[::-1, :, :3, :3], "test held back")
        (tmp_path / "new.npz").replace(path)
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    else:
        keys |= {"layout": "channels_last"} if change == "layout" else {}
        keys |= {"value_range": (0.0, 100.0)} if change == "value_range" else {}
        keys |= {"test_fraction": 0.4} if change == "test_fraction" else {}
    second = load_dataset(config(path, "mapped", **keys))
    assert images_digest(second) != images_digest(first)
    assert_same(second, load_dataset(config(path, "memory", **keys)))
    assert len(kept()) == 2


def test_a_file_is_one_set_however_it_is_named(tmp_path, monkeypatch):
    path = written(tmp_path / "mine.npz", IMAGES, "test given")
    monkeypatch.chdir(tmp_path)
    for name in ("mine.npz", "./mine.npz", str(path)):
        load_dataset(config(Path(name), "mapped"))
    assert len(kept()) == 1


@pytest.mark.parametrize("damage", ["cut", "gone", "overwritten", "index"])
def test_a_damaged_folder_is_made_anew(damage, tmp_path, cache):
    path = written(tmp_path / "mine.npz", IMAGES, "test given")
    load_dataset(config(path, "mapped"))
    (folder,) = (cache / "pictures").iterdir()
    if damage == "cut":
        os.truncate(folder / "train.u8", 100)
    elif damage == "overwritten":
        (folder / "train.u8").write_bytes(bytes((folder / "train.u8").stat().st_size))
    elif damage == "gone":
        (folder / "test.u8").unlink()
    else:
        (folder / "index.json").write_text('{"parts": {"train"')
    assert_same(load_dataset(config(path, "mapped")), load_dataset(config(path, "memory")))


SLOWLY = """
import sys, time
import ensemble.data.prepared as prepared
import ensemble.data.prepared_arrays as preparing
from ensemble.config.schema import DataConfig
from ensemble.data import images_digest, load_dataset
preparing.BLOCK_VALUES, prepared.NOTE_EVERY_S = 2 * 3 * 6 * 5, 0.0
plain, log = preparing.scaled, open(sys.argv[2], "a", buffering=1)
def scaled(values, rule):
    log.write(f"{len(values)}\\n")
    time.sleep(0.05)
    return plain(values, rule)
preparing.scaled = scaled
written = preparing._Sequel.add
def add(sequel, pixels):
    before = len(sequel._room.facts)
    written(sequel, pixels)
    log.write(f"wrote {len(sequel._room.facts) - before}\\n")
preparing._Sequel.add = add
print(images_digest(load_dataset(DataConfig(name="arrays", path=sys.argv[1], storage="mapped"))))
"""


def slowly(path: Path, log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SLOWLY, str(path), str(log)], stdout=subprocess.PIPE, text=True)


def rows_written(log: Path) -> int:
    return sum(int(line.split()[1]) for line in log.read_text().splitlines() if line.startswith("wrote"))


@pytest.mark.parametrize("parts", ["test held back", "validation and test given"])
def test_a_killed_preparation_goes_on_where_it_was(parts, tmp_path, cache):
    path, log = written(tmp_path / "mine.npz", IMAGES.astype(np.uint16) * 16, parts, compressed=True), tmp_path / "log"
    process = slowly(path, log)
    while not log.exists() or rows_written(log) < 30:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    noted = sum(len(notes.read_text().splitlines()) for notes in cache.glob("pictures/*/*.notes"))
    assert 5 <= noted < 60
    assert [each.complete for each in kept()] == [False]
    log.unlink()
    again = slowly(path, log)
    digest = again.communicate(timeout=60)[0].strip()
    assert again.returncode == 0
    assert rows_written(log) == 60 - noted
    assert digest == images_digest(load_dataset(config(path, "memory")))
    assert_same(load_dataset(config(path, "mapped")), load_dataset(config(path, "memory")))


def test_of_several_processes_one_reads_and_all_have_it(tmp_path):
    path, log = written(tmp_path / "mine.npz", IMAGES, "test held back"), tmp_path / "log"
    processes = [slowly(path, log) for _ in range(3)]
    digests = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert digests == {images_digest(load_dataset(config(path, "memory")))}
    assert rows_written(log) == 60


def test_a_second_process_reads_itself_where_the_first_found_damage(tmp_path):
    path, log = written(tmp_path / "mine.npz", IMAGES, "test held back"), tmp_path / "log"
    damaged(path, "a flipped bit")
    processes = [slowly(path, log) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in processes] == ["", ""]
    assert all(process.returncode for process in processes)
    assert kept() == []


def test_a_pickle_is_a_place_and_another_machine_reads_the_file_itself(tmp_path, monkeypatch):
    written(tmp_path / "mine.npz", IMAGES, "test given")
    monkeypatch.chdir(tmp_path)
    data = load_dataset(config(Path("mine.npz"), "mapped"))
    content = pickle.dumps({"train_images": data.train_images_NCHW, "other": np.arange(3)}, protocol=5)
    assert len(content) < 2_000 < data.train_images_NCHW.nbytes
    assert place_of(pickle.loads(content)["train_images"]) == place_of(data.train_images_NCHW)
    remove(kept()[0].key)
    monkeypatch.chdir("/")
    arrived = pickle.loads(content)
    assert isinstance(arrived["train_images"], Absent)
    assert absent(arrived)
    found = present(arrived)
    np.testing.assert_array_equal(found["train_images"], IMAGES[:48])
    assert len(kept()) == 1


@pytest.mark.parametrize("fault", ["gone", "others"])
def test_another_machine_without_this_file_says_so(fault, tmp_path):
    path = written(tmp_path / "mine.npz", IMAGES, "test given")
    content = pickle.dumps(load_dataset(config(path, "mapped")).train_images_NCHW)
    remove(kept()[0].key)
    if fault == "gone":
        path.rename(tmp_path / "moved.npz")
    else:
        written(path, IMAGES[::-1], "test given")
    expected = "cannot read them from .*mine.npz" if fault == "gone" else "holds other pictures"
    with pytest.raises(DataError, match=f"{expected}.*data.storage=memory"):
        present({"train_images": pickle.loads(content)})


@pytest.mark.parametrize("storage", ["mapped", "auto"])
def test_no_room_in_the_cache(storage, tmp_path, cache, monkeypatch):
    monkeypatch.setattr("ensemble.data.decoding.MAPPED_FROM", 1)
    path = written(tmp_path / "mine.npz", IMAGES, "test given")
    answer = read_without_room(config(path, storage), 3_000)
    if storage == "auto":
        assert answer == "read None True"
    else:
        assert "images cannot be kept: " in answer
        assert "File too large" in answer
        assert "set ENSEMBLE_CACHE" in answer
    assert not list(cache.glob("pictures/*/*.u8"))


def test_auto_maps_from_a_size_on(tmp_path, monkeypatch):
    """The size of the images as bytes, whatever the file's type."""
    for images in (IMAGES, IMAGES / 255):
        path = written(tmp_path / "mine.npz", images, "validation and test given")
        for limit, is_mapped in ((IMAGES.size + 1, False), (IMAGES.size, True)):
            monkeypatch.setattr("ensemble.data.decoding.MAPPED_FROM", limit)
            for storage in ("auto", None):
                found = load_dataset(config(path, storage)).train_images_NCHW
                assert (place_of(found) is not None) == is_mapped


def test_memory_that_is_not_there_is_said_before_anything_is_read(tmp_path, monkeypatch):
    path = written(tmp_path / "mine.npz", IMAGES, "test given")
    columns = written(tmp_path / "columns.npz", np.asfortranarray(IMAGES), "test given")
    monkeypatch.setattr("ensemble.data.prepared_arrays.available_memory", lambda: 5_000)
    monkeypatch.setattr("ensemble.data.stored_arrays.available_memory", lambda: 3_000)
    with pytest.raises(DataError, match=r"mine\.npz: its arrays need .* GiB of memory.*storage=mapped"):
        load_dataset(config(path, "memory"))
    assert place_of(load_dataset(config(path, "mapped")).train_images_NCHW) is not None
    with pytest.raises(DataError, match=r"columns\.npz: train_images is stored by columns.*ascontiguousarray"):
        load_dataset(config(columns, "mapped"))


IN_A_LITTLE = """
import resource, sys
from ensemble.config.schema import DataConfig
from ensemble.data import images_digest, load_dataset
from ensemble.data.mapped import place_of
load_dataset(DataConfig(name="digits"))
used = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmData")) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + (160 << 20),) * 2)
data = load_dataset(DataConfig(name="arrays", path=sys.argv[1], storage=sys.argv[2]))
print(images_digest(data), place_of(data.train_images_NCHW) is not None)
"""


@pytest.mark.parametrize("compressed", [False, True], ids=["stored", "compressed"])
def test_a_file_larger_than_the_memory_that_may_be_had(compressed, tmp_path):
    """Under a limit of private memory, which maps of files do not count towards."""
    rows, path = 8_000, tmp_path / "large.npz"
    random = np.random.default_rng(0)
    images = random.integers(0, 4000, (rows, 3, 64, 64), dtype=np.uint16)  # 197 MB, and 98 MB as bytes
    arrays = {"train_images": images, "train_labels": np.arange(rows) % 4}
    if compressed:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array)
    else:
        np.savez(path, **arrays)
    expected = images_digest(load_dataset(config(path, "memory")))

    def tried(storage: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", IN_A_LITTLE, str(path), storage]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    assert tried("mapped").stdout.split() == [expected, "True"]
    refused = tried("memory")
    assert refused.returncode != 0
    assert "Unable to allocate" in refused.stderr or "MemoryError" in refused.stderr


def test_how_the_checks_above_would_fail(tmp_path):
    """`assert_same` is no formality: other pixels, labels and words are found."""
    path = written(tmp_path / "mine.npz", IMAGES, "test given")
    memory = load_dataset(config(path, "memory"))
    changes: list[Callable[[], Dataset]] = [
        lambda: memory,
        lambda: load_dataset(config(written(tmp_path / "mine.npz", IMAGES ^ 1, "test given"), "mapped")),
        lambda: load_dataset(config(written(tmp_path / "mine.npz", IMAGES, "test held back"), "mapped")),
    ]
    for change in changes:
        with pytest.raises(AssertionError):
            assert_same(change(), memory)
