"""How wide one network must be to have about as many parameters as an ensemble.

found = as_large_as(LeNet5Config(name="lenet5"), 8 * 61_706, image_shape=(1, 28, 28), num_classes=10)
found.factor, found.parameters      # 3.004, 493 thousand: the nearest that whole channels allow
"""

from __future__ import annotations

from dataclasses import dataclass

from ensemble.config.network import Network
from ensemble.errors import ConfigError
from ensemble.models import ImageShape, num_parameters
from ensemble.models.undrawn import undrawn

_WIDEST = 1024.0  # times the network's own width, at which the search gives up
_DIGITS = 6  # of the factor; widths that differ by less are the same whole numbers of channels


@dataclass(frozen=True)
class Widened:
    """A network of the same family. factor: its widths as a multiple of the given network's; parameters: that it has."""

    network: Network
    factor: float
    parameters: int


def as_large_as(network: Network, parameters: int, image_shape: ImageShape, num_classes: int) -> Widened:
    """The widening whose number of parameters is nearest to `parameters`, which is at least the network's own.

    Raises ConfigError for a network without a width, and where no width gives so many.
    """

    def at(factor: float) -> Widened:
        wide = network.widened(factor)
        if wide is None:
            raise ConfigError(
                f"model {network.name}: has no width, so it cannot be widened; leave wider out of controls"
            )
        return Widened(wide, factor, count_parameters(wide, image_shape, num_classes))

    low, high = at(1.0), at(2.0)
    while high.parameters < parameters:
        if high.factor >= _WIDEST:
            raise ConfigError(
                f"controls: wider: {_WIDEST:g} times as wide the network has {high.parameters:,} parameters, fewer than the {parameters:,} of all members together; leave wider out"
            )
        low, high = high, at(2 * high.factor)
    while high.factor - low.factor > 10**-_DIGITS:
        middle = (low.factor + high.factor) / 2
        found = at(middle)
        low, high = (found, high) if found.parameters < parameters else (low, found)
    nearest = min(low, high, key=lambda one: abs(one.parameters - parameters))
    shorter = (at(round(nearest.factor, digits)) for digits in range(_DIGITS))
    return next((one for one in shorter if one.parameters == nearest.parameters), nearest)


def count_parameters(network: Network, image_shape: ImageShape, num_classes: int) -> int:
    """Trainable parameters of a network for these images; see `undrawn`."""
    return num_parameters(undrawn(network, image_shape, num_classes))
