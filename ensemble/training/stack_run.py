"""A stack in training: networks, optimiser, data, histories, and the steps and epochs that move them.

    run = StackRun(task, job, arrays, placement)
    for epoch in range(run.state.epoch, run.recipe.epochs):
        for found in run.train_epoch(epoch): ...        # records, checkpoints, heartbeats
    yield from run.results()                            # votes and weights

`loop.train_task` is what executors call.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from ensemble import signals
from ensemble.config.recipe import PlateauConfig
from ensemble.data.views import views_of
from ensemble.events import Notice
from ensemble.models import ImageShape
from ensemble.models.work import activation_sizes, needs_two_images
from ensemble.native.kernels import load
from ensemble.seeding import Purpose, member_seed
from ensemble.training.batches import Batch, Batches
from ensemble.training.checkpoint import capture
from ensemble.training.class_balance import logit_offsets
from ensemble.training.cuda_graph import GraphedStep, StepTable, capture_on_gpu
from ensemble.training.cuda_graph import obstacle as obstacle_to_capture
from ensemble.training.drawn_heads import draw_heads
from ensemble.training.filtering import filtered_set
from ensemble.training.frozen_features import HeadStack, head_to_train, on_features
from ensemble.training.gradient_sums import settle_sums
from ensemble.training.host_copy import on_host
from ensemble.training.job import Arrays, Job, given_class_weights, given_start, shape_of
from ensemble.training.keeper import Keeper
from ensemble.training.layers import BATCH_NORMS
from ensemble.training.losses import sample_losses
from ensemble.training.optimizers import FACTOR, MemberRates, build_optimizer, clip_gradients, forget_gradients
from ensemble.training.placement import Placement
from ensemble.training.prediction import evaluation_rows, predict, predict_logits, predict_own
from ensemble.training.remembered import once_per_network
from ensemble.training.resident import GPU_SHARE, Resident, tensor_of
from ensemble.training.schedules import Plateau, rate
from ensemble.training.stack import Stack
from ensemble.training.start import Trained, trained
from ensemble.training.state import TrainingState
from ensemble.training.trial import build_stack, draws_itself
from ensemble.training.validating import validation_of
from ensemble.training.ways import choose
from ensemble.types import Checkpoint, EpochRecord, Failure, MemberResult, Pulse, Stopped, Task, Votes

PULSE_S = 5.0  # between signs of life
# Steps after which ranks that share each batch add up what they have summed. Between them none writes a checkpoint or
# leaves, since the first alone could write down its own part of the sums only.
_SHARED_EVERY = 16
_CAPTURES_APART = 50  # checkpoints are at least so many times the time that one takes apart
_activation_sizes = once_per_network(activation_sizes)


class StackRun:
    """One stack on its way: networks, optimiser, data and histories."""

    def __init__(self, task: Task, job: Job, arrays: Arrays, placement: Placement) -> None:
        self.task, self.job, self.placement = task, job, placement
        self.recipe, self.members = job.group.training, task.members
        count, device = len(task.members), placement.device
        self._class_weights = given_class_weights(arrays, job.group.name)
        room = (
            placement.memory_bytes * min(1.0, job.compute.gpus_per_task) * GPU_SHARE if device.type == "cuda" else None
        )
        self.data = Resident.load(arrays, device, job.group.model, room, job.group.margin)
        self.validation = validation_of(task.members, self.data)
        image_shape = shape_of(arrays, job.group.margin)
        parts = trained(job.group, image_shape, job.num_classes)
        head = head_to_train(task, job, arrays, placement.ranks)
        self._build(image_shape, given_start(arrays, job.group.name), parts, head)
        on_features = isinstance(self.stack, HeadStack)
        self.stack.one_vs_all = self.recipe.loss == "bce"
        self._choose_kernels()
        # Why steps are no CUDA graph: None where they are, empty where there need be no word about it.
        self.stack.draws_itself = (
            job.group.model.foreign and not on_features and draws_itself(job.group.model, image_shape, job.num_classes)
        )
        self.no_graph = self._obstacle_to_graph() if self._graph_wanted() else ""
        captured = self.no_graph is None
        self.model = placement.prepare(self.stack)
        self.optimizer = build_optimizer(self.recipe, self.stack, captured, parts.head)
        self.filtered = [filtered_set(member, job, self.data, placement) for member in task.members if member.filter]
        self.batches = self._batches()
        self.offsets_KC = logit_offsets(self.recipe, self.batches.labels_KR, job.num_classes)
        if not on_features:
            sizes = _activation_sizes(job.group.model, image_shape, job.num_classes)
            memory = placement.memory_bytes if device.type == "cuda" else None
            self.stack.evaluation_rows = evaluation_rows(sizes, count, self.batches.rows_at_a_time, memory)
        self.plateau = Plateau(self.recipe.schedule, count) if isinstance(self.recipe.schedule, PlateauConfig) else None
        self.rates = MemberRates(self.stack, captured=captured and self.plateau is not None)
        self.keeper = Keeper(self.stack, self.recipe)
        self.state = TrainingState(task.members, self.stack, self.optimizer, self.keeper, self.plateau, device)
        if placement.ranks > 1:
            settle_sums(self.stack, self.model, self.optimizer, self.batches, placement)
        self.table: StepTable | None = None
        self.graphed: GraphedStep | None = None
        if captured:
            self.use_graph(GraphedStep(self.step_on_device, self.tensors, capture_on_gpu))
        self._saved = self._said = time.perf_counter()
        self._capture_s = 0.0  # what the last checkpoint took

    def _build(self, image_shape: ImageShape, given: Mapping[str, Tensor], parts: Trained, head: str | None) -> None:
        """The members as one network; where they share a frozen backbone, their last layers and the features behind it."""
        job, device = self.job, self.placement.device
        if head is not None:
            self.data, stack = on_features(head, job, self.members, self.data, given, self.placement)
            self.stack: Stack = stack.to(device)
            self._load_starts(given)
            return
        seeds = [member_seed(job.seed, member.index, Purpose.INIT) for member in self.members]
        self.stack = build_stack(job.group.model, image_shape, job.num_classes, seeds).to(device)
        draw_heads(self.stack, parts, job, self.members, image_shape)
        self._load_starts(given)
        self.stack.freeze(parts.frozen)

    def _load_starts(self, given: Mapping[str, Tensor]) -> None:
        """Put the weights that the run was given, and those that a member goes on from, in the place of drawn ones."""
        for k, member in enumerate(self.members):
            start = given if member.start is None else {name: tensor_of(array) for name, array in member.start.items()}
            if start:
                self.stack.load_member_state(k, {**self.stack.member_state(k), **start})

    def _graph_wanted(self) -> bool:
        return self.job.compute.cuda_graph and self.placement.device.type == "cuda"

    def _obstacle_to_graph(self) -> str | None:
        if self.stack.draws_itself:
            return "the network draws random numbers by itself"
        if self.data.stream is not None:
            return f"the images would take more than {GPU_SHARE:.0%} of the GPU's memory, and are sent batch by batch"
        return obstacle_to_capture(self.recipe, self.placement)

    def use_graph(self, graphed: GraphedStep) -> None:
        """Take steps by a CUDA graph, or what stands for one, from now on."""
        self.table, self.graphed = StepTable(self.batches.steps_per_epoch, self.placement.device), graphed
        for group in self.optimizer.param_groups:
            group["lr"] = self.table.rate_times(group[FACTOR])

    def _choose_kernels(self) -> None:
        self.kernel_notices = choose(self.stack, self.job, self.placement)
        if isinstance(self.stack, HeadStack):
            numbers, images = self.data.train_images.shape[1], len(self.data.train_images) + len(self.data.test_images)
            self.kernel_notices.append(
                f"the features of the frozen layers are computed once, {numbers:,} numbers for each of {images:,} images"
            )

    def _batches(self) -> Batches:
        own, augmentation = None, self.recipe.augmentation
        if self.filtered:
            assert len(self.filtered) == len(self.members), "all members of a stack are filtered, or none"
            images = torch.stack([found.images for found in self.filtered])
            own = images, torch.stack([found.labels for found in self.filtered])
            augmentation = augmentation.blending_alone()  # the set is deformed already, and was chosen as it is
        on_gpu, kernels = self.placement.device.type == "cuda", None
        if not on_gpu and self.job.compute.kernels != "torch" and (self.job.group.crops or self.stack.dropout):
            kernels = load()
        return Batches(
            self.data, self.members, self.job.seed, self.recipe.images_per_step, augmentation, self.placement, own,
            self.stack.kernels, kernels, self.recipe.epochs - 1 if on_gpu else None, self._least_rows(),
            self.recipe, self._class_weights,
        )  # fmt: skip

    def _least_rows(self) -> int:
        """How many images a batch needs at least."""
        if not any(isinstance(layer, BATCH_NORMS) for layer in self.stack.network.modules()):
            return 1
        channels, height, width = self.data.train_images.shape[1:]
        shape = channels, height, width
        return 2 if needs_two_images(self.job.group.model, shape, self.job.num_classes) else 1

    @property
    def trains(self) -> list[bool]:
        """Which members are alive and have not been stopped early; the others are carried along until their stack ends.

        One that is stopped stays so: neither its kept epoch nor its history changes any more.
        """
        patience = self.recipe.early_stopping_epochs
        return [
            alive and (patience is None or len(history) - self.keeper.kept_epoch(k) < patience)
            for k, (alive, history) in enumerate(zip(self.state.alive, self.state.histories, strict=True))
        ]

    def tensors(self) -> list[Tensor]:
        """Everything that a step changes, in its place."""
        changed = self.state.changed_by_steps()
        return changed if self.table is None else [*changed, self.table.step]

    def train_epoch(self, epoch: int) -> Iterator[tuple[int, EpochRecord] | Checkpoint | Pulse | Notice | Stopped]:
        """Train one epoch (from 0), validate, and yield (position in the stack, record) of every living member.

        Goes on at `step` where the epoch is the one that was begun; yields a Checkpoint whenever one is due. Where this
        process is asked to stop, the next step is the last one: a Checkpoint follows, and Stopped.
        """
        started = time.perf_counter() - self.state.spent
        self.state.begin(epoch)
        self.model.train()
        rate_factors = self.plateau.factors if self.plateau else [1.0] * len(self.members)
        largest = self.rates.set(rate_factors)
        self._begin_epoch(largest)
        while self.state.step < self.batches.steps_per_epoch:
            self._take_step(largest)
            self.state.step += 1
            if self.placement.ranks > 1 and self._together():
                self.state.share(self.placement.total)
            if self.graphed and self.graphed.refused and not self.no_graph:
                self.no_graph = self.graphed.refused
                yield Notice(f"trained without a CUDA graph: {self.no_graph}")
            if time.perf_counter() - self._said > PULSE_S:
                self._said = time.perf_counter()
                yield Pulse(self.task.id)
            if self._due():
                self.state.spent = time.perf_counter() - started
                yield Checkpoint(self.task.id, epoch, self.state.step, self._capture())
            if self._stops():
                yield Stopped(self.task.id)
                return
        self.state.spent = 0.0
        sums_2K = self.state.total_2K + self.state.sums_2K
        train_losses, train_errors = (sums_2K / self.batches.rows_per_epoch).tolist()
        with self.keeper.voting_weights():
            validation_losses, validation_errors = map(self.placement.of_first_rank, self._validate())
            test_losses, test_errors = self._watch_test()
        self._mark_diverged(epoch, train_losses, validation_losses)
        trained = self.trains
        self.keeper.after_epoch(epoch, validation_losses, validation_errors, trained)
        if self.plateau:
            self.plateau.update(validation_losses)
        elapsed = time.perf_counter() - started
        self.state.seconds += elapsed
        for member in (k for k, wanted in enumerate(trained) if wanted):
            record = EpochRecord(
                epoch + 1, train_losses[member], validation_losses[member], validation_errors[member],
                self._rate(epoch, self.state.step - 1) * rate_factors[member], elapsed / len(self.members),
                train_errors[member], test_losses[member], test_errors[member],
            )  # fmt: skip
            self.state.histories[member].append(record)
            yield member, record

    def _begin_epoch(self, largest: float) -> None:
        """Take the order and the random keys of the epoch, and where steps are captured its learning rates."""
        self.batches.begin(self.state.epoch)
        if self.stack.dropout or self.stack.draws_itself:
            seeds = [member_seed(self.job.seed, m.index, Purpose.DROPOUT, self.state.epoch) for m in self.members]
            self.stack.seed_dropout(torch.tensor(seeds).to(self.placement.device))
        if self.table is not None:
            steps = range(self.batches.steps_per_epoch)
            rates = [self._rate(self.state.epoch, step) * largest for step in steps]
            self.table.begin(self.state.step, rates, [self._averaging(step) for step in steps])

    def _take_step(self, largest: float) -> None:
        rows = self.batches.rows_of(self.state.step)
        if self.graphed is None:
            for group in self.optimizer.param_groups:
                group["lr"] = self._rate(self.state.epoch, self.state.step) * largest * group[FACTOR]
            self.plain_step(
                self.batches.at(self.state.step * self.batches.batch_size, rows), self._averaging(self.state.step)
            )
        elif rows == self.batches.rows_of(0):
            self.graphed()
        else:
            self.step_on_device(rows)

    def step_on_device(self, rows: int | None = None) -> None:
        """The step that the table on the device says is next: it takes nothing from the host. rows: by default a whole batch."""
        assert self.table is not None
        self.table.read()
        first = self.table.step * self.batches.batch_size
        self.plain_step(self.batches.at(first, rows or self.batches.rows_of(0)), self.table.averaging)
        self.table.step += 1

    def _rate(self, epoch: int, step: int) -> float:
        """The scheduled learning rate of a step, before any member's own factor."""
        steps = self.batches.steps_per_epoch
        return rate(self.recipe, epoch * steps + step, steps)

    def _averaging(self, step: int) -> float:
        return self.keeper.share(self.state.epoch * self.batches.steps_per_epoch + step)

    def _due(self) -> bool:
        """True when the last checkpoint is old enough for another one, and one costs little beside what lies between."""
        every, now = self.job.compute.checkpoint_every_s, time.perf_counter()
        if not every or not self.placement.writes or not self._together():
            return False
        if not self._stops() and now - self._saved < max(every, _CAPTURES_APART * self._capture_s):
            return False
        self._saved = now
        return True

    def _stops(self) -> bool:
        """Whether training ends after this step. Of ranks that share each batch the first decides: it has the checkpoint."""
        return signals.requested() and self.placement.writes and self._together()

    def _together(self) -> bool:
        """Whether ranks that share each batch know each other's sums after this step; always where there is one rank."""
        step = self.state.step
        return self.placement.ranks == 1 or step % _SHARED_EVERY == 0 or step == self.batches.steps_per_epoch

    def _capture(self) -> bytes:
        started = time.perf_counter()
        content = capture(self.state)
        self._capture_s = time.perf_counter() - started
        return content

    def plain_step(self, batch: Batch, averaging: float | Tensor) -> None:
        """One optimiser step of the whole stack; the members' summed losses and misses go to `sums_2K`.

        averaging: see `Keeper.after_step`.

        The sum of the members' own mean losses is minimised: its gradient with respect to a member's weights is
        that of the member's loss alone. A non-finite loss therefore spoils only its own member.
        """
        forget_gradients(self.optimizer)
        pieces = list(batch.pieces(self.batches.bounds_of(batch.rows)))
        for number, piece in enumerate(pieces, 1):
            with self.placement.adding_up(self.model, last=number == len(pieces)):
                self._add_gradients(piece)
        if self.recipe.gradient_clip_norm is not None:
            clip_gradients(self.stack, self.recipe.gradient_clip_norm)
        self.rates.before_step()
        self.optimizer.step()
        self.rates.after_step()
        self.keeper.after_step(averaging)

    def _add_gradients(self, batch: Batch) -> None:
        """Add the gradients of a batch, or of a piece of one, to those that are there, and its sums to the epoch's."""
        self.stack.place_dropout(batch.place)
        with self.placement.autocast():
            logits_BKC = self.model(batch.images, batch.batch_last)
        loss_BK = sample_losses(self.recipe, logits_BKC.float(), batch, self.offsets_KC)
        loss_K = loss_BK.sum(0) / batch.rows
        self.placement.backward(loss_K.sum())
        misses_K = (logits_BKC.detach().argmax(-1) != batch.main_labels_BK).sum(0)
        self.state.sums_2K += torch.stack([loss_K.detach() * batch.rows, misses_K])

    def _validate(self) -> tuple[list[float], list[float]]:
        return self._score(self.data.train_images, *self.validation)

    def _watch_test(self) -> tuple[list[float | None], list[float | None]]:
        """Losses and errors on the test set where a curve of them is wanted; nothing ever chooses by these."""
        if not self.recipe.watch_test:
            nothing: list[float | None] = [None] * len(self.members)
            return nothing, nothing
        assert self.data.test_labels is not None, "watching the test set needs its labels"
        losses, errors = self._score(self.data.test_images, None, self.data.test_labels)
        return list(losses), list(errors)

    def _score(self, images: Tensor, rows: Tensor | None, labels_N: Tensor) -> tuple[list[float], list[float]]:
        logits_KNC = predict_logits(self.stack, self.data, images, rows, self.placement)
        labels_KN = labels_N.expand(len(logits_KNC), -1)
        losses = F.cross_entropy(logits_KNC.flatten(0, 1), labels_KN.flatten(), reduction="none").view(labels_KN.shape)
        errors = (logits_KNC.argmax(-1) != labels_KN).float()
        return losses.mean(1).tolist(), errors.mean(1).tolist()

    def _mark_diverged(self, epoch: int, train_losses: list[float], validation_losses: list[float]) -> None:
        """Declare members with a non-finite loss failed; the others go on undisturbed beside them."""
        for member, (trains, *losses) in enumerate(zip(self.trains, train_losses, validation_losses, strict=True)):
            if trains and not all(abs(loss) < float("inf") for loss in losses):
                self.state.alive[member] = False
                reason = f"loss is not finite in epoch {epoch + 1} (training {losses[0]}, validation {losses[1]})"
                share = self.state.seconds / len(self.members)
                self.state.failures[member] = Failure(
                    self.members[member].index, "diverged", reason, seconds_lost=share
                )

    @torch.no_grad()
    def results(self) -> Iterator[MemberResult | Failure]:
        """Votes and weights of every living member with the weights to keep; failures of the others."""
        self.keeper.restore_kept()
        views = views_of(self.job.tta, *self.data.train_images.shape[2:])
        how = self.placement, views
        validation = predict(self.stack, self.data, self.data.train_images, self.data.validation_rows, *how)
        test = predict(self.stack, self.data, self.data.test_images, None, *how)
        own = [tensor_of(member.vote_rows) for member in self.members]
        extra = predict_own(self.stack, self.data, self.data.train_images, own, *how)
        votes = on_host([validation, test, *extra])
        states = [{} if k in self.state.failures else self.stack.own_state(k) for k in range(len(self.members))]
        weights = iter(on_host([tensor for state in states for tensor in state.values()]))
        parameters = self.stack.parameters_per_member
        for k, member in enumerate(self.members):
            if k in self.state.failures:
                yield self.state.failures[k]
                continue
            yield MemberResult(
                member.index, member.recipe,
                Votes(votes[0][k].numpy().copy(), votes[1][k].numpy().copy(), member.vote_rows, votes[2 + k].numpy().copy()),
                {name: next(weights).numpy().copy() for name in states[k]}, tuple(self.state.histories[k]), parameters,
                self.state.seconds / len(self.members), self.keeper.kept_epoch(k), len(self.members),
                self.filtered[k].facts() if self.filtered else {}, self.placement.device_name, self.stack.shared_parameters,
            )  # fmt: skip
