"""Votes of stored members on a named set: the images of one part, changed on the fly, through the networks as they were trained.

    voter = SetVoter(trainer.jobs, {task.id: PartToVote("images.0", Corruption("fog", 3), 0, 8)})
    executor.run(tasks, voter, arrays, emit)          # yields SetVotes, one for each member

What is here depends on no method and no label: a part is images in, probabilities out.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ensemble.data.corruptions import CHUNK, Corruption, corrupt
from ensemble.events import Event, Notice, TaskStarted
from ensemble.training.job import Arrays, Job
from ensemble.types import ByteArray, Checkpoint, Failure, FloatArray, MemberResult, Pulse, SetVotes, Stopped, Task

if TYPE_CHECKING:
    from ensemble.training.placement import Placement
    from ensemble.training.stack import Stack

MEMBER = "member."  # and an index: the name of a member's weights among the arrays, the bytes of a safetensors file [n] uint8
BLOCK_BYTES = 64 << 20  # of images that are changed and voted on at a time
PULSE_S = 5.0


@dataclass(frozen=True)
class PartToVote:
    """One part of a set: which of the arrays has its images [N, C, H, W], uint8, and how they are changed.

    seed: of the random changes. stack_size: how many members may be one network. energy: whether energies are wanted too.
    """

    images: str
    corruption: Corruption | None
    seed: int
    stack_size: int
    energy: bool = False


@dataclass(frozen=True)
class SetVoter:
    """The function that lets members vote, in a form that can be sent to other processes; see `Trainer`.

    jobs: by recipe. parts: by the task's id. own: of tasks whose network is not their recipe's, by the task's id. The arrays hold images, "mean" and "std" of the training rows, and the weights.
    """

    jobs: Mapping[str, Job]
    parts: Mapping[str, PartToVote]
    own: Mapping[str, Job] = field(default_factory=dict)

    def __call__(
        self, task: Task, arrays: Arrays
    ) -> Iterator[Event | Pulse | Checkpoint | Stopped | MemberResult | SetVotes | Failure]:
        """Vote; yields one SetVotes for each member."""
        return _vote(task, self.own.get(task.id) or self.jobs[task.recipe], self.parts[task.id], arrays)


def _vote(task: Task, job: Job, part: PartToVote, arrays: Arrays) -> Iterator[Any]:
    import torch  # in the worker, not in the driver

    from ensemble import signals
    from ensemble.data.views import views_of
    from ensemble.training.loop import free_memory, present_arrays
    from ensemble.training.placement import Placement
    from ensemble.training.prediction import predict, predict_energy
    from ensemble.training.resident import Resident, tensor_of

    placement = Placement.create(job.compute)
    try:
        arrays = yield from present_arrays(task, arrays)
        members = tuple(member.index for member in task.members)
        yield TaskStarted(
            task.id,
            members,
            task.recipe,
            0,
            platform.node(),
            os.getpid(),
            placement.device_name,
            torch.get_num_threads(),
        )
        images: ByteArray = arrays[part.images]  # type: ignore[assignment]
        data = Resident.of_scale(arrays, placement.device, job.group.model, images.shape[1])
        block, views = _rows_of_block(images), views_of(job.tta, *images.shape[2:])
        said = time.perf_counter()
        for stack, own in _stacks(task, job, part, arrays, placement):
            for notice in _prepare(stack, job, placement, images.shape[1:]):
                yield Notice(notice)
            found: list[FloatArray] = []
            energies: list[FloatArray] = []
            for start in range(0, len(images), block):
                if signals.requested():
                    yield Stopped(task.id)
                    return
                changed = _changed(np.asarray(images[start : start + block]), part, start)
                batch = tensor_of(changed).to(placement.device)
                found.append(predict(stack, data, batch, None, placement, views).cpu().numpy())
                if part.energy and (energy_KN := predict_energy(stack, data, batch, placement)) is not None:
                    energies.append(energy_KN.cpu().numpy())
                if time.perf_counter() - said > PULSE_S:
                    said = time.perf_counter()
                    yield Pulse(task.id)
            probs_KNC = np.concatenate(found, axis=1)
            of_own = list(np.concatenate(energies, axis=1)) if energies else [None] * len(own)
            for position, index in enumerate(own):
                energy_N = of_own[position]
                yield SetVotes(index, probs_KNC[position].copy(), None if energy_N is None else energy_N.copy())
            del stack
            free_memory(placement)
    finally:
        free_memory(placement)
        torch.set_flush_denormal(False)


def _rows_of_block(images: npt.NDArray[np.uint8]) -> int:
    """Images at a time: whole chunks of random changes."""
    each = max(1, int(np.prod(images.shape[1:])))
    return max(1, BLOCK_BYTES // (each * CHUNK)) * CHUNK


def _changed(images: ByteArray, part: PartToVote, first: int) -> ByteArray:
    if part.corruption is None:
        return np.ascontiguousarray(images)
    return corrupt(images, part.corruption, part.seed, first)


def _stacks(
    task: Task, job: Job, part: PartToVote, arrays: Arrays, placement: Placement
) -> Iterator[tuple[Stack, tuple[int, ...]]]:
    """The members as networks on the device, as many in one as trained together, and the indices of each."""
    from safetensors.torch import load

    from ensemble.training.stored_stack import stack_of
    from ensemble.training.suitability import largest_stack, shares_features

    shape = tuple(arrays[part.images].shape[1:])
    channels, height, width = shape
    alike = shares_features(job.group, (channels, height, width), job.num_classes)
    wanted = len(task.members) if alike else part.stack_size
    size = wanted if alike else largest_stack(job.group.model, (channels, height, width), job.num_classes, wanted)
    for start in range(0, len(task.members), size):
        own = tuple(member.index for member in task.members[start : start + size])
        states = [load(arrays[f"{MEMBER}{index}"].tobytes()) for index in own]
        yield stack_of(job.group, (channels, height, width), job.num_classes, states).to(placement.device), own


def _prepare(stack: Stack, job: Job, placement: Placement, image_shape: tuple[int, ...]) -> list[str]:
    """Choose the stack's kernels, and how many images it evaluates at a time, as at training."""
    from ensemble.models.work import activation_sizes
    from ensemble.training.prediction import evaluation_rows
    from ensemble.training.ways import choose

    channels, height, width = image_shape
    sizes = activation_sizes(job.group.model, (channels, height, width), job.num_classes)
    memory = placement.memory_bytes if placement.device.type == "cuda" else None
    stack.evaluation_rows = evaluation_rows(sizes, stack.num_members, job.group.training.batch_size, memory)
    return choose(stack, job, placement)
