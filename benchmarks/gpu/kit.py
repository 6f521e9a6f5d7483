"""What a machine without a network needs: wheels of the packages that it lacks, and MNIST.

FOLDER/wheels/*.whl    FOLDER/MNIST/raw/*.gz    FOLDER/commit
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path


def unpack(kit: Path, scratch: Path, python_path: str) -> dict[str, str]:
    """Install the kit's wheels and unpack its images into `scratch`; the environment variables that lead there."""
    site, data = scratch / "site", scratch / "data"
    wheels = sorted((kit / "wheels").glob("*.whl"))
    if wheels and not _installed(wheels, site):
        print("pip cannot install the wheels here; unpacked as they are", flush=True)
        for wheel in wheels:
            zipfile.ZipFile(wheel).extractall(site)
    variables = {"PYTHONPATH": os.pathsep.join([str(site), python_path])}
    packed = sorted((kit / "MNIST" / "raw").glob("*.gz"))
    if packed:
        raw = data / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for file in packed:  # plain, since torchvision reads no others
            with gzip.open(file) as source, (raw / file.stem).open("wb") as target:
                shutil.copyfileobj(source, target)
        variables["ENSEMBLE_DATA"] = str(data)
    return variables


def _installed(wheels: list[Path], site: Path) -> bool:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile",
               "--no-cache-dir", "--disable-pip-version-check", "--target", str(site), *map(str, wheels)]  # fmt: skip
    try:
        return subprocess.run(command, check=False, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
