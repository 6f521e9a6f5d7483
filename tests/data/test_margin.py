"""data.margin: pictures are kept larger than a network's images, which are windows of them in training and their middle elsewhere."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from pydantic import ValidationError

import ensemble
from ensemble import load_ensemble
from ensemble.config.recipe import AugmentationConfig
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.data.augmentation import augment, draw
from ensemble.data.dataset import images_digest
from ensemble.data.mapped import Place, middle, place_of
from ensemble.data.pixel_rule import PixelRule
from ensemble.data.pixels_digest import pixels_sha256
from ensemble.data.prepared import kept
from ensemble.errors import DataError
from ensemble.inference.export import preprocessing

MARGIN, SIZE = 3, (12, 16)
KEPT = tuple(side + 2 * MARGIN for side in SIZE)
KEYS = torch.tensor([5, 6])


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Colour pictures of several sizes in two parts of three classes, which are told by their brightness."""
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    for part, count in (("train", 24), ("test", 8)):
        for k, name in enumerate("abc"):
            (tmp_path / "photos" / part / name).mkdir(parents=True)
            for i in range(count):
                height, width = generator.integers(20, 40, 2)
                level = generator.integers(0, 120, (height, width, 3)) + 60 * k
                path = tmp_path / "photos" / part / name / f"{i:02d}.png"
                Image.fromarray(level.clip(0, 255).astype(np.uint8)).save(path)
    return tmp_path / "photos"


def section(photos: Path, **keys: Any) -> dict[str, Any]:
    return {"name": "image_folder", "root": str(photos), "image_size": SIZE, "margin": MARGIN, **keys}


def loaded(photos: Path, **keys: Any) -> Any:
    return load_dataset(DataConfig(**section(photos, **keys)))


@pytest.mark.parametrize("storage", ["memory", "mapped"])
def test_images_are_the_middle_of_what_is_kept(photos: Path, storage: str) -> None:
    data = loaded(photos, storage=storage)
    for part, wholes, images in zip(
        ("train", "test"), data.kept_images, (data.train_images_NCHW, data.test_images_NCHW), strict=True
    ):
        files = sorted((photos / part).rglob("*.png"))
        for file, whole, image in zip(files, wholes, images, strict=True):
            expected = np.asarray(ImageOps.fit(Image.open(file), KEPT[::-1], Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(whole, expected.transpose(2, 0, 1))
            np.testing.assert_array_equal(image, whole[:, MARGIN:-MARGIN, MARGIN:-MARGIN])
    assert data.image_shape == (3, *SIZE)


def test_stored_either_way_it_is_the_same_data_set_and_without_a_margin_another(photos: Path) -> None:
    memory, mapped = (loaded(photos, storage=storage) for storage in ("memory", "mapped"))
    assert images_digest(memory) == images_digest(mapped) == pixels_sha256(*memory.kept_images)
    larger = loaded(photos, storage="memory", image_size=KEPT, margin=None)
    assert images_digest(larger) == images_digest(memory)  # what is kept is the same
    smaller = loaded(photos, storage="memory", margin=None)
    assert images_digest(smaller) != images_digest(memory)
    assert larger.pixels.margin == smaller.pixels.margin == 0


def test_decoded_pictures_serve_every_margin_of_their_size(photos: Path) -> None:
    """Whoever decoded them: each data set knows its own margin, as without any cache."""
    for order in ((MARGIN, None, 1), (None, 1, MARGIN)):
        shutil.rmtree(photos.parent / "cache", ignore_errors=True)
        for margin in order:
            size = tuple(side - 2 * (margin or 0) for side in KEPT)
            found = loaded(photos, storage="mapped", image_size=size, margin=margin)
            assert found.pixels == PixelRule(margin=margin or 0)
            assert found.image_shape == (3, *size)
        assert len(kept()) == 1


def test_the_middle_of_mapped_images_travels_as_its_place(photos: Path) -> None:
    data = loaded(photos, storage="mapped")
    for images in (data.test_images_NCHW, data.train_images_NCHW):
        place = place_of(images)
        assert isinstance(place, Place)
        assert place.margin == MARGIN
        sent = pickle.dumps(images)
        assert len(sent) < 2000
        there = pickle.loads(sent)
        np.testing.assert_array_equal(there, images)
        assert place_of(there) == place
        assert place_of(there[:2]) is None


def test_a_picture_is_asked_for_as_test_pictures_were_read(photos: Path) -> None:
    data = loaded(photos)
    assert data.pixels == PixelRule(margin=MARGIN)
    assert PixelRule.from_json(data.pixels.to_json()) == data.pixels
    assert "margin" not in PixelRule().to_json()
    run = ensemble.train(
        data=section(photos), method="bagging", model={"name": "mlp", "widths": (8,)}, num_members=2, training={"epochs": 1, "batch_size": 8},
        name="asked", output_dir=photos.parent / "runs", compute={"executor": "inline"},
    )  # fmt: skip
    files = sorted((photos / "test").rglob("*.png"))
    answers = run.predict_proba([str(file) for file in files])
    np.testing.assert_allclose(answers, run.predict_proba(data.test_images_NCHW), atol=1e-6)
    trained = load_ensemble(run.path)
    said = preprocessing(trained)
    assert (said["height"], said["width"], said["pixels"]["margin"]) == (*SIZE, MARGIN)
    assert "size of 18 x 22 pixels; of that the middle 12 x 16" in said["size"]


def windows(kept_CHW: np.ndarray) -> list[bytes]:
    """Every window of the size, by its offsets in order."""
    reach = 2 * MARGIN + 1
    return [
        np.ascontiguousarray(kept_CHW[:, y : y + SIZE[0], x : x + SIZE[1]]).tobytes()
        for y in range(reach)
        for x in range(reach)
    ]


def test_training_sees_windows_drawn_evenly_from_all_that_is_kept(photos: Path) -> None:
    picture = loaded(photos).kept_images[0][0]
    count, config = 4000, AugmentationConfig()
    draws = draw(config, count, (3, *SIZE), KEYS[:1], 0, margin=MARGIN)
    images = torch.from_numpy(picture.copy()).float().div(255).expand(count, -1, -1, -1)
    seen = augment(images, config, draws, MARGIN).mul(255).round().to(torch.uint8)
    known = windows(picture)
    assert len(set(known)) == 49
    found = np.bincount([known.index(image.tobytes()) for image in seen.numpy()], minlength=49)
    expected = count / 49
    assert ((found - expected) ** 2 / expected).sum() < 90  # chi-square with 48 degrees of freedom, p = 2e-4


def test_with_a_padding_windows_reach_beyond_what_is_kept() -> None:
    config = AugmentationConfig(crop_padding=2, horizontal_flip=True)
    moves = draw(config, 4000, (1, *SIZE), KEYS, 0, margin=MARGIN).source_B23
    assert moves is not None
    assert set(moves[:, 1, 2].tolist()) == set(range(-5, 6))
    white = torch.ones(8000, 1, *KEPT)
    black = (
        (augment(white, config, draw(config, 4000, (1, *SIZE), KEYS, 0, margin=MARGIN), MARGIN) == 0).flatten(1).any(1)
    )
    beyond = (moves[:, :, 2].abs() > MARGIN).any(1)
    assert torch.equal(black, beyond)


def test_a_turned_image_shows_its_margin_in_the_corners() -> None:
    """Without one there would be black in them."""
    config = AugmentationConfig(rotation_degrees=8.0)
    shape = (1, 12, 12)
    draws = draw(config, 200, shape, KEYS, 0, margin=5)
    assert augment(torch.ones(400, 1, 22, 22), config, draws, 5).min() > 1 - 1e-6 or (
        draws.source_B23 is not None and draws.source_B23[:, :, 2].abs().max() >= 4
    )
    still = draw(config, 200, shape, KEYS, 0)
    assert augment(torch.ones(400, 1, 12, 12), config, still).min() < 0.5


def test_a_stretched_crop_is_of_all_that_is_kept() -> None:
    """Its area is a share of the whole picture, and it never leaves it."""
    config = AugmentationConfig(crop_area=0.25)
    source = draw(config, 3000, (1, *SIZE), KEYS, 0, margin=MARGIN).source_B23
    assert source is not None
    sides = torch.tensor([source[:, 0, 0].abs().mul(SIZE[1]).tolist(), source[:, 1, 1].abs().mul(SIZE[0]).tolist()]).T
    share = sides.prod(1) / (KEPT[0] * KEPT[1])
    assert 0.249 <= float(share.min()) < 0.26
    assert 0.9 < float(share.max()) <= 1
    reach = source[:, :, 2].abs() + sides / 2
    assert (reach <= torch.tensor([KEPT[1] / 2, KEPT[0] / 2]) + 1e-4).all()
    assert torch.allclose(reach.amax(0), torch.tensor([KEPT[1] / 2, KEPT[0] / 2]), atol=0.05)


def test_mixed_with_an_elastic_field_and_colours_it_is_what_the_middle_gives_at_rest() -> None:
    """All deformations with a draw that moves nothing: the middle itself."""
    config = AugmentationConfig(elastic_alpha=2.0, brightness=0.3)
    draws = draw(config, 10, (1, *SIZE), KEYS, 0, margin=MARGIN)
    assert draws.noise_B2hw is not None
    assert draws.source_B23 is not None
    assert draws.brightness_B is not None
    draws.noise_B2hw.zero_()
    draws.source_B23[:, :, 2] = 0
    draws.brightness_B.fill_(1)
    images = torch.rand(20, 1, *KEPT)
    expected = images[:, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
    torch.testing.assert_close(augment(images, config, draws, MARGIN), expected, rtol=0, atol=0)


RECIPES: dict[str, dict[str, Any]] = {
    "C kernels": {"model": "lenet5"},
    "grey": {"model": "lenet5", "data": {"channels": 1}},
    "photographs": {"model": {"name": "cnn", "widths": (4, 8)}, "training": {"augmentation": {"saturation": 0.3, "cutmix_alpha": 1.0}}},
    "boosted": {"method": "adaboost", "num_members": 4, "model": {"name": "mlp", "widths": (16,)}},
    "filtered": {
        "method": "filter_boosting", "num_members": 3, "model": {"name": "mlp", "widths": (16,)}, "training": {"augmentation": {"shift": 0.1}},
    },
    "turned views": {"model": {"name": "mlp", "widths": (16,)}, "evaluation": {"tta": {"shift": 1}}},
}  # fmt: skip


def votes(photos: Path, name: str, storage: str = "memory", **keys: Any) -> dict[str, bytes]:
    """Of all members, with their weights."""
    given: dict[str, Any] = {"method": "bagging", "num_members": 2, "baseline": False, **keys}
    training = {"epochs": 2, "batch_size": 8, **given.pop("training", {})}
    compute = {"executor": "inline", "stack_size": 2, **given.pop("compute", {})}
    data = section(photos, storage=storage, **{"image_size": (28, 32), **given.pop("data", {})})
    ensemble.train(data=data, training=training, compute=compute, name=name, output_dir=photos.parent / "runs", **given)
    members = photos.parent / "runs" / name / "members"
    return {
        f"{file.parent.name}/{file.name}": file.read_bytes()
        for file in members.rglob("*.*")
        if file.suffix in (".npz", ".safetensors")
    }


def votes_of(photos: Path, name: str, **keys: Any) -> Any:
    """Test votes [M, N, classes] of a run."""
    votes(photos, name, **keys)
    return ensemble.load(photos.parent / "runs" / name).votes("test")


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_in_memory_and_mapped_together_and_alone_give_the_same_members(photos: Path, recipe: str) -> None:
    memory = votes(photos, "memory", **RECIPES[recipe])
    assert memory
    assert votes(photos, "mapped", "mapped", **RECIPES[recipe]) == memory
    if RECIPES[recipe].get("method") != "filter_boosting":
        assert (
            votes(photos, "without", data={"margin": None}, **{k: v for k, v in RECIPES[recipe].items() if k != "data"})
            != memory
        )


def test_members_together_are_those_alone(photos: Path) -> None:
    """To rounding, as without a margin: of one member sums run in another order."""
    together, alone = (
        votes_of(photos, f"stack-{size}", compute={"stack_size": size}, num_members=3, model="lenet5")
        for size in (3, 1)
    )
    np.testing.assert_allclose(together, alone, atol=2e-3)


def test_members_on_a_frozen_backbone_are_trained_whole(photos: Path) -> None:
    """Features cannot be computed once of images that are seen through another window in every epoch."""
    drawn = ensemble.train(
        data=section(photos), method="bagging", num_members=1, model={"name": "cnn", "widths": (4,)}, baseline=False, name="drawn",
        output_dir=photos.parent / "runs", training={"epochs": 1, "batch_size": 8}, compute={"executor": "inline"},
    )  # fmt: skip
    frozen = {
        "name": "cnn",
        "widths": (4,),
        "freeze": "backbone",
        "weights": str(drawn.path / "members/0000/weights.safetensors"),
    }
    for margin, shared in ((MARGIN, False), (None, True)):
        votes(photos, f"margin-{margin}", data={"margin": margin, "image_size": SIZE}, model=frozen)
        assert (photos.parent / f"runs/margin-{margin}/shared").is_dir() == shared


@pytest.mark.filterwarnings("ignore")  # Ray's own start-up warnings are not ours to mend
def test_ray_workers_see_the_same_windows(photos: Path) -> None:
    expected = votes(photos, "inline", model="lenet5")
    for storage in ("memory", "mapped"):
        compute = {"executor": "ray", "slots": 1}
        assert votes(photos, f"ray-{storage}", storage, model="lenet5", compute=compute) == expected


def test_a_set_from_elsewhere_is_read_as_the_run_reads_its_pictures(photos: Path) -> None:
    """The run's own test pictures as a further set: the very votes."""
    there = {"name": "image_folder", "root": str(photos / "test"), "image_size": SIZE}
    run = ensemble.train(
        data=section(photos), method="bagging", model={"name": "mlp", "widths": (8,)}, num_members=2, training={"epochs": 3, "batch_size": 8},
        evaluation={"sets": ({"name": "again", "kind": "shifted", "data": there}, {"name": "dark", "kind": "shifted", "corruptions": ({"brightness": (3.0,)},)})},
        name="sets", output_dir=photos.parent / "runs", compute={"executor": "inline"},
    )  # fmt: skip
    assert run.evaluation is not None
    again, dark = run.evaluation.shifted
    wrong = int((run.votes("test").mean(0).argmax(-1) != run.labels("test")).sum())
    assert 0 < wrong < len(run.labels("test"))
    assert again.parts[0].wrong == wrong
    assert dark.parts[0].vote_error > 0


def test_a_run_is_not_gone_on_with_by_another_margin(photos: Path) -> None:
    """Also where what is kept is the same, pixel for pixel."""
    keys: dict[str, Any] = {"model": {"name": "mlp", "widths": (8,)}}
    votes(photos, "run", data={"image_size": SIZE}, **keys)
    with pytest.raises(ensemble.errors.ConfigError, match=r"data\.(margin|image_size)"):
        votes(photos, "run", data={"image_size": KEPT, "margin": None}, **keys)


@pytest.mark.parametrize("found", [0, -1, 2000, 1.5, True])
def test_what_is_no_margin_is_refused(photos: Path, found: Any) -> None:
    with pytest.raises(ValidationError, match="margin"):
        loaded(photos, margin=found)


@pytest.mark.parametrize(
    ("margin", "said"), [(MARGIN, "18x22 pixels with their margin in 3"), (None, "12x16 pixels in 3")]
)
def test_too_little_memory_names_the_margin(
    photos: Path, monkeypatch: pytest.MonkeyPatch, margin: int | None, said: str
) -> None:
    monkeypatch.setattr("ensemble.data.decoding.available_memory", lambda: 1000)
    remedy = r"or a smaller data\.image_size" + (r" or data\.margin" if margin else "") + "$"
    with pytest.raises(DataError, match=f"{said} .*{remedy}"):
        loaded(photos, storage="memory", margin=margin)


def test_the_middle_of_plain_arrays_is_a_view() -> None:
    images = np.arange(2 * 3 * 8 * 8, dtype=np.uint8).reshape(2, 3, 8, 8)
    assert middle(images, 0) is images
    cut = middle(images, 2)
    assert np.shares_memory(cut, images)
    assert cut.shape == (2, 3, 4, 4)
    assert pixels_sha256(cut) == pixels_sha256(cut.copy())
