"""Long work says where it is, to whoever listens, and to nobody else."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ensemble.config import parse_experiment
from ensemble.config.schema import DataConfig
from ensemble.data import listing, load_dataset
from ensemble.outside import long_work
from ensemble.outside.long_work import heard, working
from ensemble.run import compose
from ensemble.tracking.build import Console
from tests.test_run import CONFIG


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_work, "EVERY_S", 0.05)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "long-work"]


def test_a_line_every_so_often_with_what_is_done() -> None:
    lines: list[str] = []
    with heard(lines.append), working("counting", 1500) as done:
        for _ in range(1200):
            done()
        time.sleep(0.3)
    assert 2 <= len(lines) <= 7
    assert set(lines) == {"counting: 1,200 of 1,500, 0 s so far"}
    assert threads() == []


def test_quick_work_says_nothing_and_work_without_pieces_its_time() -> None:
    lines: list[str] = []
    with heard(lines.append):
        with working("quick"):
            pass
        with working("slow"):
            time.sleep(0.12)
    assert lines[0] == "slow: 0 s so far"


def test_nobody_listens() -> None:
    with working("alone", 3) as done:
        done()
        assert threads() == []
    with heard(pytest.fail), heard(None), working("quiet"):
        time.sleep(0.12)


def test_it_ends_with_the_work_however_that_ends() -> None:
    def broken(_line: str) -> None:
        raise BrokenPipeError

    def fails() -> None:
        with heard(broken), working("failing"):
            time.sleep(0.12)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert threads() == []


def test_pieces_from_many_threads_are_all_counted() -> None:
    lines: list[str] = []
    with heard(lines.append), working("together", 4000) as done:
        workers = [threading.Thread(target=lambda: [done() for _ in range(1000)]) for _ in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        time.sleep(0.12)
    assert int(lines[-1].split()[1].replace(",", "")) == pytest.approx(4000, abs=3)


def test_reading_a_folder_of_pictures_says_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(20):
            Image.fromarray(np.full((8, 8), n, np.uint8)).save(tmp_path / name / f"{n}.png")
    inner = listing.decode

    def slow(*given: object) -> object:
        time.sleep(0.02)
        return inner(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(listing, "decode", slow)
    lines: list[str] = []
    with heard(lines.append):
        load_dataset(DataConfig(name="image_folder", root=str(tmp_path), image_size=8, channels=1))
    assert any(line.startswith("reading pictures: ") and " of 40, " in line for line in lines)


@pytest.mark.parametrize(("console", "said"), [("silent", False), ("warnings", False), ("progress", True)])
def test_a_quiet_run_says_nothing(
    console: Console, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whichever command: `-q` of train, sweep and reproduce is this console."""

    def slow(*_given: object, **_more: object) -> None:
        with working("doing"):
            time.sleep(0.12)

    monkeypatch.setattr(compose, "run_ensemble", slow)
    lines: list[str] = []
    with heard(lines.append):
        compose.run_experiment(parse_experiment({**CONFIG, "output_dir": str(tmp_path)}), console)
    assert bool(lines) == said
