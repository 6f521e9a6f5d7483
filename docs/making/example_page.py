"""The scripts of examples/, each by what its docstring says and by its own text."""

from __future__ import annotations

import ast

from docs.making.links import ROOT
from docs.making.text import markdown_blocks


def page() -> str:
    """A heading, the docstring and the file itself for every script."""
    made = []
    for path in sorted((ROOT / "examples").rglob("*")):
        if path.suffix not in (".py", ".yaml"):
            continue
        name = path.relative_to(ROOT / "examples").as_posix()
        made.append(f"## {name}\n")
        if path.suffix == ".py":
            made.append(f"{markdown_blocks(ast.get_docstring(ast.parse(path.read_text())) or '')}\n")
        made.append(
            f"```{{literalinclude}} ../examples/{name}\n:language: {path.suffix[1:].replace('py', 'python')}\n```\n".replace(
                "yaml" * 2, "yaml"
            )
        )
    return "\n".join(made)
