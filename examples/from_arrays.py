"""Arrays in memory: train, look at the votes, compare. `python examples/from_arrays.py [FOLDER]`, in half a minute on a CPU."""

from __future__ import annotations

import sys

import numpy as np
from sklearn.datasets import load_digits

import ensemble

images, labels = load_digits(return_X_y=True)
images = (images.reshape(-1, 8, 8) / 16).astype(np.float32)  # [N, H, W], floats in [0, 1]
data = images[:1200], labels[:1200], images[1200:], labels[1200:]

runs = [
    ensemble.train(
        name=method,
        output_dir=sys.argv[1] if len(sys.argv) > 1 else "runs",
        model={"name": "mlp", "widths": [64]},
        data=data,
        method=method,
        num_members=5,
        training={"epochs": 15, "lr": 0.01},
    )
    for method in ("bagging", "deep_ensemble")
]
for run in runs:
    classes_MN = run.votes("test").argmax(axis=-1)
    agreed = (classes_MN == classes_MN[0]).all(axis=0).mean()
    print(
        f"{run.name}: {run.evaluation.verdict.sentence} All members name the same class for {agreed:.1%} of the images."
    )
for line in ensemble.compare(runs).lines:
    print(f"{line.name}: {line.test_error:.2%}")
