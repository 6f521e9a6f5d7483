"""Every built-in network, grey and colour, in every format: the file answers as the run does. One run holds them all."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnxruntime
import pytest
import torch

from ensemble import load_ensemble
from ensemble.config.network import Network
from ensemble.inference.export import FORMATS, export_ensemble
from tests.inference.conftest import train

SHAPE = (20, 16)
NETWORKS = (
    {"count": 2, "model": {"name": "lenet5"}},
    {"count": 2, "model": {"name": "lenet4"}},
    {"count": 2, "model": {"name": "mlp", "widths": (8,), "dropout": 0.5}},
    {"count": 2, "model": {"name": "cnn", "widths": (4,), "fully_connected": (8,), "batch_norm": True, "dropout": 0.2}},
    {"count": 1, "name": "cnn_alone", "model": {"name": "cnn", "widths": (4,), "fully_connected": ()}},
    {"count": 2, "model": {"name": "layers", "layers": (
        {"kind": "conv", "channels": 4, "batch_norm": True, "activation": "relu", "dropout": 0.1},
        {"kind": "average_pool"}, {"kind": "conv", "channels": "classes"}, {"kind": "max_pool"},
        {"kind": "linear", "width": "classes"},
    )}},
)  # fmt: skip
# Deep ones take nearly all of an exporter's time: one beside the others in each file.
DEEP = {1: {"count": 1, "model": {"name": "resnet18", "stem": "small"}}, 3: {"count": 1, "model": {"name": "resnet50"}}}


@pytest.fixture(scope="module", params=[1, 3], ids=["grey", "colour"])
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    draw = np.random.default_rng(0)
    labels = np.arange(30) % 3
    images = draw.integers(0, 90, (30, *SHAPE, request.param)).astype(np.uint8)
    images[np.arange(30), labels * 4] += 120
    np.savez(
        folder / "x.npz",
        train_images=images[:21], train_labels=labels[:21], test_images=images[21:], test_labels=labels[21:],
    )  # fmt: skip
    path = train(
        folder,
        method={"name": "deep_ensemble"},
        data={"name": "arrays", "path": str(folder / "x.npz")},
        members=(*NETWORKS, DEEP[request.param]),
        training={"epochs": 1, "batch_size": 8, "lr": 1e-3},
    )
    return load_ensemble(path, device="cpu")


def ask(name, content):
    if name == "torch_export":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own deprecations
            program = torch.export.load(io.BytesIO(content)).module()
        return lambda images: [one.numpy() for one in program(torch.from_numpy(images))]
    session = onnxruntime.InferenceSession(content)
    return lambda images: session.run(["probabilities", "classes"], {"images": images})


def test_no_built_in_network_is_left_out():
    assert {group["model"]["name"] for group in (*NETWORKS, *DEEP.values())} == set(Network.registry.all()) - {
        "python",
        "torchvision",
        "timm",
    }  # which tests/models export


@pytest.mark.parametrize("name", list(FORMATS))
def test_every_network_answers_in_every_format_as_the_run_does(trained, name, tmp_path):
    exported = export_ensemble(trained, name, tmp_path / "vote")
    assert exported.checked.real_rows > 0
    answer = ask(name, (tmp_path / "vote").read_bytes())
    draw = np.random.default_rng(1)
    for count in (1, 5):
        images = draw.integers(0, 256, (count, *trained.image_shape)).astype(np.uint8)
        probs, classes = answer(images)
        np.testing.assert_allclose(probs, trained.predict_proba(images), atol=1e-5)
        np.testing.assert_array_equal(classes, trained.predict(images))
