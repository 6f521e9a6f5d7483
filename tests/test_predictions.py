"""What the vote says of every image, and which file each image is."""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble.errors import StorageError
from ensemble.report.html import write_report
from ensemble.results.judging import judge_voters
from ensemble.results.predictions import predictions_csv, read_files, read_predictions
from ensemble.results.voters import load_voters
from ensemble.run.run import judge_again
from ensemble.storage import RunFolder
from tests.test_baseline import run

SMALL = {"epochs": 1, "lr": 3e-3, "batch_size": 64}


def lines(path: Path) -> list[dict[str, str]]:
    with (path / "predictions.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("aggregator", ["soft", "hard", "weighted", "geometric"])
def test_the_lines_give_the_headline_s_errors(aggregator: str, tmp_path: Path) -> None:
    outcome = run(tmp_path, aggregator=aggregator, training=SMALL)
    found = lines(outcome.path)
    evaluation = outcome.evaluation
    for part, rows, error in (
        ("test", evaluation.test_rows, evaluation.headline.test_error),
        ("validation", evaluation.validation_rows, evaluation.headline.validation_error),
    ):
        own = [line for line in found if line["part"] == part]
        assert len(own) == rows
        assert np.mean([line["right"] == "0" for line in own]) == error
        assert all((line["label"] == line["vote"]) == (line["right"] == "1") for line in own)
    folder = RunFolder.read(outcome.path)
    labels = folder.load_labels()
    validation = [int(line["row"]) for line in found if line["part"] == "validation"]
    assert validation == labels.validation_rows.tolist()
    assert [int(line["label"]) for line in found if line["part"] == "validation"] == labels.train_labels_N[
        validation
    ].tolist()


def test_probability_and_disagreement_are_those_of_the_members(tmp_path: Path) -> None:
    path = run(tmp_path, training=SMALL).path
    votes = np.stack([np.load(path / f"members/{m:04d}/votes.npz")["test_NK"] for m in range(4)]).astype(np.float64)
    mean, classes = votes.mean(0), votes.argmax(-1)
    for line in (line for line in lines(path) if line["part"] == "test"):
        row, vote = int(line["row"]), int(line["vote"])
        assert vote == mean[row].argmax()
        assert float(line["probability"]) == pytest.approx(mean[row, vote], abs=6e-5)
        assert float(line["disagreement"]) == pytest.approx((classes[:, row] != vote).mean())
        assert line["file"] == ""


@pytest.mark.parametrize("method", ["adaboost", "gradient_boosting"])
def test_methods_with_weights_of_their_own(method: str, tmp_path: Path) -> None:
    outcome = run(tmp_path, method={"name": method}, num_members=4, training=SMALL)
    wrong = [line["right"] == "0" for line in lines(outcome.path) if line["part"] == "test"]
    assert np.mean(wrong) == outcome.evaluation.headline.test_error


@pytest.mark.parametrize("method", ["bagging", "adaboost"])
def test_a_member_without_finite_votes_has_no_part_in_them(method: str, tmp_path: Path) -> None:
    """The vote and its weights are those of the judgement, which leaves the member out."""
    folder = RunFolder.read(run(tmp_path, method={"name": method}, num_members=4, training=SMALL).path)
    voters = load_voters(folder)
    broken = voters.members[1].votes.test_NK.copy()
    broken[0] = np.nan
    poisoned = replace(voters.members[1], votes=replace(voters.members[1].votes, test_NK=broken))
    voters = replace(voters, members=(voters.members[0], poisoned, *voters.members[2:]))
    evaluation = judge_voters(voters, "weighted")
    finite = voters.finite()
    assert [member.index for member in finite.members] == [member.index for member in evaluation.members] == [0, 2, 3]
    weights = finite.vote_weights("weighted")
    assert weights is not None
    assert tuple(weights) == next(c.values for c in evaluation.choices if c.name.startswith("weights of the weighted"))
    assert finite.vote_weights("soft") is None
    found = csv.DictReader(predictions_csv(voters, evaluation, {}).splitlines())
    wrong = [line["right"] == "0" for line in found if line["part"] == "test"]
    assert np.mean(wrong) == evaluation.headline.test_error


def test_votes_are_read_once_for_all_that_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = run(tmp_path, method={"name": "gradient_boosting"}, num_members=4, training=SMALL).path
    real, read = RunFolder.load_member, Counter[int]()

    def counted(self: RunFolder, index: int, weights: bool = False) -> Any:
        read[index] += 1
        return real(self, index, weights)

    monkeypatch.setattr(RunFolder, "load_member", counted)
    before = {name: (path / name).read_bytes() for name in ("predictions.csv", "staged.json", "evaluation.json")}
    judge_again(path)
    assert set(read.values()) == {1}
    assert before == {name: (path / name).read_bytes() for name in before}


def folder_of_pictures(root: Path, parts: tuple[str, ...] = ("",), each: int = 8) -> None:
    """Dark and bright squares, told apart by their very values, under names that a table must quote."""
    values = np.random.default_rng(0)
    for part in parts:
        for name, level in (("dark", 40), ("bright, very", 200)):
            for n in range(each):
                path = root / part / name / f'{part}_{n} "x",\n.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = (level + values.integers(-30, 30, (8, 8))).astype(np.uint8)
                pixels[0, 0] = n * 10 + (100 if name == "dark" else 0)
                Image.fromarray(pixels).save(path)


def trained_on(root: Path, runs: Path, **data: Any) -> Path:
    described = {"name": "image_folder", "root": str(root), "image_size": 8, "channels": 1, **data}
    return run(runs, data=described, training={**SMALL, "batch_size": 4}).path


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_files_are_those_of_the_images(parts: tuple[str, ...], tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folder_of_pictures(root, parts)
    path = trained_on(root, tmp_path / "runs")
    files = read_files(RunFolder.read(path))
    labels = RunFolder.read(path).load_labels()
    listed = [str(file.relative_to(root)) for file in root.rglob("*.png")]
    assert sorted([*files["train"], *files["test"]]) == sorted(listed)
    assert {file.split("/")[-2] for file in files["test"]} == {"dark", "bright, very"}
    names = RunFolder.read(path).dataset().class_names
    for part, numbers in (("train", labels.train_labels_N), ("test", labels.test_labels_N)):
        assert [file.split("/")[-2] for file in files[part]] == [names[number] for number in numbers]
    for one in read_predictions(RunFolder.read(path)):
        assert (root / one.file).is_file()
        assert one.file.split("/")[-2] == one.label


def test_a_picture_that_cannot_be_read_moves_no_other_file(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folder_of_pictures(root)
    next(iter(sorted((root / "dark").iterdir()))).write_bytes(b"nothing")
    path = trained_on(root, tmp_path / "runs", on_bad_image="skip")
    files = read_files(RunFolder.read(path))
    assert len(files["train"]) + len(files["test"]) == 15
    for one in read_predictions(RunFolder.read(path)):
        assert one.file.split("/")[-2] == one.label


def test_the_page_names_wrong_and_disputed_files(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    folder_of_pictures(root, ("train", "test"), 12)
    path = trained_on(root, tmp_path / "runs")
    found = read_predictions(RunFolder.read(path))
    page = write_report([path], None).read_text()
    wrong = [one for one in found if one.part == "test" and not one.right]
    rows = page.split("Test images that the vote gets wrong", 1)[1].split("</section>", 1)[0]
    assert rows.count('<td class="text file">') == len(wrong)
    assert "bright, very/test_3 &#34;x&#34;" in page or not wrong


def test_a_run_of_an_earlier_version_says_how_to_make_them(tmp_path: Path) -> None:
    path = run(tmp_path, training=SMALL).path
    folder = RunFolder.open(path.parent, path.name, RunFolder.read(path).config(), RunFolder.read(path).plan())
    with folder:
        folder.forget(["predictions.csv"])
    assert "kept no list of its predictions" in write_report([path], None).read_text()
    judge_again(path)
    assert "kept no list of its predictions" not in write_report([path], None).read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("predictions.csv", b"part,row\n1,2\n"),
        ("predictions.csv", b"\xff\xfe"),
        ("pictures.csv", b"part,row,file\ntest,5,x\n"),
    ],
)
def test_tables_that_are_something_else_are_named(name: str, content: bytes, tmp_path: Path) -> None:
    path = run(tmp_path, training=SMALL).path
    with RunFolder.open(path.parent, path.name, RunFolder.read(path).config(), RunFolder.read(path).plan()) as folder:
        folder.write(name, content)
    with pytest.raises(StorageError, match=rf"{name}: damaged"):
        (read_predictions if name == "predictions.csv" else read_files)(RunFolder.read(path))


def test_damaged_ones_are_written_anew(tmp_path: Path) -> None:
    path = run(tmp_path, training=SMALL).path
    before = (path / "predictions.csv").read_bytes()
    (path / "predictions.csv").write_bytes(before[:-10])
    run(tmp_path, training=SMALL)
    assert (path / "predictions.csv").read_bytes() == before
    assert json.loads((path / "manifest.json").read_text())["files"]["predictions.csv"]["bytes"] == len(before)
