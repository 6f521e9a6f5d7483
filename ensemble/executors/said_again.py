"""Lines that are said when something lasts, and then again and again but not all the time."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class SaidAgain:
    """Remembers of each thing when it was last spoken of."""

    _last: dict[Hashable, float] = field(default_factory=dict)

    def due(self, what: Hashable, every_s: float) -> bool:
        """Whether to speak of it now: for the first time, or since so many seconds have passed. If so, that is taken as done."""
        now = time.monotonic()
        if now - self._last.get(what, -math.inf) <= every_s:
            return False
        self._last[what] = now
        return True

    def over(self, what: Hashable) -> None:
        """It does not last any longer; the next time is a first one."""
        self._last.pop(what, None)
