"""An ensemble of a network of one's own: `python examples/own_network.py [FOLDER]`, in half a minute on a CPU.

One class holds the network's keys and builds it; one line makes it known. From then on everything works with it that works
with the package's own: checks of the configuration, stacks where its layers allow, resuming, reports, export.
"""

from __future__ import annotations

import sys
from typing import Literal

from pydantic import Field
from torch import nn

import ensemble


@ensemble.register_network
class PatchMixer(ensemble.Network):
    """Patches of 7 x 7 pixels, each turned into some features, then a hidden layer over all of them."""

    name: Literal["patch_mixer"]
    features: int = Field(8, ge=1, description="features of a patch")
    hidden: int = Field(32, ge=1)

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
        channels, height, width = image_shape
        patches = (height // 7) * (width // 7)
        return nn.Sequential(
            nn.Conv2d(channels, self.features, 7, stride=7),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(self.features * patches, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, num_classes),
        )


if __name__ == "__main__":
    run = ensemble.train(
        name="patches",
        output_dir=sys.argv[1] if len(sys.argv) > 1 else "runs",
        model={"name": "patch_mixer", "hidden": 48},
        data="digits",
        method="bagging",
        num_members=8,
        training={"epochs": 20, "lr": 0.01},
    )
    print(run.evaluation.verdict.sentence)
    print(run.report())
