"""A table for notebooks: plain HTML, which takes the notebook's own looks, light or dark. All text is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class HtmlRow:
    """One line; the first cell is its name. bold: it stands out."""

    cells: tuple[str, ...]
    bold: bool = False


def table_html(titles: Sequence[str], rows: Sequence[HtmlRow], texts: Sequence[str]) -> str:
    """Titles, rows and paragraphs below, as they come: nothing in them is markup."""
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    paragraphs = "".join(f"<p>{escape(text)}</p>" for text in texts)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, rows))}</tbody></table>{paragraphs}"


def _row(row: HtmlRow) -> str:
    mark, (first, *others) = "th" if row.bold else "td", map(escape, row.cells)
    rest = "".join(f"<{mark}>{cell}</{mark}>" for cell in others)
    return f'<tr><{mark} style="text-align: left">{first}</{mark}>{rest}</tr>'
