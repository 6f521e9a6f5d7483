"""What leaves the program: whole names at every width, no control characters, no secrets, and an exit code for lost output."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from ensemble.commands.main import main
from ensemble.config.data import DataConfig
from ensemble.config.network import Network
from ensemble.data import DATASETS
from ensemble.errors import ConfigError
from ensemble.outside.names import visible
from ensemble.outside.paths import given_path, read_regular_file
from ensemble.tracking.terminal import NO_LIMIT, USUAL, open_table_console, width_of
from tests.amounts import examples

GOOD = """
num_members: 2
method: {name: bagging}
baseline: false
data: {name: mnist, root: somewhere}
model: {name: mlp, widths: [16]}
training: {epochs: 1}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "x.yaml").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ensemble(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.mark.parametrize("width", ["", "0", "1", "19", "40", "80", "200", "x", "-5"])
def test_every_name_stands_whole_at_every_width(monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    monkeypatch.setenv("COLUMNS", width)
    shown = ensemble("datasets").stdout.split()
    assert {*DATASETS, *DataConfig.registry.all()} <= {*shown}
    models = ensemble("models").stdout
    assert {*Network.registry.all()} <= {*models.split()}
    assert "kernel_size=3," in models.split()
    assert "..." not in models
    assert "\u2026" not in models


@pytest.mark.parametrize(
    ("given_width", "expected"), [("", NO_LIMIT), ("0", NO_LIMIT), ("40", 40), ("5000", NO_LIMIT), ("x", NO_LIMIT)]
)
def test_a_pipe_has_no_width_but_the_one_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given_width: str, expected: int
) -> None:
    monkeypatch.setenv("COLUMNS", given_width)
    with (tmp_path / "file").open("w") as stream:
        assert width_of(stream) == expected


def test_a_terminal_that_does_not_know_its_width_is_a_usual_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    leader, follower = os.openpty()  # 0 columns, until somebody says otherwise
    with os.fdopen(follower, "w") as terminal:
        assert width_of(terminal) == USUAL
    os.close(leader)


NASTY = [
    "a\x1b]0;owned\x07b",
    "a\x1b[2Jb",
    "a\rb",
    "a\x9bb",
    "a\u202eb",
    "a\u2028b",
    "a\x00b",
    "a\x7fb",
    b"\xff\xe9".decode(errors="surrogateescape"),
]


@pytest.mark.parametrize("name", NASTY)
def test_control_characters_are_shown_as_what_they_are(here: Path, name: str) -> None:
    shown = visible(name)
    assert shown.isprintable()
    assert visible(shown) == shown, "escaped once"
    for words in (["compare", f"{name}.csv"], ["train", f"{name}.yaml"], ["evaluate", name], [name], ["train", "--x" + name],
                  ["config", "x.yaml", f"training.{name}=1"], ["config", "x.yaml", f"name={name}"], ["models", name],
                  ["predict", name, name], ["report", name, "--out", name], ["train", "x.yaml", name]):  # fmt: skip
        done = ensemble(*words)
        assert done.exit_code not in (0, 70), (words, done.output)
        assert done.output.replace("\n", "").isprintable(), (words, done.output)


def test_tables_show_them_too(capsys: pytest.CaptureFixture[str]) -> None:
    console = open_table_console()
    console.print("a\x1b]0;owned\x07b", "[bold]not markup[/bold]")
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\\x1b]0;owned" in out
    assert "[bold]not markup[/bold]" in out


@settings(deadline=None, max_examples=examples(300), database=None)
@given(text=st.text(max_size=20))
def test_visible_is_printable_and_leaves_printable_text_alone(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    assert not any((ord(char) < 32 and char not in "\n\t") or 127 <= ord(char) < 160 for char in shown)
    if text.isprintable() and text.isascii():
        assert shown == text


def run(*words: str, stdout: int | None = None, cwd: Path, limit: float = 60) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "ensemble", *words]
    with Path("/dev/full").open("w") as full:
        target = full if stdout is None else stdout
        return subprocess.run(command, cwd=cwd, stdout=target, stderr=subprocess.PIPE, timeout=limit)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full on this system")
@pytest.mark.parametrize(
    "words",
    [
        ["config", "x.yaml"],
        ["config", "x.yaml", "--json"],
        ["datasets"],
        ["models"],
        ["--help"],
        ["--version"],
        ["train", "--help"],
    ],
)
def test_output_to_a_full_disk_ends_with_the_code_of_storage(here: Path, words: list[str]) -> None:
    done = run(*words, cwd=here)
    assert done.returncode == 6
    assert (
        done.stderr.decode().strip()
        == "error: the output cannot be written: No space left on device; free space, or send it elsewhere"
    )


@pytest.mark.parametrize("words", ["config x.yaml", "--help", "config nowhere.yaml", "card nowhere"])
@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(here: Path, words: str, closed: str) -> None:
    """As under `ensemble ... >&-`, where Python has no sys.stdout at all."""
    command = f"exec {shlex.quote(sys.executable)} -m ensemble {words} {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=here, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == {"config nowhere.yaml": 2, "card nowhere": 6}.get(words, 0), done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_early_is_no_error(here: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run("config", "x.yaml", stdout=writing, cwd=here)
    finally:
        os.close(writing)
    assert done.stderr == b""
    assert done.returncode in (0, 1)


CANARY = "CANARYWORD"


@pytest.mark.parametrize(
    "override",
    [
        f"output_dir=s3://user:{CANARY}@127.0.0.1:9/bucket", f"output_dir=gs://u:a/{CANARY}@h/b",
        f"compute.ray_address=ray://me:{CANARY}@10.0.0.1:10001", f"compute.ray_address=me:{CANARY}@10.0.0.1:6379",
        f"data.root=https://h/x?token={CANARY}", f"output_dir=s3://b/x?X-Amz-Signature={CANARY}",
        f"tracking.wandb.api_key={CANARY}", f"tracking.wandb.api_key=[{CANARY}", f"training.secret={CANARY} # x",
        f"compute.password={CANARY}", f"tracking.wandb.apiKey={CANARY}",
    ],
)  # fmt: skip
def test_a_secret_is_refused_and_not_repeated(here: Path, override: str) -> None:
    for command in ("config", "train"):
        done = ensemble(command, "x.yaml", override)
        assert done.exit_code == 2
        assert CANARY not in done.output
    assert "environment" in done.output or "not valid YAML" in done.output
    assert sorted(path.name for path in here.iterdir()) == ["x.yaml"], "nothing is stored"


@pytest.mark.parametrize("command", ["evaluate", "report", "card", "wandb", "compare"])
def test_nor_in_the_address_of_a_run(here: Path, command: str) -> None:
    done = ensemble(command, f"s3://user:{CANARY}@127.0.0.1:9/bucket/run")
    assert done.exit_code == 2
    assert CANARY not in done.output
    assert "AWS_SECRET_ACCESS_KEY" in done.output


@pytest.mark.parametrize(
    "address", ["s3://bucket/runs", "http://host:8080/a@b", "ray://10.0.0.1:10001", "memory://x/y"]
)
def test_addresses_without_secrets_are_taken(here: Path, address: str) -> None:
    assert ensemble("config", "x.yaml", f"output_dir={address}").exit_code == 0


def test_a_tilde_is_the_home_folder_at_every_door(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = here / "home"
    home.mkdir()
    (home / "y.yaml").write_text(GOOD)
    np.savez(home / "a.npz", test_probs=np.full((10, 2), 0.5), test_labels=np.arange(10) % 2)
    monkeypatch.setenv("HOME", str(home))
    assert f'"{home}/runs"' in ensemble("config", "~/y.yaml", "output_dir=~/runs").stdout
    np.savez(home / "b.npz", test_probs=np.full((10, 2), 0.5))
    done = ensemble("compare", "~/a.npz", "~/b.npz", "--out", "~/table.md")
    assert done.exit_code == 0, done.output
    assert (home / "table.md").is_file()
    assert not (here / "~").exists()
    for words in (
        ["evaluate", "~/nothing"],
        ["report", "~/nothing"],
        ["predict", "~/nothing", "~/x.png"],
        ["export", "~/nothing", "--format", "onnx"],
    ):
        done = ensemble(*words)
        assert str(home / "nothing") in done.output, words
    monkeypatch.setenv("ENSEMBLE_CACHE", "~/cache")
    from ensemble.cache import cache_folder

    assert cache_folder() == home / "cache"


@pytest.mark.parametrize(
    "words",
    [
        ["config", "$HOME/x.yaml"], ["config", "x.yaml", "output_dir=$HOME/runs"], ["config", "x.yaml", "data.root=${DATA}/x"],
        ["config", "x.yaml", "data.name=arrays", "data.root=null", "data.path=$X.npz"], ["evaluate", "$RUN"], ["report", "$RUN"],
        ["compare", "$A.npz"], ["compare", "x.npz", "--out", "$B/x.md"], ["card", "x", "--out", "$B"],
    ],
)  # fmt: skip
def test_a_variable_is_no_folder_name(here: Path, words: list[str]) -> None:
    done = ensemble(*words)
    assert done.exit_code == 2
    assert "is not replaced here" in done.output


def test_a_thing_of_that_very_name_is_meant(tmp_path: Path) -> None:
    (tmp_path / "$HOME").mkdir()
    assert given_path(tmp_path / "$HOME", "x") == tmp_path / "$HOME"
    assert given_path("from_$5_to_$9", "x") == Path("from_$5_to_$9")
    for wrong in ("", "  ", "a\0b", "~nobody_of_this_name/x"):
        with pytest.raises(ConfigError):
            given_path(wrong, "x")


def test_what_is_no_file_is_refused_at_once(here: Path) -> None:
    os.mkfifo("pipe.yaml")
    (here / "folder.yaml").mkdir()
    began = time.monotonic()
    for name in ("pipe.yaml", "/dev/zero", "/dev/null", "folder.yaml", "/proc/self/mem"):
        for command in ("config", "train", "sweep"):
            done = ensemble(command, name)
            assert done.exit_code == 2, (name, done.output)
            assert name in done.output
    assert time.monotonic() - began < 10
    with pytest.raises(OSError, match="larger than 10 bytes"):
        read_regular_file(here / "x.yaml", 10)


def test_go_on_with_can_be_pasted_into_a_shell(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ensemble.config.load_config", stop)
    monkeypatch.setattr(sys, "argv", ["ensemble", "train", "x.yaml", "data.root=my data"])
    done = ensemble("train", "x.yaml", "data.root=my data")
    assert done.exit_code == 75
    assert "Go on with: ensemble train x.yaml 'data.root=my data'" in done.output


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (("sweep", "x.yaml", "training.lr=0.1,0.2", "--survivors", "0.3"), "give --screen EPOCHS too"),
        (("reproduce", "--list", "seeds=2"), "--list trains nothing, so seeds=2 has no effect"),
        (("reproduce", "--list", "--out", "table"), "--list trains nothing, so --out has no effect"),
    ],
)
def test_an_option_that_has_no_effect_is_refused(here: Path, words: tuple[str, ...], remedy: str) -> None:
    done = ensemble(*words)
    assert done.exit_code == 2
    assert remedy in " ".join(done.output.split())


def test_the_published_rows_are_listed_as_json_too(here: Path) -> None:
    rows = json.loads(ensemble("reproduce", "--list", "--json").stdout)
    assert [row["name"] for row in rows] == [
        line.split()[0] for line in ensemble("reproduce", "--list").stdout.splitlines()
    ]
    assert all(row["published_error"] is None or 0 < row["published_error"] < 1 for row in rows)
