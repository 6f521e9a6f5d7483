"""What seconds of devices cost: `cuda=2.50` is the price of one GPU for an hour, `cpu=0.04` that of one slot without one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ensemble.errors import ConfigError
from ensemble.outside.names import shown
from ensemble.overview.rows import Row

KINDS = ("cuda", "cpu")


@dataclass(frozen=True)
class Money:
    """An amount, in whatever the prices are in. unpriced: kinds of devices that took part and have no price."""

    amount: float
    unpriced: tuple[str, ...]


def parse_prices(words: Sequence[str]) -> dict[str, float]:
    """Prices per hour by kind of device. Raises ConfigError for anything but KIND=NUMBER, each kind once."""
    prices: dict[str, float] = {}
    for word in words:
        kind, equals, text = word.partition("=")
        if not equals or kind not in KINDS or kind in prices:
            found = "stands twice" if kind in prices else "is no price"
            raise ConfigError(
                f"--price {shown(word)}: {found}; expected {' or '.join(f'{kind}=NUMBER' for kind in KINDS)}, per hour, each once"
            )
        try:
            price = float(text)
        except ValueError:
            price = math.nan
        if not (math.isfinite(price) and price >= 0):
            raise ConfigError(
                f"--price {shown(word)}: found {shown(text)!r}; expected a number of at least 0, such as {kind}=2.50"
            )
        prices[kind] = price
    return prices


def money_of(row: Row, prices: Mapping[str, float]) -> Money:
    """What a run has cost; nothing for one whose seconds are not known."""
    spent = row.spent or ()
    amount = math.fsum(each.seconds / 3600 * prices.get(each.device, 0.0) for each in spent)
    unpriced = sorted({each.device for each in spent if each.seconds > 0 and each.device not in prices})
    return Money(amount, tuple(unpriced))
