"""Fill a folder with what the GPU benchmark needs on a machine without a network, here where there is one.

    python -m benchmarks.gpu.prepare [.gpu-kit] [--data FOLDER] [--python 3.12]

Wheels for Linux on x86-64, of the versions installed here, and MNIST from $ENSEMBLE_DATA; git ignores the folder. torch,
numpy, scikit-learn and the like must be on that machine; ray and wandb are not needed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("pydantic", "pydantic-core", "annotated-types", "typing-inspection", "typing-extensions")
_PEER = "torchensemble==0.2.0"
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "manylinux1_x86_64")
_IMAGES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def main() -> None:
    """Fetch wheels, pack MNIST, note the commit, print sizes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu.prepare", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path(".gpu-kit"))
    parser.add_argument("--data", type=Path, default=os.environ.get("ENSEMBLE_DATA"), help="folder with MNIST/raw")
    parser.add_argument("--python", default="3.12", help="version of the machine with the card")
    options = parser.parse_args()
    if options.data is None:
        parser.error("set ENSEMBLE_DATA, or say --data FOLDER: a folder with MNIST/raw")
    _fetch_wheels(options.folder / "wheels", options.python)
    _pack_images(Path(options.data) / "MNIST" / "raw", options.folder / "MNIST" / "raw")
    git = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=40", "--dirty=+changes"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout
    (options.folder / "commit").write_text(commit)
    files = sorted(file for file in options.folder.rglob("*") if file.is_file())
    for file in files:
        print(f"{file.stat().st_size / 2**20:8.2f} MiB  {file}")
    print(f"{sum(file.stat().st_size for file in files) / 2**20:8.2f} MiB  in all")


def _fetch_wheels(folder: Path, python: str) -> None:
    """Download the wheels. Raises SystemExit with pip's words when that fails."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.whl"):  # two versions of a package would stop the installation
        old.unlink()
    try:
        wanted = [*(f"{name}=={version(name)}" for name in _PACKAGES), _PEER]
    except PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is not installed here; run this in the project's environment") from error
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
               "--disable-pip-version-check", "--python-version", python, "--implementation", "cp",
               *(word for name in _PLATFORMS for word in ("--platform", name)), "--dest", str(folder)]  # fmt: skip
    done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"pip could not download the wheels:\n{done.stderr}")


def _pack_images(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name in _IMAGES:
        plain, packed = source / name, source / f"{name}.gz"
        if not plain.is_file() and not packed.is_file():
            raise SystemExit(f"{source} has neither {name} nor {name}.gz; expected the four files of MNIST there")
        raw = plain.read_bytes() if plain.is_file() else gzip.decompress(packed.read_bytes())
        (target / f"{name}.gz").write_bytes(gzip.compress(raw, 9, mtime=0))


if __name__ == "__main__":
    main()
