"""The parts of the documentation that are made from the program when the site is built, so that they cannot grow old.

    python -m docs.making configuration      prints a part as Markdown

A page has them where it says `<!-- made: configuration -->` on a line of its own (`docs/conf.py` fills them in). The pages stay
readable without them, and nothing that is made is kept in the repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from docs.making import command_page, example_page, log_index, method_page, python_page, schema_page
from docs.making.links import ROOT

MADE: dict[str, Callable[[], str]] = {
    "configuration": schema_page.page,
    "commands": command_page.page,
    "exit codes": command_page.exit_codes,
    "methods": method_page.page,
    "python": python_page.page,
    "errors": python_page.errors_page,
    "examples": example_page.page,
    "log index": lambda: log_index.index((ROOT / "docs" / "log.md").read_text()),
}
_MARK = re.compile(r"^.*<!-- made: (?P<name>[^>]+?) -->$", re.MULTILINE)


def fill(text: str) -> str:
    """The text of a page with all its marks filled in. A line with a mark is replaced whole.

    Raises KeyError for a mark that names nothing.
    """
    return _MARK.sub(lambda mark: made(mark["name"]), text)


def made(name: str) -> str:
    """One part as Markdown; `file README.md` is a file of the repository as it is."""
    if name.startswith("file "):
        return Path(ROOT, name.removeprefix("file ")).read_text()
    return MADE[name]()
