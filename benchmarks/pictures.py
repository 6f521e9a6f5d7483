"""Folders of JPEGs: what preparing takes, mapped against memory, and against torchvision's ImageFolder with a DataLoader.

python -m benchmarks.pictures [--root ../shared/data] [--images 6000] [--repeats 5] [--only preparing | training]

The pictures are real MNIST digits, enlarged on a ground of noise and saved as JPEG: to 96x96, and for preparing also to 224x224 and
to a photograph's 500x375, a third as many. Everything runs on one thread, but for decoding
and for the DataLoader's two workers. Times of training are those that the history of a member says for its last epoch, or of a bare loop
over the same network, batch size and optimiser; medians over repeats, taken in turns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import Compose, Resize, ToTensor

import ensemble
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.models.lenet import LeNet5Config
from ensemble.models.resnet import ResNetConfig

SIDE, BATCH = 32, 64
# Sizes of pictures (height, width) and the square side that they are brought to.
PREPARED = {(96, 96): SIDE, (224, 224): 224, (375, 500): 224}


def main() -> None:
    """Prints one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="../shared/data")
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=["preparing", "training"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["ENSEMBLE_CACHE"] = f"{scratch}/cache"
        if given.only != "training":
            for size, side in PREPARED.items():
                folder = Path(scratch) / f"prepared{size[1]}"
                files = write_pictures(folder, given.root, given.images if side == SIDE else given.images // 3, size)
                preparing(folder, files, size, side, given.repeats)
                shutil.rmtree(folder)
        if given.only == "preparing":
            return
        os.environ["ENSEMBLE_CACHE"] = f"{scratch}/cache"
        write_pictures(Path(scratch) / "photos", given.root, given.images, (96, 96))
        for name, model, images in (
            ("LeNet-5", {"name": "lenet5"}, given.images),
            ("ResNet-18", {"name": "resnet18"}, 600),
        ):
            training(Path(scratch), name, model, images, given.repeats if name == "LeNet-5" else 3)


def write_pictures(root: Path, data_root: str, count: int, size: tuple[int, int]) -> list[Path]:
    """The JPEGs of that height and width, one folder per digit."""
    data = load_dataset(DataConfig(name="mnist", root=data_root, download=False))
    generator = np.random.default_rng(0)
    files = []
    for row in range(count):
        digit = np.asarray(Image.fromarray(data.train_images_NCHW[row, 0]).resize(size[::-1], Image.Resampling.BICUBIC))
        ground = generator.integers(0, 96, (*size, 3))
        picture = np.maximum(ground, digit[..., None]).astype(np.uint8)
        files.append(root / str(data.train_labels_N[row]) / f"{row:05d}.jpg")
        files[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(files[-1], quality=90)
    return files


def section(root: Path, storage: str, side: int = SIDE, max_rows: int | None = None) -> dict[str, Any]:
    """The data section."""
    return {
        "name": "image_folder", "root": f"{root}", "image_size": side, "storage": storage, "max_train_rows": max_rows,
    }  # fmt: skip


def preparing(root: Path, files: list[Path], size: tuple[int, int], side: int, repeats: int) -> None:
    """Decoding once against a bare loop over the same decoder and threads."""

    def decoded(file: Path) -> tuple[int, ...]:
        with Image.open(file) as picture:
            scaled = picture.convert("RGB")
            if scaled.size != (side, side):
                scaled = scaled.resize((side, side), Image.Resampling.BILINEAR)
            return np.ascontiguousarray(np.asarray(scaled).transpose(2, 0, 1)).shape

    ours, bare, found = [], [], []
    for repeat in range(repeats):
        os.environ["ENSEMBLE_CACHE"] = f"{root}-cache{repeat}"
        started = time.perf_counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            assert len(list(pool.map(decoded, files))) == len(files)
        bare.append(time.perf_counter() - started)
        for times in (ours, found):
            started = time.perf_counter()
            load_dataset(DataConfig(**section(root, "mapped", side)))
            times.append(time.perf_counter() - started)
        shutil.rmtree(f"{root}-cache{repeat}")
    rate = len(files) / statistics.median(ours)
    print(
        f"preparing {len(files):,} pictures of {size[0]}x{size[1]} at {side}x{side}: {rate:,.0f} pictures/s, {statistics.median(bare) / statistics.median(ours):.0%} of a bare loop of the decoder"
    )
    print(f"found prepared: {statistics.median(found):.2f} s for {len(files):,} pictures")


def training(scratch: Path, name: str, model: dict[str, Any], images: int, repeats: int) -> None:
    """Seconds per epoch of one network: in memory, mapped, and as ImageFolder and DataLoader feed it."""
    rows = min(images, int(images * 0.72)) if name == "LeNet-5" else images
    times: dict[str, list[float]] = {"memory": [], "mapped": [], "DataLoader": []}
    for repeat in range(repeats):
        for storage in ("memory", "mapped"):
            run = ensemble.train(
                data=section(scratch / "photos", storage, max_rows=rows), model=model, method="deep_ensemble", num_members=1,
                name=f"{name}-{storage}-{repeat}", output_dir=f"{scratch}/runs", training={"epochs": 3, "batch_size": BATCH},
                compute={"executor": "inline", "stack_size": 1},
            )  # fmt: skip
            lines = (run.path / "members/0000/history.csv").read_text().splitlines()
            seconds = lines[0].split(",").index("seconds")
            times[storage].append(float(lines[-1].split(",")[seconds]))
        times["DataLoader"].append(loop(scratch, model, rows))
    medians = {way: statistics.median(found) for way, found in times.items()}
    print(
        f"{name}, {rows:,} images an epoch: {medians['mapped']:.2f} s mapped, {medians['memory'] / medians['mapped']:.1%} of the speed in memory, "
        f"{medians['DataLoader'] / medians['mapped']:.1f} times that of ImageFolder and DataLoader (2 workers)"
    )


def loop(scratch: Path, model: dict[str, Any], rows: int) -> float:
    """Seconds of the second epoch of a bare loop."""
    config = LeNet5Config(**model) if model["name"] == "lenet5" else ResNetConfig(**model)
    network = config.build((3, SIDE, SIDE), 10)
    data: Any = ImageFolder(f"{scratch}/photos", Compose([Resize((SIDE, SIDE)), ToTensor()]))
    data = torch.utils.data.Subset(data, np.random.default_rng(0).permutation(len(data))[:rows].tolist())
    loader = DataLoader(data, BATCH, shuffle=True, num_workers=2, persistent_workers=True)
    optimizer, criterion = torch.optim.AdamW(network.parameters(), 1e-3), nn.CrossEntropyLoss()
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        for images, labels in loader:
            optimizer.zero_grad()
            criterion(network(images), labels).backward()
            optimizer.step()
        seconds = time.perf_counter() - started
    return seconds


if __name__ == "__main__":
    main()
