"""Commands called in this process."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from ensemble.commands.main import main


def call(*words: str) -> Result:
    """One command, as a person types it."""
    return CliRunner().invoke(main, list(words))


def said(result: Result) -> str:
    """All that it said."""
    return result.output + result.stderr


def train_in(home: Path, config: dict[str, Any]) -> Path:
    """Train a configuration, kept as NAME.yaml, in a folder as the working directory; returns that folder."""
    (home / f"{config['name']}.yaml").write_text(json.dumps(config))
    here = Path.cwd()
    os.chdir(home)
    try:
        result = call("train", f"{config['name']}.yaml", "-q")
        assert result.exit_code == 0, said(result)
    finally:
        os.chdir(here)
    return home
