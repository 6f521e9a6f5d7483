"""`ensemble predict`: pictures of every kind in, the run's own vote out, as text, JSON and figure."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import tracemalloc
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from ensemble import load_ensemble
from ensemble.commands.main import main
from ensemble.config.schema import DataConfig
from ensemble.data import load_dataset
from ensemble.data.pictures import open_picture
from ensemble.evaluation.aggregation import Decision
from ensemble.inference.answers import ask_all, percent
from ensemble.inference.prepare import Preparation, prepare
from ensemble.inference.trained import TrainedEnsemble
from ensemble.results.voters import load_voters
from ensemble.storage import RunFolder
from tests.inference.conftest import train
from tests.inference.drawn_digits import draw, photograph


@pytest.fixture
def ask(run_path):
    def ask(*arguments: object, stdin: bytes | None = None) -> Any:
        return CliRunner().invoke(main, ["predict", str(run_path), *map(str, arguments)], input=stdin)

    return ask


@pytest.fixture(scope="module")
def test_images():
    return load_dataset(DataConfig(name="digits")).test_images_NCHW


def test_a_picture_of_the_data_sets_size_gets_the_stored_vote(ask, run_path, test_images, tmp_path):
    Image.fromarray(test_images[3, 0]).save(tmp_path / "three.png")
    Image.fromarray(255 - test_images[3, 0]).convert("RGB").save(tmp_path / "three_dark.png")
    done = ask(tmp_path, "--json")
    assert done.exit_code == 0, done.output
    plain, dark = json.loads(done.stdout)
    trained = load_ensemble(run_path)
    expected = trained.decide(test_images[3:4])
    np.testing.assert_allclose(list(plain["probabilities"].values()), expected.probs_NK[0], atol=1e-6)
    np.testing.assert_allclose(list(dark["probabilities"].values()), expected.probs_NK[0], atol=1e-6)
    assert (plain["inverted"], dark["inverted"]) == (False, True)
    assert plain["class"] == str(expected.classes_N[0])
    members = trained.member_probs(test_images[3:4])[:, 0]
    assert [vote["class"] for vote in plain["votes"]] == [str(k) for k in members.argmax(1)]
    assert [vote["recipe"] for vote in plain["votes"]] == ["lenet5", "lenet5", "lenet5", "cnn"]
    assert plain["agreement"] == np.mean(members.argmax(1) == expected.classes_N[0])


def test_kinds_of_files(ask, tmp_path):
    """Grey, colour, palette, 16 bit, transparent, JPEG and stdin: the same drawing, the same class."""
    drawing = draw(4)
    forms: dict[str, Image.Image] = {
        "a.png": drawing,
        "b.jpg": drawing.convert("RGB"),
        "c.png": drawing.convert("P"),
        "d.png": drawing.convert("1"),
        "e.png": Image.fromarray(np.asarray(drawing).astype(np.uint16) * 257),
        "f.webp": drawing.convert("RGB"),
    }
    ink = Image.new("RGBA", drawing.size, (20, 20, 20, 255))
    ink.putalpha(drawing.point(lambda value: 255 - value))
    forms["g.png"] = ink
    white = Image.new("LA", drawing.size, (255, 255))
    white.putalpha(drawing.point(lambda value: 255 - value))
    forms["h.png"] = white
    for name, picture in forms.items():
        picture.save(tmp_path / name)
    done = ask(tmp_path, "--json")
    assert done.exit_code == 0, done.output
    answers = json.loads(done.stdout)
    assert [answer["image"].rsplit("/", 1)[-1] for answer in answers] == sorted(forms)
    assert len({answer["class"] for answer in answers}) == 1
    assert all(answer["cut_out"] for answer in answers)
    assert [answer["inverted"] for answer in answers] == [True] * 7 + [False]
    buffer = io.BytesIO()
    drawing.save(buffer, "PNG")
    (piped,) = json.loads(ask("-", "--json", stdin=buffer.getvalue()).stdout)
    assert piped["image"] == "stdin"
    assert piped["probabilities"] == pytest.approx(answers[0]["probabilities"], abs=1e-6)


def test_pictures_are_turned_as_their_exif_says(tmp_path):
    picture = draw(7).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    picture.rotate(90).save(tmp_path / "turned.png", exif=exif)
    upright = prepare(open_picture(tmp_path / "turned.png"), "x", "digits", (1, 28, 28))
    np.testing.assert_array_equal(upright.image_CHW, prepare(picture, "x", "digits", (1, 28, 28)).image_CHW)


def test_text_has_one_line_per_picture(ask, tmp_path):
    draw(1).save(tmp_path / "one.png")
    draw(0).save(tmp_path / "nought.png")
    lines = ask(tmp_path / "one.png", tmp_path / "nought.png").stdout.splitlines()
    assert lines[0].split() == ["image", "class", "probability", "doubt", "agree", "members", "say"]
    assert len(lines) == 3
    assert "one.png" in lines[1]
    assert " of 4" in lines[1]
    assert [percent(p) for p in (1.0, 0.99991, 0.9994, 0.05)] == ["100.0 %", "> 99.9 %", "99.9 %", "5.0 %"]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_figure_is_written(ask, tmp_path, suffix):
    draw(2).save(tmp_path / "cost $5 or $6.png")
    done = ask(tmp_path / "cost $5 or $6.png", "--figure", tmp_path / f"out.{suffix}")
    assert done.exit_code == 0, done.output
    content = (tmp_path / f"out.{suffix}").read_bytes()
    if suffix == "png":
        assert min(Image.open(io.BytesIO(content)).size) > 200
    elif suffix == "svg":
        assert b"cost $5 or $6.png" in content
    else:
        assert content.startswith(b"%PDF")


def test_all_faults_are_named_at_once(ask, tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "nothing.png").write_bytes(b"")
    Image.new("L", (60, 60), 90).save(tmp_path / "blank.png")
    draw(3).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    done = ask(tmp_path, tmp_path / "missing.png")
    assert done.exit_code == 3
    for words in (
        "blank.png: nothing is drawn here",
        "cut.png: cannot be read as a picture",
        "nothing.png: found an empty file",
        "text.png: found no picture",
        "missing.png: no such file",
    ):
        assert words in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("bad", [(0,), (2,), (4,), (0, 1, 3), (1, 2, 3, 4)])
def test_bad_pictures_do_not_cost_the_others_their_answers(ask, tmp_path, bad):
    """Torn, empty or blank, in every position: the others are answered, the bad ones named, the exit status is 3."""
    whole = {}
    for k in range(5):
        draw(k).save(tmp_path / f"{k}.png")
        whole[k] = (tmp_path / f"{k}.png").read_bytes()
    expected = {answer["image"]: answer for answer in json.loads(ask(tmp_path, "--json").stdout)}
    for k in bad:
        (tmp_path / f"{k}.png").write_bytes([whole[k][:100], b"", b"text"][k % 3])
    done = ask(tmp_path, "--json", "--figure", tmp_path / "figure.svg")
    assert done.exit_code == 3
    answers = json.loads(done.stdout)
    assert [answer["image"] for answer in answers] == [str(tmp_path / f"{k}.png") for k in range(5) if k not in bad]
    for answer in answers:
        assert answer["probabilities"] == pytest.approx(expected[answer["image"]]["probabilities"], abs=1e-6)
    assert f"{5 - len(bad)} pictures are answered" in done.stderr
    assert all(f"{k}.png: " in done.stderr for k in bad)
    assert (tmp_path / "figure.svg").exists()


def test_what_lies_beside_the_pictures_is_told_of(ask, tmp_path):
    draw(3).save(tmp_path / "three.png")
    draw(3).save(tmp_path / "other.gif")
    (tmp_path / "circle").symlink_to(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    done = ask(tmp_path, tmp_path / "pipe.png", tmp_path / "other.gif")
    assert done.exit_code == 3
    assert "left out 3 files (1 link to a folder that is read already, 1 .gif, 1 pipe)" in done.stderr
    assert "pipe.png: found a pipe; expected a picture in a regular file" in done.stderr
    assert "other.gif: found no picture of a format that is read here; expected .bmp" in done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_memory_does_not_grow_with_the_pictures(run_path, tmp_path):
    """What stays of a picture of 640x480 is its answer."""
    trained = load_ensemble(run_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640)).astype(np.uint8)).save(tmp_path / "x.bmp")
    draw(5, 480).save(tmp_path / "five.bmp")
    preparation = Preparation(trained.vote.dataset, trained.image_shape, trained.vote.pixels)
    peaks = []
    for count in (20, 200):
        pictures = [("five", tmp_path / "five.bmp")] * 20 + [("x", tmp_path / "x.bmp")] * (count - 20)
        tracemalloc.start()
        answers, faults, _ = ask_all(trained, preparation, pictures)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(answers) + len(faults) == count
    assert peaks[1] - peaks[0] < 4e6  # 180 pictures kept whole would be 55 MB


def test_options_that_cannot_work_are_refused(ask, tmp_path):
    draw(3).save(tmp_path / "three.png")
    (tmp_path / "empty").mkdir()
    assert "expected .png, .svg or .pdf" in ask(tmp_path / "three.png", "--figure", tmp_path / "x.gif").stderr
    assert "no pictures in this folder" in ask(tmp_path / "empty").stderr
    assert ask("-", "-").exit_code == 2
    assert ask("-", stdin=b"").exit_code == 3
    assert ask().exit_code == 2
    assert "the wrong one" in ask(tmp_path / "three.png", "--no-invert").stderr


def test_drawings_and_photographs_are_read(mnist_root, tmp_path):
    """Two small networks on a part of MNIST read clean drawings and bad photographs of them."""
    path = train(
        tmp_path,
        num_members=2,
        model={"name": "lenet5"},
        data={"name": "mnist", "root": str(mnist_root), "max_train_rows": 12_000},
        training={"epochs": 3, "batch_size": 64, "lr": 4e-3, "schedule": {"name": "one_cycle"}},
    )
    trained = load_ensemble(path)
    kinds = [lambda d: draw(d, width=5), lambda d: draw(d, width=18), lambda d: draw(d, ink=255, paper=0)]
    kinds += [lambda d, s=seed: photograph(d, s) for seed in range(3)]
    pictures = [make(digit) for make in kinds for digit in range(10)]
    images = np.stack([prepare(picture, "x", "mnist", (1, 28, 28)).image_CHW for picture in pictures])
    right = (trained.predict(images) == np.tile(np.arange(10), len(kinds))).mean()
    assert right >= 0.9


def test_doubtful_answers_are_those_less_sure_than_a_share_of_the_validation_images(
    ask, run_path, test_images, tmp_path
):
    trained, folder = load_ensemble(run_path), RunFolder.read(run_path)
    stored = load_voters(folder).validation.probs_MNK
    sure = np.sort(trained.decide_votes(stored).probs_NK.max(1))
    assert len(sure) > 50
    expected = trained.decide(test_images[:40])
    share = [(sure <= probs.max()).mean() for probs in expected.probs_NK]
    for n in range(40):
        Image.fromarray(test_images[n, 0]).save(tmp_path / f"{n:02d}.png")
    answers = json.loads(ask(tmp_path, "--json", "--no-invert", "--doubt", "0.3").stdout)
    np.testing.assert_allclose([answer["surer_than"] for answer in answers], share, atol=1.5 / len(sure))
    doubtful = [answer["doubtful"] for answer in answers]
    assert doubtful == [answer["surer_than"] < 0.3 for answer in answers]
    assert 0 < sum(doubtful) < 40
    done = ask(tmp_path, "--no-invert", "--doubt", "0.3")
    assert [line.split()[4] == "doubtful" for line in done.stdout.splitlines()[1:]] == doubtful
    assert (
        f"note: {sum(doubtful)} of 40 answers are doubtful: the vote is less sure of them than of 70.0 %" in done.stderr
    )
    least = tmp_path / f"{doubtful.index(True):02d}.png"
    assert (
        "note: the answer is doubtful: the vote is less sure of it than of 70.0 %"
        in ask(least, "--no-invert", "--doubt", "0.3").stderr
    )
    assert (
        "less sure than the surest of its validation images (--doubt 1)"
        in ask(least, "--no-invert", "--doubt", "1").stderr
    )
    calm = ask(tmp_path, "--no-invert", "--doubt", "0")
    assert " doubtful" not in calm.output
    assert ask(tmp_path, "--doubt", "2").exit_code == 2


def test_an_answer_as_sure_as_most_validation_images_is_not_doubted(run_path):
    """Shares of counted votes are the same for many images, most of them 1: such an answer is as sure as can be."""
    trained = load_ensemble(run_path, aggregator="hard")
    known = trained.vote.confidences_N
    assert (known == 1).mean() > 0.3
    whole = np.zeros((2, 10))
    whole[0, 3], whole[1, :2] = 1.0, 0.5
    decision = Decision(whole, np.array([3, 0]), np.array([False, True]), True)
    sure, split = trained.surer_than(decision)
    assert sure == 1.0
    assert split == (known <= 0.5).mean()
    none = TrainedEnsemble(dataclasses.replace(trained.vote, confidences_N=np.empty(0)))
    assert none.surer_than(decision).tolist() == [1.0, 1.0]


def test_validation_images_are_called_doubtful_as_often_as_asked_for(run_path):
    trained = load_ensemble(run_path)
    decision = trained.decide_votes(load_voters(RunFolder.read(run_path)).validation.probs_MNK)
    for doubt in (0.05, 0.2, 0.5):
        found = (trained.surer_than(decision) < doubt).mean()
        assert found == pytest.approx(doubt, abs=2 / len(decision.classes_N))
