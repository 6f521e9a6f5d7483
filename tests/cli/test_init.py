"""`ensemble init`: the configuration that it writes is one that trains, whatever the folder is called."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ensemble.commands.main import main
from ensemble.config import load_config
from ensemble.config.schema import Experiment
from ensemble.data import DATASETS


def pictures(
    folder: Path, classes: int = 3, each: int = 12, size: tuple[int, int] = (70, 52), mode: str = "RGB"
) -> Path:
    """Noise of a level of its own for each class."""
    noise = np.random.default_rng(0)
    for number in range(classes):
        place = folder / f"class {number}"
        place.mkdir(parents=True)
        for i in range(each):
            levels = noise.integers(0, 60, (size[1], size[0], 3), dtype=np.uint8) + np.uint8(60 * number)
            Image.fromarray(levels).convert(mode).save(place / f"{i}.png")
    return folder


def init(*words: object) -> Result:
    return CliRunner().invoke(main, ["init", *map(str, words)])


def written(result: Result) -> Experiment:
    assert result.exit_code == 0, result.output
    return load_config(Path(result.stdout.strip().splitlines()[-1])).experiment


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_of_pictures_trains_at_once(here: Path) -> None:
    pictures(here / "photos")
    result = init("photos")
    experiment = written(result)
    assert (experiment.name, experiment.data.image_size, experiment.data.channels) == ("photos", (48, 64), 3)
    text = (here / "photos.yaml").read_text()
    assert "# 36 images to train, a fifth of them is held back to test; 3 classes; images 3x48x64." in text
    assert "  image_size: [48, 64]\n" in text
    assert "resize" not in result.stderr
    words = ["photos.yaml", "training.epochs=4", "num_members=2", "compute.executor=inline", "-q"]
    trained = CliRunner().invoke(main, ["train", *words])
    assert trained.exit_code == 0, trained.output
    assert "photos (image_folder): 2 members (cnn)" in trained.stdout


def shards(folder: Path, names: dict[str, int], label: str = "cls", field: str = "label") -> None:
    """Of each name a shard with so many pictures, grey, of two classes."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for name, count in names.items():
        with tarfile.open(folder / name, "w") as archive:
            for i in range(count):
                picture = io.BytesIO()
                Image.fromarray(noise.integers(0, 60, (30, 30), dtype=np.uint8) + np.uint8(90 * (i % 2))).save(
                    picture, "png"
                )
                text = json.dumps({field: i % 2, "source": "drawn"}) if label == "json" else str(i % 2)
                for ending, content in (("png", picture.getvalue()), (label, text.encode())):
                    info = tarfile.TarInfo(f"{i:04}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize(("label", "found"), [("cls", "cls"), ("txt", "txt"), ("json", "json.label")])
def test_a_folder_of_shards_trains_at_once(here: Path, label: str, found: str) -> None:
    shards(here / "lots", {"train-000.tar": 12, "train-001.tar": 8, "test-000.tar": 6, "odd.tar": 2}, label)
    result = init("lots")
    data = written(result).data.model_dump()
    wanted = {"urls": "train*.tar", "test_urls": "test*.tar", "label_from": found, "image_size": 28, "channels": 1}
    assert {key: data[key] for key in wanted} == wanted
    assert "shards of no part, which are not read: odd.tar" in result.stderr
    assert "# 20 images to train, 6 to test; 2 classes; images 1x28x28." in (here / "lots.yaml").read_text()
    words = ["lots.yaml", "training.epochs=2", "num_members=2", "compute.executor=inline", "-q"]
    trained = CliRunner().invoke(main, ["train", *words])
    assert trained.exit_code == 0, trained.output
    assert "lots (webdataset): 2 members (lenet5)" in trained.stdout


def test_shards_without_parts_and_without_labels(here: Path) -> None:
    shards(here / "plain", {"a.tar": 9, "b.tar": 9})
    experiment = written(init("plain"))
    assert (experiment.data.model_dump()["urls"], experiment.data.model_dump()["test_urls"]) == ("*.tar", None)
    shards(here / "bare", {"a.tar": 3}, "npy")
    bare = init("bare")
    assert bare.exit_code == 3
    assert "bare/a.tar: beside its pictures it has .npy; expected a file with the class of each" in bare.stderr
    shards(here / "unclear", {"a.tar": 3}, "json", "which")
    unclear = init("unclear")
    assert unclear.exit_code == 3
    assert "which of its values is the class? It has which, source" in unclear.stderr


@pytest.mark.parametrize(
    ("sizes", "proposed", "told"),
    [
        ([(70, 52)], (48, 64), False),
        ([(52, 70), (104, 140), (53, 70)], (64, 48), False),
        ([(28, 28)], 28, False),
        ([(70, 66)], 64, True),  # nearly a square
        ([(70, 52), (52, 70)], 48, True),
        ([(9, 900)], (256, 8), True),
    ],
    ids=str,
)
def test_a_size_of_the_pictures_own_proportions_is_proposed(
    sizes: list[tuple[int, int]], proposed: object, told: bool, here: Path
) -> None:
    for number, size in enumerate(sizes):
        pictures(here / "photos" / "train", 2, 4, size)
        for folder in sorted((here / "photos" / "train").glob("class ?")):
            folder.rename(here / "photos" / f"{folder.name} {number}")
        (here / "photos" / "train").rmdir()
    result = init("photos")
    assert written(result).data.image_size == proposed
    assert ("the middle is cut out; data.resize: pad keeps" in result.stderr) == told


def test_given_parts_grey_pictures_and_classes_of_unequal_size(here: Path) -> None:
    pictures(here / "all" / "train", 2, 30, (28, 28), "L")
    pictures(here / "all" / "test", 2, 5, (28, 28), "L")
    for surplus in sorted((here / "all/train/class 1").iterdir())[5:]:
        surplus.unlink()
    result = init("all", "--out", "mine.yaml")
    experiment = written(result)
    assert (experiment.data.channels, experiment.data.image_size, experiment.groups[0].model.name) == (1, 28, "lenet5")
    assert "# 35 images to train, 10 to test; 2 classes; images 1x28x28." in (here / "mine.yaml").read_text()
    assert "classes are of unequal size: 5 to 30 pictures" in result.stderr


@pytest.mark.parametrize("name", ["my photos", "ümläut", 'quo"te', "# no: comment", "a\\b", "-x", "{braces}", "$HOME"])
def test_any_name_of_a_folder(name: str, here: Path) -> None:
    pictures(here / name, 2, 4, (9, 9))
    experiment = written(init("--", name))
    assert (experiment.data.root, experiment.data.image_size) == (name, 8)


@pytest.mark.parametrize(("name", "plain"), [("\u00fcn\u00ef", "uni"), ("u\u0308ni\u0308", "uni"), ("caf\u00e9 2", "cafe_2"), ("\u65e5\u672c", "mine")])  # fmt: skip
def test_letters_with_accents_stay_letters(name: str, plain: str, here: Path) -> None:
    pictures(here / name, 2, 4, (9, 9))
    assert written(init(name)).name == plain


@pytest.mark.parametrize("name", DATASETS)
def test_every_named_set(name: str) -> None:
    experiment = written(init(name))
    assert (experiment.data.name, experiment.name) == (name, name)
    flips = "horizontal_flip" in Path(f"{name}.yaml").read_text()
    assert flips == DATASETS[name].flippable


def test_arrays(here: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 255, (60, 12, 20), dtype=np.uint8)
    np.savez(here / "set.npz", train_images=rows, train_labels=np.arange(60) % 4)
    experiment = written(init("set.npz"))
    assert (experiment.data.path, experiment.groups[0].model.name) == ("set.npz", "cnn")
    assert "4 classes; images 1x12x20." in (here / "set.yaml").read_text()


def test_damaged_pictures_are_told(here: Path) -> None:
    (pictures(here / "photos") / "class 0" / "0.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    result = init("photos")
    assert result.exit_code == 0
    assert "1 of 36 pictures looked at cannot be read: data.on_bad_image" in result.stderr


def test_nothing_is_written_over(here: Path) -> None:
    (here / "digits.yaml").write_text("mine")
    result = init("digits")
    assert (result.exit_code, "is there already; give another name by --out" in result.output) == (2, True)
    assert (here / "digits.yaml").read_text() == "mine"


def test_what_cannot_be_a_source_is_named(here: Path) -> None:
    (here / "empty").mkdir()
    (here / "mnist").mkdir()
    (here / "dangling").symlink_to("gone")
    (here / "text.txt").write_text("x")
    pictures(here / "one", 1)
    for source, message in (
        ("dangling", "no such file or folder"),
        ("mnist", "a data set of `ensemble datasets` and a folder here; write ./mnist"),
        ("nowhere", "no such file or folder; expected a folder with one folder of pictures per class"),
        ("text.txt", "a file that is no .npz"),
        ("empty", "expected"),
        ("one", "expected"),
        ("", "empty path"),
    ):
        result = init(source)
        assert result.exit_code not in (0, 1, 70), result.output
        assert message in result.output, (source, result.output)
    assert not list(here.glob("*.yaml"))
