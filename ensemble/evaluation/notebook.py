"""How a notebook shows the records of this room: by functions of a higher one, which is imported when a cell asks for it.

class Comparison(Shown, Record): ...        # named in _BY
"""

from __future__ import annotations

import importlib

_BY = {
    "Evaluation": ("ensemble.report.tables", "leaderboard_html"),
    "Comparison": ("ensemble.report.compared", "comparison_html"),
}


class Shown:
    """A record that a notebook shows as a table."""

    def _repr_html_(self) -> str:
        """What a notebook shows; the names in it are escaped."""
        module, function = _BY[type(self).__name__]
        html: str = getattr(importlib.import_module(module), function)(self)
        return html
