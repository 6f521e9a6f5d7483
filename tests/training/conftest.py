"""Fixtures of the training tests; their helpers are in `helpers`."""

from tests.training.helpers import arrays

__all__ = ["arrays"]
