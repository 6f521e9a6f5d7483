"""Train ensembles of image classifiers and judge, with intervals, whether they beat the single model.

    import ensemble
    run = ensemble.train("configs/quickstart.yaml", {"num_members": 4})    # or ensemble.load("runs/quickstart")
    run.leaderboard(); run.votes("test"); run.predict_proba(images)

Importing this package loads none of torch, ray, accelerate or wandb: the command line stays quick and the
statistics run on machines without them. What needs torch is fetched when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ensemble.config.data import DataConfig, register_data
    from ensemble.config.method import MethodJob, MethodSection, register_method
    from ensemble.config.network import Network, register_network
    from ensemble.config.tracker import TrackerJob, TrackerSection, register_tracker
    from ensemble.evaluation.paper_table import PaperTable
    from ensemble.evaluation.record_base import Number, Record
    from ensemble.evaluation.section import About, EvaluationSection, JudgedVotes, register_section
    from ensemble.evaluation.views import Cell, Curve, SectionFigure, SectionTable
    from ensemble.inference.trained import TrainedEnsemble, load_ensemble
    from ensemble.run.entrance import stop, train
    from ensemble.run.stored import Run, compare, load
    from ensemble.run.stored_repeats import Repeats
    from ensemble.sklearn_api import EnsembleClassifier

__version__ = "0.1.0"
__all__ = [
    "About", "Cell", "Curve", "DataConfig", "EnsembleClassifier", "EvaluationSection", "JudgedVotes", "MethodJob", "MethodSection", "Network", "Number",
    "PaperTable", "Record", "Repeats", "Run", "SectionFigure", "SectionTable", "TrackerJob", "TrackerSection", "TrainedEnsemble", "__version__", "compare", "load",
    "load_ensemble", "register_data", "register_method", "register_network", "register_section", "register_tracker", "stop", "train",
]  # fmt: skip

_HOMES = {
    "train": "ensemble.run.entrance", "stop": "ensemble.run.entrance",
    "Run": "ensemble.run.stored", "load": "ensemble.run.stored", "compare": "ensemble.run.stored",
    "Repeats": "ensemble.run.stored_repeats",
    "EnsembleClassifier": "ensemble.sklearn_api",
    "DataConfig": "ensemble.config.data", "register_data": "ensemble.config.data",
    "MethodJob": "ensemble.config.method", "MethodSection": "ensemble.config.method", "register_method": "ensemble.config.method",
    "Network": "ensemble.config.network", "register_network": "ensemble.config.network",
    "TrackerJob": "ensemble.config.tracker", "TrackerSection": "ensemble.config.tracker", "register_tracker": "ensemble.config.tracker",
    "About": "ensemble.evaluation.section", "EvaluationSection": "ensemble.evaluation.section",
    "JudgedVotes": "ensemble.evaluation.section", "register_section": "ensemble.evaluation.section",
    "PaperTable": "ensemble.evaluation.paper_table", "Number": "ensemble.evaluation.record_base", "Record": "ensemble.evaluation.record_base",
    "Cell": "ensemble.evaluation.views", "Curve": "ensemble.evaluation.views",
    "SectionFigure": "ensemble.evaluation.views", "SectionTable": "ensemble.evaluation.views",
    "TrainedEnsemble": "ensemble.inference.trained", "load_ensemble": "ensemble.inference.trained",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
