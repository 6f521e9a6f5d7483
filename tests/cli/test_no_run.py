"""A run that there is not, named to every command: the one of a like name is named, else what runs there are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.damage.commands import call, said, train_in
from tests.damage.conftest import CONFIG

COMMANDS = {
    "evaluate": ("evaluate", "RUN"), "report": ("report", "RUN"), "card": ("card", "RUN"), "check": ("check", "RUN"),
    "compare": ("compare", "RUN", "digits"), "compare members": ("compare", "digits", "RUN:members"), "predict": ("predict", "RUN", "x.png"),
    "export": ("export", "RUN", "--format", "onnx"), "cost": ("cost", "RUN"), "wandb": ("wandb", "RUN"), "watch": ("watch", "RUN"),
    "runs rm": ("runs", "rm", "RUN", "--yes"), "evaluate --on": ("evaluate", "RUN", "--on", "mnist_c"), "evaluate --write": ("evaluate", "RUN", "--write"),
    "evaluate --forget": ("evaluate", "RUN", "--forget", "x"),
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_in(tmp_path_factory.mktemp("trained"), {**CONFIG, "name": "digits"})


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with runs/digits, and a picture."""
    shutil.copytree(trained, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    Path("x.png").write_bytes(b"")
    return tmp_path / "home"


def asked(command: str, run: str) -> str:
    result = call(*(word.replace("RUN", run) for word in COMMANDS[command]))
    assert result.exit_code in (2, 6), said(result)
    return said(result)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_run_that_was_meant(home: Path, command: str) -> None:
    for typed in ("digit", "digts", "idgits", "runs/digit", "runs/Digits"):
        assert "did you mean runs/digits?" in asked(command, typed)
    absolute = str(home / "runs/digitss")
    assert f"did you mean {home}/runs/digits?" in asked(command, absolute)
    (home / "digit").mkdir()  # a folder that is no run
    assert "did you mean runs/digits?" in asked(command, "digit")


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "report"])
def test_else_what_runs_there_are(home: Path, command: str) -> None:
    assert "give one of the runs that there are: runs/digits" in asked(command, "quickstart")
    assert "it is a folder of runs: give one of them, such as" in asked(command, str(home / "runs"))
    shutil.move("runs/digits", "else" + "where")
    shutil.rmtree("runs")
    assert "`ensemble train quickstart` makes one" in asked(command, "runs/digits") or "elsewhere" in asked(
        command, "digits"
    )


def test_of_many_the_first_are_named(home: Path) -> None:
    for number in range(8):
        (home / f"runs/other-{number}").mkdir()
        shutil.copy(home / "runs/digits/manifest.json", home / f"runs/other-{number}/manifest.json")
    text = asked("evaluate", "quickstart")
    assert (
        "runs/digits, runs/other-0, runs/other-1, runs/other-2, runs/other-3 and 4 more (`ensemble runs runs`)" in text
    )
