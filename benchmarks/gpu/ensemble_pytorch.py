"""LeNet-5 with Ensemble-PyTorch on the same card: bagging as its documentation shows it, and with resident images.

Its members train one after another, so two of them for one epoch tell what each takes.

    python -m benchmarks.gpu.ensemble_pytorch MEMBERS EPOCHS DEVICE      # its whole program, used by `whole_process`
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from benchmarks.gpu.bench import LENET5, RECIPE, Bench
from benchmarks.gpu.cases import Cases
from ensemble.models import build_model
from ensemble.models.lenet import LeNet5Config

_MEMBERS = 2


class LeNet5(nn.Module):
    """Our LeNet-5 in the form that Ensemble-PyTorch builds by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.network = build_model(LeNet5Config(name="lenet5"), (1, 28, 28), 10)

    def forward(self, x: Tensor) -> Any:
        return self.network(x)


class Resident(Dataset[Any]):
    """Images and labels on the device; a batch is one indexing, the most that a Dataset can do for its DataLoader."""

    classes = tuple(range(10))

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index], self.labels[index]

    def __getitems__(self, indices: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        rows = torch.stack(list(map(torch.as_tensor, indices)))
        return self.images[rows], self.labels[rows]


def run(bench: Bench, cases: Cases) -> None:
    """Milliseconds of training per member-epoch of the same 54,000 images on both sides."""
    for count in (64, 20) if not bench.small else (3,):
        with cases.case(f"ours K={count}") as values:
            trained = bench.train(count, LENET5)
            values.update(trained.values())
            bench.learned(trained)
    if bench.small and find_spec("torchensemble") is None:  # on a card its absence is a failure
        with cases.case("theirs") as values:
            values["left_out"] = "torchensemble is not installed"
        return
    rows = int(bench.arrays["validation_rows"][0])
    with cases.case("theirs, resident") as values:
        images = (torch.from_numpy(bench.arrays["train_images"][:rows]).float() / 255 - 0.1307) / 0.3081
        labels = torch.from_numpy(bench.arrays["train_labels"][:rows]).long()
        data = Resident(images.to(bench.device), labels.to(bench.device))
        loader = DataLoader(data, RECIPE["batch_size"], shuffle=True, collate_fn=_as_it_is)
        values.update(_theirs(bench, loader))
    with cases.case("theirs, torchvision") as values:
        if not bench.small:  # a dry run has no MNIST
            loader = DataLoader(torchvision_mnist(train=True, rows=rows), RECIPE["batch_size"], shuffle=True)
        values.update(_theirs(bench, loader))


def _as_it_is(batch: Any) -> Any:
    return batch


def _theirs(bench: Bench, loader: DataLoader[Any]) -> dict[str, Any]:
    """Milliseconds of `fit` per member, of two."""
    from torchensemble import BaggingClassifier

    model = BaggingClassifier(LeNet5, _MEMBERS, n_jobs=1, cuda=bench.on_gpu)
    model.set_optimizer("Adam", lr=RECIPE["lr"])
    started = time.perf_counter()
    model.fit(loader, epochs=1, log_interval=10**9, save_model=False)
    return {"ms_per_member_epoch": 1000 * (time.perf_counter() - started) / _MEMBERS}


def torchvision_mnist(train: bool, rows: int | None = None) -> Any:
    """MNIST as torchvision's documentation has it, decoded and normalised image by image; the first `rows` of it."""
    from torchvision.datasets import MNIST
    from torchvision.transforms import Compose, Normalize, ToTensor

    transform = Compose([ToTensor(), Normalize((0.1307,), (0.3081,))])
    images: Any = MNIST(os.environ["ENSEMBLE_DATA"], train=train, transform=transform)
    if rows is not None:
        classes, images = images.classes, Subset(images, range(rows))
        images.classes = classes  # with it Ensemble-PyTorch needs no pass over the images to count the classes
    return images


def whole_program(members: int, epochs: int, device: str) -> None:
    """Bagging as documented, batch 64 as configs/bagging_lenet5_mnist.yaml; prints its seconds per epoch and test error."""
    from torchensemble import BaggingClassifier

    model = BaggingClassifier(LeNet5, members, n_jobs=1, cuda=device == "cuda")
    model.set_optimizer("Adam", lr=RECIPE["lr"])
    loader = DataLoader(torchvision_mnist(train=True, rows=54_000), batch_size=64, shuffle=True)
    started = time.perf_counter()
    model.fit(loader, epochs=epochs, log_interval=10**9, save_model=False)
    epoch_s = (time.perf_counter() - started) / epochs
    error = 1 - model.evaluate(DataLoader(torchvision_mnist(train=False), batch_size=1000)) / 100
    print(f"\n{epoch_s} {error}")


if __name__ == "__main__":
    whole_program(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
