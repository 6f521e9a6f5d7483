"""A package as pip would have installed it, for processes that a test starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest


def install(
    folder: Path, module: str, text: str, group: str, points: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package of one module, found by processes that are started from now on.

    points: its entry points in the group, such as "name = module:Class".
    """
    information = folder / "site" / "a_package-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "site" / f"{module}.py").write_text(text)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: a-package\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{group}]\n" + "\n".join(points) + "\n")
    monkeypatch.setenv("PYTHONPATH", str(folder / "site"))
