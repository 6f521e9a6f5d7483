"""What a worker is handed: arrays that are the same for every task, and how to train the tasks of each group.

Test labels are not among them: a worker cannot look at what it must not choose by. (A test curve, where
training.watch_test asks for one, is the exception; nothing but the member's history ever holds it.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ensemble.config.schema import ComputeConfig, Experiment, Group
from ensemble.config.tta import TtaConfig
from ensemble.errors import ComputeError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor

# train_images [N, C, H, W] uint8, with `Group.margin` on each side, as test_images have it; train_labels [N] int64, validation_rows [V] int64, test_images [T, C, H, W] uint8,
# mean [C] and std [C] float32 of the training rows on the scale [0, 1]; test_labels [T] int64 where
# training.watch_test asks for a test curve. Under START and a group's name the weights its members start from, as the bytes of
# a safetensors file [n] uint8, where its network has any; under CLASS_WEIGHTS those of the loss [classes] float64, where it names any.
START, CLASS_WEIGHTS = "start.", "class_weights."
GIVEN = (START, CLASS_WEIGHTS)
FloatVector = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Ways:
    """Which kernels compute a stack, see `training.ways`.

    batch_last: those of that name. convolutions: by a layer's name one of `layers.CONVOLUTION_WAYS`; others go the
    usual way.
    """

    batch_last: bool
    convolutions: dict[str, str]


@dataclass(frozen=True)
class Job:
    """How to train the tasks of one group. `seed` is the run's root seed; ways: those of the plan, if it says; tta: how members vote."""

    seed: int
    group: Group
    compute: ComputeConfig
    num_classes: int
    ways: Ways | None = None
    tta: TtaConfig = field(default_factory=TtaConfig)


def shape_of(arrays: Arrays, margin: int) -> tuple[int, int, int]:
    """(C, H, W) of the images as networks take them, without the margin that they are kept with."""
    channels, height, width = arrays["train_images"].shape[1:]
    return channels, height - 2 * margin, width - 2 * margin


def given_start(arrays: Arrays, group: str) -> dict[str, Tensor]:
    """The weights that every member of a group starts from, by name; empty where they are drawn."""
    if START + group not in arrays:
        return {}
    from safetensors.torch import load  # imports torch

    tensors: dict[str, Tensor] = load(arrays[START + group].tobytes())
    return tensors


def given_class_weights(arrays: Arrays, group: str) -> FloatVector | None:
    """The weights of the loss that a group names, by class; None where it names none."""
    found = arrays.get(CLASS_WEIGHTS + group)
    return None if found is None else found.astype(np.float64)


def device_kind(compute: ComputeConfig) -> str:
    """ "cpu" or "cuda": the configured device, or the best kind this machine has.

    Raises ComputeError when a GPU is asked for and this machine has none (and no cluster is named that may).
    """
    if compute.device == "cpu" or (compute.device == "auto" and not _has_gpu_driver()):
        return "cpu"
    import torch  # only here: the driver of a CPU run needs no torch

    if torch.cuda.is_available() or (compute.device == "cuda" and compute.ray_address is not None):
        return "cuda"
    if compute.device == "cuda":
        raise ComputeError(NO_GPU)
    return "cpu"


def check_precision(compute: ComputeConfig, device: str) -> None:
    """Raises ConfigError where the precision would change nothing on this kind of device ("cpu" or "cuda")."""
    if compute.precision == "tf32" and device == "cpu":
        raise ConfigError(
            "compute.precision is tf32, which only GPUs have, but the run trains on CPUs; expected float32 or bf16 there"
        )


def check_batches(experiment: Experiment, image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raises ConfigError for batches of one image that a batch norm cannot be trained on."""
    for group in experiment.groups:
        if group.training.batch_size > 1:
            continue
        from ensemble.models.work import needs_two_images  # imports torch, which few runs need here

        if needs_two_images(group.model, image_shape, num_classes):
            raise ConfigError(
                f"training.batch_size is 1, but {group.name} has a batch norm over a single value per image and channel, "
                "which needs at least 2 images; expected a batch size of 2 or more, or no batch norm there"
            )


NO_GPU = "compute.device is cuda, but torch sees no GPU here; expected at least one; use compute.device=cpu"


def _has_gpu_driver() -> bool:
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg", "/dev/kfd"))
