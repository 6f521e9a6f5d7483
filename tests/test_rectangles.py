"""Images that are no squares: a folder of pictures trains like the equal arrays, bit for bit, and is used and shown as trained."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image

from ensemble import load_ensemble
from ensemble.commands.main import main
from ensemble.config.schema import DataConfig
from ensemble.data import Dataset, load_dataset
from ensemble.errors import ConfigError
from ensemble.inference.export import preprocessing
from ensemble.report import plots
from ensemble.report.card import model_card
from ensemble.report.run_facts import read_run
from tests.inference.conftest import train

SIZES = [(20, 28), (28, 20)]
MOVES = {
    "rotation_degrees": 20.0,
    "scale": 0.2,
    "shear_degrees": 5.0,
    "shift": 0.1,
    "crop_padding": 2,
    "horizontal_flip": True,
}
DEFORMS = {**MOVES, "elastic_alpha": 2.0, "brightness": 0.2, "contrast": 0.2, "crop_area": 0.5}
MIXES = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "erasing_probability": 0.5}
SMALL = {"name": "layers", "layers": (
    {"kind": "conv", "channels": 6, "batch_norm": True, "activation": "relu"}, {"kind": "average_pool", "size": 2},
    {"kind": "linear", "width": "classes"},
)}  # fmt: skip
RECIPES: dict[str, dict[str, Any]] = {
    "lenet5, deformed": {"model": {"name": "lenet5"}, "training": {"augmentation": DEFORMS}},
    "lenet5 by PyTorch": {"model": {"name": "lenet5"}, "training": {"augmentation": DEFORMS}, "kernels": "torch"},
    "lenet4, mixed": {"model": {"name": "lenet4"}, "training": {"augmentation": {**MOVES, **MIXES}}},
    "cnn": {"model": {"name": "cnn", "widths": (4, 6), "batch_norm": True, "dropout": 0.2}},
    "mlp": {"model": {"name": "mlp", "widths": (16,)}, "training": {"augmentation": MIXES}},
    "layers": {"model": SMALL},
    "resnet18": {"model": {"name": "resnet18"}},
    "torchvision": {"model": {"name": "torchvision", "architecture": "squeezenet1_1"}},
}


def write_pictures(root: Path, size: tuple[int, int], each: int = 20) -> Path:
    """Pictures [H, W] of two classes that differ in where they are bright, in the parts train and test."""
    stream = np.random.default_rng(5)
    height, width = size
    for part, count in (("train", each), ("test", 6)):
        for number, name in enumerate(("left", "right")):
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                pixels = stream.integers(0, 160, (height, width, 3), dtype=np.uint8)
                pixels[:, number * width // 2 : (number + 1) * width // 2] += 90
                Image.fromarray(pixels).save(root / part / name / f"{i:02d}.png")
    return root


def as_arrays(data: Dataset, path: Path) -> dict[str, Any]:
    """The data section of a file with the same images, its last axis the channels."""
    np.savez(
        path,
        train_images=data.train_images_NCHW.transpose(0, 2, 3, 1), train_labels=data.train_labels_N,
        test_images=data.test_images_NCHW.transpose(0, 2, 3, 1), test_labels=data.test_labels_N,
        class_names=np.array(data.class_names),
    )  # fmt: skip
    return {"name": "arrays", "path": str(path)}


def results(run: Path) -> dict[str, bytes]:
    """Weights and votes of all members."""
    return {
        f"{file.parent.name}/{file.name}": file.read_bytes()
        for kind in ("weights.safetensors", "votes.npz")
        for file in sorted((run / "members").glob(f"*/{kind}"))
    }


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_folder_trains_like_its_arrays(recipe: str, size: tuple[int, int], tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "set", size)
    folder = {"name": "image_folder", "root": str(root), "image_size": size, "channels": 3}
    arrays = as_arrays(load_dataset(DataConfig(**folder)), tmp_path / "set.npz")
    settings = RECIPES[recipe]
    runs = [
        train(
            tmp_path / data["name"], num_members=2, data={**data, "validation_fraction": 0.2}, model=settings["model"],
            training={"epochs": 1, "batch_size": 16, **settings.get("training", {})},
            compute={"executor": "inline", "device": "cpu", "kernels": settings.get("kernels", "auto")},
        )
        for data in (folder, arrays)
    ]  # fmt: skip
    found, expected = map(results, runs)
    assert len(found) == 4
    assert found == expected
    kept = [json.loads((run / "dataset.json").read_text()) for run in runs]
    assert kept[0]["image_shape"] == kept[1]["image_shape"] == [3, *size]
    assert kept[0]["images_sha256"] == kept[1]["images_sha256"]
    images = load_dataset(DataConfig(**folder)).test_images_NCHW
    np.testing.assert_array_equal(*(load_ensemble(run).predict_proba(images) for run in runs))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_frozen_features_of_rectangles(size: tuple[int, int], tmp_path: Path) -> None:
    root = write_pictures(tmp_path / "set", size)
    folder = {"name": "image_folder", "root": str(root), "image_size": size}
    arrays = as_arrays(load_dataset(DataConfig(**folder)), tmp_path / "set.npz")
    recipe: dict[str, Any] = {"num_members": 2, "training": {"epochs": 1, "batch_size": 16}}
    first = train(tmp_path / "first", data=folder, model={"name": "lenet5"}, **recipe)
    frozen = {"name": "lenet5", "weights": str(first / "members/0000/weights.safetensors"), "freeze": "backbone"}
    runs = [train(tmp_path / data["name"], data=data, model=frozen, **recipe) for data in (folder, arrays)]
    assert (runs[0] / "shared").is_dir()
    assert results(runs[0]) == results(runs[1])


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on wide pictures of other proportions than its images have, with bars; its pictures lie beside it."""
    place = tmp_path_factory.mktemp("padded")
    root = write_pictures(place / "set", (30, 90))
    data = {"name": "image_folder", "root": str(root), "image_size": (20, 28), "resize": "pad", "ground": "black"}
    model = {"name": "mlp", "widths": (8,)}
    return train(place / "runs", num_members=2, data=data, model=model, training={"epochs": 2, "batch_size": 16})


def test_predicting_fits_pictures_as_training_did(padded: Path) -> None:
    root = padded.parents[1] / "set"
    data = load_dataset(
        DataConfig(name="image_folder", root=str(root), image_size=(20, 28), resize="pad", ground="black")
    )
    assert not data.test_images_NCHW[:, :, :5].any()
    assert not data.test_images_NCHW[:, :, -6:].any()
    assert data.test_images_NCHW[:, :, 5:14].any((1, 2, 3)).all()
    expected = load_ensemble(padded).predict_proba(data.test_images_NCHW)
    done = CliRunner().invoke(main, ["predict", str(padded), str(root / "test"), "--json"])
    assert done.exit_code == 0, done.output
    answers = [list(answer["probabilities"].values()) for answer in json.loads(done.stdout)]
    np.testing.assert_allclose(answers, expected, atol=1e-6)


def test_run_folder_export_and_card_say_how_pictures_are_fitted(padded: Path) -> None:
    kept = json.loads((padded / "dataset.json").read_text())
    assert kept["pixels"] == {"value_range": None, "wide_range": None, "ground": "black", "resize": "pad"}
    said = preprocessing(load_ensemble(padded))
    assert (said["resize"], said["height"], said["width"]) == ("pad", 20, 28)
    assert said["size"].startswith("scaled until it fits into the size")
    card = model_card(padded)
    assert (
        "| pictures of other proportions | scaled until it fits into the size, in the middle, bars of the ground"
        in card
    )
    assert "images of 20 x 28 pixels" in card
    assert "image_size: [20, 28]" in card
    assert "resize: pad" in card


def test_a_report_shows_images_in_their_proportions(padded: Path) -> None:
    done = CliRunner().invoke(main, ["report", str(padded)])
    assert done.exit_code == 0, done.output
    shown = re.findall(
        r'alt="as the networks saw it: test image \d+" width="(\d+)" height="(\d+)"',
        (padded / "report.html").read_text(),
    )
    assert shown
    assert set(shown) == {("84", "60")}


def test_a_sheet_of_disputed_images_keeps_their_proportions(padded: Path) -> None:
    figure = Figure(figsize=(7.5, 5.6))
    axes = figure.add_axes((0, 0, 1, 1))
    plots.disputed(axes, read_run(padded))
    boxes = [image.get_window_extent() for image in axes.images]
    assert boxes
    assert [box.width / box.height for box in boxes] == pytest.approx([28 / 20] * len(boxes), rel=1e-6)


def test_a_run_is_not_gone_on_with_when_pictures_are_fitted_otherwise(tmp_path: Path) -> None:
    """Also where every picture has the size, so that all three give the same images: predicting would differ."""
    root = write_pictures(tmp_path / "set", (20, 28))
    keys: dict[str, Any] = {"num_members": 1, "model": {"name": "mlp"}, "training": {"epochs": 1, "batch_size": 16}}
    data = {"name": "image_folder", "root": str(root), "image_size": (20, 28)}
    path = train(tmp_path / "runs", data=data, **keys)
    before = results(path)
    assert train(tmp_path / "runs", data={**data, "resize": "crop"}, **keys) == path
    assert results(path) == before
    with pytest.raises(ConfigError, match=r"data\.resize"):
        train(tmp_path / "runs", data={**data, "resize": "squash"}, **keys)


def test_a_run_of_an_earlier_version_crops(tmp_path: Path) -> None:
    """Its configuration has no data.resize, and neither has its dataset.json."""
    root = write_pictures(tmp_path / "set", (30, 90))
    keys: dict[str, Any] = {"num_members": 1, "model": {"name": "mlp"}, "training": {"epochs": 1, "batch_size": 16}}
    path = train(tmp_path / "runs", data={"name": "image_folder", "root": str(root), "image_size": 20}, **keys)
    assert "resize" not in json.loads((path / "dataset.json").read_text())["pixels"]
    vote = load_ensemble(path).vote
    assert vote.pixels is not None
    assert vote.pixels.resize == "crop"
    shutil.rmtree(root)


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ({"name": "lenet5"}, (8, 64), "model lenet5: images of 8x64 .* are too small"),
        ({"name": "lenet5"}, (64, 8), "model lenet5: images of 64x8 .* are too small"),
        ({"name": "cnn", "widths": (4, 4, 4)}, (4, 64), "model cnn: images of 4x64 .* are too small"),
        (
            {"name": "torchvision", "architecture": "vit_b_32", "args": {"image_size": 32}},
            (32, 64),
            "model torchvision: cannot take images of 3 channels and 32x64 pixels: .*Wrong image width",
        ),
    ],
    ids=["lenet5 wide", "lenet5 tall", "cnn", "transformer"],
)
def test_a_network_that_cannot_take_a_size_says_so_before_anything_is_written(
    model: dict[str, Any], size: tuple[int, int], message: str, tmp_path: Path
) -> None:
    root = write_pictures(tmp_path / "set", (16, 16), each=4)
    data = {"name": "image_folder", "root": str(root), "image_size": size, "validation_fraction": 0.3}
    with pytest.raises(ConfigError, match=message):
        train(tmp_path / "runs", num_members=2, data=data, model=model, training={"epochs": 1})
    assert not (tmp_path / "runs").exists()
