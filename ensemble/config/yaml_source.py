"""Reads YAML into plain values, remembering the line of every key.

Only scalars, lists and mappings are built: no tags, no code, no duplicate keys, and neither a huge file nor a nest of
aliases gets past the limits. Lists become tuples, as the frozen configuration wants them.

Words mean what a reader takes them for, as in YAML 1.2: 010 is ten, 12:30:00 and yes are text, and only null, true and
false are those. Where the schema wants text, a value is the text that was written (`name: 2024`), never something that
YAML makes of it.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from ensemble.errors import ConfigError
from ensemble.outside.paths import read_regular_file

MAX_BYTES = 1_000_000
MAX_NODES = 20_000
MAX_DIGITS = 400
KeyPath = tuple[str | int, ...]
COMMAND_LINE = "command line"  # the place of a value that was given there
# How the value of a key is read: by YAML's rules, or as the text that stands there; null is null for both.
Kind = Literal["yaml", "text"]
KindOf = Callable[[KeyPath], Kind]

_UNTAGGED = "untagged"
_NULLS = ("null", "Null", "NULL")
_TRUTHS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE = re.compile(r"[-+]?[0-9]+", re.ASCII)
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_UNWANTED_TOKENS = (
    yaml.AliasToken, yaml.AnchorToken, yaml.TagToken, yaml.DirectiveToken, yaml.DocumentStartToken, yaml.DocumentEndToken,
)  # fmt: skip


def _by_yaml(_path: KeyPath) -> Kind:
    return "yaml"


class _Loader(yaml.SafeLoader):
    """SafeLoader that leaves plain words as they stand; `_plain` says what they mean."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as yaml declares it
    # A tag that somebody wrote differs from these; yaml declares them final, and reads them from the class.
    DEFAULT_SCALAR_TAG = DEFAULT_SEQUENCE_TAG = DEFAULT_MAPPING_TAG = _UNTAGGED  # type: ignore[misc]


@dataclass
class YamlSource:
    """Values of one file and the line each key stands on."""

    values: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)


def read_yaml(path: Path, kind_of: KindOf = _by_yaml) -> YamlSource:
    """The mapping in a YAML file. kind_of: how the value of each key is read.

    Raises ConfigError naming file, line and column.
    """
    builder = _Builder(str(path), kind_of)
    values = builder.parse(_text_of(path))
    if values is None:
        values = {}
    if not isinstance(values, dict):
        found = "a list" if isinstance(values, tuple) else f"the value {values!r}"
        raise ConfigError(f"{path}:1: expected keys and values at the top, such as `num_members: 5`, found {found}")
    return YamlSource(values, builder.lines)


def _text_of(path: Path) -> str:
    try:
        return read_regular_file(path, MAX_BYTES).decode("utf-8")
    except FileNotFoundError as error:
        near = sorted(p.name for p in path.parent.glob("*.yaml"))[:8] if path.parent.is_dir() else []
        hint = f"; in that folder: {', '.join(near)}" if near else ""
        raise ConfigError(
            f"{path}: no such configuration file{hint}; `ensemble configs` lists those that come with the package"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not UTF-8 text (byte {error.start + 1}); save it as UTF-8, or give the configuration file that you mean"
        ) from error
    except OSError as error:
        too_large = "; a configuration is a small text file" if error.errno == errno.EFBIG else ""
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}{too_large}") from error


def parse_value(text: str, where: str, kind: Kind = "yaml", kind_of: KindOf = _by_yaml) -> Any:
    """The value in one command-line override: of a text key its text as it is, of others what YAML reads.

    kind_of: how values inside it are read, by their paths in it. Raises ConfigError, also where YAML would read only a
    part, as before a `#`.
    """
    if not text.strip():
        raise ConfigError(f"{where}: no value; write null for none, or leave the key out")
    if kind != "yaml":
        quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
        if quoted or not text.isprintable():
            what = "quotes, which would be part of it" if quoted else "a character that cannot be printed"
            raise ConfigError(f"{where}: the text of this key is taken as it is, and found with {what}; leave that out")
        return None if text in _NULLS else text
    _refuse_partly_read(text, where)
    return _Builder(where, kind_of).parse(text)


def _refuse_partly_read(text: str, where: str) -> None:
    """Raises ConfigError where YAML leaves out some of the text: a comment, a name for later, a mark of type."""
    position = 0
    try:
        for token in yaml.scan(text, Loader=_Loader):
            gap = text[position : token.start_mark.index]
            block = isinstance(token, yaml.ScalarToken) and token.style in ("|", ">")
            if block or "#" in gap or isinstance(token, _UNWANTED_TOKENS):
                raise ConfigError(
                    f"{where}: YAML reads only a part of this value; put it in quotes, or leave {_odd(text)} out"
                )
            position = max(position, token.end_mark.index)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError):
        return  # whoever parses it says what is wrong


def _odd(text: str) -> str:
    return next((sign for sign in "#&*!|>%" if sign in text), "the marks")


class _Builder:
    def __init__(self, where: str, kind_of: KindOf) -> None:
        self.where = where
        self.lines: dict[KeyPath, int] = {}
        self._kind_of = kind_of
        self._nodes = 0

    def parse(self, text: str) -> Any:
        try:
            node = _Loader(text).get_single_node()
            return None if node is None else self._build(node, ())
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            place = f"{self.where}:{mark.line + 1}:{mark.column + 1}" if mark else self.where
            raise ConfigError(f"{place}: not valid YAML: {error.problem or error.context}; correct it there") from error
        except yaml.reader.ReaderError as error:
            raise ConfigError(
                f"{self.where}: a character that no YAML has (code {error.character!r}, place {error.position + 1}); remove it"
            ) from error
        except (yaml.YAMLError, ValueError, OverflowError) as error:  # such as an escape beyond all characters
            raise ConfigError(f"{self.where}: not valid YAML: {error}; correct it") from error
        except RecursionError as error:
            raise ConfigError(
                f"{self.where}: lists or sections nested too deeply; write the values out with fewer levels"
            ) from error

    def _build(self, node: yaml.Node, path: KeyPath) -> Any:
        self._nodes += 1
        place = f"{self.where}:{node.start_mark.line + 1}"
        if self._nodes > MAX_NODES:
            raise ConfigError(
                f"{place}: more than {MAX_NODES:,} values after expanding aliases (*NAME); use fewer, or write the values out"
            )
        if node.tag != _UNTAGGED:
            raise ConfigError(f"{place}: the tag {node.tag} is not allowed; only plain values are read")
        self.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.SequenceNode):
            return tuple(self._build(child, (*path, i)) for i, child in enumerate(node.value))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        assert isinstance(node, yaml.ScalarNode)
        if node.style is not None:  # in quotes, or a block
            if any("\ud800" <= sign <= "\udfff" for sign in node.value):
                raise ConfigError(
                    f"{place}: half of a character (an escape from \\ud800 to \\udfff); write the whole one"
                )
            return str(node.value)
        if node.value == "":
            named = (
                f"the key {path[-1]!r} has no value"
                if path and isinstance(path[-1], str)
                else "an entry without a value"
            )
            raise ConfigError(f"{place}: {named}; write one, or null, or leave it out")
        return _plain(node.value, self._kind_of(path), place)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            if not isinstance(key, str) or key_node.tag != _UNTAGGED:
                raise ConfigError(f"{self.where}:{line}: a key that is a list, a section or a tag; expected a word")
            if key == "<<":
                raise ConfigError(
                    f"{self.where}:{line}: merging by << is not supported; write the keys out (groups under members take over the common training keys by themselves)"
                )
            if key in values:
                raise ConfigError(f"{self.where}:{line}: the key {key!r} stands twice; keep one")
            self.lines[(*path, key)] = line
            values[key] = self._build(value_node, (*path, key))
        return values


def _plain(text: str, kind: Kind, place: str) -> Any:
    """What a word without quotes means."""
    if text == "~":
        raise ConfigError(
            f'{place}: ~ means nothing to YAML and the home folder to a shell; write null, or "~" in quotes'
        )
    if text in _NULLS:
        return None
    if kind == "text":
        return text
    if text in _TRUTHS:
        return _TRUTHS[text]
    if len(text) > MAX_DIGITS and _REAL.fullmatch(text):
        raise ConfigError(f"{place}: a number of {len(text):,} signs; expected at most {MAX_DIGITS}")
    if _WHOLE.fullmatch(text):
        return int(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return float(text) if _REAL.fullmatch(text) else text
