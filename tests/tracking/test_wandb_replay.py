"""A run that was killed with SIGKILL and finished later, replayed into offline W&B: the numbers of an undisturbed one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests import preloaded
from tests.tracking.killed_run import killed_in_the_midst
from tests.tracking.wandb_reader import RunFile, plain, read_folder

CONFIG = {
    "name": "bag", "seed": 5, "num_members": 3, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": [64]}, "training": {"epochs": 30},
    "compute": {"executor": "inline", "device": "cpu", "stack_size": 1, "checkpoint_every_s": 0.05},
    "tracking": {"wandb": {"mode": "offline"}},
}  # fmt: skip
TIMES = ("seconds", "per_second", "_ms", ".size")  # what may differ: how long things took, and so the bytes of tables


def command(root: Path, *words: str) -> list[str]:
    (root / "bag.yaml").write_text(json.dumps({**CONFIG, "output_dir": str(root)}))
    return [sys.executable, "-m", "ensemble", *words]


def train(root: Path) -> list[str]:
    return command(root, "train", str(root / "bag.yaml"), "-q")


def figures(run: RunFile) -> tuple[list[dict[str, object]], dict[str, object]]:
    """History and summary without times and without what W&B adds; numbers only, its files have random names."""

    def kept(row: dict[str, object]) -> dict[str, object]:
        return {
            name: value
            for name, value in plain(row).items()
            if not name.endswith(TIMES) and not name.startswith("worker/") and isinstance(value, int | float)
        }

    return [kept(row) for row in run.history], kept(run.summary)


def test_replay_of_a_killed_run_equals_an_undisturbed_one(tmp_path: Path) -> None:
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    for root in (calm, killed):
        root.mkdir()
    preloaded.run(train(calm), check=True, capture_output=True, timeout=240)
    before = killed_in_the_midst(train(killed), killed / "bag" / "events.jsonl", 35)
    assert 35 < before < 90
    preloaded.run(train(killed), check=True, capture_output=True, timeout=240)
    preloaded.run(
        command(killed, "wandb", str(killed / "bag"), "--mode", "offline"), check=True, capture_output=True, timeout=120
    )
    expected, found = read_folder(calm / "bag"), read_folder(killed / "bag")
    assert set(found) == set(expected)
    assert len(found) == 4
    for id, run in found.items():
        assert run.exit_code == 0
        assert figures(run)[0] == figures(expected[id])[0], id
        assert figures(run)[1] == figures(expected[id])[1], id
        mine, theirs = dict(run.config), dict(expected[id].config)
        here = [config.pop("environment") for config in (mine, theirs)]
        without = {"command": "", "commit": ""}  # which name the folder, and whether somebody edits meanwhile
        assert here[0] | without == here[1] | without
        assert mine == theirs | {key: value for key, value in mine.items() if key in ("_wandb", "output_dir")}
    (ensemble,) = [run for id, run in found.items() if id.endswith("ensemble")]
    assert len([row for row in ensemble.history if "epoch/members" in row]) == 30
    assert len([row for row in ensemble.history if "live/members" in row]) == 90
    voted = [row["vote/validation_error"] for row in ensemble.history if "members/finished" in row]
    assert len(voted) == 3
    assert voted[-1] == ensemble.summary["error/validation"]
    assert sum(len(run.history) for id, run in found.items() if not id.endswith("ensemble")) == 90
