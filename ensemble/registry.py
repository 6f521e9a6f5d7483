"""Parts that a configuration names: each is one class, found by its name in one dict.

    NETWORKS = Registry("network", "ensemble.networks", {"mlp": "ensemble.models.mlp"})
    NETWORKS.register(Mlp, "mlp")   # what importing ensemble.models.mlp does
    NETWORKS.find("mlp")            # Mlp; None for a name that nobody registered

What a part's class must give is an abstract method of its base; one that does not give it is not registered.

The package's own parts are imported when they are first asked for, so a registry costs nothing. Parts of installed packages
are entry points of the registry's group; parts of a script are registered by a decorator before they are named.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from ensemble.errors import ConfigError

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """kind: what the parts are, in messages ("network"). group: of the entry points. own: module by name."""

    def __init__(self, kind: str, group: str, own: Mapping[str, str]) -> None:
        self.kind, self.group, self._own = kind, group, own
        self._parts: dict[str, Part] = {}

    def register(self, part: Part, *names: str) -> None:
        """Make a part known by these names.

        Raises ConfigError where another part has one of them, TypeError where the part lacks a method of its base.
        """
        if missing := sorted(getattr(part, "__abstractmethods__", ())):
            base = ".".join(_identity(getattr(part, missing[0])))
            raise TypeError(f"{getattr(part, '__name__', part)}: needs a method {missing[0]}, see {base}")
        for name in names:
            there = self._parts.get(name)
            if (there is not None and _identity(there) != _identity(part)) or (
                there is None and name in self._own and self._own[name] != _identity(part)[0]
            ):
                raise ConfigError(f"{self.kind} {name!r}: there is one of that name already; choose another name")
        self._parts.update(dict.fromkeys(names, part))

    def find(self, name: str) -> Part | None:
        """The part of that name. Raises ConfigError where an installed package's part cannot be imported."""
        if name not in self._parts and name in self._own:
            importlib.import_module(self._own[name])
        if name not in self._parts:
            for entry in entry_points(group=self.group, name=name):
                try:
                    self.register(entry.load(), name)
                except Exception as error:  # the package is not ours
                    raise ConfigError(f"{self.kind} {name!r}: {entry.value} cannot be imported: {error}") from error
        return self._parts.get(name)

    def is_own(self, name: str) -> bool:
        """True for a part of this package."""
        return name in self._own

    def installed(self) -> list[str]:
        """Names of the parts that installed packages have, without importing them."""
        return list(_installed(self.group, tuple(sys.path)))

    def all(self) -> dict[str, Part]:
        """By name: our own in their order, then what was registered since."""
        for name in self._own:
            self.find(name)
        return {name: self._parts[name] for name in [*self._own, *self._parts]}


@functools.lru_cache
def _installed(group: str, _path: tuple[str, ...]) -> tuple[str, ...]:
    """Remembered for one search path, since looking through all packages takes some milliseconds."""
    return tuple(dict.fromkeys(entry.name for entry in entry_points(group=group)))


def _identity(part: object) -> tuple[str, str]:
    """Where a class or function was written: the same after a notebook's cell has run again."""
    return getattr(part, "__module__", ""), getattr(part, "__qualname__", repr(part))
