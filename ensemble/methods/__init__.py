"""Methods decide which members to train next, on which rows with which weights, and how loud each one votes.

Ask / tell: `ask()` returns the members of the next round (empty = done), `tell(results)` takes in what they left.
A method is numpy only, and a function of its arguments and of what it was told: after a restart the same `ask` comes
out, so resume is replay.
"""

from ensemble.methods.base import Method
from ensemble.methods.build import build_method, check_rows

__all__ = ["Method", "build_method", "check_rows"]
