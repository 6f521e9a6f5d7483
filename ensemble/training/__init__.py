"""Training: K networks as one, the loop, optimisers and schedules, prediction.

    for item in Trainer.create(experiment, "cpu", num_classes)(task, arrays): ...

Importing this loads no torch; the first training does.
"""

from ensemble.training.job import Arrays, Job, check_batches, check_precision, device_kind, shape_of
from ensemble.training.suitability import (
    ELSEWHERE,
    Starts,
    check_network,
    check_views_of_features,
    largest_stack,
    named_class_weights,
    shares_features,
    starts,
)
from ensemble.training.trainer import Trainer

__all__ = [
    "ELSEWHERE",
    "Arrays",
    "Job",
    "Starts",
    "Trainer",
    "check_batches",
    "check_network",
    "check_precision",
    "check_views_of_features",
    "device_kind",
    "largest_stack",
    "named_class_weights",
    "shape_of",
    "shares_features",
    "starts",
]
