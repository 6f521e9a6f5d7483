"""Convolutions by matrix products keep the dtype and the memory layout that come in, and waste no work on gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ensemble.training.convolutions import ConvolutionShape, by_rows, by_windows
from ensemble.training.layers import StackedConv2d, pool_before_bias

PRODUCTS: dict[str, Callable[..., Tensor]] = {"windows": by_windows, "rows": by_rows}
LENET = {"conv1": (1, 6, 14, 2), "conv2": (6, 16, 7, 0)}  # channels, maps, half of LeNet-5's sides, padding


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize("sizes", LENET.values(), ids=LENET)
@pytest.mark.parametrize("members", [1, 3])
def test_equal_to_grouped_convolution_in_float64(
    product: Callable[..., Tensor], sizes: tuple[int, int, int, int], members: int
) -> None:
    channels, maps, side, padding = sizes
    torch.manual_seed(0)
    x = torch.randn(4, members * channels, side, side + 1, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(members * maps, channels, 5, 5, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(members * maps, dtype=torch.float64, requires_grad=True)
    wanted = F.conv2d(x, weight, bias, padding=padding, groups=members)
    found = product(x, weight, bias, ConvolutionShape(members, padding=(padding, padding)))
    torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-13)
    dy = torch.randn_like(wanted)
    gradients = [torch.autograd.grad(y, (x, weight, bias), dy) for y in (found, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("way", PRODUCTS)
@pytest.mark.parametrize("bias", [False, True])
def test_bfloat16_stays_bfloat16(way: str, bias: bool) -> None:
    """Under autocast, with float32 weights: the output has autocast's dtype, the gradients that of what they belong to."""
    torch.manual_seed(0)
    layer = StackedConv2d([nn.Conv2d(4, 8, 3, padding=1, bias=bias) for _ in range(2)])
    images, found = torch.randn(5, 8, 9, 9), []
    for layer.way in (way, "channels_last"):
        for dtype in (torch.float32, torch.bfloat16):
            x = images.to(dtype, copy=True).requires_grad_()
            layer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                y = layer(x)
            assert y.dtype == torch.bfloat16
            y.float().square().sum().backward()
            assert x.grad is not None
            assert x.grad.dtype == dtype
            found.append([y.detach(), x.grad, *(p.grad for p in layer.parameters())])
    for one, wanted in zip(found[:2], found[2:], strict=True):
        for ours, theirs in zip(one, wanted, strict=True):
            assert ours.dtype == theirs.dtype
            assert (ours - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize("way", PRODUCTS)
def test_channels_stay_last_in_memory(way: str) -> None:
    """So that the layers behind copy nothing, and gradients have the strides of their weights."""
    layer = StackedConv2d([nn.Conv2d(3, 4, 3, padding=1) for _ in range(2)])
    layer.way, x = way, torch.randn(5, 6, 8, 9).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = layer(x)
    y.sum().backward()
    assert x.grad is not None
    for tensor in (y, x.grad):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert layer.weight.grad is not None
    assert layer.weight.grad.stride() == layer.weight.stride()


@pytest.mark.parametrize("way", PRODUCTS)
def test_images_get_no_gradient(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first layer's input needs none, and none is computed."""
    products = dict.fromkeys(("bmm", "baddbmm"), 0)

    def counted(name: str) -> Callable[..., Any]:
        product = getattr(torch, name)

        def call(*args: Any, **options: Any) -> Any:
            products[name] += 1
            return product(*args, **options)

        return call

    layer = StackedConv2d([nn.Conv2d(1, 4, 3) for _ in range(2)])
    layer.way = way
    y = layer(torch.randn(5, 2, 8, 9))
    for name in products:
        monkeypatch.setattr(torch, name, counted(name))
    y.sum().backward()
    assert products == {"bmm": 1 if way == "windows" else 3, "baddbmm": 0}
    assert layer.weight.grad is not None


@pytest.mark.parametrize("way", ["channels_last", "contiguous", "apart", "windows", "rows"])
@pytest.mark.parametrize("bias", [False, True])
def test_no_images_are_a_batch_like_any_other(way: str, bias: bool) -> None:
    """A member without rows of its own to predict has such a batch (no row out of its bag, or no validation part)."""
    layer = StackedConv2d([nn.Conv2d(3, 4, 3, padding=1, bias=bias) for _ in range(2)])
    layer.way, x = way, torch.zeros(0, 6, 8, 9, requires_grad=True)
    y = layer(x)
    assert y.shape == (0, 8, 8, 9)
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("way", ["channels_last", "contiguous", "apart", "windows", "rows"])
@pytest.mark.parametrize("pooling", [nn.MaxPool2d(2), nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)])
@pytest.mark.parametrize("shared", [False, True], ids=["own images", "shared images"])
def test_pooling_before_the_bias_is_the_same(way: str, pooling: nn.MaxPool2d, shared: bool) -> None:
    """Activations to the last bit where both are added apart; gradients are sums in another order."""
    torch.manual_seed(0)
    usual = nn.Sequential(StackedConv2d([nn.Conv2d(3, 4, 3, padding=1) for _ in range(2)]), pooling, nn.ReLU()).double()
    turned = copy.deepcopy(usual)
    for _ in range(2):
        pool_before_bias(turned)
    for network in (usual, turned):
        assert isinstance(network[0], StackedConv2d)
        network[0].way = way
    assert isinstance(turned[0], StackedConv2d)
    assert turned[0].pooling is not None
    assert isinstance(turned[1], nn.Identity)
    assert list(turned.state_dict()) == list(usual.state_dict())
    x = torch.randn(5, 3 if shared else 6, 9, 8, dtype=torch.float64)
    y, wanted = turned(x), usual(x)
    torch.testing.assert_close(y, wanted, rtol=1e-14, atol=1e-14)
    dy = torch.randn_like(wanted)
    gradients = [torch.autograd.grad(out, tuple(n.parameters()), dy) for out, n in ((y, turned), (wanted, usual))]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_largest_of_sums_is_the_sum_of_the_largest_to_the_last_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    y, bias = torch.randn(5, 8, 9, 9).to(dtype), torch.randn(8, 1, 1).to(dtype)
    assert torch.equal(F.max_pool2d(y + bias, 2), F.max_pool2d(y, 2) + bias)


def test_only_pooling_that_follows_a_bias_is_taken_over() -> None:
    def conv(bias: bool = True) -> StackedConv2d:
        return StackedConv2d([nn.Conv2d(3, 3, 3, padding=1, bias=bias) for _ in range(2)])

    network = nn.Sequential(
        conv(False), nn.MaxPool2d(2), conv(), nn.ReLU(), nn.MaxPool2d(2), conv(), nn.AvgPool2d(2), nn.Sequential(conv(), nn.MaxPool2d(1))
    )  # fmt: skip
    pool_before_bias(network)
    assert [layer.pooling is not None for layer in network.modules() if isinstance(layer, StackedConv2d)] == [
        False, False, False, True,
    ]  # fmt: skip


def test_autocast_keeps_its_dtype_behind_the_pooling() -> None:
    network = nn.Sequential(StackedConv2d([nn.Conv2d(3, 4, 3) for _ in range(2)]), nn.MaxPool2d(2))
    pool_before_bias(network)
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.randn(2, 6, 8, 8)).dtype == torch.bfloat16
