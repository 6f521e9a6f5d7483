"""The compiled kernels in a cache folder that a test gives to its processes, which would compile them anew for ten seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

from ensemble.native.compiling import compiled


def put_kernels(cache: Path) -> None:
    """Copies this machine's own, where there are any and the folder has none."""
    library, folder = compiled(), cache / "kernels"
    if isinstance(library, Path) and not folder.exists():
        folder.mkdir(mode=0o700, parents=True)
        shutil.copy2(library, folder / library.name)
