"""MNIST as the benchmarks of training take it."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

ROWS = 54_000


@functools.cache
def load_mnist() -> tuple[dict[str, Any], Any]:
    """MNIST as the training loop takes it, 1,000 validation and 1,000 test images, and the rows to train on."""
    from ensemble.config.schema import DataConfig
    from ensemble.data import load_dataset

    mnist = load_dataset(DataConfig(name="mnist"))
    arrays = {
        "train_images": mnist.train_images_NCHW, "train_labels": mnist.train_labels_N,
        "validation_rows": np.arange(ROWS, ROWS + 1000), "test_images": mnist.test_images_NCHW[:1000],
        "mean": np.array([0.1307], np.float32), "std": np.array([0.3081], np.float32),
    }  # fmt: skip
    return arrays, np.arange(ROWS)
