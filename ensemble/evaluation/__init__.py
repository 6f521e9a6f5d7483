"""Judging stored votes: arrays in, numbers out. Start at `evaluate.evaluate`; its result is described in `records`."""
