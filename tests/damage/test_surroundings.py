"""What happens around a run: its folder goes away or gets a new name, its data change, its members fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble.config import parse_experiment
from ensemble.errors import StorageError
from ensemble.executors import InlineExecutor
from ensemble.executors.base import Arrays, Emit, Outcome, Train, Wanted, always
from ensemble.run.run import run_ensemble
from ensemble.types import Task
from tests.damage.commands import call, said
from tests.damage.test_failing_disk import CONFIG


class AndThen(InlineExecutor):
    """After the first task, something happens outside."""

    def __init__(self, happens: Callable[[], Any]) -> None:
        self.happens = happens

    def run(
        self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
    ) -> Iterator[Outcome]:
        for number, outcome in enumerate(super().run(tasks, train, arrays, emit, wanted)):
            yield outcome
            if number == 0:
                self.happens()


@pytest.mark.parametrize("how", ["moved", "removed", "replaced"])
def test_a_folder_that_goes_away_in_mid_run_is_not_made_anew(tmp_path: Path, how: str) -> None:
    folder = tmp_path / "runs" / "run"

    def happens() -> None:
        if how == "removed":
            shutil.rmtree(folder)
        else:
            folder.rename(tmp_path / "elsewhere")
        if how == "replaced":  # as by an unmounted disk: an empty folder stays
            folder.mkdir()

    config = parse_experiment({**CONFIG, "output_dir": str(tmp_path / "runs")})
    with pytest.raises(StorageError, match=r"runs/run: the run folder is gone"):
        run_ensemble(config, lambda *_: AndThen(happens), lambda _: [])
    assert not folder.exists() or list(folder.iterdir()) == []
    if how == "moved":  # put back, it goes on
        (tmp_path / "elsewhere").rename(folder)
        assert run_ensemble(config, lambda *_: InlineExecutor(), lambda _: []).trained == 1


def test_a_folder_of_the_same_name_does_not_hide_a_run(run: Path) -> None:
    Path("d").mkdir()
    assert call("evaluate", "d").exit_code == 0
    for name in ("x" * 5000, "no such run", "d/d"):
        for command in (("evaluate", name), ("compare", "d", name), ("report", name), ("check", name)):
            result = call(*command)
            assert result.exit_code in range(2, 7), said(result)


def test_a_renamed_run_is_the_same_run(run: Path) -> None:
    before = json.loads((run / "evaluation.json").read_text())
    run.rename("runs/best")
    result = call("train", "d.yaml", "-q", "name=best", "--json")
    assert result.exit_code == 0, said(result)
    assert json.loads(result.stdout)["leaderboard"] == before["leaderboard"]


def test_members_that_diverge_are_not_tried_again_by_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = {**CONFIG, "output_dir": "runs", "training": {"epochs": 1, "lr": 1e30, "optimizer": "sgd"}}
    Path("c.yaml").write_text(json.dumps(words))
    for command in (("train", "c.yaml", "-q"), ("evaluate", "runs/run"), ("compare", "runs/run", "runs/run:members")):
        result = call(*command)
        assert result.exit_code == 5, said(result)
        assert "diverged" in said(result)
        assert "lower training.lr" in said(result)
        assert "train the missing ones" not in said(result)


def test_comparing_with_a_run_of_which_nothing_finished_names_it(run: Path, trained: Path) -> None:
    class Stopped(InlineExecutor):
        def run(self, *_: Any) -> Iterator[Outcome]:
            raise KeyboardInterrupt
            yield

    config = parse_experiment({**CONFIG, "name": "e", "output_dir": "runs"})
    with pytest.raises(KeyboardInterrupt):
        run_ensemble(config, lambda *_: Stopped(), lambda _: [])
    for items in (("runs/d", "runs/e"), ("runs/e:0", "runs/d"), ("runs/e:members", "runs/d")):
        result = call("compare", *items)
        assert result.exit_code == 5, said(result)
        assert "runs/e" in said(result)


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A judged run on pictures in imgs/."""
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 5)):
        for k, name in enumerate(("a", "b", "c")):
            Path(f"imgs/{part}/{name}").mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 90, (12, 12, 3)).astype(np.uint8)
                pixels[k::3, :, k] += 120
                Image.fromarray(pixels).save(f"imgs/{part}/{name}/{i:03d}.png")
    config = {
        **CONFIG, "data": {"name": "image_folder", "root": "imgs", "image_size": 12}, "output_dir": "runs",
        "method": {"name": "deep_ensemble"}, "training": {"epochs": 1, "batch_size": 8},
    }  # fmt: skip
    Path("c.yaml").write_text(json.dumps(config))
    result = call("train", "c.yaml", "-q")
    assert result.exit_code == 0, said(result)
    return Path("runs/run")


def _rename_class() -> None:
    for part in ("train", "test"):
        Path(f"imgs/{part}/c").rename(f"imgs/{part}/d")


CHANGES: dict[str, Callable[[], Any]] = {
    "added": lambda: shutil.copy("imgs/test/c/000.png", "imgs/test/a/0000.png"),
    "removed": lambda: Path("imgs/train/b/003.png").unlink(),
    "moved to another class": lambda: Path("imgs/test/a/000.png").rename("imgs/test/b/0000.png"),
    "class renamed": _rename_class,
    "other pixels": lambda: Image.new("RGB", (12, 12)).save("imgs/test/a/001.png"),
    "gone": lambda: Path("imgs").rename("away"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_data_changes_nothing_or_is_refused(pictures: Path, change: str) -> None:
    def stored() -> dict[str, bytes]:
        return {
            name: (pictures / name).read_bytes()
            for name in ("disputed.npz", "dataset.json", "labels.npz", "config.yaml")
        }

    before, figures = stored(), json.loads(call("evaluate", "runs/run", "--json").stdout)
    CHANGES[change]()
    for words in (("evaluate", "runs/run", "--json"), ("evaluate", "runs/run", "--write", "--json")):
        result = call(*words)
        assert result.exit_code == 0, said(result)
        assert json.loads(result.stdout) == figures
    assert call("report", "runs/run", "--out", "page.html").exit_code == 0
    assert call("train", "c.yaml", "-q", "aggregator=hard").exit_code in (3, 6)
    assert stored() == before


def test_data_that_is_gone_is_told_to_wandb_all_the_same(pictures: Path) -> None:
    """The disputed pictures are in the run."""
    from ensemble.results.run_data import test_images
    from ensemble.storage import RunFolder

    kept = np.load(pictures / "disputed.npz")
    Path("imgs").rename("away")
    images = test_images(RunFolder.read(pictures), kept["rows"].tolist())
    np.testing.assert_array_equal(images, kept["images"])


def test_a_page_written_elsewhere_leaves_the_run_alone(run: Path) -> None:
    before = sorted(path for path in run.rglob("*"))
    assert call("report", "runs/d", "--out", "page.html").exit_code == 0
    assert Path("page.html").stat().st_size > 10_000
    assert sorted(path for path in run.rglob("*")) == before


def test_folders_of_odd_names_in_a_run_are_left_alone(run: Path) -> None:
    (run / "a.writing").mkdir()
    (run / "b.1.writing").mkdir()
    (run / "members" / "x.12.writing").write_bytes(b"half")
    result = call("train", "d.yaml", "-q")
    assert result.exit_code == 0, said(result)
    assert (run / "a.writing").is_dir()
    assert not (run / "members" / "x.12.writing").exists()


def test_a_plan_without_a_configuration_is_the_beginning_of_nothing(tmp_path: Path) -> None:
    """What a kill left between the two first manifests of earlier versions."""
    from ensemble.storage.manifest import MANIFEST

    config = parse_experiment({**CONFIG, "output_dir": str(tmp_path)})
    run_ensemble(config, lambda *_: InlineExecutor(), lambda _: [])
    listed = json.loads((tmp_path / "run" / MANIFEST).read_text())["files"]
    shutil.move(tmp_path / "run", tmp_path / "whole")
    (tmp_path / "run").mkdir()
    shutil.copy(tmp_path / "whole/plan.json", tmp_path / "run/plan.json")
    (tmp_path / "run" / MANIFEST).write_text(json.dumps({"version": 1, "files": {"plan.json": listed["plan.json"]}}))
    assert run_ensemble(config, lambda *_: InlineExecutor(), lambda _: []).trained == 2
