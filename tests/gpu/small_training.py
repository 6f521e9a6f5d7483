"""A small training on random images, for scripts on pretended devices: `list(train(recipe, cuda_graph=True))`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np
from recipes import BATCH, EPOCHS, FULL_STEPS, TEST, VALIDATION, Recipe

from ensemble.config import Experiment, parse_experiment
from ensemble.training import Trainer
from ensemble.types import MemberSpec, Task

ROWS = FULL_STEPS * BATCH + BATCH // 2  # the last step of an epoch is smaller


@contextmanager
def no_numbers() -> Iterator[None]:
    """Inside, stored votes may be anything: a pretended device computes none, and what is no probability would be refused."""
    with patch("ensemble.storage.member_files.require_probabilities", lambda *_given: None):
        yield


def experiment(recipe: Recipe, **compute: Any) -> Experiment:
    """Its experiment on a GPU; whatever is given replaces values of its compute section."""
    pictures = {"name": "image_folder", "root": "nowhere", "image_size": recipe.shape[1], "margin": recipe.margin}
    return parse_experiment({
        "name": "pretended", **({"data": pictures} if recipe.margin else {}), "num_members": recipe.count, "method": {"name": "deep_ensemble"}, "model": recipe.model,
        "training": {"epochs": EPOCHS, "batch_size": BATCH, **recipe.training},
        "compute": {"device": "cuda", "checkpoint_every_s": 0, **recipe.compute, **compute},
        "evaluation": {"tta": recipe.tta},
        "tracking": {"wandb": {"mode": "disabled"}},
    })  # fmt: skip


def arrays(
    shape: tuple[int, int] = (1, 28), rows: int = ROWS, test: int = TEST, watched: bool = False
) -> dict[str, Any]:
    """A data set of random images [N, channels, side, side]; its last VALIDATION rows are for validation."""
    rng, (channels, side), count = np.random.default_rng(0), shape, rows + VALIDATION
    found = {
        "train_images": rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8),
        "train_labels": rng.integers(0, 10, count),
        "validation_rows": np.arange(rows, count),
        "test_images": rng.integers(0, 256, (test, channels, side, side), dtype=np.uint8),
        "mean": np.full(channels, 0.13, np.float32),
        "std": np.full(channels, 0.3, np.float32),
    }
    return {**found, "test_labels": rng.integers(0, 10, test)} if watched else found


def task(config: Experiment, rows: int = ROWS, name: str = "task") -> Task:
    """All members, each on all training rows and with votes on some of them."""
    group = config.groups[0]
    members = (MemberSpec(k, group.name, np.arange(rows), vote_rows=np.arange(10 + k)) for k in range(group.count))
    return Task(name, group.name, tuple(members))


def train(recipe: Recipe, given: dict[str, Any] | None = None, **compute: Any) -> Iterator[Any]:
    """What one task yields on the device that is current. given: other arrays than those of `arrays`."""
    config = experiment(recipe, **compute)
    channels, side = recipe.shape
    given = given or arrays((channels, side + 2 * recipe.margin), watched=bool(recipe.training.get("watch_test")))
    rows = len(given["train_images"]) - len(given["validation_rows"])
    return Trainer.create(config, "cuda", 10)(task(config, rows), given)
