"""From a configuration to a method."""

from __future__ import annotations

import numpy as np

from ensemble.config.method import MethodJob
from ensemble.config.schema import Experiment
from ensemble.methods.base import Method
from ensemble.types import IntArray


def build_method(
    experiment: Experiment,
    train_rows: IntArray,
    labels_N: IntArray,
    num_classes: int,
    validation_rows: IntArray | None = None,
) -> Method:
    """The configured method over the training rows (validation rows are not among them).

    labels_N: classes of the whole training array, indexed by row. validation_rows: for methods that choose by them.
    """
    rows_V = np.empty(0, np.int64) if validation_rows is None else validation_rows
    recipes = tuple(group.name for group in experiment.groups for _ in range(group.count))
    job = MethodJob(recipes, train_rows, rows_V, labels_N, num_classes, experiment.seed)
    method: Method = experiment.method.build(job)
    return method
