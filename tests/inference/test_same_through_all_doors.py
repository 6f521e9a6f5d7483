"""One picture, many forms, four doors: the same bytes and the same probabilities."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ensemble import EnsembleClassifier, load_ensemble
from ensemble.commands.main import main
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.errors import DataError
from ensemble.inference.prepare import Preparation
from tests.contracts.drawn_pictures import files_of, png16, saved
from tests.inference.conftest import train

SIDE = 8
MLP = {"num_members": 2, "model": {"name": "mlp", "widths": (8,)}, "training": {"epochs": 2, "lr": 1e-2}}


def images_of_two_classes(count: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """Grey images [N, 8, 8] over the whole range, bright on the left or on the right."""
    generator = np.random.default_rng(3)
    images, labels = generator.integers(0, 128, (count, SIDE, SIDE)), np.arange(count) % 2
    images[labels == 0, :, :4] += 127
    images[labels == 1, :, 4:] += 127
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The same images as pictures in folders and as arrays of several types; one picture in every form."""
    root = tmp_path_factory.mktemp("doors")
    images, labels = images_of_two_classes()
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        (root / "folder" / "train" / "lr"[label]).mkdir(parents=True, exist_ok=True)
        (root / "folder" / "test" / "lr"[label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / "folder" / "train" / "lr"[label] / f"{i:02d}.png")
    (root / "forms").mkdir()
    for k, (name, content) in enumerate(files_of(images[5]).items()):
        (root / "folder" / "test" / "lr"[k % 2] / name).write_bytes(content)
        (root / "forms" / name).write_bytes(content)
    kinds = {"bytes": np.uint8, "int16": np.int16, "int64": np.int64, "float32": np.float32, "float64": np.float64}
    for name, dtype in kinds.items():
        arrays = images.astype(dtype) / dtype(255) if "float" in name else images.astype(dtype)
        np.savez(root / f"{name}.npz", train_images=arrays, train_labels=labels, test_images=arrays, test_labels=labels)
    return root


@pytest.fixture(scope="module")
def runs(place):
    """By door: the run's folder."""
    folder = {"name": "image_folder", "root": str(place / "folder"), "image_size": SIDE, "channels": 1}
    arrays = {name: {"name": "arrays", "path": str(place / f"{name}.npz")} for name in ("bytes", "int64", "float32")}
    return {
        name: train(place / "runs" / name, data={**data, "validation_fraction": 0.3}, **MLP)
        for name, data in {"folder": folder, **arrays}.items()
    }


def test_training_reads_the_same_bytes(place):
    images, _ = images_of_two_classes()
    for name in ("bytes", "int16", "int64", "float32", "float64"):
        data = load_dataset(DataConfig(name="arrays", path=str(place / f"{name}.npz")))
        np.testing.assert_array_equal(data.train_images_NCHW[:, 0], images)
    folder = load_dataset(DataConfig(name="image_folder", root=str(place / "folder"), image_size=SIDE, channels=1))
    np.testing.assert_array_equal(folder.test_images_NCHW, np.broadcast_to(images[5], (18, 1, SIDE, SIDE)))


def test_prediction_gives_one_answer_for_all_forms_and_doors(place, runs):
    images, _ = images_of_two_classes()
    for path in runs.values():
        trained = load_ensemble(path)
        expected = trained.predict_proba(images[5:6])[0]
        done = CliRunner().invoke(main, ["predict", str(path), str(place / "forms"), "--json"])
        assert done.exit_code == 0, done.output
        answers = json.loads(done.stdout)
        assert len(answers) == 18
        for answer in answers:
            np.testing.assert_allclose(
                list(answer["probabilities"].values()), expected, atol=1e-6, err_msg=answer["image"]
            )
        for as_given in (images[5:6].astype(np.int64), images[5:6] / 255, images[5:6, None], images[5:6, ..., None]):
            np.testing.assert_allclose(trained.predict_proba(as_given)[0], expected, atol=1e-6)
    probabilities = [load_ensemble(path).predict_proba(images) for path in runs.values()]
    for other in probabilities[2:]:  # arrays of three types; the folder has another order of rows
        np.testing.assert_array_equal(other, probabilities[1])


def test_python_takes_files_bytes_and_pillows_pictures_as_predict_does(place, runs):
    images, _ = images_of_two_classes()
    forms = sorted((place / "forms").iterdir())
    for path in (runs["folder"], runs["bytes"]):
        trained = load_ensemble(path)
        expected = np.repeat(trained.predict_proba(images[5:6]), len(forms), axis=0)
        opened = [Image.open(file) for file in forms]
        for given in (forms, [str(file) for file in forms], [file.read_bytes() for file in forms], opened):
            np.testing.assert_allclose(trained.predict_proba(given), expected, atol=1e-6)
        np.testing.assert_allclose(trained.predict_proba(str(forms[0])), expected[:1], atol=1e-6)
        assert trained.predict(opened[0]).shape == (1,)
        assert trained.member_probs(forms[0]).shape == (2, 1, 2)


@pytest.mark.parametrize("resize", ["crop", "pad", "squash"])
def test_a_picture_of_another_size_is_brought_to_size_as_predict_does(place, runs, tmp_path, resize):
    """Also turned as its EXIF says, with a palette, with 16 bits, and transparent."""
    data = {"name": "image_folder", "root": str(place / "folder"), "image_size": SIDE, "channels": 1, "resize": resize}
    trained = load_ensemble(train(tmp_path / "runs", data={**data, "validation_fraction": 0.3}, **MLP))
    draw = np.random.default_rng(0)
    colours = Image.fromarray(draw.integers(0, 256, (13, 21, 3), np.uint8))
    turned, clear = Image.Exif(), colours.convert("RGBA")
    turned[0x0112] = 6
    clear.putalpha(Image.fromarray(draw.integers(0, 256, (13, 21), np.uint8)))
    colours.save(tmp_path / "turned.png", exif=turned)
    colours.quantize(16).save(tmp_path / "palette.png")
    clear.save(tmp_path / "clear.png")
    Image.fromarray(draw.integers(0, 65536, (13, 21)).astype(np.uint16)).save(tmp_path / "wide.png")
    for name in ("turned.png", "palette.png", "clear.png", "wide.png"):
        done = CliRunner().invoke(main, ["predict", str(trained.vote.folder), str(tmp_path / name), "--json"])
        assert done.exit_code == 0, done.output
        expected = list(json.loads(done.stdout)[0]["probabilities"].values())
        for given in (tmp_path / name, Image.open(tmp_path / name), [(tmp_path / name).read_bytes()]):
            np.testing.assert_allclose(trained.predict_proba(given)[0], expected, atol=1e-6, err_msg=name)


def test_pictures_that_cannot_be_used_are_named_each(place, runs, tmp_path):
    trained, good = load_ensemble(runs["bytes"]), next((place / "forms").iterdir())
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(DataError) as told:
        trained.predict_proba([good, tmp_path / "broken.png", tmp_path / "gone.png", b"GIF89a"])
    lines = str(told.value).splitlines()
    parts = ("broken.png: ", "gone.png: no such file", "images[3]: ")
    assert all(part in line for part, line in zip(parts, lines, strict=True)), lines
    with pytest.raises(DataError, match=r"images\[1\]: found ndarray among pictures; expected a path"):
        trained.predict_proba([good, np.zeros((SIDE, SIDE), np.uint8)])
    with pytest.raises(DataError, match="found an array of shape"):
        trained.predict_proba([])
    with pytest.raises(DataError, match="image: found NaN or infinite values"):
        trained.predict_proba(Image.fromarray(np.full((SIDE, SIDE), np.nan, np.float32)))


def test_the_classifier_reads_the_same(place):
    images, labels = images_of_two_classes()
    settings = {"num_members": 1, "epochs": 2, "random_state": 0}
    expected = EnsembleClassifier(**settings).fit(images, labels).predict_proba(images)
    first = EnsembleClassifier(**settings).fit(images[:, None], labels).predict_proba(images[:, None].astype(np.int32))
    last = EnsembleClassifier(**settings).fit(images[..., None], labels).predict_proba(images[..., None] * 1.0)
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(last, expected)


def test_a_run_keeps_its_rule_and_prediction_uses_it(tmp_path):
    """Twelve bits in sixteen: the range of the training pictures, not that of the picture asked about."""
    draw = np.random.default_rng(0)
    for name, level in (("high", 3000), ("low", 1000)):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(10):
            pixels = (level + draw.integers(-200, 200, (SIDE, SIDE))).astype(np.uint16)
            Image.fromarray(pixels).save(tmp_path / "set" / name / f"{i}.png")
    data = {"name": "image_folder", "root": str(tmp_path / "set"), "image_size": SIDE, "channels": 1}
    path = train(tmp_path / "runs", data={**data, "validation_fraction": 0.2}, **MLP)
    kept = json.loads((path / "dataset.json").read_text())
    assert kept["pixels"] == {"value_range": None, "wide_range": [0.0, 4095.0], "ground": "white"}
    trained = load_ensemble(path)
    dark = np.full((SIDE, SIDE), 300, np.uint16)
    levels = np.full((1, 1, SIDE, SIDE), round(300 / 4095 * 255), np.uint8)
    (tmp_path / "dark.png").write_bytes(saved(Image.fromarray(dark), "PNG"))
    (tmp_path / "colour.png").write_bytes(png16(np.repeat(dark[..., None], 3, 2), 2))
    preparation = Preparation(trained.vote.dataset, trained.image_shape, trained.vote.pixels)
    for name in ("dark.png", "colour.png"):
        np.testing.assert_array_equal(preparation.read(name, tmp_path / name).image_CHW, levels[0])
    np.testing.assert_array_equal(trained.predict_proba(dark[None]), trained.predict_proba(levels))
    (tmp_path / "bright.png").write_bytes(saved(Image.fromarray(dark + 5000), "PNG"))
    assert preparation.read("dark.png", tmp_path / "dark.png").note is None
    said = preparation.read("bright.png", tmp_path / "bright.png").note
    assert said == "bright.png: values beyond 0 to 4095, the range of this run's pictures, are cut off"
    with pytest.raises(Exception, match="found values of type uint16 from 5000 to 5000; expected 0 to 4095"):
        trained.predict_proba(np.full((1, SIDE, SIDE), 5000, np.uint16))


def test_a_run_of_an_earlier_version_predicts_as_it_did(runs, place, tmp_path):
    """Its dataset.json has no rule: transparency and 16 bits by each picture's own brightness."""
    import hashlib
    import shutil

    path = tmp_path / "older"
    shutil.copytree(runs["folder"], path)
    described = json.loads((path / "dataset.json").read_text())
    del described["pixels"], described["pictures"]
    content = json.dumps(described).encode()
    (path / "dataset.json").write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["dataset.json"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (path / "manifest.json").write_text(json.dumps(manifest))
    trained = load_ensemble(path)
    assert trained.vote.pixels is None
    read = Preparation(trained.vote.dataset, trained.image_shape, trained.vote.pixels).read
    wide = {top: saved(Image.fromarray(np.full((SIDE, SIDE), top, np.uint16)), "PNG") for top in (255, 256)}
    assert [int(read("x", content).image_CHW.max()) for content in wide.values()] == [255, 1]
    clear = saved(Image.new("LA", (SIDE, SIDE), (200, 0)), "PNG")
    assert read("x", clear).image_CHW.max() == 255
