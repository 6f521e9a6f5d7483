"""An experiment with its own executor and trackers: what every door calls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

from ensemble.config import Experiment
from ensemble.data import Dataset
from ensemble.executors import build_executor
from ensemble.outside.long_work import heard
from ensemble.run.made_files import MAKERS
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.tracking.base import Tracker
from ensemble.tracking.build import Console, build_trackers


def run_experiment(
    experiment: Experiment, console: Console, trackers: Sequence[Tracker] = (), dataset: Dataset | None = None
) -> RunOutcome:
    """Train what is missing, judge all. Raises the EnsembleError of whatever stopped it.

    console: what is said meanwhile on stderr, see `build_trackers`. trackers: further listeners. dataset: instead of the
    one that the experiment names.
    """
    with nullcontext() if console == "progress" else heard(None):
        return run_ensemble(
            experiment,
            lambda device, tasks, images: build_executor(experiment.compute, device, tasks, images, experiment.name),
            lambda folder: [*build_trackers(experiment, folder.path, console, MAKERS), *trackers],
            dataset,
        )
