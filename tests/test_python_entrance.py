"""Training from Python: the same runs as by the command line, in the hand as tables and arrays, and nothing printed."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import ensemble
from ensemble.commands.main import main
from ensemble.data.digits import load_digits_28
from ensemble.errors import ConfigError, DataError, StoppedError, StorageError
from ensemble.events import EpochFinished, MemberFinished, RunFinished
from ensemble.models.mlp import MlpConfig

INLINE = {"executor": "inline", "device": "cpu"}
SMALL: dict[str, Any] = {"training": {"epochs": 2, "batch_size": 32}, "compute": INLINE}


@pytest.fixture(scope="module")
def digits() -> tuple[Any, ...]:
    """Images [N, 28, 28] and labels of a training and a test part."""
    images, labels, test_images, test_labels = load_digits_28()
    return images[:400, 0], labels[:400], test_images[:100, 0], test_labels[:100]


@pytest.fixture
def run(tmp_path: Path, digits: tuple[Any, ...]) -> ensemble.Run:
    return ensemble.train(
        model="mlp", data=digits, method="bagging", num_members=3, name="mine", output_dir=tmp_path, **SMALL
    )


def weights(run: ensemble.Run | Path) -> list[bytes]:
    path = run.path if isinstance(run, ensemble.Run) else run
    return [file.read_bytes() for file in sorted(path.glob("members/*/weights.safetensors"))]


def test_overrides_that_are_no_dict_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"the overrides are a list; expected a dict of keys and values, such as"):
        ensemble.train("quickstart", ["training.lr=0.01"])  # type: ignore[call-overload]


def test_a_file_with_overrides_is_the_command_line_s_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    keys = {
        "num_members": 2, "method": {"name": "deep_ensemble"}, "data": {"name": "digits", "max_train_rows": 300},
        "model": {"name": "lenet5"}, "training": {"epochs": 3, "lr": 0.01}, "compute": INLINE,
        "tracking": {"wandb": {"mode": "disabled"}},
    }  # fmt: skip
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(keys))
    run = ensemble.train(
        config, {"training.epochs": 1, "output_dir": tmp_path / "python"}, model={"name": "mlp", "widths": [8]}, training={"batch_size": np.int64(16)}
    )  # fmt: skip
    assert capfd.readouterr() == ("", "")
    words = [
        "training.epochs=1",
        f"output_dir={tmp_path}/shell",
        "model={name: mlp, widths: [8]}",
        "training.batch_size=16",
    ]
    done = CliRunner().invoke(main, ["train", str(config), "-q", *words])
    assert done.exit_code == 0, done.output
    assert len(weights(run)) == 2
    assert weights(run) == weights(tmp_path / "shell" / "c")
    assert run.config["training"]["lr"] == 0.01


def test_what_a_run_holds(run: ensemble.Run, digits: tuple[Any, ...], tmp_path: Path) -> None:
    assert (run.name, run.members, run.path) == ("mine", [0, 1, 2], tmp_path / "mine")
    votes_MNK = run.votes("test")
    assert votes_MNK.shape == (3, 100, 10)
    np.testing.assert_array_equal(run.labels("test"), digits[3])
    assert len(run.labels("validation")) == run.votes("validation").shape[1] == 40
    error = float(np.mean(votes_MNK.mean(axis=0).argmax(axis=1) != digits[3]))
    assert run.evaluation.headline.test_error == pytest.approx(error)
    np.testing.assert_allclose(run.predict_proba(digits[2]), votes_MNK.mean(axis=0), atol=1e-6)
    np.testing.assert_array_equal(run.predict(digits[2]), votes_MNK.mean(axis=0).argmax(axis=1))
    page = run.report()
    assert page.parent == run.path
    assert "mine" in page.read_text()
    assert "<table" in run._repr_html_()
    assert "soft" in run.ensemble._repr_html_()
    with pytest.raises(ValueError, match="part: found 'train'; expected 'validation' or 'test'"):
        run.votes("train")  # type: ignore[arg-type]


def test_predictions_are_the_lines_of_the_run_s_list(run: ensemble.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    lines = run.predictions()
    test = [line for line in lines if line["part"] == "test"]
    assert len(lines) == 100 + 40
    assert np.mean([not line["right"] for line in test]) == run.evaluation.headline.test_error


@pytest.mark.parametrize("pandas", [True, False])
def test_tables(run: ensemble.Run, pandas: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if pandas:
        pytest.importorskip("pandas")
        leaderboard, history = run.leaderboard().reset_index().to_dict("records"), run.history().to_dict("records")
    else:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        leaderboard, history = run.leaderboard(), run.history()
    assert [row["name"] for row in leaderboard] == [row.name for row in run.evaluation.leaderboard]
    assert [row["test_error"] for row in leaderboard] == [row.test_error for row in run.evaluation.leaderboard]
    assert [(row["member"], row["epoch"]) for row in history] == [(m, e) for m in range(3) for e in (1, 2)]
    assert all(0 <= row["validation_error"] <= 1 for row in history)


def test_runs_are_loaded_and_compared(run: ensemble.Run, digits: tuple[Any, ...], tmp_path: Path) -> None:
    other = ensemble.train(
        model=MlpConfig(name="mlp", widths=(8,)), data=digits, method={"name": "deep_ensemble"}, num_members=2,
        name="other", output_dir=str(tmp_path), **SMALL,
    )  # fmt: skip
    again = ensemble.load(tmp_path / "mine")
    assert again.evaluation.to_json() == run.evaluation.to_json()
    comparison = ensemble.compare([again, other, f"{other.path}:0"])
    assert [line.name for line in comparison.lines][:2] == ["mine", "other"]
    with pytest.raises(StorageError, match="no run"):
        ensemble.load(tmp_path / "nothing")


def test_arrays_without_a_test_part_and_the_same_call_again(tmp_path: Path, digits: tuple[Any, ...]) -> None:
    heard: list[Any] = []

    def train(images: Any) -> ensemble.Run:
        return ensemble.train(
            None, {"data.test_fraction": 0.25}, model="mlp", data=(images, digits[1]), method="bagging", num_members=2,
            output_dir=tmp_path, on_event=heard.append, **SMALL,
        )  # fmt: skip

    run = train(digits[0])
    assert run.name == "run"
    assert run.votes().shape == (2, 100, 10)
    assert sum(isinstance(event, MemberFinished) for event in heard) == 2
    assert isinstance(heard[-1], RunFinished)
    before, first = len(heard), weights(run)
    assert weights(train(digits[0])) == first
    assert not any(isinstance(event, EpochFinished) for event in heard[before:])
    with pytest.raises(StorageError, match="images are not those this run began with"):
        train(digits[0][::-1].copy())


def test_stopped_by_another_thread_it_goes_on_with_the_same_bits(tmp_path: Path, digits: tuple[Any, ...]) -> None:
    def train(folder: Path, heard: Any = None) -> ensemble.Run:
        return ensemble.train(
            model="mlp", data=digits, method="bagging", num_members=2, output_dir=folder, on_event=heard,
            training={"epochs": 30, "batch_size": 32}, compute={**INLINE, "checkpoint_every_s": 0.01},
        )  # fmt: skip

    whole = train(tmp_path / "whole")
    begun, epochs = threading.Event(), []

    def heard(event: Any) -> None:
        if isinstance(event, EpochFinished):
            epochs.append(event)
            begun.set()

    def stop() -> None:
        begun.wait(60)
        ensemble.stop()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(StoppedError, match="stopped as asked; the same call"):
        train(tmp_path / "stopped", heard)
    thread.join()
    assert 0 < len(epochs) < 60
    assert weights(train(tmp_path / "stopped", heard)) == weights(whole)


def test_trained_in_another_thread(tmp_path: Path, digits: tuple[Any, ...], run: ensemble.Run) -> None:
    found: list[ensemble.Run] = []
    keys = {"model": "mlp", "data": digits, "method": "bagging", "num_members": 3, "output_dir": tmp_path / "thread"}
    thread = threading.Thread(target=lambda: found.append(ensemble.train(name="mine", **keys, **SMALL)))
    thread.start()
    thread.join(120)
    assert weights(found[0]) == weights(run)


def test_on_ray(tmp_path: Path, digits: tuple[Any, ...], run: ensemble.Run) -> None:
    keys: dict[str, Any] = {"model": "mlp", "data": digits, "method": "bagging", "num_members": 3}
    compute = {"executor": "ray", "device": "cpu", "slots": 2}
    there = ensemble.train(
        name="mine",
        **keys,
        training=SMALL["training"],
        compute={**compute, "stack_size": 3},
        output_dir=tmp_path / "ray",
    )
    assert weights(there) == weights(run)


def test_what_cannot_be_meant_is_refused(tmp_path: Path, digits: tuple[Any, ...]) -> None:
    keys: dict[str, Any] = {"model": "mlp", "method": "bagging", "num_members": 2, "output_dir": tmp_path}
    with pytest.raises(ConfigError, match=r"data: found 3 arrays; expected \(train_images, train_labels\)"):
        ensemble.train(data=digits[:3], **keys)
    with pytest.raises(DataError, match=r"for rows of features use ensemble\.EnsembleClassifier"):
        ensemble.train(data=(digits[0].reshape(400, -1), digits[1]), **keys)
    with pytest.raises(DataError, match="399 train_labels; expected as many"):
        ensemble.train(data=(digits[0], digits[1][:-1]), **keys)
    with pytest.raises(ConfigError, match=r"training\.epoch: unknown key; did you mean training\.epochs\?"):
        ensemble.train(data="digits", training={"epoch": 3}, **keys)
    with pytest.raises(ConfigError, match=r"num_member: unknown key; did you mean num_members\?"):
        ensemble.train(data="digits", num_member=3, **keys)
    with pytest.raises(ConfigError, match="no such configuration file"):
        ensemble.train(tmp_path / "nothing.yaml")
    assert list(tmp_path.iterdir()) == []
