"""Pictures decoded once and mapped: the same bits as in memory, once per machine, whatever a kill left behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ensemble.data.listing as listing
from ensemble.config.schema import DataConfig
from ensemble.data import Dataset, images_digest, load_dataset, normalization, split_rows
from ensemble.data.arriving import absent, present
from ensemble.data.mapped import Absent, place_of, will_need
from ensemble.data.prepared import kept, remove
from ensemble.errors import DataError
from tests.data.no_room import read_without_room

SIDE = 16


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(root: Path, classes: str = "abc", count: int = 12, seed: int = 0) -> None:
    generator = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            Image.fromarray(generator.integers(0, 256, (20, 24, 3), np.uint8)).save(root / name / f"{i:02d}.png")


def config(root: Path, storage: str, **keys: object) -> DataConfig:
    return DataConfig(name="image_folder", root=str(root), storage=storage, **{"image_size": SIDE, **keys})


def nothing_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on a picture that can be read is not; those that cannot are tried again."""
    plain = listing.decode

    def decode(source: Path, name: str = "") -> object:
        plain(source, name)
        raise AssertionError(f"{source} was decoded again")

    monkeypatch.setattr(listing, "decode", decode)


def assert_same(mapped: Dataset, memory: Dataset) -> None:
    for part in ("train", "test"):
        mine, theirs = (getattr(data, f"{part}_images_NCHW") for data in (mapped, memory))
        np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(getattr(mapped, f"{part}_labels_N"), getattr(memory, f"{part}_labels_N"))
        assert getattr(mapped, f"{part}_files") == getattr(memory, f"{part}_files")
        assert (place_of(mine) is None, place_of(theirs)) == (False, None)
        assert not mine.flags.writeable
    assert mapped.account == memory.account
    assert mapped.pixels == memory.pixels
    assert images_digest(mapped) == images_digest(memory)


def given_parts(root: Path) -> dict[str, object]:
    write(root / "train")
    write(root / "test", count=4, seed=1)
    return {}


def divided(root: Path) -> dict[str, object]:
    write(root)
    return {"test_fraction": 0.3, "channels": 1}


def damaged_and_divided(root: Path) -> dict[str, object]:
    write(root, count=20)
    for name in ("a/03.png", "b/11.png", "c/00.png", "c/01.png", "c/02.png", "c/03.png", "c/04.png"):
        (root / name).write_bytes(b"no picture")
    return {"on_bad_image": "skip"}


def damaged_parts(root: Path) -> dict[str, object]:
    given_parts(root)
    (root / "train/a/00.png").write_bytes(b"")
    (root / "test/b/01.png").write_bytes(b"\x89PNG")
    return {"on_bad_image": "skip"}


def wide_and_transparent(root: Path) -> dict[str, object]:
    write(root)
    values = np.random.default_rng(2).integers(0, 4000, (20, 24)).astype(np.uint16)
    for n, name in enumerate("abc"):
        Image.fromarray(values + n).save(root / name / "wide.png")
        Image.fromarray(np.full((20, 24, 4), 40 * n, np.uint8), "RGBA").save(root / name / "clear.png")
    return {"ground": "black"}


def some_twice(root: Path) -> dict[str, object]:
    given_parts(root)
    (root / "test/c/twice.png").write_bytes((root / "train/a/02.png").read_bytes())
    return {"duplicates": "leave_out"}


def few_levels(root: Path) -> dict[str, object]:
    for name in "ab":
        (root / name).mkdir(parents=True)
        for i in range(9):
            Image.new("L", (20, 24), 100 + i).save(root / name / f"{i}.png")
    return {}


KINDS = (given_parts, divided, damaged_and_divided, damaged_parts, wide_and_transparent, some_twice, few_levels)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_mapped_is_memory_when_decoded_and_when_found_again(kind, tmp_path, monkeypatch):
    keys = kind(tmp_path / "photos")
    memory = load_dataset(config(tmp_path / "photos", "memory", **keys))
    mapped = load_dataset(config(tmp_path / "photos", "mapped", **keys))
    assert_same(mapped, memory)
    nothing_is_decoded(monkeypatch)  # a second start decodes nothing
    again = load_dataset(config(tmp_path / "photos", "mapped", **keys))
    assert_same(again, memory)
    found = kept()
    assert [(each.complete, each.root) for each in found] == [(True, str(tmp_path / "photos"))]
    rows = len(memory.train_labels_N) + len(memory.test_labels_N)
    assert found[0].shape == (rows, *memory.image_shape)
    assert found[0].bytes_used < rows * np.prod(memory.image_shape) + 20_000  # no second copy is left


def test_normalization_is_remembered_by_rows(tmp_path, monkeypatch):
    write(tmp_path / "photos", count=40)
    memory, mapped = (load_dataset(config(tmp_path / "photos", storage)) for storage in ("memory", "mapped"))
    for seed in (0, 1):
        wanted = config(tmp_path / "photos", "memory")
        split = split_rows(memory.train_labels_N, 3, wanted, seed)
        expected = normalization(memory, split)
        for _ in range(2):
            for mine, theirs in zip(normalization(mapped, split), expected, strict=True):
                np.testing.assert_array_equal(mine, theirs)
    monkeypatch.setattr("ensemble.data.dataset._histogram", None)
    np.testing.assert_array_equal(normalization(mapped, split)[0], expected[0])


def test_damage_stops_at_every_start_and_is_decoded_once(tmp_path, monkeypatch):
    keys = damaged_and_divided(tmp_path / "photos")
    for _ in range(2):
        with pytest.raises(DataError, match="7 of 60 pictures cannot be used"):
            load_dataset(config(tmp_path / "photos", "mapped"))
    nothing_is_decoded(monkeypatch)
    mapped = load_dataset(config(tmp_path / "photos", "mapped", **keys))
    monkeypatch.undo()
    assert len(mapped.train_labels_N) + len(mapped.test_labels_N) == 53


@pytest.mark.parametrize("storage", ["mapped"])
@pytest.mark.parametrize("finished", [False, True])
def test_a_fault_that_passes_is_not_kept(storage, finished, tmp_path):
    """Unreadable for a while: file, folder and times stay what they were."""
    photos = tmp_path / "photos"
    write(photos)
    whole = (photos / "b" / "05.png").read_bytes()
    before = (photos / "b" / "05.png").stat()
    (photos / "b" / "05.png").write_bytes(b"x" * len(whole))
    os.utime(photos / "b" / "05.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    if finished:
        assert len(load_dataset(config(photos, storage, on_bad_image="skip")).account.parts[0].left_out["b"]) == 1
    else:
        with pytest.raises(DataError, match=r"05\.png"):
            load_dataset(config(photos, storage))
    (photos / "b" / "05.png").write_bytes(whole)
    os.utime(photos / "b" / "05.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        assert_same(load_dataset(config(photos, storage)), load_dataset(config(photos, "memory")))
    assert len(kept()) == 1


@pytest.mark.parametrize("mask", [0o002, 0o000, 0o077])
def test_whatever_the_umask_nobody_else_may_write_and_it_is_found_again(mask, tmp_path, monkeypatch, cache):
    write(tmp_path / "photos")
    before = os.umask(mask)
    try:
        load_dataset(config(tmp_path / "photos", "mapped"))
    finally:
        os.umask(before)
    files = list(cache.rglob("*.*"))
    assert len(files) == 3
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)
    nothing_is_decoded(monkeypatch)
    load_dataset(config(tmp_path / "photos", "mapped"))


def test_a_map_keeps_its_pixels_when_the_folder_is_decoded_anew(tmp_path, cache):
    write(tmp_path / "photos")
    mapped = load_dataset(config(tmp_path / "photos", "mapped")).train_images_NCHW
    before = mapped.copy()
    (index,) = cache.rglob("index.json")
    index.unlink()
    load_dataset(config(tmp_path / "photos", "mapped"))
    np.testing.assert_array_equal(mapped, before)


def test_pictures_that_change_places_are_noticed(tmp_path):
    photos = tmp_path / "photos"
    write(photos)
    for path in photos.rglob("*.png"):  # of one size and time, as archives unpack them
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
        os.utime(path.with_suffix(".bmp"), (1e9, 1e9))
    load_dataset(config(photos, "mapped"))
    one, other = photos / "a" / "00.bmp", photos / "b" / "00.bmp"
    one.rename(photos / "away")
    other.rename(one)
    (photos / "away").rename(other)
    assert_same(load_dataset(config(photos, "mapped")), load_dataset(config(photos, "memory")))


def test_a_folder_is_one_set_however_it_is_named(tmp_path, monkeypatch):
    write(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    for root in ("photos", "./photos", str(tmp_path / "photos")):
        load_dataset(config(Path(root), "mapped"))
    assert len(kept()) == 1


def test_a_cache_that_cannot_be_written_is_read(tmp_path, cache, monkeypatch):
    write(tmp_path / "photos")
    load_dataset(config(tmp_path / "photos", "mapped"))
    plain = Path.open

    def refused(path: Path, mode: str = "r", *rest: object, **keys: object) -> object:
        if mode != "r" and mode != "rb" and cache in path.parents:
            raise OSError(30, "Read-only file system", str(path))
        return plain(path, mode, *rest, **keys)

    monkeypatch.setattr(Path, "open", refused)
    assert_same(
        load_dataset(config(tmp_path / "photos", "mapped")), load_dataset(config(tmp_path / "photos", "memory"))
    )


@pytest.mark.parametrize("change", ["content", "new", "gone", "size", "channels"])
def test_another_set_of_pictures_is_decoded_anew(change, tmp_path):
    photos = tmp_path / "photos"
    write(photos)
    load_dataset(config(photos, "mapped"))
    keys: dict[str, object] = {}
    if change == "content":
        time.sleep(0.02)  # the clock of a file system is coarse
        Image.new("RGB", (20, 24), (255, 0, 0)).save(photos / "a" / "00.png")
    elif change == "new":
        Image.new("RGB", (20, 24)).save(photos / "a" / "new.png")
    elif change == "gone":
        (photos / "a" / "00.png").unlink()
    else:
        keys = {"image_size": 8} if change == "size" else {"channels": 1}
    assert_same(load_dataset(config(photos, "mapped", **keys)), load_dataset(config(photos, "memory", **keys)))
    assert len(kept()) == 2


@pytest.mark.parametrize("damage", ["cut", "gone", "overwritten", "index", "index is a list", "index of others"])
def test_a_damaged_folder_is_decoded_anew(damage, tmp_path, cache):
    write(tmp_path / "photos")
    load_dataset(config(tmp_path / "photos", "mapped"))
    (folder,) = (cache / "pictures").iterdir()
    if damage == "cut":
        os.truncate(folder / "train.u8", 100)
    elif damage == "overwritten":
        (folder / "train.u8").write_bytes(bytes((folder / "train.u8").stat().st_size))
    elif damage == "gone":
        (folder / "test.u8").unlink()
    elif damage == "index of others":
        (folder / "index.json").chmod(0o666)
    else:
        (folder / "index.json").write_text("[]" if damage == "index is a list" else '{"parts": {"train"')
    assert_same(
        load_dataset(config(tmp_path / "photos", "mapped")), load_dataset(config(tmp_path / "photos", "memory"))
    )


SLOWLY = """
import os, sys, time
import ensemble.data.listing as reading
import ensemble.data.prepared as prepared
from ensemble.config.schema import DataConfig
from ensemble.data import images_digest, load_dataset
from tests.data.no_room import read_without_room
prepared.SHARD_BYTES, prepared.NOTE_EVERY_S = 5 * 3 * 16 * 16, 0.0
plain, log = reading.decode, open(sys.argv[2], "a", buffering=1)
def decode(source, name=""):
    log.write(f"{source}\\n")
    time.sleep(0.02)
    return plain(source, name)
reading.decode = decode
data = load_dataset(DataConfig(name="image_folder", root=sys.argv[1], image_size=16, storage="mapped", on_bad_image="skip"))
print(images_digest(data))
"""


def slowly(root: Path, log: Path) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", SLOWLY, str(root), str(log)], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("cut", [False, True], ids=["killed", "killed in a note"])
@pytest.mark.parametrize("damaged", [False, True], ids=["all whole", "one damaged"])
def test_a_killed_preparation_goes_on_where_it_was(damaged, cut, tmp_path, cache):
    photos, log = tmp_path / "photos", tmp_path / "log"
    write(photos, count=20)
    if damaged:
        (photos / "b" / "07.png").write_bytes(b"no picture")
    process = slowly(photos, log)
    while len(list(cache.glob("pictures/*/train.notes"))) == 0 or len(log.read_text().splitlines()) < 25:
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (notes,) = cache.glob("pictures/*/train.notes")
    noted = len(notes.read_text().splitlines())
    assert noted >= 5
    if cut:
        with notes.open("a") as file:
            file.write("[null, fal")
    first = log.read_text().splitlines()
    log.unlink()
    again = slowly(photos, log)
    digest = again.communicate(timeout=60)[0].strip()
    assert again.returncode == 0
    assert len(log.read_text().splitlines()) == 60 - noted
    assert len(first) < 60
    assert digest == images_digest(load_dataset(config(photos, "memory", on_bad_image="skip")))


def test_of_several_processes_one_decodes_and_all_have_it(tmp_path):
    photos, log = tmp_path / "photos", tmp_path / "log"
    write(photos)
    processes = [slowly(photos, log) for _ in range(3)]
    digests = {process.communicate(timeout=120)[0].strip() for process in processes}
    assert digests == {images_digest(load_dataset(config(photos, "memory")))}
    assert len(log.read_text().splitlines()) == 36


def test_a_pickle_is_a_place_and_what_is_cut_from_it_pixels(tmp_path):
    write(tmp_path / "photos")
    data = load_dataset(config(tmp_path / "photos", "mapped"))
    content = pickle.dumps(data.train_images_NCHW, protocol=5)
    assert len(content) < 2_000 < data.train_images_NCHW.nbytes
    again = pickle.loads(content)
    np.testing.assert_array_equal(again, data.train_images_NCHW)
    assert place_of(again) == place_of(data.train_images_NCHW)
    some = pickle.loads(pickle.dumps(data.train_images_NCHW[[3, 1]], protocol=5))
    np.testing.assert_array_equal(some, data.train_images_NCHW[[3, 1]])
    assert type(some) is np.ndarray


def test_another_machine_reads_the_pictures_itself(tmp_path, monkeypatch):
    write(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    data = load_dataset(config(Path("photos"), "mapped"))
    content = pickle.dumps({"train_images": data.train_images_NCHW, "other": np.arange(3)})
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "elsewhere"))
    remove(kept()[0].key) if kept() else None
    (tmp_path / "cache").rename(tmp_path / "of another machine")
    monkeypatch.chdir("/")
    arrived = pickle.loads(content)
    assert isinstance(arrived["train_images"], Absent)
    assert absent(arrived)
    found = present(arrived)
    assert not absent(found)
    np.testing.assert_array_equal(found["train_images"], data.train_images_NCHW)
    np.testing.assert_array_equal(found["other"], np.arange(3))
    assert len(kept()) == 1


@pytest.mark.parametrize("fault", ["gone", "others"])
def test_another_machine_without_these_pictures_says_so(fault, tmp_path):
    write(tmp_path / "photos")
    data = load_dataset(config(tmp_path / "photos", "mapped"))
    content = pickle.dumps({"train_images": data.train_images_NCHW})
    remove(kept()[0].key)
    if fault == "gone":
        (tmp_path / "photos").rename(tmp_path / "moved")
    else:
        Image.new("RGB", (20, 24), (255, 0, 0)).save(tmp_path / "photos" / "a" / "00.png")
    expected = "cannot read them from .*photos" if fault == "gone" else "holds other pictures"
    with pytest.raises(DataError, match=f"{expected}.*data.storage=memory"):
        present(pickle.loads(content))


def test_asking_for_rows_changes_nothing(tmp_path):
    write(tmp_path / "photos")
    images = load_dataset(config(tmp_path / "photos", "mapped")).train_images_NCHW
    before = images.copy()
    will_need(images, np.arange(len(images)))
    will_need(images, np.array([len(images) - 1, 0, 0]))
    will_need(images, np.empty(0, np.int64))
    will_need(before, np.arange(3))
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("storage", ["mapped", "auto"])
def test_no_room_for_decoded_pictures(storage, tmp_path, cache, monkeypatch):
    monkeypatch.setattr("ensemble.data.decoding.MAPPED_FROM", 1)
    write(tmp_path / "photos")
    answer = read_without_room(config(tmp_path / "photos", storage), 5_000)
    assert not list(cache.glob("pictures/*/*")), "what is of no use would keep a full disk full"
    if storage == "auto":
        assert answer == "read None True"
    else:
        assert "File too large" in answer
        assert "set ENSEMBLE_CACHE" in answer
        assert "data.storage=memory" in answer
    assert not list(cache.glob("pictures/*/*.u8"))  # nothing half there takes room


def test_auto_maps_from_a_size_on(tmp_path, monkeypatch):
    write(tmp_path / "photos")
    size = 36 * 3 * SIDE * SIDE
    for limit, is_mapped in ((size + 1, False), (size, True)):
        monkeypatch.setattr("ensemble.data.decoding.MAPPED_FROM", limit)
        for storage in ("auto", None):
            images = load_dataset(config(tmp_path / "photos", storage)).train_images_NCHW
            assert (place_of(images) is not None) == is_mapped


def test_memory_that_is_not_there_is_said_before_anything_is_read(tmp_path, monkeypatch):
    write(tmp_path / "photos")
    monkeypatch.setattr("ensemble.data.decoding.available_memory", lambda: 20_000)
    with pytest.raises(
        DataError, match=r"36 pictures need .* GiB of memory as 16x16 pixels in 3 channels.*storage=mapped"
    ):
        load_dataset(config(tmp_path / "photos", "memory"))


def test_what_is_kept_can_be_listed_and_removed(tmp_path, cache):
    write(tmp_path / "photos")
    assert kept() == []
    load_dataset(config(tmp_path / "photos", "mapped"))
    time.sleep(0.02)
    load_dataset(config(tmp_path / "photos", "mapped", image_size=8))
    found = kept()
    assert [each.shape for each in found] == [(36, 3, 8, 8), (36, 3, 16, 16)]
    remove(found[0].key)
    assert [each.key for each in kept()] == [found[1].key]
    for wrong in (found[0].key, "", "..", "../pictures", "/"):
        with pytest.raises(DataError, match="ensemble data ls"):
            remove(wrong)
    assert {each.root for each in found} == {str(tmp_path / "photos")}
