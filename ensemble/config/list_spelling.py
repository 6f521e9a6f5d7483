"""How a list is written where one value was given for a key that takes several: controls=longer is meant as controls=[longer]."""

from __future__ import annotations

import json
import re
from typing import Any, get_args, get_origin

from ensemble.config.keys import annotated, is_section
from ensemble.config.yaml_source import KeyPath

_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")  # text that YAML reads as itself, but for the words below
_OTHERWISE = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}


def list_spelling(path: KeyPath, value: Any, typed: bool) -> str:
    """A key with the value as a list. typed: as on a command line, else as in a file."""
    key = ".".join(map(str, path))
    text = f"[{_entries(path, value)}]"
    if any(isinstance(part, int) for part in path):  # within another list, whose entries have no name on a command line
        return f"{path[-1]}: {text}"
    if not typed:
        return f"{key}: {text}"
    text = f"{key}={text.replace(', ', ',')}" if "{" not in text else f"{key}={text}"
    return f"'{text}'" if re.search(r"[\s{}'\"]", text) else text


def _entries(path: KeyPath, value: Any) -> str:
    of = [get_args(a) for a in annotated(path) if get_origin(a) is tuple]
    if isinstance(value, str) and of and not any(is_section(a) for a in annotated((*path, 0))):
        entries: list[Any] = [part.strip() for part in value.strip("()[] ").split(",") if part.strip()]
    elif value is None:
        entries = []
    elif isinstance(value, str) and any(is_section(a) for a in annotated((*path, 0))):
        return f"{{name: {_scalar(value)}, ...}}"
    else:
        entries = [value]
    length = next((len(arguments) for arguments in of if Ellipsis not in arguments), None)
    shown = [_scalar(entry) for entry in entries]
    return ", ".join(shown + ["..."] * ((length or 0) - len(shown)))


def _scalar(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_scalar(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, str) and (
        (_PLAIN.fullmatch(value) and value.lower() not in _OTHERWISE) or re.fullmatch(r"-?\d+(\.\d+)?", value)
    ):
        return value
    return json.dumps(value, default=str, ensure_ascii=False)
