"""Sweeps: many settings of one configuration.

    plan = load_sweep(Path("configs/sweeps/optimisers.yaml"), ["training.lr=0.1,0.01", "seeds=3"])

A value with commas (outside brackets) is an axis, any other a plain override; a file may bring axes of its own under
`sweep`. Settings that differ in training.* and model.* alone become the groups of one mixed ensemble, so that one run
trains them all and the seeds of a setting form a stack; other axes need a run for every setting and seed.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ensemble.config.keys import dotted, kind_of, named_in_full
from ensemble.config.loading import apply_override, parse_experiment
from ensemble.config.method import MethodSection
from ensemble.config.one_spelling import one_spelling
from ensemble.config.schema import Experiment
from ensemble.config.shipped import find_configuration
from ensemble.config.yaml_source import KeyPath, parse_value, read_yaml
from ensemble.errors import ConfigError

MOST_SETTINGS = 1000
_OPEN, _CLOSE = "[{(", "]})"
_SWEEP_KEYS = frozenset({"axes", "seeds"})


@dataclass(frozen=True)
class Setting:
    """One combination. label: for people, "lr=0.1 optimizer=adam"; name: for folders and groups; values: by dotted key."""

    label: str
    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class SweepPlan:
    """The settings of a sweep over a base configuration, which is kept as plain values."""

    name: str
    base: Mapping[str, Any]
    places: Mapping[KeyPath, str]
    where: str
    settings: tuple[Setting, ...]
    seeds: int

    @property
    def in_one_run(self) -> bool:
        """True when all settings can be groups of one mixed ensemble."""
        keys = {key.split(".")[0] for setting in self.settings for key in setting.values}
        section = MethodSection.registry.find(str(dict(self.base.get("method", {})).get("name")))
        independent = section is not None and section.independent and not self.base.get("members")
        return (
            independent
            and not self.base.get("baseline")
            and not self.base.get("controls")
            and keys <= {"training", "model"}
        )

    def experiment(self, setting: Setting, seed: int = 0, name: str | None = None) -> Experiment:
        """The configuration of one setting, with the seed moved on by `seed`."""
        values, places = _copy(self.base), dict(self.places)
        for key, value in setting.values.items():
            _set(values, key, value)
            places[tuple(key.split("."))] = "the sweep"
        values["seed"] = int(values.get("seed", 0)) + seed
        values["name"] = name or f"{setting.name}_seed{values['seed']}"
        if name is None:  # a run of its own, in the folder of the sweep
            values["output_dir"] = f"{values.get('output_dir', 'runs')}/{self.name}"
        return parse_experiment(
            values, f"{self.where} with {setting.label}", places, Path(self.where).absolute().parent
        )

    def mixed(self) -> Experiment:
        """All settings as one mixed ensemble, `seeds` members each."""
        groups = []
        for setting in self.settings:
            single = self.experiment(setting, name=self.name)
            assert single.model is not None
            groups.append({
                "count": self.seeds, "name": setting.name,
                "model": single.model.model_dump(), "training": single.training.model_dump(),
            })  # fmt: skip
        values = _copy(self.base)
        for key in ("model", "num_members"):
            values.pop(key, None)
        return parse_experiment(
            {**values, "name": self.name, "members": tuple(groups)},
            self.where,
            dict(self.places),
            Path(self.where).absolute().parent,
        )

    def only(self, settings: Sequence[Setting]) -> SweepPlan:
        """The same sweep over some of the settings."""
        return replace(self, settings=tuple(settings))

    def shortened(self, epochs: int) -> SweepPlan:
        """The same sweep with fewer epochs, under a name of its own."""
        base = _copy(self.base)
        _set(base, "training.epochs", epochs)
        if any("training.epochs" in setting.values for setting in self.settings):
            raise ConfigError("--screen shortens training.epochs, which is an axis of this sweep; use one of the two")
        return replace(self, base=base, name=f"{self.name}_screen{epochs}")


def load_sweep(path: Path, words: Sequence[str], draw: int | None = None) -> SweepPlan:
    """Read a configuration (with or without a `sweep` section) and the words of the command line.

    draw: so many random settings of the grid instead of all. Raises ConfigError; all settings are validated.
    """
    path = find_configuration(path)
    source = read_yaml(path, kind_of)
    values: dict[str, Any] = source.values
    places: dict[KeyPath, str] = {key: f"{path}:{line}" for key, line in source.lines.items()}
    section = values.pop("sweep", {})
    if not isinstance(section, dict) or set(section) - _SWEEP_KEYS:
        raise ConfigError(f"{path}: sweep: expected a section with axes and seeds, found {section!r}")
    values.setdefault("name", path.stem)
    axes = {str(key): _several(path, str(key), listed) for key, listed in (section.get("axes") or {}).items()}
    seeds = section.get("seeds", 1)
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"{word!r}: expected key=value, or key=a,b,c for an axis")
        if key == "seeds":
            seeds = parse_value(text, word)
        elif len(parts := split_values(text)) > 1:
            axes[key] = tuple(_read(key, part, word) for part in parts)
        else:
            apply_override(values, places, word)
            axes.pop(key, None)
    values = named_in_full(values)
    if not isinstance(seeds, int) or isinstance(seeds, bool) or seeds < 1:
        raise ConfigError(f"seeds: expected a whole number of at least 1, found {seeds!r}")
    if not axes:
        raise ConfigError(f"{path}: nothing to sweep over; give an axis, such as training.lr=0.1,0.01,0.001")
    values.setdefault("num_members", 1)
    values.setdefault(
        "baseline", False
    )  # settings are ranked by their vote, so one more network each is paid for when asked
    if "repeats" in axes or values.get("repeats", 1) != 1:
        raise ConfigError(
            f"{path}: repeats: a sweep trains every setting once for each of its seeds; use seeds=N instead"
        )
    plan = SweepPlan(values["name"], values, places, str(path), (), seeds)
    plan = plan.only(_settings(axes, draw, int(values.get("seed", 0))))
    _refuse_repeats(plan)  # and with it every mistake, before the first training
    return plan


def _refuse_repeats(plan: SweepPlan) -> None:
    """Raises ConfigError where two settings are one configuration, however differently their values are written.

    It would be trained twice, and one of the two would be said to be better than itself.
    """
    if plan.seeds > 1 and any("seed" in setting.values for setting in plan.settings):
        raise ConfigError(
            f"{plan.where}: seed is an axis, but seeds={plan.seeds} also gives every setting several seeds, which would "
            "be partly the same ones; use seeds=N alone"
        )
    seen: dict[str, str] = {}
    repeats = []
    for setting in plan.settings:
        experiment = plan.experiment(setting, name=plan.name)
        resolved = json.dumps(one_spelling(experiment.model_dump(mode="json", exclude={"output_dir"})))
        if resolved in seen:
            repeats.append(f"{seen[resolved]} and {setting.label}")
        seen.setdefault(resolved, setting.label)
    if repeats:
        more = f"; and {len(repeats) - 3} more" if len(repeats) > 3 else ""
        raise ConfigError(
            f"{plan.where}: two settings of the sweep are the same configuration: {'; '.join(repeats[:3])}{more}. Give "
            "each value once; seeds=N trains a setting several times"
        )


def _read(key: str, text: str, word: str) -> Any:
    path = dotted(key)
    return parse_value(text, f"axis {word!r}", kind_of(path), lambda inner: kind_of((*path, *inner)))


def split_values(text: str) -> list[str]:
    """The parts between commas that stand outside brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in _OPEN) - (sign in _CLOSE)
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


def _several(path: Path, key: str, listed: Any) -> tuple[Any, ...]:
    if not isinstance(listed, tuple) or not listed:
        raise ConfigError(f"{path}: sweep.axes.{key}: expected a list of values, found {listed!r}")
    return listed


def _settings(axes: Mapping[str, tuple[Any, ...]], draw: int | None, seed: int) -> list[Setting]:
    count = int(np.prod([len(values) for values in axes.values()], dtype=np.int64))
    chosen = np.arange(count)
    if draw is not None and draw < count:
        chosen = np.sort(np.random.default_rng(seed).choice(count, draw, replace=False))
    if len(chosen) > MOST_SETTINGS:
        raise ConfigError(
            f"a grid of {count:,} settings; expected at most {MOST_SETTINGS:,}: use --draw N for some of them"
        )
    grid = list(itertools.product(*axes.values()))
    settings = [_setting(dict(zip(axes, grid[i], strict=True))) for i in chosen]
    names = [setting.name for setting in settings]
    if len(set(names)) < len(names):  # names are cut to what a folder can bear
        settings = [replace(setting, name=f"{i:03d}_{setting.name}"[:54]) for i, setting in enumerate(settings)]
    return settings


def _setting(values: dict[str, Any]) -> Setting:
    label, spelled = (
        " ".join(f"{key.rpartition('.')[2]}={_text(value, as_typed)}" for key, value in values.items())
        for as_typed in (True, False)
    )
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", spelled.replace(" ", "_")).strip("-_.")[:50] or "setting"
    return Setting(label, name, values)


def _text(value: Any, as_typed: bool = True) -> str:
    """A value of an axis. as_typed: as one types it, null and true; folders keep the names that they had before, with None and True."""
    if isinstance(value, dict):
        return ",".join(str(value[key]) if key == "name" else f"{key}:{_text(value[key], as_typed)}" for key in value)
    if isinstance(value, tuple):
        return "[" + ",".join(_text(entry, as_typed) for entry in value) + "]"
    if as_typed and (value is None or isinstance(value, bool)):
        return "null" if value is None else str(value).lower()
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)  # two values are never written alike
    return str(value)


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(inner) for key, inner in value.items()}
    return value


def _set(values: dict[str, Any], key: str, value: Any) -> None:
    """Put a value at a dotted key; a section given by its name alone becomes a mapping."""
    *sections, last = key.split(".")
    for section in sections:
        inner = values.get(section)
        values[section] = {"name": inner} if isinstance(inner, str) else dict(inner or {})
        values = values[section]
    values[last] = value
