"""Tar shards of samples: the same images as from a folder with the same pictures, and whatever can be odd about them named."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ensemble.commands.main import main
from ensemble.config.schema import DataConfig
from ensemble.data import images_digest, load_dataset
from ensemble.data.dataset import Dataset
from ensemble.data.mapped import place_of
from ensemble.data.shard_index import kept_indices
from ensemble.data.shard_names import expanded
from ensemble.errors import ConfigError, DataError
from ensemble.outside import object_storage
from tests.s3_server import S3Server
from tests.test_run import digests, experiment, run

CLASSES = ("rose", "tulip")
PLAIN = {"executor": "inline", "device": "cpu", "kernels": "torch"}  # none to compile for an empty cache


def picture(number: int, form: str = "PNG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, form)
    return content.getvalue()


def member(name: str, content: bytes | str, kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    text = content.encode() if isinstance(content, str) else content
    info = tarfile.TarInfo(name)
    info.size, info.type = len(text) if kind == tarfile.REGTYPE else 0, kind
    return info, text


def shard(path: Path, members: Iterable[tuple[tarfile.TarInfo, bytes]], mode: Any = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return path


def sample(key: str, number: int, label: int | str) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [member(f"{key}.png", picture(number)), member(f"{key}.cls", str(label))]


PARTS = {"train": 8, "val": 2, "test": 4}


def pictures_of(part: str) -> list[tuple[int, int]]:
    """(class, number of a picture) in the order of a folder: class by class."""
    first = 1000 * list(PARTS).index(part)
    return [(k, first + 100 * k + n) for k in range(2) for n in range(PARTS[part])]


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of shards, and beside it the same pictures as photos/PART/CLASS/NUMBER.png."""
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    for part in PARTS:
        own = pictures_of(part)
        for number, start in enumerate(range(0, len(own), 4)):
            lot = own[start : start + 4]
            shard(
                tmp_path / f"shards/{part}-{number:03}.tar",
                (one for k, n in lot for one in sample(f"{CLASSES[k]}/{n:04}", n, k)),
            )
        for k, n in own:
            (tmp_path / "photos" / part / CLASSES[k]).mkdir(parents=True, exist_ok=True)
            (tmp_path / "photos" / part / CLASSES[k] / f"{n:04}.png").write_bytes(picture(n))
    return tmp_path / "shards"


WHOLE = {
    "urls": "train-{000..003}.tar",
    "validation_urls": "val-*.tar",
    "test_urls": "test-{000,001}.tar",
    "class_names": CLASSES,
}


def loaded(root: Path | str, **more: Any) -> Dataset:
    values = {"name": "webdataset", "root": str(root), "urls": "train-*.tar", "image_size": 8, **more}
    return load_dataset(DataConfig.choose({key: value for key, value in values.items() if value is not None}))


def folder(root: Path, **more: Any) -> Dataset:
    return load_dataset(DataConfig(name="image_folder", root=str(root), image_size=8, **more))


def same(one: Dataset, other: Dataset) -> None:
    assert images_digest(one) == images_digest(other)
    for name in ("train_images_NCHW", "test_images_NCHW", "train_labels_N", "test_labels_N", "validation_rows"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.class_names == other.class_names
    assert one.pixels == other.pixels
    assert [part.used for part in one.account.parts] == [part.used for part in other.account.parts]


@pytest.mark.parametrize("storage", ["memory", "mapped"])
def test_the_same_bits_as_from_a_folder_with_the_same_pictures(shards: Path, tmp_path: Path, storage: str) -> None:
    found = loaded(shards, storage=storage, **WHOLE)
    same(found, folder(tmp_path / "photos", storage=storage))
    assert (place_of(found.train_images_NCHW) is not None) == (storage == "mapped")
    assert found.train_files[0] == "train-000.tar!rose/1000.png".replace("1000", "0000")
    assert found.test_files[-1] == "test-001.tar!tulip/2103.png"
    assert found.name == "shards (webdataset)"


def test_without_other_parts_they_are_split_off_alike_at_every_start(shards: Path) -> None:
    one, other = loaded(shards), loaded(shards)
    assert (len(one.train_labels_N), len(one.test_labels_N)) == (12, 4)
    assert one.class_names == ("0", "1")
    assert images_digest(one) == images_digest(other)
    assert one.test_files == other.test_files


def test_a_changed_shard_is_read_anew(shards: Path) -> None:
    first = loaded(shards, storage="mapped", **WHOLE)
    shard(shards / "train-000.tar", (one for n in range(4) for one in sample(f"rose/{n:04}", 77 + n, 0)))
    second = loaded(shards, storage="mapped", **WHOLE)
    assert images_digest(first) != images_digest(second)
    np.testing.assert_array_equal(first.train_labels_N, second.train_labels_N)


def test_a_bucket_gives_the_same_and_pictures_that_follow_each_other_take_one_request(
    s3: S3Server, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_storage, "WAITS_S", (0.01,) * 8)
    for path in shards.iterdir():
        s3.client().put_object(Bucket=s3.bucket, Key=f"set/{path.name}", Body=path.read_bytes())
    s3.forget()
    address = f"s3://{s3.bucket}/set"
    far = loaded(address, **WHOLE)
    same(far, loaded(shards, **WHOLE))
    same(far, folder(tmp_path / "photos"))
    assert far.train_files == loaded(shards, **WHOLE).train_files
    asked = [path for method, path, _ in s3.requests if method == "GET" and "list-type" not in path]
    assert len(asked) == 7, "each of the 7 shards once, although 28 pictures are in them"
    s3.forget()
    same(loaded(address, **WHOLE), far)
    assert all("list-type" in path for _, path, _ in s3.requests), "names and pictures are kept"


@pytest.mark.parametrize(
    ("label_from", "labels"),
    [
        ("txt", {"txt": ("rose", "tulip")}),
        ("label", {"label": ("rose\n", " tulip ")}),
        (
            "json.flower.kind",
            {"json": (json.dumps({"flower.kind": "rose"}), json.dumps({"flower.kind": "tulip", "x": 1}))},
        ),
        ("json.y", {"json": (json.dumps({"y": 0}), json.dumps({"y": 1.0}))}),
        ("CLS", {"cls": ("0", "1")}),
    ],
)
def test_labels_of_other_endings(tmp_path: Path, label_from: str, labels: dict[str, tuple[str, str]]) -> None:
    ((ending, texts),) = labels.items()
    lots = [(member(f"{n}.JPG", picture(n, "JPEG")), member(f"{n}.{ending}", texts[n % 2])) for n in range(12)]
    shard(tmp_path / "train-0.tar", (one for lot in lots for one in lot))
    if label_from == "CLS":
        label_from = "cls"
    found = loaded(tmp_path, label_from=label_from)
    assert found.class_names == (("0", "1") if texts[0].strip('{}"y: 0') == "" else ("rose", "tulip"))
    assert Counter(found.train_labels_N.tolist() + found.test_labels_N.tolist()) == {0: 6, 1: 6}


def test_names_of_classes_come_from_a_file_too_and_numbers_may_be_padded(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar", (one for n in range(12) for one in sample(str(n), n, f"{n % 2:03}")))
    (tmp_path / "classes.txt").write_text("rose\ntulip\n\nlily\n")
    with pytest.raises(DataError, match="lily has 0"):
        loaded(tmp_path, class_names=str(tmp_path / "classes.txt"))
    (tmp_path / "classes.txt").write_text("rose\ntulip\n")
    assert loaded(tmp_path, class_names=str(tmp_path / "classes.txt")).class_names == CLASSES
    with pytest.raises(DataError, match=r"no file .*nowhere\.txt"):
        loaded(tmp_path, class_names=str(tmp_path / "nowhere.txt"))
    with pytest.raises(DataError, match="found rose more than once"):
        loaded(tmp_path, class_names=("rose", "rose"))


GOOD = [one for n in range(12) for one in sample(f"a/{n}", n, n % 2)]
ODD: dict[str, tuple[list[tuple[tarfile.TarInfo, bytes]], str, str]] = {
    "no label": ([member("b.png", picture(50))], "b.png: no .cls belongs to it", "1 without .cls"),
    "no picture": ([member("b.cls", "1")], "b.cls: no picture belongs to it", "1 without a picture"),
    "empty label": ([member("b.png", picture(50)), member("b.cls", " ")], "no label can be read: it is empty", "1 without a usable label"),
    "binary label": ([member("b.png", picture(50)), member("b.cls", b"\xff\xfe")], "no UTF-8", "1 without a usable label"),
    "label out of range": (sample("b", 50, 7), "its label is 7; expected 0 to 1", "1 with a label out of range"),
    "negative label": (sample("b", 50, -1), "its label is -1; expected 0 to 1", "1 with a label out of range"),
    "key twice": (sample("a/3", 50, 1), "a/3.png: its key stands twice", "1 key that stands twice"),
    "two pictures": ([*sample("b", 50, 1), member("b.left.jpg", picture(51, "JPEG"))], "2 pictures belong to one key", "1 with several pictures"),
    "damaged picture": ([member("b.png", picture(50)[:60]), member("b.cls", "1")], "b.png: cannot be read as a picture", "1 damaged"),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_samples_that_cannot_be_used_stop_the_start_or_are_counted(tmp_path: Path, what: str) -> None:
    odd, message, reason = ODD[what]
    shard(tmp_path / "train-0.tar", [*GOOD, *odd])
    with pytest.raises(DataError) as stopped:
        loaded(tmp_path, class_names=CLASSES)
    assert message in str(stopped.value)
    assert "train-0.tar!" in str(stopped.value)
    assert "data.on_bad_image=skip" in str(stopped.value)
    found = loaded(tmp_path, class_names=CLASSES, on_bad_image="skip")
    assert len(found.train_labels_N) + len(found.test_labels_N) == (11 if what == "key twice" else 12)
    assert any(reason in remark.text for remark in found.account.remarks()), [
        one.text for one in found.account.remarks()
    ]


def test_what_belongs_to_no_sample_is_counted_and_nothing_is_ever_extracted(tmp_path: Path) -> None:
    link = member("c.png", "", tarfile.SYMTYPE)[0]
    link.linkname = "/etc/passwd"
    odd = [
        (link, b""), member("folder", "", tarfile.DIRTYPE), member("a/._1.png", b"x"), member("README", b"x"),
        member("a/1.pyd", b"cos\nsystem\n"), member("a/2.txt", b"a flower"), *sample("/abs", 60, 0), *sample("../../up", 61, 1),
    ]  # fmt: skip
    shard(tmp_path / "set/train-0.tar", [*GOOD, *odd])
    before = set(tmp_path.rglob("*"))
    found = loaded(tmp_path / "set", class_names=CLASSES, storage="memory")
    said = " ".join(remark.text for remark in found.account.remarks())
    assert len(found.train_labels_N) + len(found.test_labels_N) == 14
    assert "left out 3 files: 3 in no class (1 link, 1 hidden, 1 without an ending)" in said
    assert "other files of the samples are not read: 1 .pyd, 1 .txt; pickles are never opened" in said
    assert "4 names lead out of a folder, such as train-0.tar!/abs.png" in said
    assert "nothing is extracted" in said
    assert set(tmp_path.rglob("*")) == before


def test_pickled_labels_are_refused_by_name(tmp_path: Path) -> None:
    for ending in ("pyd", "pkl", "PTH"):
        with pytest.raises(ConfigError, match=f"label_from is {ending}: such files are pickles"):
            _parsed(label_from=ending)
    with pytest.raises(ConfigError, match=r"json\.NAME"):
        _parsed(label_from="json")


def _parsed(**more: Any) -> Any:
    from ensemble.config import parse_experiment

    data = {"name": "webdataset", "root": "x", "urls": "a.tar", "image_size": 8, **more}
    return parse_experiment(
        {"name": "x", "num_members": 1, "method": {"name": "bagging"}, "model": {"name": "cnn"}, "data": data}
    )


@pytest.mark.parametrize("kept", ["in a header", "in a picture", "at a sample", "zeros"])
def test_a_shard_that_is_cut_or_damaged_is_named(tmp_path: Path, kept: str) -> None:
    path = shard(tmp_path / "train-1.tar", [one for n in range(20, 32) for one in sample(f"a/{n}", n, n % 2)])
    shard(tmp_path / "train-0.tar", GOOD)
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as archive:
        third = archive.getmembers()[4]
    if kept == "zeros":
        content[third.offset : third.offset + 512] = b"\x07" * 512
    else:
        content = content[
            : {"in a header": third.offset + 100, "in a picture": third.offset_data + 30, "at a sample": third.offset}[
                kept
            ]
        ]
    path.write_bytes(content)
    if kept != "at a sample":
        with pytest.raises(DataError, match=r"1 shards are damaged\n.*train-1\.tar.*\n.*on_bad_image=skip"):
            loaded(tmp_path)
    found = loaded(tmp_path, on_bad_image="skip")
    assert len(found.train_labels_N) + len(found.test_labels_N) == 12 + 2
    said = " ".join(remark.text for remark in found.account.remarks() if remark.warning)
    assert ("may have been cut" if kept == "at a sample" else "1 shards are damaged, and samples are missing") in said


def test_archives_that_are_packed_are_named(tmp_path: Path) -> None:
    shard(tmp_path / "train-0.tar.gz", GOOD, "w:gz")
    with pytest.raises(DataError, match=r"train-0\.tar\.gz: expected names that end with \.tar.*gunzip"):
        loaded(tmp_path, urls="train-*.tar.gz")
    (tmp_path / "train-0.tar.gz").rename(tmp_path / "train-0.tar")
    with pytest.raises(DataError, match=r"train-0\.tar: found an archive packed by gzip"):
        loaded(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"urls": "train-{000..005}.tar"}, r"of 6 names 2 are not below .*such as train-004\.tar, train-005\.tar"),
        ({"urls": "none-*.tar"}, r"of 1 names 1 are not below"),
        ({"urls": "train-{003..000}.tar"}, "which goes down"),
        ({"urls": "train-{000}.tar"}, "neither a range"),
        ({"urls": "train-{000..003.tar"}, "brace that is not closed"),
        ({"urls": "train-{0..99999999}.tar"}, "more than 100,000 names"),
        ({"urls": "pipe:cat x.tar"}, "expected names below data.root"),
        ({"urls": "s3://b/x.tar"}, "put the folder or the address into data.root"),
        ({"urls": "../x.tar"}, "expected names below data.root"),
        ({"urls": "train-*.tar", "test_urls": "train-000.tar"}, r"data\.test_urls: train-000\.tar is among data\.urls too"),
        ({**WHOLE, "test_fraction": 0.3}, "data.test_urls gives the test part; remove one"),
        ({"urls": "train-000.tar"}, "found only the label 0; expected at least two classes"),
        ({"urls": "train-000.tar", "test_urls": "test-*.tar"}, r"data\.test_urls: found the labels 1, which no training sample has"),
        ({"label_from": "txt"}, r"16 of 16 samples cannot be used\n.*no \.txt belongs to it"),
    ],
)  # fmt: skip
def test_shards_that_are_not_there_or_mean_nothing_are_refused(
    shards: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        loaded(shards, **change)


def test_samples_that_cannot_be_used_are_counted_once(tmp_path: Path) -> None:
    """Those with a label out of range are among the samples, those without one are not."""
    rows = [(member(f"{n}.png", picture(n)), member(f"{n}.txt", "abc"[n % 3])) for n in range(12)]
    shard(tmp_path / "n.tar", [*(each for row in rows for each in row), member("12.png", picture(12))])
    with pytest.raises(DataError, match=r"^data\.urls: 5 of 13 samples cannot be used\n"):
        loaded(tmp_path, urls="n.tar", label_from="txt", class_names=("a", "b"))


def test_braces_are_those_of_webdataset() -> None:
    assert expanded("a-{08..11}.tar") == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert expanded("a-{8..11}.tar") == ["a-8.tar", "a-9.tar", "a-10.tar", "a-11.tar"]
    assert expanded("{x,y}/{0..1}.tar") == ["x/0.tar", "x/1.tar", "y/0.tar", "y/1.tar"]
    assert expanded("plain.tar") == ["plain.tar"]


def test_members_are_trained_from_a_bucket(
    s3: S3Server, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run from shards in a bucket has the bits of one from the same pictures in a folder, and tells each picture by shard and name."""
    monkeypatch.setattr(object_storage, "WAITS_S", (0.01,) * 8)
    for path in shards.iterdir():
        s3.client().put_object(Bucket=s3.bucket, Key=f"set/{path.name}", Body=path.read_bytes())
    common = {"image_size": 8, "name": "webdataset"}
    runs = {
        "far": {**common, "root": f"s3://{s3.bucket}/set", **WHOLE},
        "here": {"name": "image_folder", "root": str(tmp_path / "photos"), "image_size": 8},
    }
    found = {}
    for name, data in runs.items():
        run(experiment(tmp_path / name, data=data, num_members=2, model={"name": "mlp", "widths": (8,)}, compute=PLAIN))
        found[name] = digests(tmp_path / name)
    assert found["far"] == found["here"]
    assert len(found["far"]) == 4
    lines = (tmp_path / "far/run/predictions.csv").read_text().splitlines()
    assert any("test-000.tar!rose/2000.png" in line for line in lines)


def test_kept_indices_are_listed_and_removed(shards: Path) -> None:
    assert kept_indices().count == 0
    loaded(shards)
    kept = kept_indices()
    assert kept.count == 4
    assert kept.bytes_used > 500
    listed = CliRunner().invoke(main, ["data", "ls"]).stdout
    assert "and the indices of 4 shards" in listed
    removed = CliRunner().invoke(main, ["data", "rm", "--all"])
    assert removed.exit_code == 0
    assert "indices of 4 shards: removed" in removed.stdout
    assert kept_indices().count == 0
    loaded(shards)


@pytest.mark.parametrize("other", ["archive", "text"])
def test_what_lies_behind_the_end_of_an_archive_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    """Archives joined by cat: every program stops at the first end, so half of the samples would be missing without a word."""
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    first = shard(tmp_path / "a-0.tar", [part for n in range(8) for part in sample(f"{n}", n, n % 2)])
    second = shard(tmp_path / "b-0.tar", [part for n in range(8) for part in sample(f"more{n}", 50 + n, n % 2)])
    end = first.stat().st_size
    with first.open("ab") as file:
        file.write(b"\0" * 512 + (second.read_bytes() if other == "archive" else b"note"))
    with pytest.raises(DataError, match=rf"a-0\.tar goes on at byte {end + 512:,}, behind its end.*tar --concatenate"):
        loaded(tmp_path, urls="a-*.tar")
    data = loaded(tmp_path, urls="a-*.tar", on_bad_image="skip")
    assert len(data.train_labels_N) + len(data.test_labels_N) == 8
    assert "goes on at byte" in " ".join(remark.text for remark in data.account.remarks() if remark.warning)


@pytest.mark.parametrize(("kind", "reason"), [(tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "link"), (tarfile.FIFOTYPE, "no regular file")])  # fmt: skip
def test_a_label_whose_picture_is_a_link_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: bytes, reason: str
) -> None:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    good = [part for n in range(8) for part in sample(f"{n}", n, n % 2)]
    shard(tmp_path / "a-0.tar", [*good, member("x.png", b"", kind), member("x.cls", "1")])
    with pytest.raises(DataError, match=rf"x\.cls: no picture belongs to it, since x\.png is left out \({reason}\)"):
        loaded(tmp_path, urls="a-*.tar")
