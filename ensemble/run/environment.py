"""What a run ran on: versions, hardware, commit. Facts for the record; nothing is decided by them."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ensemble.config.secrets import names_secret, secret_in
from ensemble.outside.foreign_variables import describe_variables

_PACKAGES = ("ensemble-trainer", "torch", "torchvision", "ray", "accelerate", "wandb", "numpy", "scipy", "safetensors")


def describe_environment() -> dict[str, Any]:
    """Python, packages, processor, command and (in a git checkout) the commit of this program.

    variables: those of the environment that libraries may read. What of them could change a run is not heeded.
    """
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "commit": _commit(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "command": command_line(sys.argv),
        "variables": describe_variables(),
    }


def command_line(words: Sequence[str]) -> str:
    """A command as it was typed, for a shell; of secrets in it only that they were there."""
    program = "python -m ensemble" if Path(words[0]).name == "__main__.py" else Path(words[0]).name
    shown, hide = [], False
    for word in words[1:]:
        key, given, value = word.partition("=")
        if hide or secret_in(word) or (given and (secret_in(value) or names_secret(key))):
            word = f"{key}=(hidden)" if given and not hide and not secret_in(key) else "(hidden)"
        hide = not given and word.startswith("-") and names_secret(word)
        shown.append(word if word.endswith("(hidden)") else shlex.quote(word))
    return " ".join([program, *shown])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _commit() -> str | None:
    """The commit of the checkout this program runs from, with "+changes" when its files differ from it."""
    folder = Path(__file__).parents[1]
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return f"{commit}+changes" if _git(folder, "status", "--porcelain", "--", ".") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=5)  # noqa: S603 - fixed words
    return done.stdout.strip()
