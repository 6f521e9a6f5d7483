"""Weights of one task as the start of another: digits 0 to 4, then 5 to 9 of which there are few.

`python examples/fine_tuning.py [FOLDER]`, in about half a minute on a CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import ensemble

FOLDER = sys.argv[1] if len(sys.argv) > 1 else "runs"
FEW = 60  # training images of the second task, of which a share is for validation
images, labels = load_digits(return_X_y=True)
images = (images.reshape(-1, 8, 8) / 16).astype(np.float32)
cnn = {"name": "cnn", "widths": [16, 32], "fully_connected": [64], "batch_norm": True}


def part(classes: range, train: int) -> tuple[np.ndarray, ...]:
    """The images of some digits, numbered from 0: so many to train with, the rest to test on."""
    rows = np.flatnonzero(np.isin(labels, classes))
    own = labels[rows] - classes.start
    return images[rows[:train]], own[:train], images[rows[train:]], own[train:]


def train(name: str, data: tuple[np.ndarray, ...], model: dict[str, object], epochs: int) -> ensemble.Run:
    """Five members on the same rows, each with another order and, where layers are drawn, another start."""
    return ensemble.train(
        name=name, output_dir=FOLDER, model=model, data=data, method="deep_ensemble", num_members=5,
        training={"epochs": epochs, "batch_size": 16, "lr": 0.003},
    )  # fmt: skip


first = train("zero_to_four", part(range(5), 700), cnn, 10)
start = {**cnn, "weights": str(Path(first.path) / "members/0000/weights.safetensors"), "new_head": True}
few = part(range(5, 10), FEW)
ways = {
    "from_scratch": cnn,
    "fine_tuned": start,
    "convolutions_frozen": {
        **start,
        "freeze": ["0", "1", "4", "5"],
    },  # and their batch norms; `ensemble models` lists the names
    "backbone_frozen": {**start, "freeze": "backbone"},
}
runs = [train(name, few, model, 30) for name, model in ways.items()]

print(f"Digits 5 to 9: {FEW} images to train with, {len(few[2])} to test on. Votes of five:")
for line in ensemble.compare(runs).lines[: len(runs)]:
    text = f"{line.name:<20} test error {line.test_error:6.2%} ({line.lower:.2%} to {line.upper:.2%})"
    if line.name != runs[0].name:
        text += f", against {runs[0].name}: {100 * line.difference:+.2f} points ({100 * line.difference_lower:+.2f} to {100 * line.difference_upper:+.2f})"
    print(text)
