"""configs/record_mnist.yaml: does it run, what does a member-epoch of each kind take, and how long would all of it take.

The whole run of 30 networks and 150 epochs is another part, `full_record`, which --full-record FOLDER adds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.cases import Cases
from ensemble.config import load_config
from ensemble.config.schema import Experiment
from ensemble.executors.inline import InlineExecutor
from ensemble.run.run import run_ensemble
from ensemble.training import Trainer

CONFIG = Path(__file__).resolve().parents[2] / "configs/record_mnist.yaml"
_SHAPE = (1, 28, 28)
_SHARE = 0.1


def run(bench: Bench, cases: Cases) -> None:
    """A short run as the configuration has it, then each network's time by precision in stacks of the planned size."""
    with cases.case("short run, one member of each kind") as values, tempfile.TemporaryDirectory() as folder:
        values.update(_short_run(bench, folder))
    for precision in ("float32", "tf32", "bf16") if bench.on_gpu else ("float32",):
        _all_kinds(bench, cases, precision)


def _experiment(bench: Bench, *overrides: str) -> Experiment:
    """The configuration on this device, by a CUDA graph where it has one."""
    words = [f"compute.device={bench.device}", f"compute.cuda_graph={str(bench.on_gpu).lower()}",
             "tracking.wandb.mode=disabled", *overrides]  # fmt: skip
    return load_config(CONFIG, words).experiment


def _short_run(bench: Bench, folder: str) -> dict[str, Any]:
    words = [f"output_dir={folder}", f"training.epochs={bench.size(3, 1)}"]
    if bench.small:
        images = bench.random_arrays(40, _SHAPE)
        np.savez(f"{folder}/random.npz", train_images=images["train_images"], train_labels=np.arange(80) % 10)
        words += ["data.name=arrays", f"data.path={folder}/random.npz"]
    experiment = _experiment(bench, *words)
    members = tuple(group.model_copy(update={"count": 1}) for group in experiment.members)
    experiment = experiment.model_copy(update={"members": members})
    outcome = run_ensemble(experiment, lambda *_: InlineExecutor(), lambda _: [])
    return {"members": len(outcome.evaluation.members), "vote_test_error": outcome.evaluation.leaderboard[0].test_error}


def _all_kinds(bench: Bench, cases: Cases, precision: str) -> None:
    """Milliseconds per member-epoch of each kind, and the hours that the whole configuration would take."""
    whole = _experiment(bench, f"compute.precision={precision}", "compute.checkpoint_every_s=0")
    short = _experiment(
        bench, f"compute.precision={precision}", "compute.checkpoint_every_s=0", f"training.epochs={bench.size(3, 1)}"
    )
    share = 1.0 if bench.small else _SHARE
    arrays = bench.random_arrays(24, _SHAPE) if bench.small else bench.share_of(share)
    size, hours = bench.size(whole.compute.stack_size or 1, 1), 0.0
    for group in whole.groups:
        with cases.case(f"{group.name} K={size} {precision}") as values:
            trained = bench.run(Trainer.create(short, bench.device, 10), group.name, size, arrays)
            values.update(trained.values(share))
        # What failed counts as endless: there is no figure for all of it then.
        hours += values.get("ms_per_member_epoch", float("inf")) * group.count * group.training.epochs / 3.6e6
    if hours < float("inf"):
        with cases.case(f"all of it, {precision}") as values:
            values["hours"] = hours
