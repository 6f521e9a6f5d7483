"""Every method that a configuration can name, from the registry."""

from __future__ import annotations

from docs.making.text import markdown
from ensemble.config.method import MethodSection


def page() -> str:
    """A table with a row for each, which leads to its keys."""
    rows = [
        "| `method.name` | what it is | headline vote | groups under `members` | other defaults |",
        "|---|---|---|---|---|",
    ]
    for name, method in MethodSection.registry.all().items():
        link = f"[`{name}`](../reference/configuration.md#method-{name.replace('_', '-')})"
        defaults = ", ".join(
            f"`training.{key}: {value.get('name', value) if isinstance(value, dict) else value}`"
            for key, value in method.training_defaults.items()
        )
        what, groups = markdown(method.in_short or name), "yes" if method.mixed else "no"
        rows.append(f"| {link} | {what} | {method.headline} | {groups} | {defaults} |")
    return "\n".join(rows)
