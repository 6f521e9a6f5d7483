"""What a submission and the cluster that takes it run: the program, Python and the libraries below it.

facts = here()              # where the job is submitted; travels with it as $ENSEMBLE_SUBMITTED_FROM
lines = differences(facts)  # in the job, before it trains
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import ensemble

VARIABLE = "ENSEMBLE_SUBMITTED_FROM"
_LIBRARIES = ("ray", "torch", "torchvision", "numpy")
_PACKAGE = Path(ensemble.__file__).parent


def here() -> dict[str, str]:
    """Versions of this process's program, Python and libraries; of the program also the digest of its source files."""
    found = {"ensemble": f"{ensemble.__version__} (sources {source_digest()})", "Python": platform.python_version()}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@cache
def source_digest() -> str:
    """Twelve digits of the SHA-256 of the program's Python files."""
    digest = hashlib.sha256()
    for path in sorted(_PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def differences(submitted: Mapping[str, str], found: Mapping[str, str] | None = None) -> list[str]:
    """Sentences about what is another version in this process than where the job was submitted."""
    found = here() if found is None else found
    other = [name for name in submitted if name in found and submitted[name] != found[name]]
    lines = []
    if "ensemble" in other:
        lines.append(
            f"the program on the cluster is ensemble {found['ensemble']}, not {submitted['ensemble']} from which the job was submitted; what is installed on the cluster trains. `ensemble submit --install` sends the other"
        )
    if rest := [f"{name} {found[name]} (there {submitted[name]})" for name in other if name != "ensemble"]:
        lines.append(
            f"the cluster has other versions than the machine that submitted the job: {', '.join(rest)}; last digits of results may differ"
        )
    return lines


def submitted_from() -> dict[str, str]:
    """What the submission said of itself; nothing where this job was not submitted by `ensemble submit`."""
    try:
        said = json.loads(os.environ.get(VARIABLE, "{}"))
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in said.items()} if isinstance(said, dict) else {}
