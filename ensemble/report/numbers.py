"""Numbers on a page, each with the key of evaluation.json that it was taken from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ensemble.report import wording


class Numbers:
    """Writes the numbers of one evaluation.json, each found by its dotted key."""

    def __init__(self, record: Mapping[str, Any]) -> None:
        self._record = record

    def _value(self, key: str) -> Any:
        value: Any = self._record
        for part in key.split("."):
            value = value[int(part)] if isinstance(value, list) else value[part]
        return value

    def _written(self, key: str, text: str) -> Markup:
        value = self._value(key)
        exact = "" if value is None else repr(value)
        return Markup('<data value="{}" data-key="{}">{}</data>').format(exact, key, text)

    def _float(self, key: str) -> float:
        value = self._value(key)
        return math.nan if value is None else float(value)

    def percent(self, key: str) -> Markup:
        """A rate in percent, two digits."""
        return self._written(key, wording.percent(self._float(key)))

    def points(self, key: str) -> Markup:
        """A difference of rates in percentage points, with its sign."""
        return self._written(key, wording.points(self._float(key)))

    def loss(self, key: str) -> Markup:
        """A loss or score, four digits."""
        return self._written(key, wording.loss(self._float(key)))

    def p(self, key: str) -> Markup:
        """A p-value."""
        return self._written(key, wording.p_value(self._float(key)))

    def count(self, key: str) -> Markup:
        """A count, or a mean of counts."""
        return self._written(key, wording.count(self._float(key)))

    def one_digit(self, key: str) -> Markup:
        """A mean of counts."""
        value = self._float(key)
        return self._written(key, wording.NONE if math.isnan(value) else f"{value:.1f}")

    def short(self, key: str) -> Markup:
        """A learned value (a weight, a temperature) with four significant digits."""
        value = self._float(key)
        return self._written(key, wording.NONE if math.isnan(value) else f"{value:.4g}")

    def seconds(self, key: str) -> Markup:
        """A time."""
        return self._written(key, wording.seconds(self._float(key)))

    def interval(self, prefix: str, lower: str = "lower", upper: str = "upper") -> Markup:
        """Both ends of an interval of rates in percent."""
        if math.isnan(self._float(f"{prefix}.{lower}")):
            return Markup("-")
        # No shorter dash: an end may be negative.
        return Markup("{} to {}").format(self.percent(f"{prefix}.{lower}"), self.percent(f"{prefix}.{upper}"))
