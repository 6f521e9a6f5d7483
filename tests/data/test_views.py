"""Views of images (`evaluation.tta`), worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ensemble.config.tta import TtaConfig
from ensemble.data import DATASETS, Dataset
from ensemble.data.augmentation_check import check_views
from ensemble.data.views import crop_box, views_of
from ensemble.errors import ConfigError


def pictures(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def empty(name: str) -> Dataset:
    info = DATASETS[name]
    images, labels = np.zeros((1, *info.image_shape), np.uint8), np.zeros(1, np.int64)
    return Dataset(name, images, labels, images, labels, info.class_names, info.flippable)


@pytest.mark.parametrize(
    ("options", "views"),
    [({}, 1), ({"horizontal_flip": True}, 2), ({"shift": 2}, 5), ({"crops": 3}, 4), ({"horizontal_flip": True, "shift": 1, "crops": 2}, 14)],
)  # fmt: skip
def test_there_are_as_many_as_the_configuration_says(options: dict[str, int], views: int) -> None:
    config, images = TtaConfig(**options), pictures(3, 1, 12, 10)
    found = [view(images) for view in views_of(config, 12, 10)]
    assert len(found) == config.views == views
    assert config.active == (views > 1)
    assert torch.equal(found[0], images)
    for one in found:
        assert (one.shape, one.dtype) == (images.shape, torch.uint8)
    assert len({one.numpy().tobytes() for one in found}) == views, "no two are alike"


def test_moves_are_by_whole_pixels_with_zeros_behind_them() -> None:
    images = pictures(2, 3, 8, 9)
    _, left, right, up, down = (view(images) for view in views_of(TtaConfig(shift=2), 8, 9))
    for moved, own, source in (
        (left, np.s_[..., :-2], np.s_[..., 2:]),
        (right, np.s_[..., 2:], np.s_[..., :-2]),
        (up, np.s_[..., :-2, :], np.s_[..., 2:, :]),
        (down, np.s_[..., 2:, :], np.s_[..., :-2, :]),
    ):
        assert torch.equal(moved[own], images[source])
        assert int(moved.sum()) == int(images[source].sum()), "zeros elsewhere"


def test_every_view_is_also_mirrored() -> None:
    images = pictures(2, 1, 8, 9)
    config = TtaConfig(shift=1, crops=1)
    plain = [view(images) for view in views_of(config, 8, 9)]
    both = [view(images) for view in views_of(config.model_copy(update={"horizontal_flip": True}), 8, 9)]
    assert all(map(torch.equal, both, [*plain, *(one.flip(-1) for one in plain)]))


def test_a_crop_is_a_part_stretched_to_the_whole_image() -> None:
    top, left, rows, columns = crop_box(0.3, 0, 16, 16)
    assert (rows, columns) != (16, 16)
    view = views_of(TtaConfig(crops=1, crop_area=0.3), 16, 16)[1]
    flat = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    flat[..., top : top + rows, left : left + columns] = 200
    assert bool((view(flat) == 200).all()), "all of what it shows, and nothing else"
    images = pictures(2, 3, 16, 16)
    exact = views_of(TtaConfig(crops=1, crop_area=0.3), 16, 16)[1](images.float())
    assert (exact - view(images).float()).abs().max() <= 0.5


def test_crops_are_where_they_ever_were() -> None:
    """They are part of what a vote is: others would be another vote under the same configuration."""
    assert [crop_box(0.7, number, 28, 28) for number in range(3)] == [(3, 0, 25, 28), (4, 0, 21, 27), (4, 1, 23, 27)]


def test_crops_have_the_asked_area_and_lie_inside() -> None:
    boxes = np.array([crop_box(0.4, number, 100, 200) for number in range(400)])
    top, left, rows, columns = boxes.T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + rows <= 100).all()
    assert (left + columns <= 200).all()
    area = rows * columns / 20_000
    assert 0.38 < area.min() < 0.42
    assert area.max() > 0.9
    assert np.abs(np.log((columns / 200) / (rows / 100))).max() < np.log(4 / 3) + 0.03
    assert len(np.unique(boxes, axis=0)) > 390


def test_what_makes_no_sense_for_a_data_set_is_refused() -> None:
    check_views(TtaConfig(horizontal_flip=True, shift=31), empty("cifar10"))
    with pytest.raises(ConfigError) as caught:
        check_views(TtaConfig(horizontal_flip=True, shift=28), empty("mnist"))
    assert "evaluation.tta.horizontal_flip: found true, expected false with data set mnist" in str(caught.value)
    assert "evaluation.tta.shift: found 28, expected less than the image side (28x28" in str(caught.value)
    with pytest.raises(ValueError, match="crop_area has no effect without crops"):
        TtaConfig(crop_area=0.5)
