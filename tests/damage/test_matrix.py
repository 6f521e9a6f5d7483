"""Each file of a finished run damaged, each command asked: what uses it refuses it by name or makes it again, nothing is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.damage.commands import call, said

MEMBER = "members/0000"
FILES = (
    "config.yaml", "plan.json", "labels.npz", "dataset.json", "method.json", "environment.json", "evaluation.json",
    "leaderboard.csv", "disputed.npz", "events.jsonl", f"{MEMBER}/weights.safetensors", f"{MEMBER}/votes.npz",
    f"{MEMBER}/history.csv", f"{MEMBER}/member.json", "manifest.json",
)  # fmt: skip
EVERYTHING = set(FILES)
VOTES = {"config.yaml", "labels.npz", "dataset.json", "method.json", "manifest.json"} | {
    f"{MEMBER}/{file}" for file in ("votes.npz", "history.csv", "member.json")
}
# What each command cannot do its work without, and so must refuse.
USES = {
    "evaluate": VOTES,
    "compare": VOTES,
    "predict": VOTES | {"plan.json", f"{MEMBER}/weights.safetensors"},
    "report": EVERYTHING,
    "card": EVERYTHING,
    "wandb": EVERYTHING,
    "check": EVERYTHING,
    "train": {"config.yaml", "plan.json", "labels.npz", "dataset.json", "events.jsonl", "manifest.json"},
}
COMMANDS = {
    "evaluate": ("evaluate", "runs/d", "--json"),
    "compare": ("compare", "runs/d", "runs/d:0", "--json"),
    "predict": ("predict", "runs/d", "digit.png", "--json"),
    "report": ("report", "runs/d", "--out", "page.html"),
    "card": ("card", "runs/d"),
    "wandb": ("wandb", "runs/d", "--mode", "offline"),
    "check": ("check", "runs/d"),
    "train": ("train", "d.yaml", "-q", "--json"),
}


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


DAMAGES = {"flipped": flipped, "cut": cut, "gone": Path.unlink}


@pytest.fixture(scope="session")
def calm(trained: Path) -> dict[str, str]:
    """What the commands that print JSON say about the undamaged run."""
    here = Path.cwd()
    os.chdir(trained)
    try:
        digit = np.zeros((40, 40), np.uint8)
        digit[8:32, 18:22] = 255
        Image.fromarray(digit).save("digit.png")
        results = {name: call(*COMMANDS[name]) for name in ("evaluate", "compare", "predict")}
        assert {result.exit_code for result in results.values()} == {0}
        return {name: result.stdout for name, result in results.items()}
    finally:
        os.chdir(here)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name not in ("train", "wandb")])
@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_command_uses_it_checks(calm: dict[str, str], run: Path, command: str, damage: str) -> None:
    for name in FILES:
        sound = (run / name).read_bytes()
        DAMAGES[damage](run / name)
        result = call(*COMMANDS[command])
        if name in USES[command]:
            assert result.exit_code == 6, (name, said(result))
            assert name.rpartition("/")[2] in said(result), said(result)
        else:
            assert result.exit_code == 0, (name, said(result))
            assert result.stdout == calm[command]
        (run / name).write_bytes(sound)


@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_damaged_is_told_to_wandb(calm: dict[str, str], run: Path, damage: str) -> None:
    for name in FILES:
        sound = (run / name).read_bytes()
        DAMAGES[damage](run / name)
        result = call(*COMMANDS["wandb"])
        assert result.exit_code == 6, (name, said(result))
        assert name.rpartition("/")[2] in said(result), said(result)
        assert not (run / "wandb").exists()
        (run / name).write_bytes(sound)


@pytest.mark.parametrize("damage", DAMAGES)
def test_training_again_repairs_or_refuses(run: Path, damage: str) -> None:
    """A start that ends with 0 leaves every file as it was before the damage, or made anew."""
    keep = {name: (run / name).read_bytes() for name in FILES}
    before = json.loads(keep["evaluation.json"])
    for name in FILES:
        DAMAGES[damage](run / name)
        result = call(*COMMANDS["train"])
        if name in USES["train"] and (name, damage) != ("events.jsonl", "gone"):
            assert result.exit_code == 6, (name, said(result))
            assert name.rpartition("/")[2] in said(result), said(result)
            (run / name).write_bytes(keep[name])
            continue
        assert result.exit_code == 0, (name, said(result))
        assert call("check", "runs/d").exit_code == 0, name
        if name.endswith((".safetensors", ".npz")):
            assert (run / name).read_bytes() == keep[name], name
        after = json.loads((run / "evaluation.json").read_text())
        assert [row["test_error"] for row in after["leaderboard"]] == [
            row["test_error"] for row in before["leaderboard"]
        ]
        keep = {name: (run / name).read_bytes() for name in FILES}
