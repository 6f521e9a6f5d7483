"""From a configuration to a method."""

from __future__ import annotations

import numpy as np

from ensemble.config.schema import (
    AdaBoostConfig,
    BaggingConfig,
    DeepEnsembleConfig,
    Experiment,
    FastGeometricConfig,
    FilterBoostingConfig,
    GradientBoostingConfig,
    SnapshotConfig,
)
from ensemble.methods.adaboost import AdaBoost
from ensemble.methods.base import Method
from ensemble.methods.chained import Chained
from ensemble.methods.filter_boosting import FilterBoosting
from ensemble.methods.gradient_boosting import GradientBoosting
from ensemble.methods.one_round import bagging, deep_ensemble
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
    recipes = [group.name for group in experiment.groups for _ in range(group.count)]
    match experiment.method:
        case DeepEnsembleConfig():
            return deep_ensemble(recipes, train_rows)
        case BaggingConfig() as config:
            return bagging(recipes, train_rows, config, experiment.seed)
        case AdaBoostConfig() as config:
            return AdaBoost(
                config, len(recipes), recipes[0], train_rows, labels_N[train_rows], num_classes, experiment.seed
            )
        case FilterBoostingConfig() as config:
            return FilterBoosting(config, len(recipes), recipes[0], train_rows)
        case GradientBoostingConfig() as config:
            labels = labels_N[train_rows], labels_N[rows_V]
            return GradientBoosting(config, len(recipes), recipes[0], train_rows, *labels, num_classes)
        case SnapshotConfig(chains=chains) | FastGeometricConfig(chains=chains):
            return Chained(recipes, train_rows, chains)
