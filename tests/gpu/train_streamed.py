"""As train_recipes.py, on a device that has no room for images: they are sent batch by batch."""

from __future__ import annotations

from cases import answer
from train_recipes import look_at

import ensemble.training.stack_run as stack_run

if __name__ == "__main__":
    stack_run.GPU_SHARE = 0.0
    answer(look_at)
