"""Links of pages that lie elsewhere on the site than in the repository, and links to what is no page."""

from __future__ import annotations

import os
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Files of the repository that are pages of the site too.
PAGES = {"README.md": "overview.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
_FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]\n]*)\]\((?P<target>[^)\s]+)\)")
_ELSEWHERE = re.compile(r"[a-z]+:|#")


def settle(text: str, written: Path, page: Path) -> str:
    """The text of a file with links that hold on its page.

    written: the file whose text it is. page: the file under docs/ that shows it. Links to files that are pages under another name lead
    there; folders, which a site does not have, become their names. Whatever is not there stays as it is, so that the build says so.
    """
    parts = _FENCE.split(text)
    return "".join(
        part if i % 2 else _LINK.sub(lambda link: _settled(link, written, page), part) for i, part in enumerate(parts)
    )


def _settled(link: re.Match[str], written: Path, page: Path) -> str:
    target, hash_sign, anchor = link["target"].partition("#")
    if _ELSEWHERE.match(link["target"]):
        return link[0]
    found = (written.parent / target).resolve()
    if found.is_dir():
        return f"{link['text']} (`{found.relative_to(ROOT)}/`)"
    if found.parent == ROOT and found.name in PAGES:
        found = ROOT / "docs" / PAGES[found.name]
    return f"{link['image']}[{link['text']}]({os.path.relpath(found, page.parent)}{hash_sign}{anchor})"
