"""What `import ensemble` offers, and the classes that come back from it, as directives for Sphinx's autodoc."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterator
from typing import Any

import ensemble
from docs.making.command_page import all_errors
from ensemble import errors


def page() -> str:
    """Functions, classes, and then the records that they give back, a directive each."""
    offered = {name: getattr(ensemble, name) for name in ensemble.__all__ if name != "__version__"}
    kinds = {
        name: "class" if inspect.isclass(one) else "function" if inspect.isroutine(one) else "data"
        for name, one in offered.items()
    }
    made = []
    for title, kind in (("Functions", "function"), ("Classes", "class"), ("Types", "data")):
        names = [name for name, its in kinds.items() if its == kind]
        if names:
            made.append(f"## {title}\n")
            made += [_directive(f"auto{kind}", f"ensemble.{name}", members=kind == "class") for name in names]
    for title, classes in (("What comes back", returned()), ("What is told, and who listens", taken())):
        made.append(f"## {title}\n")
        made += [_directive("autoclass", f"{one.__module__}.{one.__qualname__}", members=True) for one in classes]
    return "\n".join(made)


def errors_page() -> str:
    """The tree of errors, then each with its words."""
    tree = [
        f"{'  ' * depth}- `{one.__name__}`, exit code {one.exit_code}" for depth, one in _tree(errors.EnsembleError)
    ]
    names = [errors.EnsembleError.__name__, *(one.__name__ for one in all_errors())]
    return "\n".join([*tree, "", *(_directive("autoexception", f"ensemble.errors.{name}") for name in names)])


def _offered() -> list[Any]:
    every = [getattr(ensemble, name) for name in ensemble.__all__]
    return [one for one in every if inspect.isclass(one) or inspect.isroutine(one)]


def _tree(error: type[errors.EnsembleError], depth: int = 0) -> Iterator[tuple[int, type[errors.EnsembleError]]]:
    yield depth, error
    for inner in error.__subclasses__():
        if inner.__module__ == errors.__name__:
            yield from _tree(inner, depth + 1)


def returned() -> list[type[Any]]:
    """Classes of this package that the offered functions and methods give back, and what their fields hold, in the order they are met."""
    offered = _offered()
    met: dict[type[Any], None] = {}
    waiting = [one for each in offered for one in _gives(each)]
    while waiting:
        one = waiting.pop(0)
        if one in met or one in offered:
            continue
        met[one] = None
        waiting += _gives(one)
    return list(met)


def taken() -> list[type[Any]]:
    """Classes of this package that the offered functions take besides: who listens to a run, and the events that they are told."""
    offered = _offered()
    functions = [one for one in offered if inspect.isroutine(one)]
    hints = [hint for one in functions for name, hint in _hints(one).items() if name != "return"]
    met = dict.fromkeys(one for hint in hints for one in _classes(hint))
    return [one for one in met if one not in offered and one not in returned()]


def named_by(one: Any) -> list[str]:
    """The names that the docstring of a function, a class or a record may explain: its arguments or fields."""
    try:
        return [name for name in inspect.signature(one).parameters if name not in ("self", "cls")]
    except (TypeError, ValueError):  # of something built in
        return []


def _gives(one: Any) -> Iterator[type[Any]]:
    """The classes of this package in the annotations of a function's result, of a class's public methods, and of a record's fields."""
    if not inspect.isclass(one):
        yield from _classes(_hints(one).get("return"))
        return
    if dataclasses.is_dataclass(one):
        for hint in _hints(one).values():
            yield from _classes(hint)
    for name, member in inspect.getmembers(one):
        if name.startswith("_"):
            continue
        if isinstance(member, property) and member.fget is not None:
            yield from _classes(_hints(member.fget).get("return"))
        elif hasattr(member, "func"):  # a cached property
            yield from _classes(_hints(member.func).get("return"))
        elif (inspect.isfunction(member) or inspect.ismethod(member)) and member.__module__.startswith("ensemble."):
            yield from _classes(_hints(member).get("return"))


def _hints(one: Any) -> dict[str, Any]:
    known = {name: getattr(ensemble, name) for name in ensemble.__all__}
    return typing.get_type_hints(one, localns=known)


def _classes(hint: Any) -> Iterator[type[Any]]:
    if inspect.isclass(hint) and hint.__module__.startswith("ensemble."):
        yield hint
    for inner in hint if isinstance(hint, list) else typing.get_args(hint):  # a list is what a callable takes
        yield from _classes(inner)


def _directive(name: str, target: str, members: bool = False) -> str:
    options = "\n   :members:\n   :undoc-members:" if members else ""
    return f"```{{eval-rst}}\n.. {name}:: {target}{options}\n```\n"
