"""The one training loop: `train_task(task, job, arrays)` trains a stack and yields what happens.

It yields EpochFinished events as epochs end, Checkpoints as time goes by, and at the end one MemberResult (or Failure) per
member. It is a plain generator, so the same function runs inline, in a Ray worker (which streams what it yields) and on
every rank of a launched world. Nothing in it knows a method, an executor or a tracker.
"""

from __future__ import annotations

import gc
import os
import platform
import traceback
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace

import torch

from ensemble.data.arriving import absent, present
from ensemble.events import EpochFinished, Event, Notice, TaskStarted
from ensemble.native.kernels import obstacle
from ensemble.outside import own_code
from ensemble.training import mapped
from ensemble.training.checkpoint import fits, of_one, outdated, restore
from ensemble.training.frozen_features import head_to_train
from ensemble.training.job import Arrays, Job, shape_of
from ensemble.training.layers import StackedStochasticDepth
from ensemble.training.placement import Placement
from ensemble.training.stack_run import PULSE_S, StackRun
from ensemble.training.trial import maps, obstacles
from ensemble.training.usage import Usage, Used
from ensemble.types import Checkpoint, Failure, MemberResult, Pulse, Stopped, Task

Item = Event | Pulse | Checkpoint | Stopped | MemberResult | Failure


def train_task(task: Task, job: Job, arrays: Arrays) -> Iterator[Item]:
    """Train the members of a task together; yields events, then one MemberResult or Failure per member.

    In between come Checkpoints, one every compute.checkpoint_every_s; a task that has one goes on from there. A process
    that is asked to stop (`signals.requested`) ends with a Checkpoint and Stopped. Raises
    ComputeError when the device asked for is not there, ConfigError when the images do not fit the network,
    EndsProgramError where a user's code would end the process.
    """
    placement = Placement.create(job.compute)
    try:
        arrays = yield from present_arrays(task, arrays)
        with own_code.staying():  # or a worker would be gone without a word
            yield from _train_placed(task, job, arrays, placement)
    except Exception as error:
        _clear_frames(error)
        raise
    finally:
        free_memory(placement)
        torch.set_flush_denormal(False)  # it holds for the whole process, which may be the user's own


def present_arrays(task: Task, arrays: Arrays) -> Generator[Item, None, Arrays]:
    """The arrays, with mapped images that this machine does not have yet; says in between that it lives."""
    if not absent(arrays):
        return arrays
    yield Notice(f"{platform.node()} reads the pictures, which it does not have decoded yet")
    with ThreadPoolExecutor(1, "pictures") as pool:
        reading = pool.submit(present, arrays)
        while not wait([reading], PULSE_S).done:
            yield Pulse(task.id)
        return reading.result()


def free_memory(placement: Placement) -> None:
    """Give a GPU's memory back to whoever shares it, and to the next task.

    Some of it is held by Accelerate, some in reference cycles (a CUDA graph and the run that it is of; Accelerate's
    wrapped forward), some in torch's cache.
    """
    if placement.device.type == "cuda":
        placement.accelerator.free_memory()
        gc.collect()
        torch.cuda.empty_cache()


def _clear_frames(error: BaseException | None) -> None:
    """Drop the local variables of the functions that an error came through: they hold the stack that had no room."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _train_placed(task: Task, job: Job, arrays: Arrays, placement: Placement) -> Iterator[Item]:
    image_shape = shape_of(arrays, job.group.margin)
    whole = len(task.members) > 1 and head_to_train(task, job, arrays, placement.ranks) is None
    network = (job.group.model, image_shape, job.num_classes)
    found = obstacles(*network) if whole else ()
    if found and placement.device.type in mapped.DEVICES and placement.ranks == 1 and maps(*network):
        yield Notice(f"{task.id}: computed as one network by torch.func, since {', '.join(found)} cannot be stacked")
        found = ()
    if found:
        yield Notice(f"{task.id}: trained one by one, since {', '.join(found)} cannot be stacked")
        for member in task.members:
            alone = replace(task, members=(member,))
            if not fits(task.checkpoint, alone):
                alone = replace(alone, checkpoint=None)
            for item in _train_stack(alone, job, arrays, placement):
                yield item
                if isinstance(item, Stopped):
                    return
            free_memory(placement)
        return
    if task.checkpoint is not None and of_one(task.checkpoint, task):
        yield Notice(f"{task.id}: starts again, since its members were trained one by one before")
        task = replace(task, checkpoint=None)
    yield from _train_stack(task, job, arrays, placement)


def _train_stack(task: Task, job: Job, arrays: Arrays, placement: Placement) -> Iterator[Item]:
    recipe, members = job.group.training, task.members
    yield TaskStarted(
        task.id, tuple(m.index for m in members), task.recipe, job.group.epochs,
        platform.node(), os.getpid(), placement.device_name, torch.get_num_threads(),
    )  # fmt: skip
    run = StackRun(task, job, arrays, placement)
    if run.stack.batch_last and (missing := obstacle()):
        yield Notice(f"networks such as this one train at about half the speed: {missing}")
    for notice in run.kernel_notices:
        yield Notice(notice)
    if run.no_graph:
        yield Notice(f"trained without a CUDA graph: {run.no_graph}")
    draws = job.group.crops or run.stack.dropout
    depth = job.group.model.foreign and any(isinstance(layer, StackedStochasticDepth) for layer in run.stack.dropout)
    if task.checkpoint is not None and draws and outdated(task.checkpoint, depth):
        yield Notice(
            f"{task.id}: starts again, since its checkpoint is of a version with other augmentations and dropout masks"
        )
    elif task.checkpoint is not None:
        restore(run.state, task.checkpoint, task.id, placement.ranks)
    usage = Usage(placement.device)
    for epoch in range(run.state.epoch, job.group.epochs):
        used: Used | None = None
        for found in run.train_epoch(epoch):
            if isinstance(found, Checkpoint | Pulse | Notice):
                yield found
                continue
            if isinstance(found, Stopped):
                yield found
                return
            member, record = found
            used = used or usage.since_last()  # of the stack's epoch, which all of its members share
            yield EpochFinished(
                members[member].index, record.epoch, recipe.epochs, record.train_loss,
                record.validation_loss, record.validation_error, record.lr, record.seconds,
                record.train_error, record.test_loss, record.test_error, run.batches.rows_per_epoch,
                used.cpu_cores, used.memory_bytes, used.gpu_memory_bytes, used.gpu_percent,
            )  # fmt: skip
        if not any(run.trains):
            break
    yield from run.results()
