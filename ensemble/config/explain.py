"""Turns pydantic's findings into lines a person can act on: file:line, key, value, expectation, nearest name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ensemble.config.schema import Experiment
from ensemble.config.yaml_source import KeyPath

# Names people bring from other tools, which no edit distance would find.
_OTHER_NAMES = {
    "learning_rate": "lr",
    "optimiser": "optimizer",
    "num_epochs": "epochs",
    "n_estimators": "num_members",
    "ensemble_size": "num_members",
    "dataset": "data",
    "num_workers": "slots",
    "batch": "batch_size",
    "voting": "aggregator",
    "scheduler": "schedule",
    "clip": "gradient_clip_norm",
    "augment": "augmentation",
}


def explain(error: ValidationError, where: str, places: dict[KeyPath, str]) -> str:
    """All findings, one line each, in the order of the file."""
    lines = [_line(details, where, places) for details in error.errors(include_url=False)]
    unique = list(dict.fromkeys(lines))
    head = f"{where}: {len(unique)} mistake{'s' if len(unique) > 1 else ''} in the configuration"
    return "\n".join([head, *(f"  {line}" for line in unique)])


def _line(details: ErrorDetails, where: str, places: dict[KeyPath, str]) -> str:
    path = _without_tags(details["loc"])
    place = next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), where)
    key = ".".join(map(str, path)) or "configuration"
    kind, context, value = details["type"], details.get("ctx", {}), details.get("input")
    if kind == "extra_forbidden":
        return f"{place}: {key}: unknown key{_nearest_key(path)}"
    if kind == "missing":
        return f"{place}: {key}: missing, and it has no default"
    if kind in ("literal_error", "union_tag_invalid"):
        choices = _choices(context)
        return f"{place}: {key}{'.name' if kind == 'union_tag_invalid' else ''} = {_tag_or(value)!r}: expected one of {', '.join(choices)}{_nearest(str(_tag_or(value)), choices)}"
    if kind in ("union_tag_not_found", "model_type", "model_attributes_type", "dict_type"):
        if isinstance(value, str):
            return (
                f"{place}: {key} = {value!r}: expected a section of keys; write {key}.name or {key}: {{name: {value}}}"
            )
        return f"{place}: {key}: expected a section of keys{' with a name' if kind == 'union_tag_not_found' else ''}"
    message = details["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if kind == "value_error":
        return f"{place}: {key}: {message}"
    return f"{place}: {key} = {value!r}: expected {message}"


def _tag_or(value: Any) -> Any:
    return value.get("name") if isinstance(value, dict) else value


def _choices(context: dict[str, Any]) -> list[str]:
    text = str(context.get("expected_tags", context.get("expected", "")))
    return [word.strip().strip("'") for word in text.replace(" or ", ", ").split(",") if word.strip()]


def _nearest(word: str, choices: list[str]) -> str:
    found = difflib.get_close_matches(word, choices, n=1, cutoff=0.5)
    return f"; did you mean {found[0]}?" if found else ""


def _nearest_key(path: KeyPath) -> str:
    """Compared first with the keys beside it, then with every key there is."""
    parent, name = tuple(part for part in path[:-1] if isinstance(part, str)), str(path[-1])
    known = sorted({".".join(key) for key in _all_keys(Experiment)})
    siblings = [key for key in known if tuple(key.split(".")[:-1]) == parent]
    name = _OTHER_NAMES.get(name, name)
    found = difflib.get_close_matches(".".join((*parent, name)), siblings, n=1, cutoff=0.75)
    if not found:
        same_leaf = [key for key in known if key.rsplit(".", 1)[-1] == name]
        found = same_leaf[:1] or difflib.get_close_matches(".".join((*parent, name)), known, n=1, cutoff=0.6)
    if found:
        return f"; did you mean {found[0]}?"
    return f"; known here: {', '.join(key.rsplit('.', 1)[-1] for key in siblings)}" if siblings else ""


def _all_keys(model: type[BaseModel], prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, info in model.model_fields.items():
        yield (*prefix, name)
        for inner in _sections(info.annotation):
            yield from _all_keys(inner, (*prefix, name))


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (typing.Union, types.UnionType, tuple, typing.Annotated):
        for argument in get_args(annotation):
            yield from _sections(argument)


def _tags() -> frozenset[str]:
    """The names by which sections are chosen; pydantic puts them into paths, a YAML file does not."""

    def names(model: type[BaseModel]) -> Iterator[str]:
        for name, info in model.model_fields.items():
            if name == "name" and get_origin(info.annotation) is Literal:
                yield from get_args(info.annotation)
            for inner in _sections(info.annotation):
                yield from names(inner)

    return frozenset(names(Experiment))


def _without_tags(location: tuple[str | int, ...]) -> KeyPath:
    tags = _tags()
    # A tag follows the key of its section (model, cnn, widths); no section and no key shares a name with a tag.
    return tuple(part for i, part in enumerate(location) if not (i and part in tags))
