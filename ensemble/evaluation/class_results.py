"""The headline vote by true class."""

from __future__ import annotations

from collections.abc import Sequence

from ensemble.evaluation.metrics import class_errors
from ensemble.evaluation.records import ClassResult
from ensemble.evaluation.statistics import wilson_interval
from ensemble.types import IntArray


def class_results(confusion_KK: IntArray, class_names: Sequence[str]) -> tuple[ClassResult, ...]:
    """Error and interval per true class."""
    results = []
    for k, (name, error) in enumerate(zip(class_names, class_errors(confusion_KK), strict=True)):
        rows = int(confusion_KK[k].sum())
        wrong = rows - int(confusion_KK[k, k])
        results.append(ClassResult(name, rows, wrong, float(error), *wilson_interval(wrong, rows)))
    return tuple(results)
