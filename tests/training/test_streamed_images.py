"""Images that stay in the machine's memory, batches of which are sent to the device: the same bits as when all of them are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import ensemble
from ensemble.config.recipe import AugmentationConfig
from ensemble.config.schema import ComputeConfig
from ensemble.training import resident
from ensemble.training.batches import Batches
from ensemble.training.placement import Placement
from ensemble.training.resident import Resident, Stream
from ensemble.types import MemberSpec

IMAGES = np.random.default_rng(0).integers(0, 256, (60, 1, 28, 28)).astype(np.uint8)
ARRAYS = {
    "train_images": IMAGES, "train_labels": np.arange(60) % 3, "validation_rows": np.arange(5), "test_images": IMAGES[:20].copy(),
    "mean": np.zeros(1, np.float32), "std": np.ones(1, np.float32),
}  # fmt: skip


@pytest.mark.parametrize("room", [None, 80 * 784, 80 * 784 - 1])
def test_images_stream_where_they_take_more_than_the_room(room):
    data = Resident.load(ARRAYS, torch.device("cpu"), room=room)
    assert (data.stream is not None) == (room == 80 * 784 - 1)
    for rows in (torch.tensor([3, 1, 1]), torch.tensor([[0, 59], [5, 5]]), torch.empty(0, dtype=torch.int64)):
        taken = data.take(data.train_images, rows)
        np.testing.assert_array_equal(taken, IMAGES[rows.numpy()])


def test_windows_of_larger_images_are_the_same_streamed():
    """Batches of training, and the middles that are voted on."""
    config, placement = AugmentationConfig(horizontal_flip=True), Placement.create(ComputeConfig(device="cpu"))
    members = [MemberSpec(k, "lenet5", np.arange(40)) for k in range(2)]
    seen = []
    for room in (None, 0):
        data = Resident.load(ARRAYS, torch.device("cpu"), room=room, margin=4)
        assert (data.stream is not None) == (room == 0)
        batches = Batches(data, members, 3, 16, config, placement)
        images = [batch.images.clone() for epoch in range(2) for batch in batches.epoch(epoch)]
        votes = [data.take(data.train_images, torch.arange(60)), data.take(data.test_images, torch.arange(20))]
        seen.append([*images, *votes])
        assert images[0].shape == (2, 16, 1, 20, 20)
    for one, other in zip(*seen, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    np.testing.assert_array_equal(seen[0][-2], IMAGES[:, :, 4:-4, 4:-4])


def test_rows_that_were_asked_for_are_gathered_once_and_others_anyway(monkeypatch):
    stream, gathered = Stream(torch.device("cpu")), []
    plain = stream._gather
    monkeypatch.setattr(stream, "_gather", lambda images, rows: gathered.append(rows.tolist()) or plain(images, rows))
    images, others = torch.from_numpy(IMAGES), torch.from_numpy(ARRAYS["test_images"])
    for asked, wanted in (
        ((images, [1, 2]), (images, [1, 2])),
        ((images, [3]), (images, [4])),
        ((images, [5]), (others, [5])),
    ):
        stream.ask_for(asked[0], torch.tensor(asked[1]))
        taken = stream.take(wanted[0], torch.tensor(wanted[1]))
        torch.testing.assert_close(taken, wanted[0][wanted[1]], rtol=0, atol=0)
    stream._thread.shutdown()  # what was asked for in vain is gathered at some time
    assert sorted(gathered) == [[1, 2], [3], [4], [5], [5]]


def members(root: Path, **keys: Any) -> dict[str, bytes]:
    given: dict[str, Any] = {
        "model": "lenet5",
        "method": "bagging",
        "baseline": False,
        "training": {"epochs": 2, "batch_size": 16},
    } | keys
    compute = {"executor": "inline", "stack_size": 2, **given.pop("compute", {})}
    labels = np.arange(60) % 3
    run = ensemble.train(data=(IMAGES, labels), num_members=2, name="run", output_dir=root, compute=compute, **given)
    return {
        str(file.relative_to(run.path)): file.read_bytes()
        for file in run.path.glob("members/*/*.*")
        if file.suffix in (".npz", ".safetensors")
    }


KINDS: dict[str, dict[str, Any]] = {
    "C kernels": {},
    "torch kernels": {"compute": {"kernels": "torch"}},
    "augmented": {
        "training": {"epochs": 2, "batch_size": 16, "augmentation": {"rotation_degrees": 10, "mixup_alpha": 0.3}}
    },
    "accumulated, on views": {
        "training": {"epochs": 2, "batch_size": 8, "accumulation": 2, "augmentation": {"randaugment_operations": 2}},
        "evaluation": {"tta": {"shift": 1, "crops": 1}},
    },
    "test curve": {"training": {"epochs": 2, "batch_size": 16, "watch_test": True}},
    "one by one": {
        "model": {"name": "torchvision", "architecture": "shufflenet_v2_x0_5"},
        "training": {"epochs": 1, "batch_size": 16},
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_streamed_is_resident(kind, tmp_path, monkeypatch):
    on_device = members(tmp_path / "resident", **KINDS[kind])
    sent: list[int] = []
    plain = resident.Stream.take
    monkeypatch.setattr(
        resident.Stream, "take", lambda self, images, rows: sent.append(len(rows)) or plain(self, images, rows)
    )
    load = Resident.load
    monkeypatch.setattr(
        Resident,
        "load",
        lambda arrays, device, model=None, _room=None, margin=0: load(arrays, device, model, 0, margin),
    )
    assert members(tmp_path / "streamed", **KINDS[kind]) == on_device
    assert len(on_device) == 4
    assert sent or kind in (
        "C kernels",
        "augmented",
        "test curve",
    )  # those gather by themselves, wherever the images are
