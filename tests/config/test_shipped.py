"""The configurations that come with the package, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.config import load_config
from ensemble.config.shipped import FOLDER, find_configuration, shipped
from ensemble.config.sweeping import load_sweep
from ensemble.errors import ConfigError

ROOT = Path(__file__).parents[2]


def test_all_of_the_repository_s_are_there_and_say_what_they_are() -> None:
    files = {
        path.relative_to(ROOT / "configs").with_suffix("").as_posix() for path in (ROOT / "configs").rglob("*.yaml")
    }
    assert shipped().keys() == files
    for each in shipped().values():
        assert each.use.startswith(
            ("ensemble ", "accelerate ", "ACCELERATE_USE_CPU=true ", "python -m ", "wandb sweep ")
        ), each.name
        assert "configs/" not in each.use.replace(str(FOLDER), ""), "a path that is not there once it is installed"
        assert len(each.about) > 20, each.name


def test_a_name_means_the_shipped_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(Path("quickstart")).experiment.name == "quickstart"
    assert len(load_sweep(Path("sweeps/optimisers"), []).settings) > 1
    assert find_configuration(Path("quickstart")) == FOLDER / "quickstart.yaml"


def test_a_file_that_is_here_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").write_text("name: mine\nnum_members: 1\nmethod: {name: bagging}\nmodel: {name: lenet5}\n")
    assert load_config(Path("quickstart")).experiment.name == "mine"
    (tmp_path / "quickstart").unlink()
    (tmp_path / "quickstart").mkdir()  # the folder of a run, perhaps
    assert load_config(Path("quickstart")).experiment.name == "quickstart"


@pytest.mark.parametrize(
    "given", ["quickstar", "../configs/quickstart", "sweeps/../quickstart", "quickstart.yaml", "/quickstart", ".", "..", "sweeps", "x" * 300, ""]
)  # fmt: skip
def test_what_is_no_name_is_left_to_whoever_reads_it(
    given: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as raised:
        load_config(Path(given))
    if given not in (".", "..", "", "x" * 300):
        assert "`ensemble configs` lists those that come with the package" in str(raised.value)


def test_the_command(tmp_path: Path) -> None:
    run = CliRunner()
    listed = run.invoke(main, ["configs"])
    assert (listed.exit_code, "quickstart\n    8 bagged LeNet-5" in listed.output) == (0, True)
    layers = run.invoke(main, ["models", "quickstart"])
    assert (layers.exit_code, "lenet5 of quickstart" in layers.output) == (0, True), layers.output
    shown = run.invoke(main, ["configs", "sweeps/optimisers"])
    assert shown.output == (ROOT / "configs" / "sweeps" / "optimisers.yaml").read_text()
    copied = run.invoke(main, ["configs", "quickstart", "--copy", str(tmp_path)])
    assert copied.output == f"{tmp_path / 'quickstart.yaml'}\n"
    assert load_config(tmp_path / "quickstart.yaml").experiment == load_config(Path("quickstart")).experiment
    (tmp_path / "quickstart.yaml").write_text("name: changed\n")
    for words, message in (
        (["quickstart", "--copy", str(tmp_path)], "is there already"),
        (["quickstart", "--copy", str(tmp_path / "no" / "such" / "file.yaml")], "cannot be written: No such file"),
        (["quickstart", "--copy", "x" * 300], "cannot be written"),
        (["quick"], "no configuration named quick comes with the package; expected one of"),
        (["--copy", "here.yaml"], "give the NAME of the configuration to copy"),
    ):
        refused = run.invoke(main, ["configs", *words])
        assert (refused.exit_code, message in refused.output) == (2, True), refused.output
    assert (tmp_path / "quickstart.yaml").read_text() == "name: changed\n"
