"""What every test shares: no key, no network, no display, and the real data sets only where they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Set before ray, wandb or matplotlib is first imported.
os.environ["WANDB_MODE"] = "offline"
os.environ.pop("WANDB_API_KEY", None)
os.environ["WANDB_SILENT"] = "true"
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def mnist_root() -> Path:
    """The folder that holds real MNIST, from $ENSEMBLE_DATA; skips with the reason without it."""
    root = os.environ.get("ENSEMBLE_DATA")
    if not root or not (Path(root) / "MNIST" / "raw" / "train-images-idx3-ubyte").is_file():
        pytest.skip("needs real MNIST: set ENSEMBLE_DATA to a folder with MNIST/raw in torchvision's layout")
    return Path(root)
