"""What balanced draws, weights and adjusted logits are worth on a long tail: MNIST with a hundred times as many zeros as nines.

    python -m benchmarks.long_tail [--seeds 5] [--data DIR]

Class k has round(5000 * 100 ** (-k / 9)) training images (Cui et al. 2019's exponential profile), the first ones in the order of
the data set; the test set is whole. For every seed one run of three LeNet-5 for each way, which differ in one key. Prints a table of
the votes' balanced error and error: medians over the seeds, and how often the key helped.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

import ensemble
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset

WAYS = {
    "as they come": {},
    "class_weights: balanced": {"class_weights": "balanced"},
    "sampling: balanced": {"sampling": "balanced"},
    "logit_adjustment: 1": {"logit_adjustment": 1.0},
}


def long_tail(root: str | None) -> tuple[np.ndarray, ...]:
    """Training images and labels of the tail, and the whole test set."""
    mnist = load_dataset(DataConfig(name="mnist", root=root))
    labels = mnist.train_labels_N
    counts = [round(5000 * 100 ** (-k / 9)) for k in range(10)]
    rows = np.concatenate([np.flatnonzero(labels == k)[:count] for k, count in enumerate(counts)])
    return mnist.train_images_NCHW[rows, 0], labels[rows], mnist.test_images_NCHW[:, 0], mnist.test_labels_N


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--data", help="root of the data sets")
    options = parser.parse_args()
    data = long_tail(options.data)
    print(f"{len(data[0]):,} training images, of each class {np.bincount(data[1]).tolist()}", flush=True)
    balanced: dict[str, list[float]] = {way: [] for way in WAYS}
    errors: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        for way, keys in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                run = ensemble.train(
                    output_dir=Path(folder), model="lenet5", data=data, method="deep_ensemble", num_members=3, seed=seed,
                    training={"epochs": options.epochs, "batch_size": 64, "lr": 0.002, **keys},
                    compute={"executor": "inline"},
                )  # fmt: skip
                balance, headline = run.evaluation.balance, run.evaluation.headline
                assert balance is not None
            balanced[way].append(100 * balance.vote_error)
            errors[way].append(100 * headline.test_error)
            print(f"seed {seed}  {way:<24} balanced {balanced[way][-1]:5.2f}  plain {errors[way][-1]:5.2f}", flush=True)
    plain = balanced["as they come"]
    print("\n| training | balanced error % | error % | against as they come | better in |\n|---|---:|---:|---:|---:|")
    for way, found in balanced.items():
        ratio = median(new / old for new, old in zip(found, plain, strict=True))
        wins = sum(new < old for new, old in zip(found, plain, strict=True))
        print(
            f"| {way} | {median(found):.2f} | {median(errors[way]):.2f} | {ratio:.2f} | {wins} of {options.seeds} seeds |"
        )


if __name__ == "__main__":
    main()
