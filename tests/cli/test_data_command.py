"""`ensemble data prepare | ls | rm` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from ensemble.commands.main import main


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENSEMBLE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(generator.integers(0, 256, (9, 9, 3)).astype(np.uint8)).save(f"photos/{name}/{i}.png")
    text = "name: p\nnum_members: 2\nmethod: {name: bagging}\nmodel: {name: mlp}\n"
    Path("p.yaml").write_text(f"{text}data: {{name: image_folder, root: photos, image_size: 8}}\n")
    Path("d.yaml").write_text(f"{text}data: {{name: digits}}\n")


def typed(*words: str) -> Result:
    return CliRunner().invoke(main, ["data", *words])


def test_prepare_list_and_remove(tmp_path: Path) -> None:
    assert typed("ls").stdout == "nothing is kept decoded on this machine\n"
    first = typed("prepare", "p.yaml")
    assert first.exit_code == 0
    folder = Path(first.stdout.strip())
    assert folder.parent == tmp_path / "cache" / "pictures"
    assert "4 of these are held back as the test part" in first.stderr
    other = Path(typed("prepare", "p.yaml", "data.image_size=[4,6]").stdout.strip())
    listed = json.loads(typed("ls", "--json").stdout)
    assert {each["key"]: each["shape"] for each in listed} == {folder.name: [20, 3, 8, 8], other.name: [20, 3, 4, 6]}
    assert all(each["complete"] and each["root"] == str(tmp_path / "photos") for each in listed)
    assert f"20x3x8x8  {tmp_path / 'photos'}" in typed("ls").stdout
    assert typed("rm", folder.name).stdout == f"{folder.name}: removed\n"
    assert not folder.exists()
    assert other.exists()
    assert typed("rm", "--all").exit_code == 0
    assert typed("ls").stdout == "nothing is kept decoded on this machine\n"
    assert len(list((tmp_path / "photos").rglob("*.png"))) == 20


def test_array_files_too(tmp_path: Path) -> None:
    """As pictures: prepared under the configuration's own `auto`, listed by their file, and removed."""
    images = np.random.default_rng(0).integers(0, 256, (20, 9, 7), np.uint8)
    np.savez_compressed("mine.npz", train_images=images, train_labels=np.arange(20) % 2)
    text = Path("p.yaml").read_text().partition("data:")[0]
    Path("a.yaml").write_text(f"{text}data: {{name: arrays, path: mine.npz}}\n")
    first = typed("prepare", "a.yaml")
    assert first.exit_code == 0, first.stderr
    assert "4 of the images are held back as the test part" in first.stderr
    folder = Path(first.stdout.strip())
    assert typed("prepare", "a.yaml").stdout == first.stdout
    (listed,) = json.loads(typed("ls", "--json").stdout)
    assert (listed["key"], listed["shape"], listed["complete"]) == (folder.name, [20, 1, 9, 7], True)
    assert listed["root"] == str(tmp_path / "mine.npz")
    assert typed("prepare", "a.yaml", "data.storage=memory").exit_code == 2
    Path("mine.npz").write_bytes(Path("mine.npz").read_bytes()[:300])
    broken = typed("prepare", "a.yaml")
    assert broken.exit_code == 3
    assert "mine.npz: cannot be read as .npz" in broken.stderr
    assert typed("rm", folder.name).stdout == f"{folder.name}: removed\n"
    assert Path("mine.npz").exists()
    assert typed("ls").stdout == "nothing is kept decoded on this machine\n"


@pytest.mark.parametrize(("words", "code", "said"), [
    (("prepare", "d.yaml"), 2, "data.name is digits, which is not kept; expected one of arrays, huggingface, image_folder, table"),
    (("prepare", "p.yaml", "data.storage=memory"), 2, "data.storage is memory, which keeps nothing"),
    (("prepare", "p.yaml", "data.root=nowhere"), 3, "no folder nowhere"),
    (("rm",), 2, "give the KEYs to remove, or --all"),
    (("rm", "--all", "x"), 2, "give the KEYs to remove, or --all"),
    (("rm", ".."), 3, "no prepared pictures of this name"),
])  # fmt: skip
def test_mistakes_are_named(words: tuple[str, ...], code: int, said: str) -> None:
    result = typed(*words)
    assert result.exit_code == code
    assert said in result.stderr
