"""The configurations that come with the package, by name: `ensemble train quickstart` works from any folder.

find_configuration(Path("quickstart"))    # the package's own, unless a file of that name is here
shipped()["seeds/lenet5"].about           # what its first comment says
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

FOLDER = (
    Path(__file__).parents[1] / "configs"
)  # a link to configs/ in the repository, its files in an installed package


@dataclass(frozen=True)
class Shipped:
    """One configuration. use: the command that takes it; about: what its first comment says of it."""

    name: str
    path: Path
    use: str
    about: str

    @property
    def text(self) -> str:
        """The whole file."""
        return self.path.read_text("utf-8")


def shipped() -> dict[str, Shipped]:
    """All of them by name, which is the path below the folder without its suffix; those at the top come first."""
    found = {path.relative_to(FOLDER).with_suffix("").as_posix(): path for path in FOLDER.glob("**/*.yaml")}
    return {name: _described(name, found[name]) for name in sorted(found, key=lambda name: (name.count("/"), name))}


@cache
def _described(name: str, path: Path) -> Shipped:
    """Its first comment line is the command, the lines that follow say what it is."""
    comments: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        comments.append(line.removeprefix("#").strip())
    command, *about = comments
    meant = name if command.startswith("ensemble ") else str(path)
    return Shipped(name, path, command.replace(f"configs/{name}.yaml", meant), " ".join(about))


def find_configuration(given: Path) -> Path:
    """The file that is meant by a path or by the name of a shipped configuration; a file that is here comes first.

    What is neither is returned as it is, so that whoever reads it says what is missing.
    """
    if os.path.isfile(given):  # noqa: PTH113  # Path.is_file raises for a name that is too long
        return given
    if given.suffix in (".yaml", ".yml") or ".." in given.parts or given.is_absolute() or not given.name:
        return given
    path = FOLDER / given.with_name(f"{given.name}.yaml")
    return path if os.path.isfile(path) else given  # noqa: PTH113
