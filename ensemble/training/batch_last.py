"""A stack of narrow convolutional or linear networks trained with the batch as the innermost axis, by kernels of our own.

Activations are [K, C, H, W, B] or [K, F, B]: a pixel is a run of images, so a CPU's vector units are full however few maps
a network has (PyTorch's kernels are full with 16 and more). The layers and their tensors are those of the stack; only the way
through them differs, in the last bits of the numbers. B is filled up to a multiple of 16 with empty images, whose
gradients are zero; layers that look at a batch as a whole do not see them.

For autograd a whole network is one operation: a step is short enough for autograd's work on every layer to count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ensemble.native.kernels import LANES, WIDTHS, Kernels, Layer, Passes
from ensemble.training.layers import StackedBatchNorm, StackedConv2d, StackedDropout, StackedLayer, StackedLinear
from ensemble.training.plain import is_chain, oddity

# Up to so many maps these kernels are the quicker ones, for one network and for several (docs/log.md).
WIDEST, WIDEST_STACKED = 64, 128
# So many where half of the threads stay idle, since these kernels give a thread whole members: the others use all of them. And so many for one network
# with large batches, whose maps leave the caches.
WIDEST_AT_MOST = 16
LARGE_BATCH = 256
Kept = tuple[Any, ...]
Gradients = tuple[Tensor | None, Sequence[Tensor]]
_ELEMENTWISE = (nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.LeakyReLU, nn.ELU, nn.SiLU, nn.Identity)


def suits(network: nn.Module, threads: int = 1, batch_size: int = 1) -> bool:
    """True for a chain of layers that these kernels know and most likely train more quickly.

    Its convolutions are narrow; where it has none, there are several members, and one for each thread.
    threads: that a step is computed with. More than two for each member are better used by others, as is a second one with wider layers.
    """
    if not known(network):
        return False
    convolutions = [layer for layer in _chain(network) if isinstance(layer, StackedConv2d)]
    if not convolutions:
        members = next(layer.num_members for layer in _chain(network) if isinstance(layer, StackedLinear))
        return members >= max(2, threads)
    return all(
        len(layer.weight) <= layer.num_members * _widest(layer.num_members, threads, batch_size)
        for layer in convolutions
    )


def _widest(members: int, threads: int, batch_size: int) -> int:
    """The most maps of a layer with which these kernels are the quicker ones."""
    if threads > members:
        return WIDEST_AT_MOST if threads <= 2 * members else 0
    if members == 1:
        return WIDEST if batch_size <= LARGE_BATCH else WIDEST_AT_MOST
    return WIDEST_STACKED


def known(network: nn.Module) -> bool:
    """True for a chain of layers, convolutions or linear ones among them, that these kernels can compute."""
    layers = list(_chain(network))
    if not (any(isinstance(layer, StackedConv2d | StackedLinear) for layer in layers) and all(map(_known, layers))):
        return False
    flat = False
    for layer in layers:  # a linear layer takes the last axis, which is that of the features only behind a Flatten
        flat = flat or isinstance(layer, nn.Flatten)
        if isinstance(layer, StackedLinear) and not flat:
            return False
    return True


def worthwhile(rows: int) -> bool:
    """True where filling a batch up costs at most a third."""
    return 0 < filled(rows) <= rows * 4 / 3


def turned(images: Tensor, num_members: int, kernels: Kernels) -> Tensor:
    """Images [B, C, H, W] that the members share, or [K, B, C, H, W] of their own, as [K, C, H, W, B]."""
    own = images if images.dim() == 5 else images.unsqueeze(0)
    x = kernels.batch_to_last(own.contiguous(), filled(own.shape[1]))
    return x.expand(num_members, *x.shape[1:])


def filled(rows: int) -> int:
    """The length of the batch axis for so many images."""
    return -(-rows // LANES) * LANES


def _chain(network: nn.Module) -> Iterator[nn.Module]:
    """The layers in the order in which they are passed; a network that is no chain is a layer nobody knows."""
    if isinstance(network, nn.Sequential) and is_chain(network):
        for layer in network:
            yield from _chain(layer)
    else:
        yield network


def _known(layer: nn.Module) -> bool:
    if not isinstance(layer, StackedLayer) and oddity(layer) is not None:  # twins stand for plain layers only
        return False
    if not all(parameter.requires_grad for parameter in layer.parameters(recurse=False)):
        return False  # these kernels always go back through all layers, and take a batch norm's own batch in training
    match layer:
        case StackedConv2d():
            rows, columns = layer.weight.shape[2:]
            padding = layer.padding
            plain = layer.groups == 1 and layer.stride == (1, 1) and layer.dilation == (1, 1)
            within = not isinstance(padding, str) and padding[0] < rows and padding[1] < columns
            return plain and within and columns in WIDTHS
        case nn.MaxPool2d() if type(layer) is nn.MaxPool2d:
            square = isinstance(layer.kernel_size, int) and isinstance(layer.stride, int)
            return square and layer.padding == 0 and layer.dilation == 1 and not layer.ceil_mode
        case nn.AvgPool2d() if type(layer) is nn.AvgPool2d:
            apart = isinstance(layer.kernel_size, int) and layer.kernel_size == layer.stride
            return apart and layer.padding == 0 and not layer.ceil_mode
        case nn.Flatten():
            return True
        case StackedLinear() | StackedBatchNorm() | StackedDropout():
            return True
        case _:
            return type(layer) in _ELEMENTWISE


class Chain:
    """A network that `suits`, computed by these kernels. It holds the network's own tensors and no others.

    logits_BKC = Chain(network)(x_KCHWB, rows, kernels)
    """

    def __init__(self, network: nn.Module) -> None:
        self.passages = list(_passages(list(_chain(network))))
        self.parameters = [parameter for passage in self.passages for parameter in passage.parameters]

    def __call__(self, x: Tensor, rows: int, kernels: Kernels) -> Tensor:
        """Logits [rows, K, classes] of the first `rows` images of x [K, C, H, W, B]."""
        if torch.is_grad_enabled():
            logits: Tensor = _Differentiable.apply(x, self, rows, kernels, *self.parameters)
            return logits
        for passage in self.passages:
            x, _ = passage.forward(x, rows, kernels, keep=False)
        return x[..., :rows].permute(2, 0, 1)


class _Differentiable(torch.autograd.Function):
    """A whole chain as one operation."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, chain: Chain, rows: int, kernels: Kernels, *_parameters: Tensor) -> Tensor:
        ctx.chain, ctx.kernels, ctx.rows, ctx.unfilled, ctx.kept = chain, kernels, rows, x.shape[-1] - rows, []
        for passage in chain.passages:
            x, kept = passage.forward(x, rows, kernels, keep=True)
            ctx.kept.append(kept)
        return x[..., :rows].permute(2, 0, 1).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_logits: Tensor) -> tuple[Tensor | None, ...]:
        dy: Tensor | None = F.pad(d_logits.permute(1, 2, 0), (0, ctx.unfilled))
        gradients: list[Tensor] = []
        for number in reversed(range(len(ctx.chain.passages))):
            assert dy is not None
            passage, inputs = ctx.chain.passages[number], number > 0 or ctx.needs_input_grad[0]
            dy, of_parameters = passage.backward(dy, ctx.kept.pop(), ctx.rows, inputs, ctx.kernels)
            gradients = [*of_parameters, *gradients]
        return dy, None, None, None, *gradients


class Passage(Protocol):
    """Some layers one after another."""

    parameters: Sequence[nn.Parameter]

    def forward(self, x: Tensor, rows: int, kernels: Kernels, keep: bool) -> tuple[Tensor, Kept]:
        """The result of x [K, C, H, W, B] or [K, F, B] and, where `keep`, what `backward` will need."""
        ...

    def backward(self, dy: Tensor, kept: Kept, rows: int, inputs: bool, kernels: Kernels) -> Gradients:
        """Gradients of x (where `inputs`) and of every parameter."""
        ...


def _passages(layers: Sequence[nn.Module]) -> Iterator[Passage]:
    """The layers in turn, those that C knows in runs as long as can be."""
    run: list[tuple[nn.Module, Layer]] = []
    while layers:
        step, count = _step(layers)
        if step is not None:
            run.append((layers[0], step))
        else:
            yield from _runs(run)
            yield _Other(layers[0])
            run = []
        layers = layers[count:]
    yield from _runs(run)


def _runs(layers: Sequence[tuple[nn.Module, Layer]]) -> Iterator[Passage]:
    if any(layer.kind != "flatten" for _, layer in layers):
        yield _Run(layers)
    else:
        yield from (_Other(flatten) for flatten, _ in layers)


def _step(layers: Sequence[nn.Module]) -> tuple[Layer | None, int]:
    """The first layer as C knows it (None where it does not), with what is computed along with it; how many these are.

    Along with a convolution goes the max-pooling of windows side by side after it, with most layers ReLU.
    """
    first, count = layers[0], 1
    match first:
        case nn.Flatten():
            return Layer("flatten"), 1
        case StackedConv2d():
            assert not isinstance(first.padding, str)
            members, padding = first.num_members, (first.padding[0], first.padding[1])
            weight = first.weight.detach().view(members, -1, *first.weight.shape[1:])
            bias = None if first.bias is None else first.bias.detach().view(members, -1)
            pooled = _apart(layers[1:2]) if weight.shape[3:] != (1, 1) else 0
            count += bool(pooled)
            layer = Layer("convolution", weight, bias, padding, size=pooled or 1)
        case StackedLinear():
            weight = first.weight.detach()[..., None, None]
            layer = Layer("convolution", weight, None if first.bias is None else first.bias.detach())
        case StackedBatchNorm():
            momentum = 0.1 if first.momentum is None else first.momentum
            running = (first.running_mean, first.running_var)
            scale, shift = first.weight.detach(), first.bias.detach()
            layer = Layer("batch_norm", scale, shift, running=running, momentum=momentum, eps=first.eps)
        case nn.MaxPool2d():
            assert isinstance(first.kernel_size, int)
            assert isinstance(first.stride, int)
            layer = Layer("max_pool", size=first.kernel_size, stride=first.stride)
        case _:
            return None, 1
    if count < len(layers) and isinstance(layers[count], nn.ReLU):
        return replace(layer, relu=True), count + 1
    return layer, count


def _apart(layers: Sequence[nn.Module]) -> int:
    """The size of a max-pooling's windows where these lie side by side; 0 for anything else."""
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d) and isinstance(layer.kernel_size, int) and layer.kernel_size == layer.stride:
            return layer.kernel_size
    return 0


class _Run:
    """Layers that C passes through in one call."""

    def __init__(self, layers: Sequence[tuple[nn.Module, Layer]]) -> None:
        self.parameters: Sequence[nn.Parameter] = [p for module, _ in layers for p in module.parameters()]
        self._layers = [layer for _, layer in layers]
        self._batch_norms = [module for module, _ in layers if isinstance(module, StackedBatchNorm)]
        self._passes: dict[tuple[int, ...], Passes] = {}  # by the shape of what comes in: whole batches, the last one

    def forward(self, x: Tensor, rows: int, kernels: Kernels, keep: bool) -> tuple[Tensor, Kept]:
        passes = self._passes.get(x.shape)
        if passes is None:
            passes = self._passes[x.shape] = Passes(self._layers, x)
        training = all(layer.training for layer in self._batch_norms)
        assert training or not keep, "with running statistics there is no way back"
        y, room = passes.forward(kernels, x, rows, keep, training)
        return y, (passes, x, y.detach(), room) if keep else ()

    def backward(self, dy: Tensor, kept: Kept, rows: int, inputs: bool, kernels: Kernels) -> Gradients:
        passes, x, y, room = kept
        dx, gradients = passes.backward(kernels, x, y, room, dy, rows, inputs)
        return dx, [one.view(parameter.shape) for one, parameter in zip(gradients, self.parameters, strict=True)]


class _Other:
    """A layer without parameters that C does not know. Autograd finds its gradient."""

    parameters: Sequence[nn.Parameter] = ()

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer

    def forward(self, x: Tensor, rows: int, _kernels: Kernels, keep: bool) -> tuple[Tensor, Kept]:
        if not keep:
            return self._through(x, rows).contiguous(), ()
        with torch.enable_grad():
            leaf = x.detach().requires_grad_()
            y = self._through(leaf, rows)
        return y.detach().contiguous(), (leaf, y)

    def backward(self, dy: Tensor, kept: Kept, _rows: int, _inputs: bool, _kernels: Kernels) -> Gradients:
        leaf, y = kept
        return torch.autograd.grad(y, leaf, dy)[0], ()

    def _through(self, x: Tensor, rows: int) -> Tensor:
        match self._layer:
            case StackedDropout():
                return self._layer.batch_last(x, rows)
            case nn.Flatten():
                return x.flatten(1, -2)
            case nn.AvgPool2d():
                assert isinstance(self._layer.kernel_size, int)
                return _averaged(x, self._layer.kernel_size)
            case _:
                passed: Tensor = self._layer(x)
                return passed


def _averaged(x: Tensor, size: int) -> Tensor:
    """Means of windows that lie side by side; what is left over at the end is left out."""
    members, channels, height, width, batch = x.shape
    rows, columns = height // size, width // size
    whole = x[:, :, : rows * size, : columns * size]
    return whole.reshape(members, channels, rows, size, columns, size, batch).mean((3, 5))
