"""From somebody's own pictures or arrays to a trained, judged and used ensemble."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ensemble import load_ensemble
from ensemble.commands.main import main
from ensemble.config import load_config
from ensemble.errors import StorageError
from tests.inference.conftest import train

MLP = {"num_members": 2, "model": {"name": "mlp", "widths": (16,)}}


def test_pictures_in_folders(tmp_path):
    """Bright and dark pictures; predicting prepares them as training did, and does not turn them round."""
    generator = np.random.default_rng(0)
    for name, level in (("bright", 190), ("dark", 60)):
        (tmp_path / "sky" / name).mkdir(parents=True)
        for i in range(20):
            pixels = (level + generator.integers(-30, 30, (20, 30, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "sky" / name / f"{i}.png")
    path = train(
        tmp_path / "runs",
        data={"name": "image_folder", "root": str(tmp_path / "sky"), "image_size": 8, "validation_fraction": 0.2},
        training={"epochs": 20, "lr": 5e-3},
        **MLP,
    )
    record = json.loads((path / "evaluation.json").read_text())
    assert record["dataset"] == "sky (image_folder)"
    assert record["class_names"] == ["bright", "dark"]
    assert record["test_rows"] == 8
    assert record["leaderboard"][0]["wrong"] == 0
    done = CliRunner().invoke(main, ["predict", str(path), str(tmp_path / "sky"), "--json"])
    answers = json.loads(done.stdout)
    assert [answer["class"] for answer in answers] == ["bright"] * 20 + ["dark"] * 20
    assert not any(answer["inverted"] or answer["cut_out"] for answer in answers)
    turned = CliRunner().invoke(main, ["predict", str(path), str(tmp_path / "sky" / "dark"), "--json", "--invert"])
    assert {answer["class"] for answer in json.loads(turned.stdout)} == {"bright"}
    assert load_config(path / "config.yaml").experiment.data.image_size == 8  # a stored configuration loads again


def test_pictures_that_cannot_be_read_are_counted_where_the_run_is_told_of(tmp_path):
    """At the start, also when it is quiet, in dataset.json and in the report; and taken up again, the run is the same."""
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 6)):
        for name in ("bright", "dark"):
            (tmp_path / "sky" / part / name).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(generator.integers(0, 200, (8, 8)).astype(np.uint8)).save(
                    tmp_path / "sky" / part / name / f"{i}.png"
                )
    for torn in ("train/dark/3.png", "test/dark/5.png", "test/bright/0.png"):
        (tmp_path / "sky" / torn).write_bytes(b"\x89PNG")
    config = tmp_path / "run.yaml"
    config.write_text(f"""
name: f
num_members: 2
method: {{name: deep_ensemble}}
data: {{name: image_folder, root: {tmp_path / "sky"}, image_size: 8, on_bad_image: skip}}
model: {{name: mlp, widths: [4]}}
training: {{epochs: 1}}
compute: {{executor: inline}}
tracking: {{wandb: {{mode: disabled}}}}
output_dir: {tmp_path / "runs"}
""")
    run = CliRunner()
    assert (
        "3 of 36 pictures cannot be used" in run.invoke(main, ["train", str(config), "data.on_bad_image=stop"]).stderr
    )
    done = run.invoke(main, ["train", str(config), "-q"])
    assert done.exit_code == 0, done.output
    assert "test: left out 2 files: 1 in bright (1 damaged), 1 in dark (1 damaged)" in done.stderr
    assert "2 damaged pictures of the test part are not judged" in done.stderr
    path = tmp_path / "runs" / "f"
    assert json.loads((path / "evaluation.json").read_text())["test_rows"] == 10
    kept = json.loads((path / "dataset.json").read_text())["pictures"]["parts"]
    assert kept["train"] == {"used": {"bright": 12, "dark": 11}, "left_out": {"dark": {"damaged": 1}}}
    assert run.invoke(main, ["report", str(path)]).exit_code == 0
    assert "2 damaged pictures of the test part are not judged" in (path / "report.html").read_text()
    assert run.invoke(main, ["train", str(config), "-q"]).exit_code == 0


def test_arrays_in_a_file_and_what_happens_when_they_change(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    images = (labels[:, None, None] * 80 + generator.integers(0, 60, (60, 5, 5))).astype(np.uint8)
    np.savez(tmp_path / "mine.npz", train_images=images, train_labels=np.array(["lo", "mid", "up"])[labels])
    settings = {
        "data": {"name": "arrays", "path": str(tmp_path / "mine.npz"), "validation_fraction": 0.2},
        "training": {"epochs": 80, "lr": 5e-3},
        **MLP,
    }
    path = train(tmp_path / "runs", **settings)
    trained = load_ensemble(path)
    assert trained.class_names == ("lo", "mid", "up")
    assert (trained.predict(images) == labels).mean() > 0.9
    (tmp_path / "mine.npz").rename(tmp_path / "moved.npz")
    settings["data"]["path"] = str(tmp_path / "moved.npz")
    assert train(tmp_path / "runs", **settings) == path  # the same images from elsewhere: taken up, nothing to do
    np.savez(tmp_path / "moved.npz", train_images=255 - images, train_labels=np.array(["lo", "mid", "up"])[labels])
    with pytest.raises(StorageError, match="images are not those this run began with"):
        train(tmp_path / "runs", **settings)
