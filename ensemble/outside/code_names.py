"""Names for classes and functions that hold in every process: of a library, or of a user's file whose text travels along.

reference(nn.Linear, ...)      # ("torch.nn.modules.linear:Linear", {})
reference(Net, ...)            # ("my_nets.py:Net", {"my_nets.py": "...", "blocks.py": "..."})
named("my_nets.py:Net", code)  # executes the text
"""

from __future__ import annotations

import functools
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ensemble.errors import ConfigError
from ensemble.outside import own_code


def file_of(thing: Any) -> Path | None:
    """The file that a class or function is defined in; None for one of a notebook, of an interactive session or of C."""
    try:
        file = Path(inspect.getsourcefile(thing) or "")
    except (TypeError, OSError):
        return None
    return file if file.is_file() else None


def reference(thing: Any, what: str, remedy: str) -> tuple[str, dict[str, str]]:
    """A name by which other processes find a class or function, and the texts of files that this takes.

    what, remedy: of messages. Raises ConfigError for one that is defined inside of something else, or nowhere that can be found.
    """
    name, module = getattr(thing, "__qualname__", ""), getattr(thing, "__module__", None) or ""
    for public in (name, name.rpartition(".")[2]) if _of_library(module) else ():  # torch.tanh is of a hidden class
        if _looked_up(module, public) is thing:
            return f"{module}:{public}", {}
    file = file_of(thing)
    top = file is not None and own_code.parsed_path(f"{file.name}:{name}") is not None
    if file is None or not top or getattr(sys.modules.get(module), name, None) is not thing:
        raise ConfigError(
            f"{what}: {name or type(thing).__name__} is not at the top of a Python file, so its text cannot travel with the run; {remedy}"
        )
    return f"{file.name}:{name}", own_code.collect(file)


def named(name: str, code: Mapping[str, str]) -> Any:
    """What a reference names. Raises ConfigError where this process does not have it."""
    place, _, inner = name.partition(":")
    if place in code:
        return own_code.find(code, name)
    try:
        return functools.reduce(getattr, inner.split("."), importlib.import_module(place))
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"model: the network is made of {name}, which cannot be imported here ({error}); install what it is of, in the version that it was made with"
        ) from error


def _looked_up(module: str, name: str) -> Any:
    try:
        return functools.reduce(getattr, name.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        return None


def _of_library(module: str) -> bool:
    """True for modules of Python, of installed packages and of this one: every process that trains has them."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names or top == __name__.partition(".")[0]:
        return True
    file = getattr(sys.modules.get(top), "__file__", None) or next(
        iter(getattr(sys.modules.get(top), "__path__", ())), None
    )
    return file is not None and any(Path(file).is_relative_to(folder) for folder in _installed())


@functools.cache
def _installed() -> tuple[Path, ...]:
    return tuple(Path(path) for key, path in sysconfig.get_paths().items() if key in ("purelib", "platlib"))
