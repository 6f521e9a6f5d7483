"""A single image left over at the end of an epoch, for networks that can and cannot be trained on one."""

from __future__ import annotations

import numpy as np
import pytest

from ensemble.errors import ConfigError
from ensemble.models.work import needs_two_images
from ensemble.training.batches import Batches
from ensemble.training.job import check_batches
from ensemble.training.placement import Placement
from ensemble.training.resident import Resident
from tests.training.helpers import experiment, failures, results, specs, train

SINGLE = {
    "name": "layers",
    "layers": (
        {"kind": "conv", "channels": 2, "kernel_size": 15},
        {"kind": "conv", "channels": 4, "kernel_size": 14, "batch_norm": True},
        {"kind": "linear", "width": "classes"},
    ),
}
NETWORKS = {
    "batch norm of one value": SINGLE,
    "batch norm of a map": {"name": "cnn", "widths": (4,), "batch_norm": True},
    "none": {"name": "mlp", "widths": (8,)},
}


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("left_over", [0, 1, 2])
def test_every_network_trains_whatever_is_left_over(network, left_over, arrays):
    """64 + 0, 1 or 2 rows in batches of 32."""
    config = experiment(NETWORKS[network], batch_size=32, epochs=1)
    members = specs([0, 1], rows=64 + left_over)
    items = train(config, members, arrays)
    assert not failures(items)
    assert len(results(items)) == 2
    assert all(np.isfinite(array).all() for array in results(items)[0].weights.values())


@pytest.mark.parametrize("rows", range(2, 14))
@pytest.mark.parametrize("least", [1, 2])
def test_batches_hold_every_row_once(rows, least, arrays):
    config = experiment(batch_size=4)
    placement = Placement.create(config.compute)
    data = Resident.load(arrays, placement.device)
    training = config.groups[0].training
    batches = Batches(
        data, specs([0], rows=rows), 0, training.batch_size, training.augmentation, placement, least_rows=least
    )
    sizes = [batches.rows_of(step) for step in range(batches.steps_per_epoch)]
    assert sum(sizes) == rows
    assert [batch.images.shape[1] for batch in batches.epoch(0)] == sizes
    assert min(sizes) >= min(least, rows)
    if least == 1:
        assert max(sizes) <= 4
        assert len(sizes) == -(-rows // 4)


def test_which_networks_need_two_images():
    groups = [experiment(model).groups[0].model for model in (*NETWORKS.values(), {"name": "resnet18"})]
    assert [needs_two_images(model, (1, 28, 28), 10) for model in groups] == [True, False, False, True]


def test_batches_of_one_are_refused_where_they_cannot_train():
    check_batches(experiment(NETWORKS["none"], batch_size=1), (1, 28, 28), 10)
    check_batches(experiment(SINGLE, batch_size=2), (1, 28, 28), 10)
    with pytest.raises(
        ConfigError, match=r"training\.batch_size is 1, but layers has a batch norm over a single value"
    ):
        check_batches(experiment(SINGLE, batch_size=1), (1, 28, 28), 10)
