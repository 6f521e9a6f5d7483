"""Further sets of one's own pictures: read as the run reads its pictures, and what was left out is said."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble.config import parse_experiment
from ensemble.config.data import DataConfig
from ensemble.data import Dataset, load_dataset
from ensemble.data.arriving import absent, present
from ensemble.data.mapped import place_of
from ensemble.data.named_sets import NamedSet, load_named_set, remarks_on
from ensemble.errors import DataError


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pictures(root: Path, highest: int = 255, size: tuple[int, int] = (8, 8), alpha: bool = False) -> Path:
    """Twelve pictures of each of three classes, of 16 bits where the highest value needs them."""
    generator = np.random.default_rng(highest)
    for name in "abc":
        (root / name).mkdir(parents=True)
        for n in range(12):
            values = generator.integers(0, highest + 1, size)
            values[0, 0] = highest
            picture = Image.fromarray(values.astype(np.uint8 if highest < 256 else np.uint16))
            if alpha:
                picture = picture.convert("RGBA")
                picture.putalpha(100)
            picture.save(root / name / f"{n:02d}.png")
    return root


def run_of(root: Path, **keys: Any) -> Dataset:
    return load_dataset(DataConfig(name="image_folder", root=str(root), image_size=8, channels=1, **keys))


def read(root: Path, dataset: Dataset, kind: str = "shifted", part: str | None = None, **keys: Any) -> NamedSet:
    data = {"name": "image_folder", "root": str(root), "image_size": 8, "channels": 1, **keys}
    return loaded(data, dataset, kind, part)


def loaded(data: dict[str, Any], dataset: Dataset, kind: str = "shifted", part: str | None = None) -> NamedSet:
    sets = ({"name": "s", "kind": kind, "part": part, "data": data},)
    config = parse_experiment(
        {
            "name": "r",
            "num_members": 2,
            "method": {"name": "bagging"},
            "model": {"name": "lenet5"},
            "evaluation": {"sets": sets},
        }
    )
    return load_named_set(config.evaluation.sets[0], dataset)


def said(named: NamedSet, dataset: Dataset) -> str:
    return "\n".join(f"{remark.warning} {remark.text}" for remark in remarks_on([named], dataset))


def test_pictures_that_are_left_out_are_told(home: Path) -> None:
    dataset = run_of(pictures(home / "run"))
    other = pictures(home / "other", highest=254)
    for n in range(7):
        (other / "a" / f"{n:02d}.png").write_bytes(b"")
    (other / "b" / "notes.gif").write_bytes(b"GIF89a")
    named = read(other, dataset, on_bad_image="skip")
    assert len(named.images_NCHW) == 29
    assert named.source == "all images of other (image_folder), 8 files left out"
    assert "True set s: other: left out 8 files: 7 in a (" in said(named, dataset)
    whole = read(pictures(home / "whole", highest=253), dataset)
    assert said(whole, dataset) == ""
    assert whole.source == "all images of whole (image_folder)"


@pytest.mark.parametrize(
    ("keys", "size", "alpha"),
    [
        ({"value_range": (0, 100)}, (8, 8), False),
        ({"ground": "black"}, (8, 8), True),
        ({"resize": "pad"}, (8, 12), False),
        ({"resize": "squash"}, (8, 12), False),
    ],
    ids=["value_range", "ground", "pad", "squash"],
)
def test_a_set_is_read_as_the_run_is(keys: dict[str, Any], size: tuple[int, int], alpha: bool, home: Path) -> None:
    """The run's own pictures, given once more as a set, are the same bytes, unless the set says otherwise itself."""
    root = pictures(home / "run", size=size, alpha=alpha)
    dataset = run_of(root, **keys)
    named = read(root, dataset)
    np.testing.assert_array_equal(
        named.images_NCHW, np.concatenate([dataset.train_images_NCHW, dataset.test_images_NCHW])
    )
    usual = {"value_range": (0, 255), "ground": "white", "resize": "crop"}
    otherwise = read(root, dataset, **{name: usual[name] for name in keys})
    assert (otherwise.images_NCHW != named.images_NCHW).any()


def test_a_set_with_another_range_of_wide_values_is_told_with_the_remedy(home: Path) -> None:
    dataset = run_of(pictures(home / "run", highest=60_000))
    root = pictures(home / "other", highest=3_600)
    named = read(root, dataset)
    told = said(named, dataset)
    assert (
        "True set s: its values of more than 8 bits were read with 4095 as white, those of the run with 65535" in told
    )
    assert "set value_range: [0, 65535] in the set's data" in told
    mended = read(root, dataset, value_range=(0, 65535))
    assert "more than 8 bits" not in said(mended, dataset)
    assert int(mended.images_NCHW.max()) == round(3_600 / 65_535 * 255)
    same = read(pictures(home / "same", highest=59_000), dataset)
    assert said(same, dataset) == ""


def test_of_a_set_that_takes_one_part_that_part_is_accounted_for(home: Path) -> None:
    dataset = run_of(pictures(home / "run"))
    pictures(home / "given" / "train", highest=252)
    pictures(home / "given" / "test", highest=251)
    (home / "given/train/a/00.png").write_bytes(b"")
    (home / "given/train/b/notes.txt").write_text("x")
    data = {"name": "image_folder", "root": "given", "image_size": 8, "channels": 1, "on_bad_image": "skip"}
    sets = tuple({"name": f"of-{part}", "kind": "shifted", "data": data, "part": part} for part in ("test", "all"))
    values = {"name": "r", "num_members": 2, "method": {"name": "bagging"}, "model": {"name": "lenet5"}}
    test, whole = (
        load_named_set(one, dataset)
        for one in parse_experiment({**values, "evaluation": {"sets": sets}}).evaluation.sets
    )
    assert test.source == "the test images of given (image_folder)"
    assert said(test, dataset) == ""
    assert whole.source == "all images of given (image_folder), 2 files left out"
    assert "left out 2 files" in said(whole, dataset)


def test_a_set_that_is_used_whole_says_nothing_of_a_division(home: Path) -> None:
    dataset = run_of(pictures(home / "run"))
    other = pictures(home / "other", highest=250)
    (other / "a/00.png").write_bytes(b"")
    told = said(read(other, dataset, on_bad_image="skip"), dataset)
    assert "left out 1 files" in told
    assert "in no part" not in told


def test_a_set_that_cannot_be_read_is_named(home: Path) -> None:
    dataset = run_of(pictures(home / "run"))
    with pytest.raises(DataError, match=r"^set s: data\.root: no folder nowhere"):
        read(Path("nowhere"), dataset)


def test_a_range_of_fractions_is_not_that_of_bytes(home: Path) -> None:
    """Pictures for a run on arrays from -1 to 1: their bytes span 0 to 255, and arrays of bytes are told or refused."""
    labels_N = np.arange(36) % 3
    values = np.random.default_rng(0).uniform(-1, 1, (36, 8, 8)).astype(np.float32)
    np.savez(home / "a.npz", train_images=values, train_labels=labels_N, class_names=np.array(list("abc")))
    dataset = load_dataset(DataConfig(name="arrays", path="a.npz", value_range=(-1.0, 1.0)))
    named = read(pictures(home / "other"), dataset)
    assert (int(named.images_NCHW.min()), int(named.images_NCHW.max())) == (0, 255)
    assert len(np.unique(named.images_NCHW)) > 200
    levels = np.random.default_rng(1).integers(0, 256, (36, 8, 8), np.uint8)
    for name, images in (("bytes", levels), ("same", values)):
        np.savez(home / f"{name}.npz", train_images=images, train_labels=labels_N, class_names=np.array(list("abc")))
    values_given = {"name": "r", "num_members": 2, "method": {"name": "bagging"}, "model": {"name": "lenet5"}}
    sets = tuple(
        {"name": name, "kind": "shifted", "data": {"name": "arrays", "path": f"{name}.npz"}}
        for name in ("bytes", "same")
    )
    beyond, same = parse_experiment({**values_given, "evaluation": {"sets": sets}}).evaluation.sets
    again = load_named_set(same, dataset)
    np.testing.assert_array_equal(
        again.images_NCHW, np.concatenate([dataset.train_images_NCHW, dataset.test_images_NCHW])
    )
    try:
        told = said(load_named_set(beyond, dataset), dataset)
    except DataError as error:
        told = str(error)
    assert "value_range" in told


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("keys", [{}, {"channels": 1}, {"channels": 3}, {"storage": "mapped"}])
def test_a_set_of_the_run_s_own_pictures_is_its_test_part_with_a_margin(
    home: Path, channels: int, keys: dict[str, Any]
) -> None:
    """Whatever the set says of channels: the very pixels where these are the run's, else the same pictures in the other number."""
    root = pictures(home / "run", size=(19, 15))
    for name in "abc":
        for n in range(12):
            with Image.open(root / name / f"{n:02d}.png") as grey:
                Image.merge("RGB", [grey, grey.transpose(Image.Transpose.ROTATE_180), grey]).save(
                    root / name / f"{n:02d}.png"
                )
    section = {"name": "image_folder", "image_size": 8, "margin": 2, "channels": channels}
    dataset = load_dataset(DataConfig(**section, root=str(root)))
    plain = {"channels": None, **keys}
    named = read(root, dataset, **plain)
    expected = np.concatenate([dataset.train_images_NCHW, dataset.test_images_NCHW])
    if plain["channels"] in (None, channels):
        np.testing.assert_array_equal(named.images_NCHW, expected)
    else:
        assert named.images_NCHW.shape == expected.shape
        assert np.abs(named.images_NCHW.mean(1).astype(int) - expected.mean(1).astype(int)).mean() < 30
        if channels == 1:  # luminance, as where colours were read as grey at once, but for the order of rounding
            assert np.abs(named.images_NCHW.astype(int) - expected).max() <= 2


def test_arrays_of_the_run_s_size_are_not_enlarged_for_their_channels(home: Path) -> None:
    root = pictures(home / "run")
    dataset = load_dataset(DataConfig(name="image_folder", root=str(root), image_size=6, margin=1, channels=1))
    colours = np.random.default_rng(0).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
    np.savez(
        home / "set.npz", train_images=colours, train_labels=np.arange(12) % 3, class_names=np.array(["a", "b", "c"])
    )
    named = loaded({"name": "arrays", "path": str(home / "set.npz")}, dataset)
    expected = sorted(np.asarray(Image.fromarray(each).convert("L")).tobytes() for each in colours)
    assert sorted(image.tobytes() for image in named.images_NCHW) == expected


@pytest.mark.parametrize("storage", [None, "memory", "mapped"])
def test_unknown_images_need_no_folders_of_classes(home: Path, storage: str | None) -> None:
    """Every picture at any depth, in the order of the paths."""
    dataset = run_of(pictures(home / "run"))
    other = home / "other"
    (other / "deep" / "er").mkdir(parents=True)
    expected = []
    for n, place in enumerate(["1.png", "2.png", "deep/3.png", "deep/er/4.png"]):
        expected.append(np.full((8, 8), 40 * n + 20, np.uint8))
        Image.fromarray(expected[-1]).save(other / place)
    (other / "deep" / "notes.gif").write_bytes(b"GIF89a")
    named = read(other, dataset, "unknown", storage=storage)
    order = [named.images_NCHW[n, 0, 0, 0] for n in range(4)]
    assert sorted(order) == [20, 60, 100, 140]
    assert (named.labels_N == -1).all()
    assert named.source == "all images of other (image_folder), 1 files left out"
    assert "True set s: other: left out 1 files (1 .gif)" in said(named, dataset)
    assert (place_of(named.images_NCHW) is not None) == (storage == "mapped")
    again = read(other, dataset, "unknown", storage=storage)
    np.testing.assert_array_equal(again.images_NCHW, named.images_NCHW)
    with pytest.raises(DataError, match="at least two folders"):
        read(other, dataset)
    with pytest.raises(DataError, match="at least two folders"):
        read(other, dataset, "unknown", "test")


@pytest.mark.parametrize("folders", [("",), ("x", "y")])
def test_mapped_unknown_images_are_read_again_where_they_are_not_there(home: Path, folders: tuple[str, ...]) -> None:
    """As on another machine: without folders of classes, and in the same order."""
    dataset = run_of(pictures(home / "run"))
    for place in folders:
        (home / "other" / place).mkdir(parents=True)
        for n in range(5):
            Image.fromarray(np.full((8, 8), 20 * n + 10 * len(place), np.uint8)).save(
                home / "other" / place / f"{n}.png"
            )
    named = read(home / "other", dataset, "unknown", storage="mapped")
    sent, expected = pickle.dumps(named.images_NCHW), named.images_NCHW.tobytes()
    assert len(sent) < 2000
    shutil.rmtree(home / "cache")
    arrays = {"images": pickle.loads(sent)}
    assert absent(arrays)
    assert present(arrays)["images"].tobytes() == expected


def test_of_folders_of_classes_unknown_images_are_all_there_are(home: Path) -> None:
    dataset, other = run_of(pictures(home / "run")), pictures(home / "other", highest=254)
    (found,) = {len(read(other, dataset, kind).images_NCHW) for kind in ("shifted", "unknown")}
    assert found == 36
    (other / "a" / "00.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="1 of 36 pictures cannot be used"):
        read(other, dataset, "unknown")
    named = read(other, dataset, "unknown", on_bad_image="skip")
    assert len(named.images_NCHW) == 35
    assert "other: left out 1 files (1 damaged)" in said(named, dataset)


def test_a_folder_without_unknown_images_is_refused(home: Path) -> None:
    dataset = run_of(pictures(home / "run"))
    (home / "empty").mkdir()
    (home / "empty" / "notes.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"set s: .*no pictures in this folder \(1 \.gif\); expected"):
        read(home / "empty", dataset, "unknown")
    with pytest.raises(DataError, match=r"no folder .*; expected one with pictures in it"):
        read(home / "nowhere", dataset, "unknown")
