"""Reads YAML into plain values, remembering the line of every key.

Only scalars, lists and mappings are built: no tags, no code, no duplicate keys, and neither a huge file nor a nest of
aliases gets past the limits. Lists become tuples, as the frozen configuration wants them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ensemble.errors import ConfigError

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
KeyPath = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """SafeLoader that also reads 1e-3 as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


@dataclass
class YamlSource:
    """Values of one file and the line each key stands on."""

    values: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)


def read_yaml(path: Path) -> YamlSource:
    """The mapping in a YAML file. Raises ConfigError naming file, line and column."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path}: larger than {MAX_BYTES:,} bytes; a configuration is a small text file")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = sorted(p.name for p in path.parent.glob("*.yaml"))[:8] if path.parent.is_dir() else []
        hint = f"; in that folder: {', '.join(near)}" if near else ""
        raise ConfigError(f"{path}: no such configuration file{hint}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as text: {error}") from error
    builder = _Builder(str(path))
    values = builder.parse(text)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError(f"{path}:1: expected keys and values at the top, found {type(values).__name__}")
    return YamlSource(values, builder.lines)


def parse_value(text: str, where: str) -> Any:
    """The YAML value in one command-line override. Raises ConfigError."""
    return _Builder(where).parse(text)


class _Builder:
    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[KeyPath, int] = {}
        self._nodes = 0

    def parse(self, text: str) -> Any:
        try:
            loader = _Loader(text)
            node = loader.get_single_node()
            return None if node is None else self._build(loader, node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            place = f"{self.where}:{mark.line + 1}:{mark.column + 1}" if mark else self.where
            raise ConfigError(f"{place}: not valid YAML: {error.problem or error.context}") from error
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{self.where}: not valid YAML: {error}") from error
        except RecursionError as error:
            raise ConfigError(f"{self.where}: nested too deeply") from error

    def _build(self, loader: _Loader, node: yaml.Node, path: KeyPath) -> Any:
        self._nodes += 1
        place = f"{self.where}:{node.start_mark.line + 1}"
        if self._nodes > MAX_NODES:
            raise ConfigError(f"{place}: more than {MAX_NODES:,} values after expanding aliases")
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
            raise ConfigError(f"{place}: the tag {node.tag} is not allowed; only plain values are read")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self._build(loader, child, (*path, i)) for i, child in enumerate(node.value))
        if isinstance(node, yaml.MappingNode):
            values: dict[str, Any] = {}
            for key_node, value_node in node.value:
                key = loader.construct_object(key_node)
                line = key_node.start_mark.line + 1
                if not isinstance(key, str):
                    raise ConfigError(f"{self.where}:{line}: the key {key!r} is not text")
                if key in values:
                    raise ConfigError(f"{self.where}:{line}: the key {key!r} stands twice; keep one")
                self.lines[(*path, key)] = line
                values[key] = self._build(loader, value_node, (*path, key))
            return values
        return loader.construct_object(node)
