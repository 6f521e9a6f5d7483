"""How many examples a property is tried on: few in every run of the suite, many where $ENSEMBLE_EXAMPLES asks for it.

ENSEMBLE_EXAMPLES=10000 python -m pytest tests/data/test_damaged_inputs.py
"""

from __future__ import annotations

import os

VARIABLE = "ENSEMBLE_EXAMPLES"


def examples(number: int) -> int:
    """That many, or as many as the variable says where that is more."""
    return max(number, int(os.environ.get(VARIABLE, "0")))
