"""Commands called in this process."""

from __future__ import annotations

from click.testing import CliRunner, Result

from ensemble.commands.main import main


def call(*words: str) -> Result:
    """One command, as a person types it."""
    return CliRunner().invoke(main, list(words))


def said(result: Result) -> str:
    """All that it said."""
    return result.output + result.stderr
