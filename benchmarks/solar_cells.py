"""Four unequal classes of real photographs: does one configuration key lower the balanced error on solar cells?

    pip install elpv-dataset && python -m benchmarks.solar_cells [--seeds 5]

The 2,624 electroluminescence images of Buerhop-Lux et al. (2018), 300 x 300 grey pixels brought to 48 x 48 by means, labelled with how
likely a cell is defective: 0, 1/3, 2/3, 1 (1,508, 295, 106 and 715 images). Every seed draws its own quarter of each class as test set,
and trains three CNNs for each way, which differ in one key. Prints the votes' balanced error and error, means over the seeds, with
Student's paired t-test over the seeds.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import numpy as np
from scipy import stats

import ensemble

SIDE = 48
CLASSES = ("functional", "perhaps", "probably", "defective")
WAYS: dict[str, dict[str, Any]] = {
    "as they come": {},
    "class_weights: balanced": {"class_weights": "balanced"},
    "sampling: balanced": {"sampling": "balanced"},
    "logit_adjustment: 1": {"logit_adjustment": 1.0},
}


def cells() -> tuple[np.ndarray, np.ndarray]:
    """Images [N, 48, 48] uint8 and classes [N]."""
    from elpv_dataset.utils import load_dataset
    from PIL import Image

    images, chances, _ = load_dataset()
    small = [np.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BOX)) for image in images]
    return np.stack(small), np.rint(np.asarray(chances) * 3).astype(np.int64)


def divided(images: np.ndarray, labels: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
    """A quarter of each class for the test, drawn by the seed."""
    draw = np.random.default_rng(seed)
    test = np.zeros(len(labels), bool)
    for k in range(len(CLASSES)):
        rows = np.flatnonzero(labels == k)
        test[draw.permutation(rows)[: len(rows) // 4]] = True
    return images[~test], labels[~test], images[test], labels[test]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    images, labels = cells()
    print(f"{len(images):,} images, of each class {np.bincount(labels).tolist()}", flush=True)
    balanced: dict[str, list[float]] = {way: [] for way in WAYS}
    errors: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        data = divided(images, labels, seed)
        for way, keys in WAYS.items():
            with tempfile.TemporaryDirectory() as folder:
                run = ensemble.train(
                    output_dir=folder, data=data, method="deep_ensemble", num_members=3, seed=seed,
                    model={"name": "cnn", "widths": [8, 16, 32], "batch_norm": True, "fully_connected": [32], "dropout": 0.2},
                    training={"epochs": options.epochs, "batch_size": 32, "lr": 0.002, "augmentation": {"horizontal_flip": True}, **keys},
                    compute={"executor": "inline"},
                )  # fmt: skip
                balance = run.evaluation.balance
                assert balance is not None
            balanced[way].append(100 * balance.vote_error)
            errors[way].append(100 * run.evaluation.headline.test_error)
            worst = CLASSES[int(balance.worst)]
            print(
                f"seed {seed}  {way:<24} balanced {balanced[way][-1]:5.2f}  plain {errors[way][-1]:5.2f}  worst {worst}",
                flush=True,
            )
    plain = balanced["as they come"]
    print("\n| training | balanced error % | error % | difference, points | p |\n|---|---:|---:|---:|---:|")
    for way, found in balanced.items():
        change = np.subtract(found, plain)
        p = stats.ttest_rel(found, plain).pvalue if change.any() else float("nan")
        print(f"| {way} | {np.mean(found):.2f} | {np.mean(errors[way]):.2f} | {change.mean():+.2f} | {p:.2g} |")


if __name__ == "__main__":
    main()
