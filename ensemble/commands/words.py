"""What all commands share in taking words in and putting text out: paths of people, and text that a terminal shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from ensemble.outside import json_lines
from ensemble.outside.names import visible
from ensemble.outside.paths import given_path


class GivenPath(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    """A path, with `~` for the home folder: a shell does not replace it in --out=~/page.html."""

    name = "path"

    def __init__(self, file: bool = True) -> None:
        """file: refuses a folder that is there."""
        self._file = file

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Path:
        """Raises ConfigError for a path that cannot be meant."""
        path = given_path(value, f"{param.opts[-1] if param is not None else 'path'}")
        if self._file and path.is_dir():
            self.fail(f"{os.fspath(path)} is a folder; expected the name of a file", param, context)
        return path


def say(text: object = "", err: bool = False, nl: bool = True) -> None:
    """Print a line to stdout or stderr, with control characters from names and values shown as escapes.

    On stderr it is a JSON object where lines are (`json_lines`).
    """
    if err and json_lines.active():
        json_lines.tell(str(text))
        return
    click.echo(visible(str(text)), err=err, nl=nl)
