"""A network with a layer that has no K-fold form is trained member by member, and the run says so."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch import nn

from ensemble.events import Notice
from ensemble.models.mlp import MlpConfig
from tests.training.helpers import experiment, results, specs, train


def with_layer_norm(_config: Any, shape: tuple[int, int, int], classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(shape[1] * shape[2], 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, classes)
    )


@pytest.mark.parametrize("extra", [{}, {"gradient_clip_norm": 1.0, "ema_decay": 0.9, "keep": "best_validation"}])
def test_falls_back_to_single_members(
    extra: dict[str, Any], arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MlpConfig, "build", with_layer_norm)
    config = experiment({"name": "mlp"}, epochs=4, lr=5e-3, **extra)
    items = train(config, specs([0, 1]), arrays)
    notices = [item.message for item in items if isinstance(item, Notice)]
    assert len(notices) == 1
    assert "2 (LayerNorm) cannot be stacked" in notices[0]
    together = results(items)
    assert [together[k].stack_size for k in (0, 1)] == [1, 1]
    alone = results(train(config, specs([1]), arrays))[1]
    assert set(alone.weights) == {"1.weight", "1.bias", "2.weight", "2.bias", "4.weight", "4.bias"}
    for name, tensor in alone.weights.items():
        np.testing.assert_array_equal(together[1].weights[name], tensor)
    assert not np.array_equal(alone.weights["2.weight"], np.ones(16)), "the layer was trained"
    assert alone.history[-1].validation_loss < alone.history[0].validation_loss
