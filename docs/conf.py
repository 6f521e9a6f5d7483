"""The site of the documentation: `make docs`, then open build/docs/index.html. Pages are plain Markdown."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ensemble
from docs.making import fill, log_index
from docs.making.contents import toctrees
from docs.making.links import PAGES, ROOT, settle
from docs.making.python_page import named_by
from docs.making.text import rst_lines

project = "Ensemble trainer"
version = release = ensemble.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["attrs_inline", "deflist"]
myst_heading_anchors = 4
exclude_patterns = ["making"]
highlight_language = "none"
smartquotes = False  # -- stands before options
nitpicky = True  # a name or an anchor that leads nowhere is an error
# Other packages' pages are not here; sections of a configuration and what lies behind a run are no part of the Python entrance, and
# type variables have no place of their own.
nitpick_ignore_regex = [
    ("py:.*", r"(?!ensemble\.).*"),
    ("py:class", r"ensemble\.((config|inference|registry)\..*|.*\.(_Class|Found))"),
]
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autoclass_content = "both"
html_theme = "furo"
html_title = f"Ensemble trainer {version}"
html_copy_source = False


def _fill(app: Any, page: str, source: list[str]) -> None:
    """What is made, the log's index, and links that hold on the site, put into the text of a page before it is read."""
    shown = Path(app.srcdir, f"{page}.md")
    written = next((ROOT / name for name, target in PAGES.items() if target == f"{page}.md"), shown)
    text = log_index.with_index(source[0]) if page == "log" else source[0]
    text = settle(fill(text), written, shown)
    source[0] = toctrees(text) if page == "index" else text


def _docstring(_app: Any, what: str, _name: str, one: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = rst_lines(lines, named_by(one) if what in ("class", "exception", "function", "method") else ())


def _left_out(_app: Any, _what: str, name: str, _one: Any, skip: bool, _options: Any) -> bool:
    """scikit-learn gives every estimator methods such as set_score_request, which its own pages explain."""
    return skip or re.fullmatch(r"set_\w+_request", name) is not None


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _fill)
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-skip-member", _left_out)
