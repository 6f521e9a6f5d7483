"""The parts of the GPU benchmark, in the order of what they decide."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Part:
    """A command of its own.

    command: gets the name of the file for its cases as its last argument. limit_s: seconds after which it is killed.
    least_s: it is not started with fewer seconds left. about: what it measures.
    """

    name: str
    command: tuple[str, ...]
    limit_s: float
    least_s: float
    about: str


# Name of the part and of its module and function, limit, least time, content.
_PARTS: tuple[tuple[str, float, float, str], ...] = (
    ("facts", 60, 5, "card, driver, versions; memory bandwidth and matrix products as the scale for everything else"),
    ("own_tests", 130, 20, "the project's tests that need a GPU: stack = alone, graph = eager, augmentation as on a CPU"),
    ("steps", 170, 30, "LeNet-5, batch 128: graph and eager, convolution variants, precisions, 1 to 256 members"),
    ("convolutions", 150, 20, "every convolution variant, layer by layer, as replays of a CUDA graph, with its error"),
    ("vmap", 80, 20, "64 LeNet-5 with torch.func.vmap, eager, as a CUDA graph and compiled, beside ours"),
    ("mapped", 60, 20, "ShuffleNet, whose layers have no K-fold form: one by one, and as one by torch.func"),
    ("resnet18", 120, 30, "ResNet-18, bf16, 50,000 images of CIFAR-10's size: ours, a plain loop, the loop compiled"),
    ("ensemble_pytorch", 80, 25, "LeNet-5 with Ensemble-PyTorch, images from torchvision and resident, beside ours"),
    ("kernels", 60, 20, "profile: which kernels take the time of a step, and how much of it the GPU is busy"),
    ("augmentation", 60, 15, "what deformed images cost 64 LeNet-5"),
    ("memory", 60, 15, "peak memory of training, of predicting, and after the task"),
    ("streamed", 60, 15, "images that do not fit, sent batch by batch, beside the same training with all of them on the card"),
    ("record", 90, 30, "configs/record_mnist.yaml: a short run with one member of each kind; time per member-epoch"),
    ("whole_process", 150, 60, "8 bagged LeNet-5, whole process: `ensemble train` and Ensemble-PyTorch"),
    ("many", 90, 20, "100 LeNet-5 of 99 %; 16 LeNet-5 as one stack and as 16 processes on the same GPU"),
)  # fmt: skip
_FULL_RECORD = ("full_record", 4 * 3600.0, 600.0, "configs/record_mnist.yaml, all of it; the same command resumes it")
NAMES = tuple(name for name, *_ in _PARTS)


def select(names: list[str] | None, options: dict[str, Any]) -> list[Part]:
    """The parts of these names (all when None) in their usual order; options go to the parts as they are.

    A dry run has ten times the limits: what is quick on a card may be slow on a CPU that does other things besides.
    Raises ValueError for an unknown name.
    """
    known = (*_PARTS, _FULL_RECORD) if options.get("full_record") else _PARTS
    wanted = [name for name, *_ in known] if names is None else names
    if unknown := set(wanted) - {name for name, *_ in known}:
        raise ValueError(f"unknown parts: {', '.join(sorted(unknown))}; expected some of {', '.join(NAMES)}")
    return [
        Part(
            name, (sys.executable, "-m", "benchmarks.gpu.child", name, json.dumps(options)),
            10 * limit if options["small"] else limit, least, about,
        )
        for name, limit, least, about in known
        if name in wanted
    ]  # fmt: skip
