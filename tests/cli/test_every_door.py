"""Every command, every bad thing in place of a file, a folder or a name: a message that says so, never our own trace.

A door is a command with one place for a path. A guest is what a person, a shell or a broken disk may put there.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import click.testing
import pytest

from ensemble.commands.main import main

LIMIT_S = 20
REST = """name: other
num_members: 1
method: {name: bagging}
baseline: false
model: {name: mlp}
compute: {executor: inline, device: cpu}
tracking: {wandb: {mode: disabled}}
"""
ARRAYS = REST + "data: {name: arrays, path: 'GUEST'}\n"
FOLDER = REST + "data: {name: image_folder, root: 'GUEST', image_size: 8}\n"

# GUEST is where the bad thing stands; RUN is a finished run.
DOORS: dict[str, tuple[str, ...]] = {
    "train": ("train", "GUEST"),
    "config": ("config", "GUEST"),
    "submit": ("submit", "GUEST", "--address", "http://127.0.0.1:1"),
    "submit --address": ("submit", "small.yaml", "--address", "GUEST"),
    "sweep": ("sweep", "GUEST", "training.lr=1e-3,1e-2"),
    "models": ("models", "GUEST"),
    "train output_dir": ("train", "small.yaml", "name=other", "output_dir=GUEST"),
    "train data.root": ("train", "folder.yaml"),
    "train data.path": ("train", "arrays.yaml"),
    "evaluate": ("evaluate", "GUEST"),
    "report": ("report", "GUEST"),
    "report beside a run": ("report", "runs/small", "GUEST"),
    "report --out": ("report", "runs/small", "--out", "GUEST"),
    "runs": ("runs", "GUEST"),
    "runs rm": ("runs", "rm", "GUEST", "--yes"),
    "watch": ("watch", "GUEST"),
    "wandb": ("wandb", "GUEST", "--mode", "offline"),
    "card": ("card", "GUEST"),
    "card --out": ("card", "runs/small", "--out", "GUEST"),
    "export": ("export", "GUEST", "--format", "torch_export"),
    "export --out": ("export", "runs/small", "--format", "torch_export", "--out", "GUEST"),
    "predict": ("predict", "GUEST", "picture.png"),
    "predict a picture": ("predict", "runs/small", "GUEST"),
    "predict --figure": ("predict", "runs/small", "picture.png", "--figure", "GUEST"),
    "compare": ("compare", "GUEST", "runs/small"),
    "compare foreign": ("compare", "runs/small", "GUEST.npz"),
}


def _nothing(path: Path) -> None:
    """Nothing is there."""


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _self_holding_run(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").mkdir()


GUESTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "missing": ("missing", _nothing),
    "empty file": ("empty.yaml", Path.touch),
    "text": ("text.yaml", lambda path: path.write_text("just words")),
    "binary": ("binary.yaml", lambda path: path.write_bytes(bytes(range(256)) * 9)),
    "deep": ("deep.yaml", lambda path: path.write_text("[" * 5000)),
    "folder": ("folder.yaml.d", Path.mkdir),
    "folder like a run": ("like_a_run", _self_holding_run),
    "pipe": ("pipe.yaml", lambda path: os.mkfifo(path)),
    "endless": ("endless.yaml", lambda path: path.symlink_to("/dev/zero")),
    "loop of links": ("loop.yaml", _loop),
    "dead link": ("dead.yaml", lambda path: path.symlink_to("nowhere")),
    "below a file": ("below_a_file/x.yaml", lambda path: path.parent.write_text("a file")),
    "name of 300 letters": ("n" * 300, _nothing),
    "path of 5,000 letters": ("/".join(["n" * 200] * 25), _nothing),
    "control characters": ("esc\x1b[31m\n\rx", _nothing),
    "not UTF-8": (os.fsdecode(b"caf\xe9"), _nothing),
    "spaces and quotes": ("a b 'c' \"d\" #e $f", _nothing),
    "a dash": ("-", _nothing),
    "empty name": ("", _nothing),
}


# What a message must have where the name itself has no letters.
WORDS = {"": "empty|neither|no value|no such network", "-": "-|stdin"}
PAIRS = [(door, guest) for door in DOORS for guest in GUESTS]
EVERY = 4  # of the pairs, in a suite that must be short; `make test-all` tries them all


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run, a picture and a configuration."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("doors")
    (folder / "small.yaml").write_text(
        "name: small\nnum_members: 2\nmethod: {name: bagging}\nmodel: {name: mlp, widths: [4]}\ntraining: {epochs: 1}\n"
        "data: {name: digits, max_train_rows: 100}\ncompute: {executor: inline, device: cpu}\ntracking: {wandb: {mode: disabled}}\n"
    )
    Image.new("L", (8, 8), 200).save(folder / "picture.png")
    before = Path.cwd()
    os.chdir(folder)
    try:
        done = click.testing.CliRunner().invoke(main, ["train", "small.yaml", "-q"])
    finally:
        os.chdir(before)
    assert done.exit_code in (0, 4), done.output
    return folder


@pytest.mark.parametrize(
    ("door", "guest"),
    [pytest.param(*pair, marks=[pytest.mark.long] if i % EVERY else []) for i, pair in enumerate(PAIRS)],
)
def test_a_bad_thing_at_a_door_is_named(
    home: Path, monkeypatch: pytest.MonkeyPatch, door: str, guest: str, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("small.yaml", "picture.png", "runs"):
        (tmp_path / name).symlink_to(home / name)
    name, put = GUESTS[guest]
    place = tmp_path / (name or ".")
    if door == "compare foreign":
        place = place.with_name(place.name + ".npz")
    put(place)
    for file, text in (("arrays.yaml", ARRAYS), ("folder.yaml", FOLDER)):
        quoted = name.replace("'", "''") if name.isprintable() else "missing"
        (tmp_path / file).write_text(text.replace("GUEST", quoted))
    arguments = [part.replace("GUEST", name) for part in DOORS[door]]
    start = time.monotonic()
    done = click.testing.CliRunner().invoke(main, arguments, input=b"")
    seconds = time.monotonic() - start
    said = done.output
    assert done.exit_code in {0, 2, 3, 4, 5, 6, 7}, said
    assert seconds < LIMIT_S, f"{seconds:.1f} s"
    assert "Traceback" not in said
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", said), "control characters reach the terminal"
    if done.exit_code:
        word = WORDS.get(name) or re.split(r"[^a-zA-Z_]", name)[0][:20]
        assert re.search(word if name.isprintable() else f"{word}|missing", said), "the message names what stands there"
