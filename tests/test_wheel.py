"""The wheel is whole: what is installed from it needs neither the repository nor its folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as pip fills it from the wheel."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("ensemble", "configs", "launch"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    words = [sys.executable, "-c", f"from setuptools import build_meta; build_meta.build_wheel({str(built)!r})"]
    subprocess.run(words, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = built.glob("*.whl")
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(target)
    return target


def run(site: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )


def test_nothing_else_is_installed(site: Path) -> None:
    names = {path.name for path in site.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"ensemble"}


def test_every_file_of_the_package_is_in_it(site: Path) -> None:
    def files(folder: Path) -> set[str]:
        found = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return {path.relative_to(folder).as_posix() for path in found}

    installed = files(site / "ensemble")
    there = files(ROOT / "ensemble") | {f"configs/{name}" for name in files(ROOT / "configs")}
    assert there - installed == set()
    assert (site / "ensemble" / "configs" / "quickstart.yaml").read_text() == (
        ROOT / "configs" / "quickstart.yaml"
    ).read_text()


def test_a_shipped_configuration_trains_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    words = [
        "quickstart",
        "num_members=2",
        "training.epochs=1",
        "compute.executor=inline",
        "tracking.wandb.mode=disabled",
    ]
    done = run(site, tmp_path, "-m", "ensemble", "train", *words, "-q", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["test_rows"] == 355
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert (tmp_path / "runs" / "quickstart" / "evaluation.json").is_file()
    listed = run(site, tmp_path, "-m", "ensemble", "configs", "--json")
    assert "sweeps/optimisers" in {row["name"] for row in json.loads(listed.stdout)}


@pytest.mark.parametrize("door", ["accelerate_run", "ray_job", "submit", "wandb_workspace"])
def test_the_repository_has_short_names_for_them(door: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"launch.{door}"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    assert "CONFIG" in done.stderr or "ENTITY" in done.stderr


@pytest.mark.parametrize("door", ["accelerate_run", "ray_job", "submit"])
def test_the_doors_to_clusters_are_installed_too(door: str, site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, "-m", f"ensemble.launch.{door}")
    assert (done.returncode, "CONFIG" in done.stderr) == (2, True), done.stderr
