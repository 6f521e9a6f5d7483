"""Resident images, and the batches of a stack gathered from them.

Images stay uint8 on the member's device; a batch is one gather, one conversion and, where asked, one augmentation
with parameters drawn per sample. Orders come from each member's own streams at (member, purpose, epoch), augmentations
from its key for the epoch and the position of an image in it, so a member sees the same batches alone, in a stack, and
after a restart.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ensemble.config.recipe import AugmentationConfig
from ensemble.data.augmentation import Draw, augment, draw, spline_taps
from ensemble.data.counter_random import signed_uniform
from ensemble.native.kernels import Deformation, Kernels
from ensemble.seeding import Purpose, member_generator, member_seed
from ensemble.training.batch_last import filled, worthwhile
from ensemble.training.job import Arrays
from ensemble.training.placement import Placement
from ensemble.types import MemberSpec


def tensor_of(array: npt.NDArray[np.generic]) -> Tensor:
    """A tensor over the array's own memory, which must never be written to: arrays may be shared by every process."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.as_tensor(array)


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator at that seed."""
    return torch.Generator(device).manual_seed(seed)


@dataclass(frozen=True)
class Resident:
    """The data set on one device. images: uint8; mean_C1 and std_C1 broadcast over [.., C, H, W]."""

    train_images: Tensor
    train_labels: Tensor
    validation_rows: Tensor
    test_images: Tensor
    test_labels: Tensor | None
    mean_C11: Tensor
    std_C11: Tensor

    @classmethod
    def load(cls, arrays: Arrays, device: torch.device) -> Resident:
        """Copy to a GPU, share with numpy on a CPU (nothing here ever writes into these tensors)."""
        tensors = {name: tensor_of(array).to(device).contiguous() for name, array in arrays.items()}
        return cls(
            tensors["train_images"], tensors["train_labels"], tensors["validation_rows"], tensors["test_images"],
            tensors.get("test_labels"), tensors["mean"].view(-1, 1, 1), tensors["std"].view(-1, 1, 1),
        )  # fmt: skip

    def unit(self, images: Tensor) -> Tensor:
        """uint8 images as float32 in [0, 1]."""
        return images.float().div_(255)

    def normalized(self, unit_images: Tensor) -> Tensor:
        """Images in [0, 1], standardised in place with the statistics of the training rows."""
        return unit_images.sub_(self.mean_C11).div_(self.std_C11)

    def standardized(self, images: Tensor) -> Tensor:
        """uint8 images as they come, standardised: what `normalized(unit(images))` gives, in one pass less."""
        if len(self.mean_C11) == 1:  # plain numbers are quicker than tensors of one
            return images.float().sub_(self._grey[0]).div_(self._grey[1])
        return images.float().sub_(self.mean_C11 * 255).div_(self.std_C11 * 255)

    def gathered(
        self, images: Tensor, rows_KB: Tensor, kernels: Kernels, deformed: Deformation | None = None
    ) -> Tensor:
        """Rows of uint8 images, deformed and standardised, as [K, C, H, W, filled]: see `batch_last`."""
        scale = self.mean_C11.flatten() * 255, self.std_C11.flatten() * 255
        return kernels.gather(images, rows_KB, *scale, filled(rows_KB.shape[1]), deformed)

    @cached_property
    def _grey(self) -> tuple[float, float]:
        return float(self.mean_C11) * 255, float(self.std_C11) * 255


@dataclass(frozen=True)
class Batch:
    """One step's data: images [K, B, C, H, W], labels [B, K], weights [B, K], targets [B, K, classes].

    rows: of the whole batch; with several ranks B is this rank's share of it.
    batch_last: None, or B where the images are [K, C, H, W, filled] (see `batch_last`).
    """

    images: Tensor
    labels_BK: Tensor
    weights_BK: Tensor | None
    targets_BKC: Tensor | None
    rows: int
    batch_last: int | None = None


class Batches:
    """The training batches of a stack, epoch by epoch.

    own: images [K, R, C, H, W] and labels [K, R] of the members' own sets, instead of their rows of the data set.
    kernels: lay out batches as these want them, where that is worthwhile.
    """

    def __init__(
        self,
        data: Resident,
        members: Sequence[MemberSpec],
        seed: int,
        batch_size: int,
        augmentation: AugmentationConfig,
        placement: Placement,
        own: tuple[Tensor, Tensor] | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        self._kernels = kernels
        self._data, self._members, self._seed = data, members, seed
        self._batch_size, self._augmentation, self._placement = batch_size, augmentation, placement
        device = placement.device
        self._images, self._labels = data.train_images, data.train_labels
        self._image_shape = (data.train_images.shape[1], data.train_images.shape[2], data.train_images.shape[3])
        if own is None:
            self.rows_per_epoch = len(members[0].rows)
            assert all(len(member.rows) == self.rows_per_epoch for member in members), "a stack needs equal row counts"
            self._rows_KR = torch.stack([tensor_of(member.rows).to(device) for member in members])
        else:
            self._images, self._labels = own[0].flatten(0, 1), own[1].flatten()
            self.rows_per_epoch = own[1].shape[1]
            self._rows_KR = torch.arange(own[1].numel(), device=device).view(own[1].shape)
        self._targets_KRC: Tensor | None = None
        if members[0].targets_RK is not None:
            targets = [tensor_of(member.targets_RK) for member in members if member.targets_RK is not None]
            assert len(targets) == len(members), "all members of a stack have targets, or none"
            self._targets_KRC = torch.stack(targets).to(device)
        self._weights_KR: Tensor | None = None
        assert all(m.weights is not None for m in members if m.resample), "drawing by weight needs weights"
        if any(member.weights is not None and not member.resample for member in members):
            ones = torch.ones(self.rows_per_epoch)
            weights = [ones if m.weights is None or m.resample else tensor_of(m.weights) for m in members]
            self._weights_KR = torch.stack(weights).to(device)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last one may be smaller."""
        return -(-self.rows_per_epoch // self._batch_size)

    def keys(self, epoch: int) -> Tensor:
        """The members' keys for the augmentation of an epoch (from 0): int64 [K], on the device."""
        seeds = [member_seed(self._seed, member.index, Purpose.AUGMENT, epoch) for member in self._members]
        return torch.tensor(seeds).to(self._placement.device)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch (from 0) in their order, from `first_step` on."""
        order_KR = torch.stack([self._order(member, epoch) for member in self._members]).to(self._rows_KR.device)
        rows_KR = self._rows_KR.gather(1, order_KR)
        labels_KR = self._labels[rows_KR]
        weights_KR = None if self._weights_KR is None else self._weights_KR.gather(1, order_KR)
        keys_K = self.keys(epoch)
        share = self._placement.share
        for start in range(first_step * self._batch_size, self.rows_per_epoch, self._batch_size):
            part = slice(start, min(start + self._batch_size, self.rows_per_epoch))
            weights = None if weights_KR is None else share(weights_KR[:, part]).T
            targets = None
            if self._targets_KRC is not None:
                members = torch.arange(len(order_KR), device=order_KR.device).unsqueeze(1)
                targets = self._targets_KRC[members, share(order_KR[:, part])].transpose(0, 1)
            labels, rows = share(labels_KR[:, part]).T, part.stop - part.start
            rows_KB, draws = share(rows_KR[:, part]), self._draw(keys_K, start, rows)
            if self._kernels is not None and worthwhile(len(labels)):
                images = self._data.gathered(self._images, rows_KB, self._kernels, self._deformation(draws))
                yield Batch(images, labels, weights, targets, rows, len(labels))
            else:
                yield Batch(self._gather(rows_KB, draws), labels, weights, targets, rows)

    def _order(self, member: MemberSpec, epoch: int) -> Tensor:
        """Positions in the member's rows, in the order of this epoch: all of them once, or drawn by weight."""
        if not member.resample:
            return torch.randperm(self.rows_per_epoch, generator=self._stream(member, Purpose.ORDER, epoch))
        assert member.weights is not None
        chances = member.weights.astype(np.float64)
        generator = member_generator(self._seed, member.index, Purpose.SAMPLE, epoch)
        return tensor_of(generator.choice(len(chances), len(chances), p=chances / chances.sum()))

    def _draw(self, keys_K: Tensor, first: int | Tensor, count: int) -> Draw | None:
        """How this rank's share of a batch is deformed. first: position in the epoch of the first of `count` images.

        Drawn for the whole batch, of which each rank takes its share.
        """
        if not self._augmentation.active:
            return None
        numbers = signed_uniform if self._kernels is None else self._kernels.signed_uniform
        draws = draw(self._augmentation, count, self._image_shape, keys_K, first, numbers)
        if self._placement.ranks == 1:
            return draws
        places = torch.arange(count * len(keys_K), device=keys_K.device).view(-1, count)
        return draws.rows(self._placement.share(places).flatten())

    def _deformation(self, draws: Draw | None) -> Deformation | None:
        """A draw as the kernels take it."""
        if draws is None:
            return None
        config, (_, height, width) = self._augmentation, self._image_shape
        if draws.noise_B2hw is None:
            return Deformation(draws.source_B23, brightness=draws.brightness_B, contrast=draws.contrast_B)
        down, across = (spline_taps(side, config.elastic_sigma) for side in (height, width))
        noise = draws.noise_B2hw * config.elastic_alpha
        return Deformation(draws.source_B23, noise, down, across, draws.brightness_B, draws.contrast_B)

    def _gather(self, rows_KB: Tensor, draws: Draw | None) -> Tensor:
        images = self._images[rows_KB.flatten()]
        if draws is None:
            images = self._data.standardized(images)
        else:
            images = self._data.normalized(augment(self._data.unit(images), self._augmentation, draws))
        members_images: Tensor = torch.unflatten(images, 0, (len(rows_KB), -1))
        return members_images

    def _stream(self, member: MemberSpec, purpose: Purpose, epoch: int) -> torch.Generator:
        return seeded(member_seed(self._seed, member.index, purpose, epoch))
