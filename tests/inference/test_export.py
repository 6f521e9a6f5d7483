"""Exported files vote as the loaded ensemble does, on every test image and any number of them."""

from __future__ import annotations

import importlib.util
import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from ensemble import load_ensemble
from ensemble.commands.main import main
from ensemble.config.schema import AGGREGATORS, DataConfig
from ensemble.data import load_dataset
from ensemble.errors import ComputeError
from ensemble.evaluation.aggregation import decide
from ensemble.inference import export
from ensemble.inference.export import FORMATS, export_ensemble
from ensemble.inference.export_check import TOLERANCE, _difference
from ensemble.inference.trained import TrainedEnsemble
from tests.inference.conftest import train

_spec = importlib.util.spec_from_file_location("nasty_names", Path(__file__).parents[1] / "nasty_names.py")
nasty_names = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(nasty_names)


@pytest.fixture(scope="module")
def images():
    return load_dataset(DataConfig(name="digits")).test_images_NCHW.copy()


@pytest.fixture(scope="module")
def small_path(tmp_path_factory):
    """Three members that an exporter has soon written: the vote is what matters."""
    return train(
        tmp_path_factory.mktemp("small"),
        num_members=3,
        aggregator="soft",
        model={"name": "mlp", "widths": (8,), "dropout": 0.2},
        training={"epochs": 1, "batch_size": 64, "lr": 1e-2},
    )


@pytest.fixture(scope="module")
def boosted_path(tmp_path_factory):
    """Two members whose outputs are summed: the only method with the additive vote."""
    return train(
        tmp_path_factory.mktemp("boosted"),
        num_members=2,
        method={"name": "gradient_boosting"},
        model={"name": "mlp", "widths": (8,)},
        training={"epochs": 1, "batch_size": 64, "lr": 1e-2},
    )


def assert_same_vote(trained, images, probs_NK, classes_N):
    decision = trained.decide(images)
    np.testing.assert_allclose(probs_NK, decision.probs_NK, atol=1e-5)
    np.testing.assert_array_equal(classes_N, decision.classes_N)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_the_network_votes_as_the_judgement_does(run_path, boosted_path, images, aggregator):
    path = boosted_path if aggregator == "additive" else run_path
    trained = load_ensemble(path, aggregator=aggregator, device="cpu")
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


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_onnx_file(small_path, boosted_path, images, tmp_path, aggregator):
    path = boosted_path if aggregator == "additive" else small_path
    trained = load_ensemble(path, aggregator=aggregator, device="cpu")
    exported = export_ensemble(trained, "onnx", tmp_path / "vote.onnx")
    assert exported.size == (tmp_path / "vote.onnx").stat().st_size
    assert exported.checked.real_rows > 0
    assert exported.checked.hard_rows >= 10
    session = onnxruntime.InferenceSession(str(tmp_path / "vote.onnx"))
    for count in (1, 2, len(images)):
        probs, classes = session.run(["probabilities", "classes"], {"images": images[:count]})
        assert_same_vote(trained, images[:count], probs, classes)
    assert session.get_modelmeta().custom_metadata_map["vote"] == aggregator


@pytest.fixture(scope="module")
def onnx_content(small_path, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "vote.onnx"
    export_ensemble(load_ensemble(small_path, device="cpu"), "onnx", path)
    return path.read_bytes()


def without(monkeypatch, *packages):
    """As on a machine where these packages are not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name in packages else real(name, *more)
    )


def test_onnx_without_its_packages_says_what_to_install(run_path, tmp_path, monkeypatch):
    without(monkeypatch, "onnx", "onnxscript")
    done = CliRunner().invoke(main, ["export", str(run_path), "--format", "onnx", "--out", str(tmp_path / "vote.onnx")])
    assert done.exit_code == 7
    assert "pip install 'ensemble-trainer[onnx]'" in done.stderr
    assert not (tmp_path / "vote.onnx").exists()


def test_without_onnxruntime_the_file_is_asked_by_the_reference_evaluator(
    small_path, onnx_content, tmp_path, monkeypatch
):
    without(monkeypatch, "onnxruntime")
    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=lambda *given: onnx_content))
    done = CliRunner().invoke(
        main, ["export", str(small_path), "--format", "onnx", "--out", str(tmp_path / "vote.onnx")]
    )
    assert done.exit_code == 0, done.output
    assert "compared with the run by onnx 1." in done.stdout


def broken_axes(path):
    """The graph with the picture's rows and columns exchanged: it loads, runs and gives probabilities."""
    model = onnx.load_from_string(path)
    shape = {value.name: value for value in model.graph.input}["images"]
    swap = onnx.helper.make_node("Transpose", ["images"], ["turned"], perm=[0, 1, 3, 2])
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            if name == "images":
                node.input[position] = "turned"
    model.graph.node.insert(0, swap)
    assert shape.type.tensor_type.shape.dim[2].dim_value == shape.type.tensor_type.shape.dim[3].dim_value
    return model.SerializeToString()


def broken_bytes(content):
    return content[: len(content) // 2]


@pytest.mark.parametrize("break_it", [broken_axes, broken_bytes])
def test_a_file_that_answers_otherwise_than_the_run_is_not_written(
    small_path, onnx_content, tmp_path, monkeypatch, break_it
):
    """Also where a file of that name is there already: it stays as it was."""
    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], write=lambda *given: break_it(onnx_content)))
    for path, before in ((tmp_path / "new.onnx", None), (tmp_path / "old.onnx", b"old")):
        if before:
            path.write_bytes(before)
        done = CliRunner().invoke(main, ["export", str(small_path), "--format", "onnx", "--out", str(path)])
        assert done.exit_code == 7, done.output
        assert "othing was written" in done.stderr
        assert (path.read_bytes() if path.exists() else None) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old.onnx"]


def test_a_torch_file_with_another_weight_is_not_written(run_path, tmp_path, monkeypatch):
    whole = FORMATS["torch_export"]

    def other_weight(network, example, facts):
        with torch.no_grad():
            next(network.members.parameters()).mul_(1.01)
        return whole.write(network, example, facts)

    monkeypatch.setitem(FORMATS, "torch_export", replace(whole, write=other_weight))
    with pytest.raises(ComputeError, match="differ from the run's by up to"):
        export_ensemble(load_ensemble(run_path, device="cpu"), "torch_export", tmp_path / "vote.pt2")
    assert not list(tmp_path.iterdir())


def test_a_hard_vote_may_differ_only_where_a_member_is_torn(run_path):
    """Two members' favourites that are equal but for rounding decide nothing; a clear one does."""
    probs_MNK = np.array([[[0.5, 0.5 - 1e-7], [0.9, 0.1]], [[0.1, 0.9], [0.2, 0.8]]], np.float32)
    expected = decide("hard", probs_MNK)
    other = expected.probs_NK.copy()
    other[0] = [0.0, 1.0]
    assert _difference(expected, probs_MNK, True, other, np.array([1, 0])) == (0.0, 1)
    other[1] = [0.0, 1.0]
    assert _difference(expected, probs_MNK, True, other, np.array([1, 1]))[0] >= 0.5


def test_bfloat16_runs_are_compared_in_float32_and_say_so(run_path, tmp_path):
    trained = load_ensemble(run_path, device="cpu")
    experiment = trained.vote.experiment
    half = experiment.model_copy(update={"compute": experiment.compute.model_copy(update={"precision": "bf16"})})
    exported = export_ensemble(
        TrainedEnsemble(replace(trained.vote, experiment=half), "cpu"), "torch_export", tmp_path / "vote.pt2"
    )
    assert exported.checked.rounding > TOLERANCE
    assert "votes in bfloat16" in exported.checked.sentence


def test_more_weights_than_an_onnx_file_holds_are_refused(run_path, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_ONNX_MOST_BYTES", 10_000)
    with pytest.raises(ComputeError, match="at most 2 GB; use --format torch_export"):
        export_ensemble(load_ensemble(run_path, device="cpu"), "onnx", tmp_path / "vote.onnx")


@pytest.mark.parametrize("name", list(FORMATS))
def test_any_names_come_back_from_the_file_as_they_were(small_path, tmp_path, name):
    names = (*nasty_names.NASTY[:9], "z" * 100_000)
    trained = load_ensemble(small_path, device="cpu")
    export_ensemble(TrainedEnsemble(replace(trained.vote, class_names=names), "cpu"), name, tmp_path / "vote")
    if name == "onnx":
        found = {entry.key: entry.value for entry in onnx.load(tmp_path / "vote").metadata_props}
    else:
        extra = {"ensemble.json": ""}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own deprecations
            torch.export.load(tmp_path / "vote", extra_files=extra)
        found = json.loads(extra["ensemble.json"])
    assert tuple(json.loads(found["class_names"])) == names
