"""Votes on rows that the members share, and on rows of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest_training import arrays as arrays
from conftest_training import experiment, specs

import ensemble.training.prediction as prediction
from ensemble.training import Trainer
from ensemble.training.loop import StackRun
from ensemble.training.placement import Placement
from ensemble.types import Task


@pytest.mark.parametrize("kernels", ["auto", "torch"])
@pytest.mark.parametrize(
    ("rows", "apart"),
    [
        ([range(90), range(90, 200), range(250, 270)], True),  # hardly a row in common
        ([range(90), range(5, 90), range(40)], False),
        ([range(0), range(0), range(0)], False),
        ([range(0), range(3, 60), range(100, 155)], True),
    ],
)
def test_each_member_votes_on_its_own_rows(
    rows: list[range], apart: bool, kernels: str, arrays: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Trainer.create(experiment(None, kernels), "cpu", 10).jobs["lenet5"]
    run = StackRun(Task("t", "lenet5", specs([0, 1, 2])), job, arrays, Placement.create(job.compute))
    images, chosen = run.data.train_images, [torch.tensor(list(own), dtype=torch.int64) for own in rows]
    everything = prediction.predict(run.stack, run.data, images, None, run.placement)
    asked: list[int] = []
    all_of_them = prediction.predict_logits
    monkeypatch.setattr(
        prediction, "predict_logits", lambda s, d, i, r, p: asked.append(r.dim()) or all_of_them(s, d, i, r, p)
    )
    found = prediction.predict_own(run.stack, run.data, images, chosen, run.placement)
    assert asked == [2 if apart else 1]
    for k, own in enumerate(chosen):
        assert found[k].shape == (len(own), 10)
        np.testing.assert_allclose(found[k], everything[k][own], atol=1e-5)
