"""Data sets in a bucket of a real S3 server: the same images as from a folder with the same files, and errors that name the address."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble.config.schema import DataConfig
from ensemble.data import images_digest, load_dataset
from ensemble.data.dataset import Dataset
from ensemble.data.mapped import place_of
from ensemble.errors import ConfigError, DataError, StorageError
from ensemble.outside import object_storage
from tests.s3_server import S3Server


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


PHOTOS = {
    f"{part}/{name}/{number}.png": picture(100 * k + 10 * number + len(part))
    for part, count in (("train", 4), ("val", 2), ("test", 2))
    for k, name in enumerate(("rose", "tulip"))
    for number in range(count)
}
BESIDE = {
    "train/rose/.hidden.png": b"x",
    "train/rose/notes.txt": b"x",
    "train/readme.md": b"x",
    "train/rose/deep/9.png": picture(9),
}


@pytest.fixture
def photos(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of pictures that also lie in tmp_path / photos."""
    monkeypatch.setattr(object_storage, "WAITS_S", (0.01,) * 8)
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    client = s3.client()
    for name, content in {**PHOTOS, **BESIDE}.items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(content)
        client.put_object(Bucket=s3.bucket, Key=f"data/photos/{name}", Body=content)
    return f"s3://{s3.bucket}/data/photos"


def loaded(root: str | Path, **more: Any) -> Dataset:
    return load_dataset(DataConfig(name="image_folder", root=str(root), image_size=8, **more))


def same(one: Dataset, other: Dataset) -> bool:
    return (
        images_digest(one) == images_digest(other)
        and np.array_equal(one.train_images_NCHW, other.train_images_NCHW)
        and np.array_equal(one.test_images_NCHW, other.test_images_NCHW)
        and np.array_equal(one.train_labels_N, other.train_labels_N)
        and one.train_files == other.train_files
        and one.test_files == other.test_files
        and one.class_names == other.class_names
        and one.name == other.name
        and one.account.to_json()["parts"] == other.account.to_json()["parts"]
    )  # fmt: skip


def test_the_same_as_from_a_folder_and_read_once(s3: S3Server, photos: str, tmp_path: Path) -> None:
    far = loaded(photos)
    assert same(far, loaded(tmp_path / "photos"))
    assert place_of(far.train_images_NCHW) is not None  # decoded into the cache
    assert s3.methods() == Counter(GET=len(PHOTOS) + 2)  # and one more picture, and the listing
    s3.forget()
    assert same(loaded(photos), far)
    assert (
        [method for method, path, _ in s3.requests if "list-type=2" in path] == ["GET"] == list(s3.methods().elements())
    )
    s3.client().put_object(Bucket=s3.bucket, Key="data/photos/train/rose/0.png", Body=picture(77))
    changed = loaded(photos)  # another ETag
    assert not same(changed, far)
    (tmp_path / "photos/train/rose/0.png").write_bytes(picture(77))
    assert same(changed, loaded(tmp_path / "photos"))


def test_in_memory_and_with_a_test_part_split_off(photos: str, tmp_path: Path) -> None:
    far = loaded(f"{photos}/train", storage="memory")
    assert place_of(far.train_images_NCHW) is None
    assert same(far, loaded(tmp_path / "photos/train"))


def test_failing_requests_change_nothing_and_a_stop_is_gone_on_from(
    s3: S3Server, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemble.data.prepared.SHARD_BYTES", 3 * 8 * 8 * 4)  # four pictures at a time
    seen: list[str] = []

    def mood(_method: str, path: str) -> int | str | None:
        if ".png" not in path:
            return None
        seen.append(path)
        return "drop" if len(seen) > 9 else (503 if len(seen) % 3 == 0 else None)

    s3.mood = mood
    with pytest.raises(StorageError, match=rf"{photos}/.*\.png: cannot be read: .*start again"):
        loaded(photos)
    s3.forget()
    far = loaded(photos)
    assert len(s3.requests) < len(PHOTOS) + 2  # some were kept
    assert same(far, loaded(tmp_path / "photos"))


@pytest.mark.parametrize(("status", "words"), [(404, "no such object"), (403, "AccessDenied|Forbidden")])
def test_one_picture_that_cannot_be_had_is_a_bad_picture(s3: S3Server, photos: str, status: int, words: str) -> None:
    s3.mood = lambda _method, path: status if path.endswith("train/rose/2.png") else None
    with pytest.raises(
        DataError,
        match=rf"(?s)1 of {len(PHOTOS) + 1} pictures.*{photos}/train/rose/2\.png: .*({words}).*on_bad_image=skip",
    ):
        loaded(photos)
    assert len(loaded(photos, on_bad_image="skip").train_labels_N) == len([n for n in PHOTOS if "test/" not in n])


def test_refusals_of_all_pictures_are_no_bad_pictures(s3: S3Server, photos: str) -> None:
    s3.mood = lambda _method, path: 403 if ".png" in path else None
    with pytest.raises(StorageError, match=rf"{photos}/.*credentials"):
        loaded(photos, on_bad_image="skip")


def test_errors_name_the_address(s3: S3Server, photos: str) -> None:
    nowhere = f"s3://{s3.bucket}/nowhere"
    with pytest.raises(DataError, match=f"data.root: {nowhere}: found no objects"):
        loaded(nowhere)
    with pytest.raises(DataError, match=r"data.root: .*s3://bucket-mistyped/x"):
        loaded("s3://bucket-mistyped/x")
    with pytest.raises(DataError, match=rf"^{photos}/train/rose: found only deep"):
        loaded(f"{photos}/train/rose")
    with pytest.raises(ConfigError, match=r"data.root: s3://x/y: an address is read for .*image_folder"):
        load_dataset(DataConfig(name="mnist", root="s3://x/y"))
    s3.mood = lambda _method, _path: 403
    with pytest.raises(StorageError, match=rf"{photos}/.*listed.*credentials"):
        loaded(photos)


def test_a_table_and_its_pictures(s3: S3Server, photos: str, tmp_path: Path) -> None:
    lines = ["file,class,part", *(f"{name},{name.split('/')[1]},{name.split('/')[0]}" for name in PHOTOS)]
    table = "\n".join(lines).encode()
    (tmp_path / "photos/labels.csv").write_bytes(table)
    s3.client().put_object(Bucket=s3.bucket, Key="data/photos/labels.csv", Body=table)
    columns: dict[str, Any] = {
        "name": "table", "image_column": "file", "label_column": "class", "split_column": "part", "image_size": 8,
    }  # fmt: skip
    here = load_dataset(DataConfig(path=str(tmp_path / "photos/labels.csv"), **columns))
    s3.forget()
    far = load_dataset(DataConfig(path=f"{photos}/labels.csv", **columns))
    assert same(far, here)
    assert s3.methods() == Counter(GET=len(PHOTOS) + 2)  # and the table, and the listing
    assert same(load_dataset(DataConfig(path=str(tmp_path / "photos/labels.csv"), root=photos, **columns)), here)
    addresses = tmp_path / "addresses.csv"
    addresses.write_text("\n".join([lines[0], *(f"{photos}/{line}" for line in lines[1:])]))
    by_address = load_dataset(DataConfig(path=str(addresses), **columns))
    assert images_digest(by_address) == images_digest(here)
    addresses.write_text("\n".join([lines[0], lines[1], *(f"{photos}/{line}" for line in lines[2:])]))
    with pytest.raises(
        DataError, match=r"column file: found \d+ addresses, such as s3://.*, and 1 names of files here"
    ):
        load_dataset(DataConfig(path=str(addresses), **columns))
    with pytest.raises(DataError, match=rf"data.path: no file {photos}/nosuch.csv"):
        load_dataset(DataConfig(path=f"{photos}/nosuch.csv", **columns))


def put_arrays(s3: S3Server, beside: Path, seed: int) -> None:
    """The same array file in the bucket and here."""
    content = io.BytesIO()
    images = np.random.default_rng(seed).integers(0, 4000, (160, 8, 8)).astype(np.uint16)
    np.savez_compressed(content, train_images=images, train_labels=np.arange(160) % 2)
    (beside / "mine.npz").write_bytes(content.getvalue())
    s3.client().put_object(Bucket=s3.bucket, Key="data/photos/mine.npz", Body=content.getvalue())
    s3.forget()


def test_arrays(s3: S3Server, photos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for what in ("shards.BLOCK_BYTES", "stored_arrays.BUFFER_BYTES"):  # so that the file takes several requests
        monkeypatch.setattr(f"ensemble.data.{what}", 500)
    put_arrays(s3, tmp_path / "photos", 3)
    here = load_dataset(DataConfig(name="arrays", path=str(tmp_path / "photos/mine.npz")))
    far = load_dataset(DataConfig(name="arrays", path=f"{photos}/mine.npz"))
    assert same(far, here)
    assert place_of(far.train_images_NCHW) is not None  # what is far away is fetched once
    parts = -(-(tmp_path / "photos/mine.npz").stat().st_size // 500)
    assert parts > 20
    assert s3.methods()["HEAD"] == 1
    assert parts <= s3.methods()["GET"] < 4 * parts  # read twice, since it has wide numbers
    s3.forget()
    assert same(load_dataset(DataConfig(name="arrays", path=f"{photos}/mine.npz")), here)
    assert s3.methods()["HEAD"] == 1
    assert s3.methods()["GET"] < parts / 2  # its table of contents and its labels
    s3.forget()
    whole = load_dataset(DataConfig(name="arrays", path=f"{photos}/mine.npz", storage="memory"))
    assert same(whole, here)
    assert place_of(whole.train_images_NCHW) is None
    assert s3.methods()["GET"] == 1
    put_arrays(s3, tmp_path / "photos", 4)
    changed = load_dataset(DataConfig(name="arrays", path=f"{photos}/mine.npz"))  # another ETag
    assert not same(changed, here)
    assert same(changed, load_dataset(DataConfig(name="arrays", path=str(tmp_path / "photos/mine.npz"))))


def test_arrays_that_cannot_be_had(s3: S3Server, photos: str, tmp_path: Path) -> None:
    put_arrays(s3, tmp_path / "photos", 3)
    with pytest.raises(DataError, match=rf"data.path: no file {photos}/nosuch.npz"):
        load_dataset(DataConfig(name="arrays", path=f"{photos}/nosuch.npz"))
    s3.mood = lambda _method, _path: 403
    with pytest.raises(StorageError, match=rf"{photos}/mine.npz: cannot be read: .*credentials"):
        load_dataset(DataConfig(name="arrays", path=f"{photos}/mine.npz"))
