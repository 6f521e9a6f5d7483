"""What the schema says about a key by its path: which sections it may lie in, and whether it holds text."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from ensemble.config.base import Part
from ensemble.config.schema import Experiment
from ensemble.config.tracker import TrackingConfig
from ensemble.config.yaml_source import KeyPath, Kind


def alternatives(annotation: Any) -> list[Any]:
    """The members of a union, one level deep, without what only annotates them."""
    if get_origin(annotation) is typing.Annotated:
        return alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return [inner for argument in get_args(annotation) for inner in alternatives(argument)]
    if isinstance(annotation, type) and issubclass(annotation, Part) and annotation.stands_for_all():
        return list(annotation.choices())
    if annotation is TrackingConfig:
        return [TrackingConfig.of_all()]
    return [annotation]


def is_section(annotation: Any) -> bool:
    """True for a class of keys."""
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def annotated(path: KeyPath) -> list[Any]:
    """All that a value at this path may be; empty for a path that no configuration has."""
    found: list[Any] = [Experiment]
    for part in path:
        if isinstance(part, int):
            lists = [annotation for annotation in found if get_origin(annotation) is tuple]
            inner = [a for of in lists for a in get_args(of) if a is not Ellipsis]
        else:
            inner = [a.model_fields[part].annotation for a in found if is_section(a) and part in a.model_fields]
        found = [alternative for annotation in inner for alternative in alternatives(annotation)]
    return found


def kind_of(path: KeyPath) -> Kind:
    """How the value at this path is read."""
    return _kind_of(path, Part.registered)


@functools.lru_cache(maxsize=4096)
def _kind_of(path: KeyPath, _registered: int) -> Kind:
    if len(path) > 2 and path[:2] == ("sweep", "axes"):  # its keys are dotted, its values lists of theirs
        path = (*dotted(str(path[2])), *path[4:])
    found = annotated(path)
    texts = [
        a for a in found if a is str or (get_origin(a) is Literal and all(isinstance(v, str) for v in get_args(a)))
    ]
    return "text" if texts and all(a in texts or a is type(None) for a in found) else "yaml"


def named_in_full(value: Any, path: KeyPath = ()) -> Any:
    """A configuration's values with every section that is given by its name alone, such as `model: cnn`, as one with that name."""
    if isinstance(value, dict):
        return {key: named_in_full(inner, (*path, key)) for key, inner in value.items()}
    if isinstance(value, tuple):
        return tuple(named_in_full(inner, (*path, number)) for number, inner in enumerate(value))
    return {"name": value} if isinstance(value, str) and _is_chosen_by_name(path, Part.registered) else value


@functools.lru_cache(maxsize=4096)
def _is_chosen_by_name(path: KeyPath, _registered: int) -> bool:
    return any(is_section(a) and issubclass(a, Part) and a.names() for a in annotated(path) if path)


def dotted(key: str) -> KeyPath:
    """The path of a dotted key; entries of lists by their numbers."""
    return tuple(int(part) if part.isascii() and part.isdigit() else part for part in key.split("."))


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    """The classes of keys in an annotation, also those inside lists."""
    for alternative in alternatives(annotation):
        if is_section(alternative):
            yield alternative
        elif get_origin(alternative) is tuple:
            for argument in get_args(alternative):
                yield from sections(argument)


def all_keys(model: type[BaseModel] = Experiment, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key there is, as a path without the numbers of list entries."""
    for name, info in model.model_fields.items():
        yield (*prefix, name)
        for inner in sections(info.annotation):
            yield from all_keys(inner, (*prefix, name))


def place_of(location: tuple[str | int, ...]) -> tuple[KeyPath, list[type[BaseModel]]]:
    """The path that a place of pydantic's has in a file, and the classes of keys that may lie there.

    Where a section is chosen by name, pydantic's places go on with that name: model, cnn, widths.
    """
    path: list[str | int] = []
    found: list[type[BaseModel]] = [Experiment]
    for part in location:
        chosen = [model for model in found if part in tags(model)]
        if len(found) > 1 and chosen:
            found = chosen
            continue
        path.append(part)
        if isinstance(part, str):
            fields = [model.model_fields[part].annotation for model in found if part in model.model_fields]
            found = [section for annotation in fields for section in sections(annotation)]
    return tuple(path), found


def tags(model: type[BaseModel]) -> tuple[str, ...]:
    """The names by which a section of this class is chosen; empty for one that is not chosen by name."""
    fields = model.model_fields
    named = [fields[key].annotation for key in ("name", "kind") if key in fields]
    return tuple(tag for a in named if get_origin(a) is Literal for tag in get_args(a))
