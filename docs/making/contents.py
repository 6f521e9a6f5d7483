"""The table of contents beside every page, from the lists of the first one, which stay plain Markdown."""

from __future__ import annotations

import re

_SECTION = re.compile(r"^## (?P<title>.+)\n(?P<body>(?:(?!^## ).*\n?)*)", re.MULTILINE)
_PAGE = re.compile(r"\[(?P<title>[^\]]+)\]\((?P<page>[\w./-]+)\.md(?:#[\w-]+)?\)")


def toctrees(text: str) -> str:
    """The text with a hidden list of pages for each of its sections, by what it links to; a page belongs to the first that names it."""
    told: set[str] = set()
    made = []
    for section in _SECTION.finditer(text):
        pages = {link["page"]: link["title"] for link in _PAGE.finditer(section["body"]) if link["page"] not in told}
        told.update(pages)
        lines = [f"{title} <{page}>" for page, title in pages.items()]
        if lines:
            made.append("\n".join(["```{toctree}", ":hidden:", f":caption: {section['title']}", "", *lines, "```"]))
    return text + "\n\n" + "\n\n".join(made) + "\n"
