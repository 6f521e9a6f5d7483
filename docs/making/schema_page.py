"""Every key of a configuration with type, range, default and meaning, from the schema that editors get (`ensemble config --schema`).

So it holds whatever is registered: networks and methods of installed packages too, where the site is built for a group of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from docs.making.text import markdown, markdown_blocks
from ensemble.config.json_schema import json_schema
from ensemble.config.schema import Experiment

Schema = Mapping[str, Any]
_TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "object": "mapping",
}


@dataclass(frozen=True)
class Key:
    """One key. path: dotted, as it is written on a command line. anchor: where it is told, with the names of what was chosen before it.

    is_section: its keys are told in a group of their own, which has that anchor.
    """

    path: str
    anchor: str
    kind: str
    default: str
    meaning: str
    is_section: bool


@dataclass
class Group:
    """The keys of one section, or of one choice. origins: (class, key) of the schema, of all that is told here."""

    title: str
    anchor: str
    depth: int
    about: str
    keys: list[Key] = field(default_factory=list)
    origins: set[tuple[str, str]] = field(default_factory=set)


def page() -> str:
    """The whole reference as Markdown, from headings of the second rank on."""
    return "\n".join(line for group in groups() for line in _lines(group))


def groups() -> list[Group]:
    """All sections, in the order of the schema."""
    return _Walk(json_schema()).groups


def _lines(group: Group) -> Iterator[str]:
    yield f"({group.anchor})="
    yield f"{'#' * min(2 + group.depth, 5)} {group.title}\n"
    if group.about:
        yield f"{group.about}\n"
    for key in group.keys:
        facts = [key.kind, *([f"default {key.default}"] if key.default else [])]
        place = f"(#{key.anchor})" if key.is_section else f"{{#{key.anchor}}}"
        yield f"[`{key.path}`]{place}\n: _{', '.join(facts)}_\\"
        yield f"  {key.meaning}\n"


class _Walk:
    """Goes through the schema once; a class that lies at several places is told at the first."""

    def __init__(self, schema: Schema) -> None:
        self._classes: Schema = schema["$defs"]
        self._homes: dict[str, str] = {}  # class -> anchor
        self.groups: list[Group] = []
        self._section("", "", {**schema, "title": "Experiment"}, "Experiment", Experiment.__doc__ or "")

    def _section(self, path: str, anchor: str, section: Schema, name: str, about: str) -> None:
        """A class of keys, and below it the classes that its keys hold."""
        title = f"`{path}`" if path else "The experiment"
        group = Group(title, anchor or "the-experiment", path.count("."), markdown_blocks(about))
        self.groups.append(group)
        self._keys(group, path, anchor, section, name, ())

    def _keys(self, group: Group, path: str, prefix: str, section: Schema, name: str, told: tuple[str, ...]) -> None:
        below: list[tuple[str, str, Schema]] = []
        for key, facts in section["properties"].items():
            group.origins.add((name, key))
            if key in told:
                continue
            whole, anchor = (f"{path}.{key}" if path else key), _anchor(f"{prefix}-{key}" if prefix else key)
            inner = self._held(facts)
            if inner:
                below.append((whole, anchor, facts))
                anchor = self._homes.get(inner[0], anchor)
            needed = ", needed" if key in section.get("required", ()) else ""
            default = _value(facts.get("default"), bool(inner))
            words = self._words(facts, anchor)
            group.keys.append(Key(whole, anchor, words + needed, default, self._meaning(facts, inner), bool(inner)))
        for whole, anchor, facts in below:
            self._below(whole, anchor, facts)

    def _below(self, path: str, anchor: str, facts: Schema) -> None:
        for tag, choices in _choices(facts):
            new = {chosen: name for chosen, name in choices.items() if name not in self._homes}
            if new:
                self._choices(path, anchor, tag, new, self._meaning(facts, []))
        for name in self._held(facts):
            if name not in self._homes:
                self._homes[name] = anchor
                self._section(path, anchor, self._classes[name], name, self._classes[name].get("description", ""))

    def _choices(self, path: str, anchor: str, tag: str, choices: Mapping[str, str], about: str) -> None:
        """A section that is chosen by a name: what all choices take, then each with what it has besides."""
        by_class: dict[str, list[str]] = {}
        for chosen, name in choices.items():
            by_class.setdefault(name, []).append(chosen)
        self._homes.update(dict.fromkeys(by_class, anchor))
        sections = [self._classes[name] for name in by_class]
        places = {chosen: _anchor(f"{anchor}-{by_class[name][0]}") for chosen, name in choices.items()}
        links = ", ".join(f"[`{chosen}`](#{place})" for chosen, place in places.items())
        group = Group(f"`{path}`", anchor, path.count("."), f"{about}\n\n`{path}.{tag}` is one of {links}.".strip())
        self.groups.append(group)
        first = sections[0]["properties"]
        common = {
            key: facts for key, facts in first.items()
            if key != tag and len(sections) > 1 and all(section["properties"].get(key) == facts for section in sections)
        }  # fmt: skip
        if common:
            group.about += "\n\nAll of them take:"
            self._keys(group, path, anchor, {"properties": common}, next(iter(by_class)), ())
        for name, names in by_class.items():
            section = self._classes[name]
            title = ", ".join(f"`{chosen}`" for chosen in names)
            one = Group(title, places[names[0]], path.count(".") + 1, markdown_blocks(section.get("description", "")))
            self.groups.append(one)
            self._keys(one, path, places[names[0]], section, name, (tag, *common))

    def _held(self, facts: Schema) -> list[str]:
        """The classes of keys that a value may hold."""
        return [name for name in dict.fromkeys(_references(facts)) if "properties" in self._classes[name]]

    def _meaning(self, facts: Schema, inner: list[str]) -> str:
        """What a key is for: its own words, or for a section those of its class."""
        if "description" in facts:
            return markdown(facts["description"])
        return markdown(self._classes[inner[0]].get("description", "").split("\n\n")[0]) if len(inner) == 1 else ""

    def _words(self, facts: Schema, anchor: str) -> str:
        """The type and the range of a value. anchor: of the section that it may be."""
        if "$ref" in facts:
            section = self._classes[facts["$ref"].rpartition("/")[2]]
            return f"[section](#{anchor})" if "properties" in section else self._words(section, anchor)
        if "discriminator" in facts:
            return f"[section](#{anchor}) chosen by `{facts['discriminator']['propertyName']}`"
        if several := facts.get("anyOf") or facts.get("oneOf") or facts.get("allOf"):
            words = (self._words(one, anchor) for one in several if one.get("type") != "null")
            return " or ".join(dict.fromkeys(words))
        if "enum" in facts or "const" in facts:
            return _listed([f"`{_plain(value)}`" for value in facts.get("enum", [facts.get("const")])])
        if facts.get("type") == "array":
            return self._list(facts, anchor)
        if facts.get("type") == "object" and isinstance(facts.get("additionalProperties"), Mapping):
            return f"mapping of names to: {self._words(facts['additionalProperties'], anchor)}"
        return f"{_TYPES.get(facts.get('type', ''), 'any value')}{_range(facts)}"

    def _list(self, facts: Schema, anchor: str) -> str:
        if "prefixItems" in facts:
            inner = [self._words(one, anchor) for one in facts["prefixItems"]]
            return f"list of {len(inner)}: {inner[0] if len(set(inner)) == 1 else ', '.join(inner)}"
        some = " with at least one entry" if facts.get("minItems") == 1 else ""
        return f"list{some} of: {self._words(facts.get('items', {}), anchor)}"


def _references(facts: Any) -> Iterator[str]:
    """The names of all classes that a piece of schema speaks of."""
    if isinstance(facts, Mapping):
        if "$ref" in facts:
            yield facts["$ref"].rpartition("/")[2]
        for key, inner in facts.items():
            if key not in ("discriminator", "default", "description"):
                yield from _references(inner)
    elif isinstance(facts, list):
        for inner in facts:
            yield from _references(inner)


def _choices(facts: Any) -> Iterator[tuple[str, dict[str, str]]]:
    """The key by which one of several classes is chosen, and the class of each of its values."""
    if isinstance(facts, Mapping):
        if isinstance(facts.get("discriminator"), Mapping):
            chosen = facts["discriminator"]
            yield chosen["propertyName"], {tag: name.rpartition("/")[2] for tag, name in chosen["mapping"].items()}
        else:
            for key, inner in facts.items():
                if key != "default":
                    yield from _choices(inner)
    elif isinstance(facts, list):
        for inner in facts:
            yield from _choices(inner)


def _range(facts: Schema) -> str:
    low, high = facts.get("minimum"), facts.get("maximum")
    if low is not None and high is not None:
        found = [f"from {_number(low)} to {_number(high)}"]
    else:
        found = [f"at least {_number(low)}"] if low is not None else []
        found += [f"above {_number(facts['exclusiveMinimum'])}"] if "exclusiveMinimum" in facts else []
        found += [f"below {_number(facts['exclusiveMaximum'])}"] if "exclusiveMaximum" in facts else []
        found += [f"at most {_number(high)}"] if high is not None else []
    found += [f"of at most {facts['maxLength']:,} characters"] if "maxLength" in facts else []
    found += [f"that fits `{facts['pattern']}`"] if "pattern" in facts else []
    return f" {', '.join(found)}" if found else ""


def _number(value: float) -> str:
    return (
        f"2^{value.bit_length() - 1}"
        if isinstance(value, int) and value > 10**9 and value & (value - 1) == 0
        else f"{value:,}"
    )


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _value(value: Any, is_section: bool) -> str:
    """A default; of a section only the name by which it is chosen, since the others are those of its keys."""
    if is_section:
        value = value["name"] if isinstance(value, dict) and set(value) == {"name"} else None
    return "" if value is None else f"`{_plain(value)}`"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _anchor(path: str) -> str:
    return path.replace(".", "-").replace("_", "-").replace(" ", "-")
