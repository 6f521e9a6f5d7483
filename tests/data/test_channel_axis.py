"""Which axis holds the channels: clear, or asked for, and the same through every door."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.data.channel_axis import USUAL, to_channels_first
from ensemble.errors import DataError
from tests.amounts import examples

SIDES = st.integers(1, 130)


def read(shape, layout=None):
    images, read_as = to_channels_first(np.broadcast_to(np.uint8(0), shape), layout, "x", "data.layout")
    return images.shape[1:], read_as


@given(SIDES, SIDES, SIDES)
@settings(max_examples=examples(300), deadline=None)
def test_every_shape_is_clear_or_asked_for(a, b, c):
    try:
        shape, layout = read((2, a, b, c))
    except DataError:
        assert (a in USUAL) == (c in USUAL)
        assert read((2, a, b, c), "channels_first")[0] == (a, b, c)
        assert read((2, a, b, c), "channels_last")[0] == (c, a, b)
    else:
        assert shape == ((a, b, c) if layout == "channels_first" else (c, a, b))
        assert (a in USUAL) != (c in USUAL) or a == b == c == 1


@given(SIDES, SIDES, SIDES)
@settings(max_examples=examples(100), deadline=None)
def test_the_classifier_reads_shapes_as_files_are_read(a, b, c):
    from ensemble import EnsembleClassifier

    X = np.broadcast_to(np.uint8(0), (2, a, b, c))
    found = []
    for door in (lambda: EnsembleClassifier()._as_images(X, None)[0].shape[1:], lambda: read(X.shape)[0]):
        try:
            found.append(door())
        except DataError:
            found.append("asked for")
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("shape", "layout", "expected"),
    [
        ((40, 9, 9, 120), None, "120 channels of 9x9 .channels_last.; say which by data.layout"),
        ((40, 2, 12, 3), None, "may be 2 channels of 12x3"),
        ((40, 9, 9, 120), "channels_last", (120, 9, 9)),
        ((40, 9, 9, 120), "channels_first", (9, 9, 120)),
        ((40, 12, 12, 2), None, (2, 12, 12)),
        ((40, 12, 12), "channels_last", "data.layout has no effect"),
    ],
)
def test_files_of_arrays(shape, layout, expected, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    np.savez(tmp_path / "x.npz", train_images=images, train_labels=np.arange(40) % 2)
    config = DataConfig(name="arrays", path=str(tmp_path / "x.npz"), layout=layout)
    if isinstance(expected, str):
        with pytest.raises(DataError, match=expected):
            load_dataset(config)
        return
    data = load_dataset(config)
    assert data.image_shape == expected
    assert any(f"{expected[0]} channels of {expected[1]}x{expected[2]}" in r.text for r in data.account.remarks())
