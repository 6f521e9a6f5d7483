"""A network whose training hardly goes on while a file is there.

A test that stops a run in mid-training needs one that is still under way when the stop arrives, on a quick machine as on a
busy one. Many epochs make it last by burning a processor, which other tests wait for, and a fast one trains them all before; this
one sleeps at each step until the file is removed, then trains on at full speed, to the same bits as if the file had never been.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from torch import Tensor, nn

HELD_S = 0.1  # at each step, while the file is there


class Held(nn.Module):
    """A small perceptron on 8 x 8 pixels; images [B, C, H, W] in, logits [B, num_classes] out."""

    def __init__(self, num_classes: int, in_channels: int, hold: str, width: int = 16) -> None:
        super().__init__()
        self.hold = hold
        self.layers = nn.Sequential(
            nn.AdaptiveAvgPool2d(8),
            nn.Flatten(),
            nn.Linear(64 * in_channels, width),
            nn.ReLU(),
            nn.Linear(width, num_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        if self.training and Path(self.hold).exists():
            time.sleep(HELD_S)
        logits: Tensor = self.layers(images)
        return logits


def held(folder: Path) -> dict[str, Any]:
    """The section `model` of a configuration in that folder, which gets a copy of this file; its runs wait while `hold_of` is there.

    Runs are held from now on.
    """
    shutil.copy(__file__, folder)
    hold_of(folder).touch()
    return {"name": "python", "path": f"{Path(__file__).name}:Held", "args": {"hold": str(hold_of(folder))}}


def hold_of(folder: Path) -> Path:
    """The file that holds the runs of a folder's configurations; removed, they go on."""
    return folder / "hold"
