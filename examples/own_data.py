"""An ensemble on images of one's own source: `python examples/own_data.py [FOLDER]`, in seconds on a CPU.

One class holds the source's keys and reads it; one line makes it known. From then on everything works with it that works with
the package's own: checks of the configuration, `ensemble datasets`, resuming, further sets, reports.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

import numpy as np
from pydantic import Field

import ensemble


@ensemble.register_data
class Stripes(ensemble.DataConfig):
    """Noisy stripes, upright, lying and aslant."""

    name: Literal["stripes"]
    images: int = Field(600, ge=30, description="training images; half as many more to test")
    noise: float = Field(0.5, ge=0, le=1)

    def build(self) -> dict[str, Any]:
        """The same images at every call: a run that is started again compares them with those it began with."""
        return {"train": self._drawn(self.images, seed=1), "test": self._drawn(self.images // 2, seed=2)}

    def _drawn(self, count: int, seed: int) -> tuple[Any, Any]:
        generator = np.random.default_rng(seed)
        y, x = np.mgrid[:16, :16]
        phases = np.stack([np.broadcast_to(axis, (16, 16)) for axis in (x, y, x + y)])
        labels_N = np.arange(count) % 3
        shift_N = generator.integers(0, 6, count)
        images_NHW = 1.0 * ((phases[labels_N] + shift_N[:, None, None]) % 6 < 3)
        images_NHW += self.noise * generator.standard_normal(images_NHW.shape)
        return images_NHW.clip(0, 1), labels_N


if __name__ == "__main__":
    run = ensemble.train(
        name="stripes",
        output_dir=sys.argv[1] if len(sys.argv) > 1 else "runs",
        model={"name": "cnn", "widths": [8]},
        data={"name": "stripes", "noise": 0.8},
        method="bagging",
        num_members=5,
        training={"epochs": 6, "batch_size": 32},
    )
    print(run.evaluation.verdict.sentence)
    print(run.report())
