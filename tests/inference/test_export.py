"""Exported files vote as the loaded ensemble does, on every test image and any number of them."""

from __future__ import annotations

import importlib.util
import json
import warnings

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ensemble import load_ensemble
from ensemble.cli import main
from ensemble.config.schema import AGGREGATORS, DataConfig
from ensemble.data import load_dataset
from ensemble.inference.export import export_ensemble

MISSING = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]


@pytest.fixture(scope="module")
def images():
    return load_dataset(DataConfig(name="digits")).test_images_NCHW.copy()


def assert_same_vote(trained, images, probs_NK, classes_N):
    decision = trained.decide(images)
    np.testing.assert_allclose(probs_NK, decision.probs_NK, atol=1e-5)
    np.testing.assert_array_equal(classes_N, decision.classes_N)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_the_network_votes_as_the_judgement_does(run_path, images, aggregator):
    trained = load_ensemble(run_path, aggregator=aggregator, device="cpu")
    with torch.inference_mode():
        probs, classes = trained.network()(torch.from_numpy(images))
    assert_same_vote(trained, images, probs.numpy(), classes.numpy())


def test_hard_votes_break_ties_by_the_mean(run_path):
    """Pure noise makes the four members tie often."""
    trained = load_ensemble(run_path, aggregator="hard", device="cpu")
    noise = np.random.default_rng(0).integers(0, 256, (300, 1, 28, 28)).astype(np.uint8)
    assert trained.decide(noise).ties > 0
    with torch.inference_mode():
        probs, classes = trained.network()(torch.from_numpy(noise))
    assert_same_vote(trained, noise, probs.numpy(), classes.numpy())


def test_torch_export_file(run_path, images, tmp_path):
    path = tmp_path / "vote.pt2"
    done = CliRunner().invoke(main, ["export", str(run_path), "--format", "torch_export", "--out", str(path), "--json"])
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["bytes"] == path.stat().st_size
    assert facts["image_shape"] == [1, 28, 28]
    extra = {"ensemble.json": ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own deprecations
        program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(json.loads(extra["ensemble.json"])["class_names"]) == list("0123456789")
    trained = load_ensemble(run_path, device="cpu")
    for count in (1, 2, len(images)):
        probs, classes = program(torch.from_numpy(images[:count]))
        assert_same_vote(trained, images[:count], probs.numpy(), classes.numpy())


@pytest.mark.skipif(
    bool(MISSING), reason=f"needs {', '.join(MISSING)} (pip install 'ensemble-trainer[onnx]' onnxruntime)"
)
@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_onnx_file(run_path, images, tmp_path, aggregator):
    import onnxruntime

    trained = load_ensemble(run_path, aggregator=aggregator, device="cpu")
    export_ensemble(trained, "onnx", tmp_path / "vote.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "vote.onnx"))
    for count in (1, 2, len(images)):
        probs, classes = session.run(["probabilities", "classes"], {"images": images[:count]})
        assert_same_vote(trained, images[:count], probs, classes)
    assert session.get_modelmeta().custom_metadata_map["vote"] == aggregator


@pytest.mark.skipif("onnx" not in MISSING, reason="onnx is installed here")
def test_onnx_without_its_packages_says_what_to_install(run_path, tmp_path):
    done = CliRunner().invoke(main, ["export", str(run_path), "--format", "onnx", "--out", str(tmp_path / "vote.onnx")])
    assert done.exit_code == 7
    assert "pip install 'ensemble-trainer[onnx]'" in done.stderr
    assert not (tmp_path / "vote.onnx").exists()
