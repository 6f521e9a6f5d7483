"""Stochastic depth: in training a residual block is left out at random, the more often the deeper it lies.

G. Huang, Y. Sun, Z. Liu, D. Sedra, K. Weinberger, "Deep networks with stochastic depth", ECCV 2016.

Block l of L is left out with probability l/L * p (the paper's linear rule, p of the last block), for each image by itself. What is
kept is divided by the share that is kept, so that the whole network answers in evaluation, as it is; the paper leaves a block out for
a whole batch, and multiplies in evaluation instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """What a residual branch adds to images [B, ...], for each of them with probability p nothing in training.

    In a stack `training.layers.StackedStochasticDepth` stands for it, whose draws have addresses; alone it draws from torch's generator.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        kept = torch.empty((len(x), *[1] * (x.dim() - 1)), dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * kept.div_(1 - self.p)

    def extra_repr(self) -> str:
        """As torch shows its own layers."""
        return f"p={self.p:g}"


def by_image(layer: nn.Module) -> StochasticDepth | None:
    """A layer as one of ours where it is torchvision's or timm's and does the same; None for any other."""
    kind = f"{type(layer).__module__}.{type(layer).__name__}"
    if type(layer) is StochasticDepth:
        p = layer.p
    elif kind == "torchvision.ops.stochastic_depth.StochasticDepth" and layer.mode == "row":
        p = float(layer.p)  # type: ignore[arg-type]
    elif kind == "timm.layers.drop.DropPath" and layer.scale_by_keep:
        p = float(layer.drop_prob or 0)  # type: ignore[arg-type]
    else:
        return None
    return StochasticDepth(p) if p < 1 else None


@cache
def dropping(block: type[nn.Module]) -> type[nn.Module]:
    """torchvision's block with a layer `drop` behind its branch; the names of its weights stay."""
    from torchvision.models import resnet

    bottleneck = block is resnet.Bottleneck

    class DroppingBlock(block):  # type: ignore[valid-type,misc]
        def __init__(self, *arguments: Any, **more: Any) -> None:
            super().__init__(*arguments, **more)
            self.drop: nn.Module = nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            branch = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            if bottleneck:
                branch = self.bn3(self.conv3(self.relu(branch)))
            return self.relu(self.drop(branch) + (x if self.downsample is None else self.downsample(x)))  # type: ignore[no-any-return]

    return DroppingBlock


def leave_out(blocks: Sequence[nn.Module], p: float) -> None:
    """Give each of these dropping blocks, in their order, its share of p: the last has p itself."""
    for number, block in enumerate(blocks, 1):
        block.drop = StochasticDepth(p * number / len(blocks))
