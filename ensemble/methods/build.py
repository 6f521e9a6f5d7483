"""From a configuration to a method."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ensemble.config.method import MethodJob
from ensemble.config.schema import Experiment
from ensemble.errors import DataError
from ensemble.methods.base import Method
from ensemble.types import IntArray


def build_method(
    experiment: Experiment,
    train_rows: IntArray,
    labels_N: IntArray,
    num_classes: int,
    validation_rows: IntArray | None = None,
    groups_N: IntArray | None = None,
) -> Method:
    """The configured method over the training rows (validation rows are not among them).

    labels_N: classes of the whole training array, indexed by row. validation_rows: for methods that choose by them.
    groups_N: number of each row's group, where rows of a group stay together.
    """
    rows_V = np.empty(0, np.int64) if validation_rows is None else validation_rows
    job = MethodJob(experiment.recipes, train_rows, rows_V, labels_N, num_classes, experiment.seed, groups_N)
    method: Method = experiment.method.build(job)
    return method


def check_rows(
    experiment: Experiment,
    train_rows: IntArray,
    labels_N: IntArray,
    class_names: Sequence[str],
    groups_N: IntArray | None,
) -> None:
    """Raises DataError where the configured method cannot divide these training rows among its members."""
    rows_V, classes = np.empty(0, np.int64), len(class_names)
    job = MethodJob(
        experiment.recipes, train_rows, rows_V, labels_N, classes, experiment.seed, groups_N, tuple(class_names)
    )
    if problem := experiment.method.rows_problem(job):
        raise DataError(f"method {experiment.method.name}: {problem}")
