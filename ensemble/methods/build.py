"""From a configuration to a method."""

from __future__ import annotations

from ensemble.config.schema import BaggingConfig, DeepEnsembleConfig, Experiment
from ensemble.methods.base import Method
from ensemble.methods.one_round import bagging, deep_ensemble
from ensemble.types import IntArray


def build_method(experiment: Experiment, train_rows: IntArray) -> Method:
    """The configured method over the training rows (validation rows are not among them)."""
    recipes = [group.name for group in experiment.groups for _ in range(group.count)]
    match experiment.method:
        case DeepEnsembleConfig():
            return deep_ensemble(recipes, train_rows)
        case BaggingConfig() as config:
            return bagging(recipes, train_rows, config, experiment.seed)
