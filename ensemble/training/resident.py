"""The data set as a task has it: uint8 images on its device, or, where they take too much of a GPU, in the machine's memory.

data = Resident.load(arrays, device, model, room=0.5 * memory)
images = data.take(data.train_images, rows)        # on the device, wherever they were
data.will_need(data.train_images, next_rows)       # gathered, and sent, while other work goes on
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble.config.network import Network
from ensemble.data.mapped import place_of, read_at_random, will_need
from ensemble.native.kernels import Deformation, Kernels
from ensemble.training.batch_last import filled
from ensemble.training.job import GIVEN, Arrays

IMAGES = ("train_images", "test_images")
GPU_SHARE = 0.5  # of a GPU's memory that images may take; the rest is for networks and what they compute


def tensor_of(array: npt.NDArray[np.generic]) -> Tensor:
    """A tensor over the array's own memory, which must never be written to: arrays may be shared by every process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.as_tensor(array)


class Stream:
    """Rows of images in the machine's memory, gathered by a thread and copied to a device.

    The copy of what was asked for begins in that thread, from memory that the device reads by itself.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._thread = ThreadPoolExecutor(1, "images")
        self._asked: tuple[Tensor, Tensor, Future[Tensor]] | None = None

    def ask_for(self, images: Tensor, rows: Tensor) -> None:
        """Gather these rows [n] (of the machine's memory, as the images are)."""
        self._asked = images, rows, self._thread.submit(self._gather, images, rows)

    def take(self, images: Tensor, rows: Tensor) -> Tensor:
        """The rows on the device: those that were asked for, or others, which are gathered now."""
        asked, self._asked = self._asked, None
        if asked is not None and asked[0] is images and torch.equal(asked[1], rows):
            gathered = asked[2].result()
        else:
            gathered = self._gather(images, rows)
        return gathered.to(self._device, non_blocking=True)

    def _gather(self, images: Tensor, rows: Tensor) -> Tensor:
        gathered = torch.empty(
            (len(rows), *images.shape[1:]), dtype=images.dtype, pin_memory=self._device.type == "cuda"
        )
        return torch.index_select(images, 0, rows, out=gathered)


@dataclass(frozen=True)
class Resident:
    """The data set on one device. images: uint8; mean_C1 and std_C1 broadcast over [.., C, H, W].

    ready: the images are float32 as a network takes them, such as features of a frozen backbone.
    kept: the training images as they are kept, with `margin` pixels more on each side: train_images is the middle of it.
    files: images that are mapped from a file, of which those of the next batch are asked for before they are needed.
    stream: where the images stay in the machine's memory and batches are sent to the device; None where they are on it.
    """

    train_images: Tensor
    train_labels: Tensor
    validation_rows: Tensor
    test_images: Tensor
    test_labels: Tensor | None
    mean_C11: Tensor
    std_C11: Tensor
    kept: Tensor
    margin: int = 0
    ready: bool = False
    files: tuple[tuple[Tensor, npt.NDArray[np.generic]], ...] = ()
    stream: Stream | None = None

    @classmethod
    def load(
        cls,
        arrays: Arrays,
        device: torch.device,
        model: Network | None = None,
        room: float | None = None,
        margin: int = 0,
    ) -> Resident:
        """Copy to a GPU, share with numpy on a CPU (nothing here ever writes into these tensors).

        model: a network that may have a standardisation of its own. room: bytes that images may take on the device; where
        they take more they stay in the machine's memory. margin: of the images of both parts.
        """
        arrays = {**arrays, **_scale(arrays, model, arrays["train_images"].shape[1])}
        images = {name: array for name, array in arrays.items() if not name.startswith(GIVEN)}
        streams = room is not None and sum(arrays[name].nbytes for name in IMAGES) > room
        on_host = (*IMAGES, "validation_rows")  # rows lie where the images are that they choose
        tensors = {
            name: tensor_of(array).contiguous()
            if streams and name in on_host
            else tensor_of(array).to(device).contiguous()
            for name, array in images.items()
        }
        kept, parts = tensors["train_images"], {name: middle(tensors[name], margin) for name in IMAGES}
        return cls(
            parts["train_images"], tensors["train_labels"], tensors["validation_rows"], parts["test_images"],
            tensors.get("test_labels"), tensors["mean"].view(-1, 1, 1), tensors["std"].view(-1, 1, 1), kept, margin,
            files=tuple(_files(arrays, kept, parts)) if device.type == "cpu" or streams else (),
            stream=Stream(device) if streams else None,
        )  # fmt: skip

    @classmethod
    def of_scale(cls, arrays: Arrays, device: torch.device, model: Network, channels: int) -> Resident:
        """No images at all: what standardises those that come from elsewhere, see `load`."""
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        scale = _scale(arrays, model, channels)
        mean_C11, std_C11 = (tensor_of(scale[name]).to(device).view(-1, 1, 1) for name in ("mean", "std"))
        return cls(nothing, nothing, nothing, nothing, None, mean_C11, std_C11, nothing)

    def file_of(self, images: Tensor) -> npt.NDArray[np.generic] | None:
        """The mapped file that these images are; None of images that are in memory."""
        return next((array for tensor, array in self.files if tensor is images), None)

    def will_need(self, images: Tensor, rows: Tensor) -> None:
        """Let these rows be read while other work goes on, where the images are in a file or not on the device."""
        if (array := self.file_of(images)) is not None:
            will_need(array, rows.flatten().cpu().numpy())
        if self.stream is not None and self._streamed(images):
            self.stream.ask_for(images, rows.flatten().cpu())

    def take(self, images: Tensor, rows: Tensor) -> Tensor:
        """These rows [...] of some images, as [..., C, H, W] on the device."""
        if self.stream is None or not self._streamed(images):
            # Ten times as quick as images[rows] on a CPU. Views of images that are streamed may lie elsewhere than their rows.
            chosen = images.index_select(0, rows.flatten().to(images.device))
            return chosen.view(*rows.shape, *images.shape[1:])
        return self.stream.take(images, rows.flatten().cpu()).view(*rows.shape, *images.shape[1:])

    def _streamed(self, images: Tensor) -> bool:
        return images is self.train_images or images is self.test_images or images is self.kept

    def unit(self, images: Tensor) -> Tensor:
        """uint8 images as float32 in [0, 1]."""
        return images.float().div_(255)

    def normalized(self, unit_images: Tensor) -> Tensor:
        """Images in [0, 1], standardised in place with the statistics of the training rows."""
        return unit_images.sub_(self.mean_C11).div_(self.std_C11)

    def standardized(self, images: Tensor) -> Tensor:
        """uint8 images as they come, standardised: what `normalized(unit(images))` gives, in one pass less."""
        if self.ready:
            return images
        if len(self.mean_C11) == 1:  # plain numbers are quicker than tensors of one
            return images.float().sub_(self._grey[0]).div_(self._grey[1])
        return images.float().sub_(self.mean_C11 * 255).div_(self.std_C11 * 255)

    def gathered(
        self, images: Tensor, rows_KB: Tensor, kernels: Kernels, deformed: Deformation | None = None
    ) -> Tensor:
        """Rows of uint8 images, deformed and standardised, as [K, C, H, W, filled]: see `batch_last`."""
        if not images.is_contiguous():  # the middle of larger ones: the kernels read whole images
            images, rows_KB = images[rows_KB.flatten()], torch.arange(rows_KB.numel()).view(rows_KB.shape)
        scale = self.mean_C11.flatten() * 255, self.std_C11.flatten() * 255
        return kernels.gather(images, rows_KB, *scale, filled(rows_KB.shape[1]), deformed)

    @cached_property
    def _grey(self) -> tuple[float, float]:
        return float(self.mean_C11) * 255, float(self.std_C11) * 255


def _scale(arrays: Arrays, model: Network | None, channels: int) -> dict[str, npt.NDArray[np.generic]]:
    """Mean and standard deviation of each channel on the scale [0, 1]: a network's own, where it has some, else the data's."""
    own = model.scale(channels) if model is not None else None
    if own is None:
        return {name: arrays[name] for name in ("mean", "std")}
    return {"mean": np.array(own[0], np.float32), "std": np.array(own[1], np.float32)}


def middle(images: Tensor, margin: int) -> Tensor:
    """A view of images [N, C, H, W] without so many pixels on each side; the very tensor without a margin."""
    return images[:, :, margin:-margin, margin:-margin] if margin else images


def _files(
    arrays: Arrays, kept: Tensor, parts: Mapping[str, Tensor]
) -> Iterator[tuple[Tensor, npt.NDArray[np.generic]]]:
    for name, images in parts.items():
        if place_of(arrays[name]) is not None:
            read_at_random(arrays[name])
            yield images, arrays[name]
    if place_of(arrays["train_images"]) is not None and kept is not parts["train_images"]:
        yield kept, arrays["train_images"]
