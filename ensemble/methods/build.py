"""From a configuration to a method."""

from __future__ import annotations

from ensemble.config.schema import AdaBoostConfig, BaggingConfig, DeepEnsembleConfig, Experiment
from ensemble.methods.adaboost import AdaBoost
from ensemble.methods.base import Method
from ensemble.methods.one_round import bagging, deep_ensemble
from ensemble.types import IntArray


def build_method(experiment: Experiment, train_rows: IntArray, labels_N: IntArray, num_classes: int) -> Method:
    """The configured method over the training rows (validation rows are not among them).

    labels_N: classes of the whole training array, indexed by row.
    """
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
