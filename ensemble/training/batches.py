"""The batches of a stack, gathered from its images.

A batch is one gather, one conversion and, where asked, one augmentation
with parameters drawn per sample. Orders come from each member's own streams at (member, purpose, epoch), augmentations
from its key for the epoch and the position of an image in it, so a member sees the same batches alone, in a stack, and
after a restart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ensemble.config.recipe import AugmentationConfig, TrainingConfig
from ensemble.data.augmentation import Draw, augment, draw, spline_taps
from ensemble.data.counter_random import SignedUniform, signed_uniform
from ensemble.data.mapped import stays_in_memory
from ensemble.data.mixing import Blend, blended, draw_blend
from ensemble.native.kernels import Deformation, Kernels
from ensemble.seeding import Purpose, member_seed
from ensemble.training.batch_last import worthwhile
from ensemble.training.class_balance import chances_of, loss_factors
from ensemble.training.job import FloatVector
from ensemble.training.layers import BatchPlace
from ensemble.training.orders import Orders
from ensemble.training.placement import Placement
from ensemble.training.resident import Resident, tensor_of
from ensemble.types import MemberSpec


def seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator at that seed."""
    return torch.Generator(device).manual_seed(seed)


@dataclass(frozen=True)
class Mixed:
    """What else is in the images of a batch besides their own: the others' labels and weights, and the own share, [B, K] each."""

    share_BK: Tensor
    labels_BK: Tensor
    weights_BK: Tensor | None


@dataclass(frozen=True)
class Batch:
    """One step's data: images [K, B, C, H, W], labels [B, K], weights [B, K], targets [B, K, classes].

    place: where it lies in the epoch; with several ranks B is this rank's share of its rows.
    batch_last: None, or B where the images are [K, C, H, W, filled] (see `batch_last`).
    mixed: None where each image is itself alone.
    """

    images: Tensor
    labels_BK: Tensor
    weights_BK: Tensor | None
    targets_BKC: Tensor | None
    place: BatchPlace
    batch_last: int | None = None
    mixed: Mixed | None = None

    @property
    def rows(self) -> int:
        """Rows of the whole batch."""
        return self.place.rows

    @property
    def main_labels_BK(self) -> Tensor:
        """The label that has the larger share of each image."""
        if self.mixed is None:
            return self.labels_BK
        return torch.where(self.mixed.share_BK >= 0.5, self.labels_BK, self.mixed.labels_BK)

    def pieces(self, bounds: Sequence[int]) -> Iterator[Batch]:
        """The batch in pieces, from each of these rows of the whole batch to the next; of each this rank's share.

        `rows` of a piece are those of the whole batch, so that losses that are divided by it add up to the batch's.
        """
        if len(bounds) == 2:
            yield self
            return
        rank, ranks = self.place.part.start or 0, self.place.part.step or 1
        for low, high in itertools.pairwise(bounds):
            own = slice(-(-(low - rank) // ranks), -(-(high - rank) // ranks))
            place = replace(self.place, part=slice(rank + ranks * own.start, high, ranks))
            yield _cut(self, own, place)


class Batches:
    """The training batches of a stack.

        batches.begin(epoch)
        batch = batches.at(first, rows)     # rows of the epoch's order from position `first` on

    What a batch is made of lies in tensors that keep their places, so `at` can be part of a CUDA graph.

    own: images [K, R, C, H, W] and labels [K, R] of the members' own sets, instead of their rows of the data set.
    kernels: lay out batches as these want them, where that is worthwhile.
    random_kernels: draw random numbers by these, to the same bits.
    batch_size: images of a step of the optimiser. last_epoch: the next epoch's order is drawn while one runs, up to this one (from 0); None: never ahead.
    least_rows: a last batch of fewer rows joins the one before it.
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
        random_kernels: Kernels | None = None,
        last_epoch: int | None = None,
        least_rows: int = 1,
        recipe: TrainingConfig | None = None,
        class_weights_C: FloatVector | None = None,
    ) -> None:
        self._kernels, self._random_kernels = kernels, random_kernels
        self._data, self._members, self._seed = data, members, seed
        self.batch_size, self._augmentation, self._placement = batch_size, augmentation, placement
        self._piece, self._least_rows = batch_size, least_rows
        if recipe is not None and recipe.accumulation > 1:
            self._piece = recipe.batch_size
        self._margin = data.margin if own is None else 0  # of the images that are looked at through a window
        self._deforms, self._blends = augmentation.deforms or self._margin > 0, augmentation.blends
        device = placement.device
        self._images, self._labels = data.kept, data.train_labels
        self._image_shape = (data.train_images.shape[1], data.train_images.shape[2], data.train_images.shape[3])
        if own is None:
            self.rows_per_epoch = len(members[0].rows)
            assert all(len(member.rows) == self.rows_per_epoch for member in members), "a stack needs equal row counts"
            self._rows_KR = torch.stack([tensor_of(member.rows).to(device) for member in members])
        else:
            self._images, self._labels = own[0].flatten(0, 1), own[1].flatten()
            self.rows_per_epoch = own[1].shape[1]
            self._rows_KR = torch.arange(own[1].numel(), device=device).view(own[1].shape)
        self._host_rows_KR = self._streamed_KR = self._rows_KR
        self._streams = own is None and data.stream is not None  # the images are not on the device
        if self._streams:
            self._host_rows_KR = torch.stack([tensor_of(member.rows) for member in members])
        self._targets_KRC: Tensor | None = None
        if members[0].targets_RK is not None:
            targets = [tensor_of(member.targets_RK) for member in members if member.targets_RK is not None]
            assert len(targets) == len(members), "all members of a stack have targets, or none"
            self._targets_KRC = torch.stack(targets).to(device)
        self._weights_KR: Tensor | None = None
        if any(member.weights is not None and not member.resample for member in members):
            ones = torch.ones(self.rows_per_epoch)
            weights = [ones if m.weights is None or m.resample else tensor_of(m.weights) for m in members]
            self._weights_KR = torch.stack(weights).to(device)
        labels_KR, recipe = self._labels[self._rows_KR], recipe or TrainingConfig()
        self.labels_KR = labels_KR
        if (factors_KR := loss_factors(recipe, labels_KR, class_weights_C)) is not None:
            self._weights_KR = factors_KR if self._weights_KR is None else self._weights_KR * factors_KR
        chances = [chances_of(recipe, member, own) for member, own in zip(members, labels_KR, strict=True)]
        self._orders = Orders(members, chances, seed, self.rows_per_epoch, device, last_epoch)
        self._order_KR = torch.empty((len(members), self.rows_per_epoch), dtype=torch.int64, device=device)
        self._keys_K = torch.zeros(len(members), dtype=torch.int64, device=device)
        self._blend_keys_K = torch.zeros_like(self._keys_K)
        self._members_K1 = torch.arange(len(members), device=device).unsqueeze(1)
        self._ahead, self._begun = data.file_of(data.kept) if own is None else None, False
        left_over = self.rows_per_epoch % batch_size
        self._joined = left_over if 0 < left_over < least_rows and self.rows_per_epoch > batch_size else 0
        self._counts = torch.arange(batch_size + self._joined, device=device)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last one may be smaller, or larger by the rows that were too few for one."""
        return -(-(self.rows_per_epoch - self._joined) // self.batch_size)

    def rows_of(self, step: int) -> int:
        """Rows of the batch of a step (from 0)."""
        if self._joined and step == self.steps_per_epoch - 1:
            return self.batch_size + self._joined
        return min(self.batch_size, self.rows_per_epoch - step * self.batch_size)

    def bounds_of(self, rows: int) -> list[int]:
        """Where the pieces of a batch of so many rows begin, and its end: one piece, but where gradients are accumulated."""
        if self._piece == self.batch_size:
            return [0, rows]
        bounds = [*range(0, rows, self._piece), rows]
        if len(bounds) > 2 and rows - bounds[-2] < self._least_rows:
            del bounds[-2]
        return bounds

    @property
    def rows_at_a_time(self) -> int:
        """The most rows that go through the network together."""
        return max(high - low for low, high in itertools.pairwise(self.bounds_of(self.rows_of(0))))

    def begin(self, epoch: int) -> None:
        """Put the rows in the order of an epoch (from 0), and take its keys for augmentation."""
        if self._begun and self._ahead is not None and stays_in_memory(self._ahead):
            self._ahead = None  # one epoch has read all of it
        self._begun = True
        order_KR = self._orders.on_host(epoch)
        self._order_KR.copy_(order_KR, non_blocking=True)
        if self._streams:
            self._streamed_KR = self._host_rows_KR.gather(1, order_KR.long())
        self._ask_for(0)
        wanted = (self._deforms, Purpose.AUGMENT, self._keys_K), (self._blends, Purpose.BLEND, self._blend_keys_K)
        for used, purpose, keys_K in wanted:
            if used:
                keys = [member_seed(self._seed, member.index, purpose, epoch) for member in self._members]
                keys_K.copy_(torch.tensor(keys))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """The batches of one epoch (from 0) in their order, from `first_step` on."""
        self.begin(epoch)
        for step in range(first_step, self.steps_per_epoch):
            yield self.at(step * self.batch_size, self.rows_of(step))

    def at(self, first: int | Tensor, rows: int) -> Batch:
        """The batch of so many rows from a position of the epoch on.

        first: an int, or an int64 tensor of one element on the device, which is not read on the host.
        """
        if not isinstance(first, int):
            return self._made(self._order_KR.index_select(1, self._counts[:rows] + first), self._place(first, rows))
        batch = self._made(self._order_KR[:, first : first + rows], self._place(first, rows))
        self._ask_for(first + rows)
        return batch

    def _made(self, order_KB: Tensor, place: BatchPlace) -> Batch:
        """The batch of these positions of every member's rows, mixed where that is wanted."""
        rows = place.rows
        if not self._blends:
            return self._gathered(self._placement.share(order_KB), place)
        blend = draw_blend(
            self._augmentation, rows, self._image_shape, self._blend_keys_K, place.first, self._numbers(place)
        )
        if self._placement.ranks == 1:
            return _blended(self._gathered(order_KB, place), blend)
        # The two of a pair may be of different ranks: each rank makes the whole batch and keeps its share.
        whole = _blended(self._gathered(order_KB, replace(place, part=slice(None)), plain=True), blend)
        return _part(whole, place)

    def _ask_for(self, first: int) -> None:
        """Let the images of the batch from this position on be read."""
        part = slice(first, first + self.batch_size)
        if self._streams:
            self._data.will_need(self._images, self._placement.share(self._streamed_KR[:, part]))
        elif self._ahead is not None:
            self._data.will_need(self._images, self._rows_KR.gather(1, self._order_KR[:, part]))

    def _gathered(self, order_KB: Tensor, place: BatchPlace, plain: bool = False) -> Batch:
        """The batch of these positions of every member's rows. plain: never with the batch as the last axis."""
        rows_KB = self._rows_KR.gather(1, order_KB)
        labels = self._labels[rows_KB].T
        weights = None if self._weights_KR is None else self._weights_KR.gather(1, order_KB).T
        targets = None
        if self._targets_KRC is not None:
            targets = self._targets_KRC[self._members_K1, order_KB].transpose(0, 1)
        draws = self._draw(place)
        # The kernels cannot do what is meant for photographs, and what they lay out cannot be cut into pieces.
        plain = plain or self._augmentation.photographic or self._margin > 0 or self._piece != self.batch_size
        if self._kernels is not None and worthwhile(len(labels)) and not plain:
            images = self._data.gathered(self._images, rows_KB, self._kernels, self._deformation(draws))
            return Batch(images, labels, weights, targets, place, len(labels))
        return Batch(self._gather(rows_KB, draws, place), labels, weights, targets, place)

    def _place(self, first: int | Tensor, rows: int) -> BatchPlace:
        return BatchPlace(first, rows, self._placement.part, self._kernels or self._random_kernels)

    def _draw(self, place: BatchPlace) -> Draw | None:
        """How this rank's share of a batch is deformed: drawn for the whole batch, of which each rank takes its share."""
        if not self._deforms:
            return None
        numbers = self._numbers(place)
        draws = draw(
            self._augmentation, place.rows, self._image_shape, self._keys_K, place.first, numbers, self._margin
        )
        if place.part == slice(None):
            return draws
        positions = torch.arange(place.rows * len(self._keys_K), device=self._keys_K.device).view(-1, place.rows)
        return draws.rows(positions[:, place.part].flatten())

    @staticmethod
    def _numbers(place: BatchPlace) -> SignedUniform:
        return signed_uniform if place.kernels is None else place.kernels.signed_uniform

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

    def _gather(self, rows_KB: Tensor, draws: Draw | None, place: BatchPlace) -> Tensor:
        if self._streams and isinstance(place.first, int):  # known here, without asking the device
            rows_KB = self._streamed_KR[:, place.first : place.first + place.rows][:, place.part]
        images = self._data.take(self._images, rows_KB.flatten())
        if draws is None:
            images = self._data.standardized(images)
        else:
            deformed = augment(self._data.unit(images), self._augmentation, draws, self._margin)
            images = self._data.normalized(deformed)
        members_images: Tensor = torch.unflatten(images, 0, (len(rows_KB), -1))
        return members_images


def _blended(batch: Batch, blend: Blend) -> Batch:
    """The batch with covered and mixed images."""
    images = blended(batch.images, blend, batch.batch_last)
    if blend.share_KB is None:
        return replace(batch, images=images)
    weights = None if batch.weights_BK is None else batch.weights_BK.flip(0)
    return replace(batch, images=images, mixed=Mixed(blend.share_KB.T, batch.labels_BK.flip(0), weights))


def _part(whole: Batch, place: BatchPlace) -> Batch:
    """One rank's share of a batch whose images are [K, B, C, H, W]."""
    return _cut(whole, place.part, place)


def _cut(whole: Batch, part: slice, place: BatchPlace) -> Batch:
    """Some rows of a batch whose images are [K, B, C, H, W]. part: of those that it has. place: of the result."""
    assert whole.batch_last is None, "images of that layout are not cut"
    mixed = whole.mixed
    weights, targets = (None if each is None else each[part] for each in (whole.weights_BK, whole.targets_BKC))
    if mixed is not None:
        others = None if mixed.weights_BK is None else mixed.weights_BK[part]
        mixed = Mixed(mixed.share_BK[part], mixed.labels_BK[part], others)
    return Batch(whole.images[:, part], whole.labels_BK[part], weights, targets, place, None, mixed)
