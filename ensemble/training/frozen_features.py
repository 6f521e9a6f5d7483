"""Members that share a frozen backbone: its features are computed once, and only the last layers are trained on them.

    head = head_layer(group, (3, 224, 224), 10)         # the last layer's name, where that is possible, else None
    data, stack = on_features(head, job, members, data, given, placement)     # head: of head_to_train

What comes out is what training the whole network gives, to rounding: with nothing random before the last layer, and batch norms
that keep their statistics, an image has the same features in every epoch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ensemble.config.groups import Group
from ensemble.config.network import Network
from ensemble.config.recipe import TrainingConfig
from ensemble.data.mapped import place_of
from ensemble.models import ImageShape
from ensemble.seeding import Purpose, member_seed
from ensemble.training.drawn_heads import drawn_heads
from ensemble.training.job import Arrays, Job, shape_of
from ensemble.training.placement import Placement
from ensemble.training.plain import oddity
from ensemble.training.prediction import CPU_BATCH, in_batches
from ensemble.training.remembered import once_per_network
from ensemble.training.resident import Resident
from ensemble.training.stack import Stack, build_seeded, stack_modules
from ensemble.training.start import head_of, trained
from ensemble.types import MemberSpec, Task

MOST_BYTES = 4 * 2**30  # of features; beyond, they are computed anew at every step
_ROWS = 16  # of the trial: more than the few that somebody may treat otherwise


class HeadStack(Stack):
    """The last layers of K members as one network, on features [B, F, 1, 1] or [K, B, F, 1, 1].

    head: the layer's name in the whole network. backbone: all other tensors of that, which the members share; shared: how many
    of its numbers are parameters.
    """

    of_images = False

    def __init__(self, layers: Sequence[nn.Linear], head: str, backbone: Mapping[str, Tensor], shared: int) -> None:
        super().__init__(nn.Sequential(nn.Flatten(), stack_modules(layers)), len(layers))
        self._head, self._backbone, self.shared_parameters = head, dict(backbone), shared

    @property
    def parameters_per_member(self) -> int:
        return self.shared_parameters + super().parameters_per_member

    def member_state(self, member: int) -> dict[str, Tensor]:
        """Of the whole network."""
        return {**self._backbone, **self.own_state(member)}

    def own_state(self, member: int) -> dict[str, Tensor]:
        """Of the last layer."""
        return {name.replace("1", self._head, 1): tensor for name, tensor in super().member_state(member).items()}


def head_layer(group: Group, image_shape: ImageShape, num_classes: int) -> str | None:
    """The name of the last layer where all that is trained is one nn.Linear behind features that never change; else None."""
    model = group.model
    if model.freeze == "none" or group.crops:
        return None
    parts = trained(group, image_shape, num_classes)
    all_of_it = parts.head and not parts.head & parts.frozen
    return _head_layer(model, image_shape, num_classes) if all_of_it else None


@once_per_network
def _head_layer(model: Network, image_shape: ImageShape, num_classes: int) -> str | None:
    head = head_of(model, image_shape, num_classes)
    network = build_seeded(model, image_shape, num_classes, 0)
    names = {name.rpartition(".")[0] for name in head}
    layer = network.get_submodule(next(iter(names))) if len(names) == 1 else None
    if not isinstance(layer, nn.Linear) or type(layer) is not nn.Linear or oddity(layer):
        return None
    (name,) = names
    rest = {key: tensor for key, tensor in network.state_dict().items() if key not in head}
    group = Group(name="trial", count=1, model=model, training=TrainingConfig())
    if not trained(group, image_shape, num_classes).frozen.issuperset(rest):
        return None
    other = build_seeded(model, image_shape, num_classes, 1)
    if not model.has_weights and not all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in rest.items()):
        return None  # every member has drawn a backbone of its own
    other.load_state_dict(network.state_dict())
    stacks = [Stack(stack_modules([one]), 1) for one in (network, other)]
    try:
        return name if _never_change(stacks, name, frozenset(rest), image_shape) else None
    except Exception:  # the network is a user's
        return None


def _never_change(stacks: Sequence[Stack], head: str, frozen: frozenset[str], image_shape: ImageShape) -> bool:
    """True where an image has the same features in training and not, in every batch, and in every member with equal weights.

    stacks: two networks of different seeds with the same weights: what no state_dict holds tells them apart.
    """
    images = torch.rand((_ROWS, *image_shape), generator=torch.Generator().manual_seed(0))
    found = []
    with torch.random.fork_rng(devices=[]):  # a network may draw by itself, which the comparison tells
        for stack in stacks:
            stack.freeze(frozen)
            if stack.dropout:
                return False
            for mode, rows in ((True, _ROWS), (False, _ROWS), (True, 3), (True, _ROWS)):
                features, answer = _through(stack.train(mode), head, images[:rows])
                if features.dim() != 2 or not torch.equal(stack.network.get_submodule(head)(features), answer):
                    return False
                found.append(features[:3])
    return all(torch.allclose(features, found[0], 1e-4, 1e-5) for features in found)


class _NotAHeadError(Exception):
    """The layer is not called exactly once."""


@torch.no_grad()
def _through(stack: Stack, head: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """What the last layer of a single network is given, and what the network answers [B, classes]."""
    seen: list[Tensor] = []

    def note(_layer: nn.Module, given: tuple[Tensor, ...]) -> None:
        seen.append(given[0])

    hook = stack.network.get_submodule(head).register_forward_pre_hook(note)
    try:
        answer = stack(images)[:, 0]
    finally:
        hook.remove()
    if len(seen) != 1:
        raise _NotAHeadError
    return seen[0], answer


def head_to_train(task: Task, job: Job, arrays: Arrays, ranks: int) -> str | None:
    """The last layer's name where this task's members are trained on features; None where as whole networks.

    That is also so where ranks share each batch, where members have images of their own, and where there are too many features.
    """
    shape = shape_of(arrays, job.group.margin)
    if ranks > 1 or any(member.filter for member in task.members):
        return None
    if (head := head_layer(job.group, shape, job.num_classes)) is None:
        return None
    (first,) = drawn_heads(job.group.model, shape, job.num_classes, [0])
    count = len(arrays["train_images"]) + len(arrays["test_images"])
    return head if 4 * count * first[f"{head}.weight"].shape[1] <= MOST_BYTES else None


def on_features(
    head: str,
    job: Job,
    members: Sequence[MemberSpec],
    data: Resident,
    given: Mapping[str, Tensor],
    placement: Placement,
) -> tuple[Resident, HeadStack]:
    """The data set as features, and the members' last layers as one network.

    Each last layer starts with the weights that it would have in the whole network.
    """
    _, channels, height, width = data.train_images.shape
    network = (job.group.model, (channels, height, width), job.num_classes)
    seeds = [member_seed(job.seed, member.index, Purpose.HEAD) for member in members]
    layers = [_last_layer(head, drawn) for drawn in drawn_heads(*network, seeds)]
    whole, backbone = _loaded(head, *network, given)
    key = _key(job, data, backbone, placement)
    if _Kept.key != key:
        whole.freeze(frozenset(whole.member_state(0)))
        _Kept.parts = _features(whole.to(placement.device).eval(), head, data, placement)
        _Kept.key = key
    train, test = _Kept.parts
    shared = sum(p.numel() for name, p in whole.network.named_parameters() if not name.startswith(f"{head}."))
    stack = HeadStack(layers, head, backbone, shared)
    return replace(data, train_images=train, test_images=test, kept=train, ready=True, files=(), stream=None), stack


def backbone_of(
    group: Group, image_shape: ImageShape, num_classes: int, given: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """The tensors that all members of a group have alike; None where each has its own. given: weights that they start from."""
    head = head_layer(group, image_shape, num_classes)
    return None if head is None else _loaded(head, group.model, image_shape, num_classes, given)[1]


def _loaded(
    head: str, model: Network, image_shape: ImageShape, num_classes: int, given: Mapping[str, Tensor]
) -> tuple[Stack, dict[str, Tensor]]:
    """A whole network with the weights that are given, and all its tensors but those of the last layer."""
    whole = Stack.build(model, image_shape, num_classes, [0])
    whole.load_member_state(0, {**whole.member_state(0), **given})
    rest = {name: tensor.clone() for name, tensor in whole.member_state(0).items() if not name.startswith(f"{head}.")}
    return whole, rest


def voting_stack(
    group: Group, image_shape: ImageShape, num_classes: int, states: Sequence[Mapping[str, Tensor]]
) -> Stack | None:
    """Members that differ in their last layer alone as one network on images, for prediction; None where they differ in more.

    states: of whole networks. The backbone is computed once for all of them.
    """
    head = head_layer(group, image_shape, num_classes)
    first = states[0]
    rest = [name for name in first if not name.startswith(f"{head}.")]
    if head is None or not all(_same(first[name], other[name]) for other in states[1:] for name in rest):
        return None
    whole = Stack.build(group.model, image_shape, num_classes, [0])
    whole.load_member_state(0, dict(first))
    layers = [_last_layer(head, state) for state in states]
    parent, _, leaf = head.rpartition(".")
    setattr(whole.network.get_submodule(parent), leaf, stack_modules(layers))
    return Stack(whole.network, len(states))


def _same(one: Tensor, other: Tensor) -> bool:
    return one is other or torch.equal(one, other)


def _last_layer(head: str, state: Mapping[str, Tensor]) -> nn.Linear:
    """Of the tensors of a whole network."""
    weight, bias = state[f"{head}.weight"], state.get(f"{head}.bias")
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta", dtype=weight.dtype)
    own = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    layer.load_state_dict({name: tensor.clone() for name, tensor in own.items()}, assign=True)
    return layer


class _Kept:
    """The features that were computed last in this process, for the tasks that follow."""

    key: str = ""
    parts: tuple[Tensor, Tensor]


def _key(job: Job, data: Resident, backbone: Mapping[str, Tensor], placement: Placement) -> str:
    """Everything that features are made of."""
    digest = hashlib.sha256(f"{job.group.model.model_dump_json()} {job.compute.precision} {placement.device}".encode())
    tensors = [
        data.train_images,
        data.test_images,
        data.mean_C11,
        data.std_C11,
        *(backbone[name] for name in sorted(backbone)),
    ]
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        if (place := place_of(data.file_of(tensor))) is not None:
            digest.update(f"{place.sha256} {place.part}".encode())
            continue
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _features(stack: Stack, head: str, data: Resident, placement: Placement) -> tuple[Tensor, Tensor]:
    """Of the training and of the test images: float32 [N, F, 1, 1]."""

    def of(images: Tensor) -> Tensor:
        def part(start: int, end: int) -> Tensor:
            chosen = images[start:end] if data.stream is None else data.take(images, torch.arange(start, end))
            if end < len(images):
                data.will_need(images, torch.arange(end, min(2 * end - start, len(images))))
            with placement.autocast():
                features, _ = _through(stack, head, data.standardized(chosen))
            return features.float()

        return torch.cat(list(in_batches(part, len(images), CPU_BATCH)))[:, :, None, None]

    return of(data.train_images), of(data.test_images)
