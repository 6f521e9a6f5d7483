"""Configuration: one YAML file plus `key=value` overrides become one frozen, validated Experiment."""

from ensemble.config.loading import Loaded, load_config, parse_experiment
from ensemble.config.schema import Experiment, Group

__all__ = ["Experiment", "Group", "Loaded", "load_config", "parse_experiment"]
