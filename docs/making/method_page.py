"""Every method that a configuration can name, from the registry."""

from __future__ import annotations

import inspect

from docs.making.text import markdown, markdown_blocks
from ensemble.config.method import MethodSection


def page() -> str:
    """A table of all, then what each says of itself."""
    rows = ["| `method.name` | what it is | headline vote | groups under `members` |", "|---|---|---|---|"]
    about = []
    for name, method in MethodSection.registry.all().items():
        rows.append(
            f"| [`{name}`](../reference/configuration.md#method-{name.replace('_', '-')}) | {markdown(method.in_short or name)} | {method.headline} | {'yes' if method.mixed else 'no'} |"
        )
        about.append(f"## {name}\n\n{markdown_blocks(inspect.getdoc(method) or '')}")
        if method.training_defaults:
            defaults = ", ".join(f"`training.{key}: {value}`" for key, value in method.training_defaults.items())
            about.append(f"Without another value: {defaults}.")
    return "\n".join(rows) + "\n\n" + "\n\n".join(about)
