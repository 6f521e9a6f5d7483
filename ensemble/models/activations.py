"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": nn.GELU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "silu": nn.SiLU,
}

# For these, max-pooling first gives the same values as pooling last, at a quarter of the work.
MONOTONE = frozenset({"relu", "tanh", "sigmoid", "leaky_relu", "elu"})
