"""What the log of measurements holds, newest first, as links."""

from __future__ import annotations

import re

_ENTRY = re.compile(r"^## (?P<day>\d{4}-\d\d-\d\d):? (?P<title>.+)$", re.MULTILINE)


def index(log: str) -> str:
    """A list of days, each with the titles of its entries."""
    days: dict[str, list[str]] = {}
    for entry in _ENTRY.finditer(log):
        days.setdefault(entry["day"], []).append(f"- [{entry['title']}](#{anchor(entry[0].removeprefix('## '))})")
    return "\n\n".join(
        f"**{day}**\n\n" + "\n".join(reversed(titles)) for day, titles in sorted(days.items(), reverse=True)
    )


def with_index(log: str) -> str:
    """The log with its index before the first entry."""
    first = _ENTRY.search(log)
    return log if first is None else f"{log[: first.start()]}{index(log)}\n\n{log[first.start() :]}"


def anchor(title: str) -> str:
    """A heading's anchor, as code hosts and the generator make it."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
