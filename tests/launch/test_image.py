"""The Dockerfile, as far as that goes without an engine that builds it: its form, what it copies, and its installation commands."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "launch" / "cluster" / "Dockerfile"
KNOWN = {"ARG", "FROM", "RUN", "ENV", "WORKDIR", "COPY", "USER", "CMD"}


def instructions(text: str) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, with continued lines as one. Raises ValueError for a line that is none."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    found = []
    for line in joined.splitlines():
        word, _, rest = line.partition(" ")
        if word not in KNOWN or not rest.strip():
            raise ValueError(f"no instruction: {line[:80]!r}")
        found.append((word, rest.strip()))
    return found


def ignored(name: str, rules: list[str]) -> bool:
    """Whether a file is left out of the build; the last rule that fits decides, a folder's rule is for all in it."""
    out = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        parents = [name, *map(str, Path(name).parents)]
        fits = any(fnmatch.fnmatch(each, pattern) for each in parents if each != ".")
        if pattern.startswith("**/"):
            fits = pattern.removeprefix("**/") in Path(name).parts
        if fits:
            out = not rule.startswith("!")
    return out


@pytest.fixture(scope="module")
def image() -> list[tuple[str, str]]:
    return instructions(FILE.read_text())


@pytest.fixture(scope="module")
def rules() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_a_line_that_is_no_instruction_is_seen() -> None:
    assert instructions("FROM a\n# note\nRUN b \\\n  && c\n") == [("FROM", "a"), ("RUN", "b && c")]
    with pytest.raises(ValueError, match="no instruction"):
        instructions("FROM a\npip install b\n")


def test_the_base_is_pinned_and_every_argument_is_declared(image: list[tuple[str, str]]) -> None:
    assert image[0] == ("ARG", "BASE=python:3.11.14-slim-bookworm")
    assert image[1] == ("FROM", "${BASE}")
    assert [word for word, _ in image].count("FROM") == 1
    declared = {"BASE", "PATH"} | {rest.partition("=")[0] for word, rest in image if word == "ARG"}
    declared |= {name for word, rest in image if word == "ENV" for name in re.findall(r"(\w+)=", rest)}
    for word, rest in image:
        used = set(re.findall(r"\$\{?(\w+)", rest)) - {"backend"}
        assert used <= declared, f"{word} {rest}"
    python = next(rest for word, rest in image if word == "ARG").partition(":")[2]
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert tuple(map(int, python.split(".")[:2])) >= tuple(map(int, required.removeprefix(">=").split(".")))


def test_what_is_copied_is_there_and_not_ignored(image: list[tuple[str, str]], rules: list[str]) -> None:
    copied = [name for word, rest in image if word == "COPY" for name in rest.split()[:-1]]
    assert {"pyproject.toml", "requirements.txt", "ensemble", "configs"} <= set(copied)
    for name in copied:
        assert (ROOT / name).exists(), name
        assert not ignored(name, rules), name
    assert not ignored("ensemble/launch/ray_job.py", rules)
    for name in (".git/config", ".venv/bin/python", "runs/a/manifest.json", "data/MNIST", "ensemble/__pycache__/a.pyc", "tests/conftest.py"):  # fmt: skip
        assert ignored(name, rules), name
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {build["readme"], *build["license-files"]} <= set(copied)  # which building the package reads


def test_it_does_not_run_as_root_and_writes_byte_code(image: list[tuple[str, str]]) -> None:
    users = [rest for word, rest in image if word == "USER"]
    assert users == ["1000"]  # by number, for runAsNonRoot
    made = next(rest for word, rest in image if word == "RUN" and "useradd" in rest)
    assert "useradd --uid 1000 --create-home" in made
    after = image[[word for word, _ in image].index("USER") :]
    assert not [rest for word, rest in after if word in ("RUN", "COPY")]
    text = " ".join(rest for _, rest in image)
    assert "PYTHONDONTWRITEBYTECODE" not in text
    assert text.count("--compile-bytecode") == text.count('uv" pip install') == 2
    cache = re.search(r"ENSEMBLE_CACHE=(\S+)", text)
    assert cache is not None
    assert cache[1].startswith("/home/ray/")
    assert 'chown -R ray "$(dirname "$ENSEMBLE_CACHE")"' in text
    assert "/opt/venv/bin:" in text


def installing(image: list[tuple[str, str]]) -> list[str]:
    """The commands that install, in order, without those of the system's packages."""
    return [rest for word, rest in image if word == "RUN" and "pip install" in rest]


def test_a_device_that_is_none_ends_the_build(image: list[tuple[str, str]], tmp_path: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", installing(image)[0]], cwd=tmp_path, env={"PATH": os.environ["PATH"], "DEVICE": "tpu"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "DEVICE is tpu; expected cpu or cuda\n"


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_the_installation_commands_do_what_they_say(
    image: list[tuple[str, str]], rules: list[str], tmp_path: Path
) -> None:
    """Those for CUDA, word for word, with only what is copied, into an environment of its own; then the program runs from there."""
    for name in (name for word, rest in image if word == "COPY" for name in rest.split()[:-1]):
        source = ROOT / name
        if source.is_dir():
            left_out = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, tmp_path / "context" / name, symlinks=True, ignore=left_out)
        else:
            (tmp_path / "context").mkdir(exist_ok=True)
            shutil.copyfile(source, tmp_path / "context" / name)
    defaults = dict(rest.split("=", 1) for word, rest in image if word == "ARG")
    kept = {
        k: v
        for k, v in os.environ.items()
        if k.startswith(("PIP_", "UV_", "SSL_", "HTTP", "http", "HOME", "NO_PROXY", "no_proxy", "LANG"))
    }
    python = tmp_path / "python"  # the base's `python3`
    python.mkdir()
    (python / "python3").symlink_to(Path(sys.base_prefix) / "bin" / "python3")
    environment = {
        **kept, "PATH": f"{python}:/usr/bin:/bin", "VIRTUAL_ENV": str(tmp_path / "venv"), "DEVICE": "cuda", "MORE": "",
        "UV": defaults["UV"], "UV_LINK_MODE": "copy",
    }  # fmt: skip
    for command in installing(image):
        done = subprocess.run(
            ["sh", "-c", command.replace("--no-cache ", "")], cwd=tmp_path / "context", env=environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    shutil.rmtree(tmp_path / "context")
    bin_folder = tmp_path / "venv" / "bin"
    home = tmp_path / "home"
    home.mkdir()
    clean = {"PATH": f"{bin_folder}:/usr/bin:/bin", "HOME": str(home), "ENSEMBLE_CACHE": str(home / "cache"), "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}  # fmt: skip
    for words in (["ray", "--version"], ["ensemble", "--version"], ["ensemble", "submit", "--help"]):
        done = subprocess.run(words, env=clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    compiled = list((tmp_path / "venv").rglob("ensemble/launch/__pycache__/*.pyc"))
    assert compiled
    words = ["ensemble", "train", "quickstart", "num_members=2", "training.epochs=1", "data.max_train_rows=200"]
    words += ["compute.executor=inline", "tracking.wandb.mode=disabled", "-q"]
    done = subprocess.run(words, env=clean, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "soft vote *" in done.stdout
