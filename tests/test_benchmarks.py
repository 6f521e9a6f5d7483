"""The record's configuration, as far as a CPU can show that it works. The GPU benchmark: test_gpu_benchmark.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ensemble.config import load_config
from ensemble.models import build_model, num_parameters

ROOT = Path(__file__).resolve().parents[1]


def by_hand(kernel: int, channels: list[int], side: int) -> int:
    """Convolutions without bias, two numbers of batch norm per channel, and the last full connection."""
    convolutions = sum(kernel**2 * a * b for a, b in zip([1, *channels], channels, strict=False))
    return convolutions + 2 * sum(channels) + 10 * (side**2 * channels[-1] + 1)


def test_the_record_s_networks_have_the_size_computed_by_hand() -> None:
    groups = load_config(ROOT / "configs/record_mnist.yaml").experiment.groups
    sizes = {group.name: num_parameters(build_model(group.model, (1, 28, 28), 10)) for group in groups}
    assert sizes == {
        "m3": by_hand(3, list(range(32, 177, 16)), 8),
        "m5": by_hand(5, [32, 64, 96, 128, 160], 8),
        "m7": by_hand(7, [48, 96, 144, 192], 4),
    }


def test_a_few_steps_of_the_record(tmp_path: Path) -> None:
    """The whole way with one network of each kind, on a few images of MNIST's size."""
    rng = np.random.default_rng(0)
    parts = {
        f"{part}_images": rng.integers(0, 256, (count, 28, 28), np.uint8)
        for part, count in (("train", 240), ("test", 100))
    }
    labels = {f"{part}_labels": np.arange(count) % 10 for part, count in (("train", 240), ("test", 100))}
    np.savez(tmp_path / "small.npz", **parts, **labels)
    data = ["data.name=arrays", f"data.path={tmp_path / 'small.npz'}"]
    words = [*data, "training.epochs=1", "tracking.wandb.mode=disabled", f"output_dir={tmp_path}"]
    experiment = load_config(ROOT / "configs/record_mnist.yaml", words).experiment
    few = experiment.model_copy(
        update={"members": tuple(g.model_copy(update={"count": 1}) for g in experiment.members)}
    )
    from ensemble.executors.inline import InlineExecutor
    from ensemble.run.run import run_ensemble

    outcome = run_ensemble(few, lambda *_: InlineExecutor(), lambda _: [])
    assert [member.recipe for member in outcome.evaluation.members] == ["m3", "m5", "m7"]
