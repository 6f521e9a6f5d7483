"""The whole programs of other ways to train a deep ensemble on MNIST; `benchmarks.peers` starts and times them.

    PYTHON benchmarks/peer_programs.py torch-uncertainty --members 8 --network lenet5 --epochs 2 --seed 0 --root FOLDER --rows rows.npy

Each is written as its library's documentation has it, with its defaults, and prints the test error of the mean of the members'
probabilities as its last line. Nothing here imports this project, so that each runs where only its own library is installed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import Compose, Normalize, ToTensor

BATCH, RATE = 64, 1e-3
MEAN, DEVIATION = 0.1307, 0.3081


def lenet5() -> nn.Module:
    """61,706 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip


def cnn() -> nn.Module:
    """Convolutions of 32 and 64 maps; 421,642 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(3136, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {"lenet5": lenet5, "cnn": cnn}


class Network(nn.Module):
    """One member, as a class: some libraries make members of a class."""

    name = "lenet5"

    def __init__(self) -> None:
        super().__init__()
        self.network = NETWORKS[self.name]()

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.network(images)
        return scores


def datasets(root: str, rows: Any) -> tuple[Any, Any]:
    """Training and test part as torchvision gives them."""
    transform = Compose([ToTensor(), Normalize((MEAN,), (DEVIATION,))])
    train, test = MNIST(root, train=True, transform=transform), MNIST(root, train=False, transform=transform)
    return Subset(train, rows.tolist()), test


def in_memory(root: str, rows: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Normalised training images and labels, test images and labels, as tensors."""
    train, test = MNIST(root, train=True), MNIST(root, train=False)
    images = [((part.data.float() / 255 - MEAN) / DEVIATION)[:, None] for part in (train, test)]
    chosen = torch.from_numpy(rows)
    return images[0][chosen], train.targets[chosen], images[1], test.targets


def torch_uncertainty(given: argparse.Namespace, rows: Any) -> float:
    """Deep ensembles of torch-uncertainty, trained by Lightning: every batch is read once for all members."""
    from torch_uncertainty import TUTrainer
    from torch_uncertainty.methods import deep_ensembles
    from torch_uncertainty.routines import ClassificationRoutine
    from torch_uncertainty.transforms import RepeatTarget

    train, test = datasets(given.root, rows)
    model = deep_ensembles(Network(), num_estimators=given.members, task="classification", reset_model_parameters=True)
    routine = ClassificationRoutine(
        model, 10, nn.CrossEntropyLoss(), is_ensemble=True, format_batch_fn=RepeatTarget(given.members),
        optim_recipe=torch.optim.Adam(model.parameters(), lr=RATE),
    )  # fmt: skip
    trainer = TUTrainer(
        accelerator="cpu", max_epochs=given.epochs, enable_progress_bar=False, logger=False,
        enable_checkpointing=False, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(routine, DataLoader(train, BATCH, shuffle=True))
    return 1 - float(trainer.test(routine, DataLoader(test, 1000), verbose=False)[0]["test/cls/Acc"])


def ensemble_pytorch(given: argparse.Namespace, rows: Any) -> float:
    """Ensemble-PyTorch's voting classifier; as many jobs as there are cores, its quickest way on two (docs/log.md)."""
    from torchensemble import VotingClassifier

    train, test = datasets(given.root, rows)
    model = VotingClassifier(estimator=Network, n_estimators=given.members, n_jobs=os.cpu_count() or 1, cuda=False)
    model.set_optimizer("Adam", lr=RATE)
    model.fit(DataLoader(train, BATCH, shuffle=True), epochs=given.epochs, log_interval=10**9, save_model=False)
    return 1 - float(model.evaluate(DataLoader(test, 1000))) / 100


def vmap(given: argparse.Namespace, rows: Any) -> float:
    """Members as one function by torch.func, as PyTorch's tutorial on model ensembling has it; images in memory, batches shared."""
    from torch.func import functional_call, grad, stack_module_state
    from torch.func import vmap as over_members

    members = [NETWORKS[given.network]() for _ in range(given.members)]
    base = NETWORKS[given.network]().to("meta")  # what is computed; the values are in `parameters`
    weights, buffers = stack_module_state(members)
    parameters = {name: nn.Parameter(value.detach()) for name, value in weights.items()}

    def loss(weights_P: Any, images: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(functional_call(base, (weights_P, buffers), (images,)), labels)

    slopes = over_members(grad(loss), in_dims=(0, None, None))
    optimizer = torch.optim.Adam(parameters.values(), lr=RATE)
    images, labels, test_images, test_labels = in_memory(given.root, rows)
    for _ in range(given.epochs):
        for batch in torch.randperm(len(images)).split(BATCH):
            found = slopes({k: v.detach() for k, v in parameters.items()}, images[batch], labels[batch])
            for name, parameter in parameters.items():
                parameter.grad = found[name]
            optimizer.step()

    def answer(weights_P: Any, some: Tensor) -> Tensor:
        scores: Tensor = functional_call(base, (weights_P, buffers), (some,))
        return scores.softmax(-1)

    with torch.no_grad():
        mean = torch.cat(
            [over_members(answer, in_dims=(0, None))(parameters, part).mean(0) for part in test_images.split(1000)]
        )
    return float((mean.argmax(1) != test_labels).double().mean())


def bare(given: argparse.Namespace, rows: Any) -> float:
    """A loop as one writes it by hand, images in memory, one process of one thread per core, members divided among them."""
    workers = min(os.cpu_count() or 1, given.members)
    shares = [given.members // workers + (number < given.members % workers) for number in range(workers)]
    with torch.multiprocessing.get_context("spawn").Pool(workers) as pool:
        sums = pool.starmap(_bare_share, [(given, rows, number, count) for number, count in enumerate(shares)])
    test_labels = MNIST(given.root, train=False).targets
    return float((torch.from_numpy(sum(sums)).argmax(1) != test_labels).double().mean())


def _bare_share(given: argparse.Namespace, rows: Any, number: int, count: int) -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(given.seed * 1000 + number)
    images, labels, test_images, _ = in_memory(given.root, rows)
    total = torch.zeros(len(test_images), 10)
    criterion = nn.CrossEntropyLoss()
    for _ in range(count):
        network = NETWORKS[given.network]()
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        for _ in range(given.epochs):
            for batch in torch.randperm(len(images)).split(BATCH):
                optimizer.zero_grad()
                criterion(network(images[batch]), labels[batch]).backward()
                optimizer.step()
        with torch.no_grad():
            total += torch.cat([network(part).softmax(1) for part in test_images.split(1000)])
    return total.numpy()


PROGRAMS: dict[str, Callable[[argparse.Namespace, Any], float]] = {
    "torch-uncertainty": torch_uncertainty, "Ensemble-PyTorch": ensemble_pytorch, "torch.func": vmap, "bare loop": bare,
}  # fmt: skip


def main() -> None:
    """Runs one program; the test error, a fraction, is the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", choices=list(PROGRAMS))
    parser.add_argument("--network", choices=list(NETWORKS), default="lenet5")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--root", required=True, help="holds MNIST/raw")
    parser.add_argument("--rows", required=True, help="a .npy file: which of the 60,000 images to train on")
    given = parser.parse_args()
    torch.manual_seed(given.seed)
    Network.name = given.network
    error = PROGRAMS[given.program](given, np.load(given.rows))
    sys.stdout.flush()
    print(f"\n{error}")


if __name__ == "__main__":
    main()
