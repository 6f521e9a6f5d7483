"""MNIST or random images on the device, and stacks trained on them through the project's own loop."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from ensemble.config import parse_experiment
from ensemble.config.schema import DataConfig, Experiment
from ensemble.data import load_dataset
from ensemble.events import EpochFinished, Notice
from ensemble.training import Trainer
from ensemble.training.job import Ways
from ensemble.types import Failure, MemberResult, MemberSpec, Task

LENET5 = {"name": "lenet5"}
RECIPE: dict[str, Any] = {"batch_size": 128, "lr": 1e-3}
WRONG = 0.2  # mean test error on MNIST after three epochs that no correct training has; it is about 0.02


@dataclass(frozen=True)
class Trained:
    """One training. epoch_s: median over the epochs after the first, validation included; notes: what it remarked."""

    members: int
    epoch_s: float
    first_epoch_s: float
    total_s: float
    errors: tuple[float, ...]
    peak_gib: float | None
    notes: tuple[str, ...] = ()

    def values(self, share: float = 1.0) -> dict[str, Any]:
        """For a case: times as of the whole data set where only a share of it was trained on."""
        found: dict[str, Any] = {
            "ms_per_member_epoch": 1000 * self.epoch_s / self.members / share,
            "first_epoch_s": self.first_epoch_s, "total_s": self.total_s, "mean_test_error": float(np.mean(self.errors)),
        }  # fmt: skip
        if self.peak_gib is not None:
            found["peak_gib"] = self.peak_gib
        return {**found, "notes": list(self.notes)} if self.notes else found


@dataclass
class Bench:
    """The device and sizes of a run of the benchmark. small: a dry run, with tiny sizes and scikit-learn's digits."""

    device: str
    small: bool
    full_peer: bool = False
    full_record: str | None = None

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def size(self, real: int, small: int) -> int:
        return small if self.small else real

    @property
    def data_name(self) -> str:
        return "digits" if self.small else "mnist"

    @cached_property
    def arrays(self) -> dict[str, Any]:
        """MNIST as a task gets it: the last tenth of the training images is for validation."""
        data = load_dataset(DataConfig(name="digits") if self.small else DataConfig(name="mnist", download=False))
        count = self.size(len(data.train_labels_N), 300)
        return {
            "train_images": data.train_images_NCHW[:count], "train_labels": data.train_labels_N[:count],
            "validation_rows": np.arange(count - count // 10, count),
            "test_images": data.test_images_NCHW, "test_labels": data.test_labels_N,
            "mean": np.array([0.1307], np.float32), "std": np.array([0.3081], np.float32),
        }  # fmt: skip

    def random_arrays(self, count: int, shape: tuple[int, int, int]) -> dict[str, Any]:
        """Random images with random labels: as good as real ones for times. At most 128 more for validation, and for test."""
        draw, more = np.random.default_rng(0), min(128, count)
        return {
            "train_images": draw.integers(0, 256, (count + more, *shape), np.uint8),
            "train_labels": draw.integers(0, 10, count + more), "validation_rows": np.arange(count, count + more),
            "test_images": draw.integers(0, 256, (more, *shape), np.uint8), "test_labels": draw.integers(0, 10, more),
            "mean": np.full(shape[0], 0.5, np.float32), "std": np.full(shape[0], 0.25, np.float32),
        }  # fmt: skip

    def share_of(self, share: float) -> dict[str, Any]:
        """The first images of MNIST, and as small a share of those for validation."""
        arrays = self.arrays
        held_out = arrays["validation_rows"]
        rows, held_out = int(share * held_out[0]), held_out[: max(10, int(share * len(held_out)))]
        keep = np.concatenate([np.arange(rows), held_out])
        return {
            **arrays, "train_images": arrays["train_images"][keep], "train_labels": arrays["train_labels"][keep],
            "validation_rows": np.arange(rows, len(keep)),
        }  # fmt: skip

    def experiment(self, count: int, model: dict[str, Any], training: dict[str, Any], **compute: Any) -> Experiment:
        """A deep ensemble on this device; compute.cuda_graph is what it says, never the default."""
        graph = bool(compute.pop("cuda_graph", True)) and self.on_gpu
        training = {**RECIPE, "epochs": 3, **training}
        return parse_experiment({
            "name": "gpu", "num_members": count, "method": {"name": "deep_ensemble"}, "model": model,
            "data": {"name": self.data_name},
            "training": {**training, "epochs": min(training["epochs"], self.size(1000, 2))},
            "compute": {
                "device": self.device, "checkpoint_every_s": 0, "deterministic": False, **compute, "cuda_graph": graph,
            },
        })  # fmt: skip

    def train(
        self, count: int, model: dict[str, Any] | None = None, training: dict[str, Any] | None = None,
        arrays: Mapping[str, Any] | None = None, convolutions: dict[str, str] | None = None, **compute: Any,
    ) -> Trained:  # fmt: skip
        """Train one stack of `count` members, by a CUDA graph unless cuda_graph=False.

        arrays: MNIST when None. convolutions: variants by layer name. Raises RuntimeError when a member fails.
        """
        experiment = self.experiment(count, model or LENET5, training or {}, **compute)
        recipe = experiment.groups[0].name
        kernels = None if convolutions is None else {recipe: Ways(batch_last=False, convolutions=convolutions)}
        trainer = Trainer.create(experiment, self.device, 10, kernels)
        return self.run(trainer, recipe, count, self.arrays if arrays is None else arrays)

    def run(self, trainer: Trainer, recipe: str, count: int, arrays: Mapping[str, Any]) -> Trained:
        """Train `count` members of a recipe on all rows that are not for validation. Raises RuntimeError as `train` does."""
        rows = np.arange(int(arrays["validation_rows"][0]))
        task = Task("gpu", recipe, tuple(MemberSpec(index, recipe, rows) for index in range(count)))
        labels_N = arrays["test_labels"]
        without_labels = {name: array for name, array in arrays.items() if name != "test_labels"}
        spent: dict[int, float] = {}
        errors, notes = [], []
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        for item in trainer(task, without_labels):
            if isinstance(item, EpochFinished):
                spent[item.epoch] = spent.get(item.epoch, 0.0) + item.seconds
            elif isinstance(item, MemberResult):
                errors.append(float((item.votes.test_NK.argmax(1) != labels_N).mean()))
            elif isinstance(item, Failure):
                raise RuntimeError(f"member {item.index} failed: {item.reason}")
            elif isinstance(item, Notice):  # a refused CUDA graph, say: worth knowing, and the time still counts
                notes.append(item.message)
        total_s = time.perf_counter() - started
        later = [seconds for epoch, seconds in spent.items() if epoch > 1] or list(spent.values())
        peak = torch.cuda.max_memory_allocated() / 2**30 if self.on_gpu else None
        return Trained(count, statistics.median(later), spent[1], total_s, tuple(errors), peak, tuple(notes))

    def learned(self, trained: Trained) -> None:
        """Raise RuntimeError when networks that were trained on MNIST did not learn: a quick wrong answer is a failure."""
        error = float(np.mean(trained.errors))
        if not self.small and not error < WRONG:
            raise RuntimeError(f"mean test error {error:.1%} after training on MNIST; expected below {WRONG:.0%}")
