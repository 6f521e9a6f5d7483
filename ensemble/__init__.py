"""Train ensembles of image classifiers and judge, with intervals, whether they beat the single model.

    from ensemble import load_ensemble
    load_ensemble("runs/quickstart").predict_proba(images)

Importing this package loads none of torch, ray, accelerate or wandb: the command line stays quick and the
statistics run on machines without them. What needs torch is fetched when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ensemble.config.method import MethodJob, MethodSection, register_method
    from ensemble.config.network import Network, register_network
    from ensemble.inference.trained import TrainedEnsemble, load_ensemble
    from ensemble.sklearn_api import EnsembleClassifier

__version__ = "0.1.0"
__all__ = [
    "EnsembleClassifier", "MethodJob", "MethodSection", "Network", "TrainedEnsemble", "__version__", "load_ensemble",
    "register_method", "register_network",
]  # fmt: skip

_HOMES = {
    "EnsembleClassifier": "ensemble.sklearn_api",
    "MethodJob": "ensemble.config.method", "MethodSection": "ensemble.config.method", "register_method": "ensemble.config.method",
    "Network": "ensemble.config.network", "register_network": "ensemble.config.network",
    "TrainedEnsemble": "ensemble.inference.trained", "load_ensemble": "ensemble.inference.trained",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
