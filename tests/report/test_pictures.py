"""Pictures on the page: what the networks saw beside the file it was made from, and never too many bytes."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.data.showing import viewable
from ensemble.report.html import PICTURES_OF_WRONG, write_report
from ensemble.report.run_facts import read_run
from ensemble.report.thumbnails import RunPictures, picture_of
from ensemble.run.run import judge_again
from ensemble.storage import RunFolder
from ensemble.storage.names import WRONG
from tests.inference.conftest import train

CLASSES = ("circle", "cross", "stripes")


def drawn(kind: int, number: int, side: int) -> Image.Image:
    """A picture of random blocks, wider than high, of which nobody could tell the class."""
    blocks = np.random.default_rng(1000 * kind + number).integers(0, 200, (side // 5, side // 5 + 4, 3))
    pixels = np.kron(blocks, np.ones((5, 5, 1), int))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of pictures, and a run on it that gets some of them wrong."""
    home = tmp_path_factory.mktemp("pictures")
    for kind, name in enumerate(CLASSES):
        (home / "shapes" / name).mkdir(parents=True)
        for number in range(80):
            drawn(kind, number, 60).save(home / "shapes" / name / f"{number:02d} of {name}.png")
    train(
        home, num_members=3, model={"name": "mlp", "widths": (4,)}, training={"epochs": 1, "batch_size": 32, "lr": 1e-4},
        data={"name": "image_folder", "root": str(home / "shapes"), "image_size": 24},
    )  # fmt: skip
    return home


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_what_the_networks_saw_lies_beside_the_file(home: Path) -> None:
    run = read_run(home / "small")
    wrong = [one for one in run.predictions if one.part == "test" and not one.right]
    assert len(wrong) > 24, "more than the disputed ones"
    pictures = RunPictures(run)
    for one in wrong[:5]:
        both = pictures.of(one.row)
        assert both.seen is not None
        assert both.original is not None
        assert np.array_equal(np.asarray(opened(both.seen.uri)), viewable(run.images[one.row]))
        assert opened(both.original.uri).size == (80, 60)
        file = Image.open(home / "shapes" / one.file)
        assert np.abs(np.asarray(opened(both.original.uri), int) - np.asarray(file, int)).mean() < 12
        assert (both.original.width, both.original.height) == (84, 63)
    page = write_report([home / "small"]).read_text()
    shown = page[page.index("that the vote gets wrong") :]
    assert shown.count("the original of test image") == min(len(wrong), PICTURES_OF_WRONG)
    assert shown.count("as the networks saw it: test image") == min(len(wrong), PICTURES_OF_WRONG)
    link = (home / "shapes" / wrong[0].file).as_uri()
    assert "%20" in link, "a name with a space"
    assert link == pictures.link(wrong[0].row)
    assert f'<a href="{link}">{wrong[0].file}</a>' in page


def test_files_that_are_gone_or_lie_elsewhere_are_left_out(home: Path, tmp_path: Path) -> None:
    run = read_run(home / "small")
    row = next(one.row for one in run.predictions if one.part == "test" and one.row in run.images)
    file = next(one for one in run.predictions if one.part == "test" and one.row == row)
    pictures = RunPictures(run)
    assert pictures.of(row).original is not None
    for name in ("../outside.png", "/etc/passwd", "shapes/none.png"):
        drawn(0, 0, 30).save(home / "outside.png")
        pictures._files[row] = name
        assert pictures.of(row).original is None
        assert pictures.link(row) == ""
    pictures._files[row] = file.file
    pictures._root = tmp_path
    assert pictures.of(row).original is None
    assert pictures.of(row).seen is not None


def test_a_run_judged_again_keeps_the_pictures_and_does_without_where_the_data_are_gone(home: Path) -> None:
    path = home / "small"
    before = (path / WRONG).read_bytes()
    (home / "shapes").rename(home / "away")
    try:
        judge_again(path)
        assert (path / WRONG).read_bytes() == before, "the run's own copies"
        with RunFolder.open(home, "small", RunFolder.read(path).config(), RunFolder.read(path).plan()) as folder:
            folder.forget([WRONG])
        judge_again(path)
        assert not RunFolder.read(path).has(WRONG)
        assert "gets wrong" in write_report([path]).read_text()
    finally:
        (home / "away").rename(home / "shapes")
    judge_again(path)
    assert (path / WRONG).read_bytes() == before


@pytest.mark.parametrize("shape", [(8, 8), (28, 28, 3), (224, 224, 3), (3000, 20, 3), (1500, 2000, 3), (1, 1)])
def test_a_picture_takes_few_bytes_and_keeps_its_proportions(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    picture = picture_of(image)
    assert len(picture.uri) < 8_300
    assert max(picture.width, picture.height) == 84
    assert picture.width == max(1, round(84 * shape[1] / max(shape[:2])))
    if max(shape[:2]) <= 28:
        assert np.array_equal(np.asarray(opened(picture.uri)), image), "small ones are shown as they are"


def test_a_page_of_a_thousand_classes_with_pictures_stays_light(
    run_of: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (224, 224, 3)).astype(np.uint8)
    monkeypatch.setattr(RunPictures, "_original", lambda _self, _row: noise)
    names = [f"class {k}" for k in range(1000)]
    path = run_of(tmp_path, names=names, members=2, rows=2000, skill=4.0, choose=False, bags=False, epochs=1)
    page = write_report([path])
    assert len(re.findall("the original of test image", page.read_text())) >= 24
    assert page.stat().st_size < 3_000_000
