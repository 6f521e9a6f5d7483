"""YAML file + `key=value` overrides -> Experiment, and where each value came from.

    loaded = load_config(Path("configs/quickstart.yaml"), ["num_members=4"])
    loaded.experiment.num_members            # 4
    loaded.origins["num_members"]            # "command line"

All errors are collected and raised as one ConfigError.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ensemble.config import probabilities_file
from ensemble.config.base import Part
from ensemble.config.data import DataConfig
from ensemble.config.effects import contradictions
from ensemble.config.explain import explain
from ensemble.config.keys import dotted, kind_of, named_in_full
from ensemble.config.network import Network
from ensemble.config.schema import Experiment, FailureConfig, GroupConfig, SetConfig
from ensemble.config.secrets import names_secret, secret_in
from ensemble.config.shipped import find_configuration
from ensemble.config.tracker import TrackerSection
from ensemble.config.yaml_source import COMMAND_LINE, KeyPath, parse_value, read_yaml
from ensemble.errors import ConfigError
from ensemble.outside.paths import given_path

_BELONGS_ELSEWHERE = "looks like a secret; secrets belong in the environment, never in a configuration"
_PATHS = (("output_dir",), ("data", "root"), ("data", "path"))
WITHOUT: dict[str, Any] = {
    "baseline": False,
    "controls": (),
}  # what it means that a stored configuration lacks a key, where the default is another by now


@dataclass(frozen=True)
class Loaded:
    """A validated experiment; `origins` maps each dotted key to "default", "filled in" (from a file that the section names), "command line", "Python" or "file:line"."""

    experiment: Experiment
    origins: dict[str, str]


def load_config(path: Path, overrides: Sequence[str] = (), more: Mapping[KeyPath, Any] | None = None) -> Loaded:
    """Read, override and validate. Raises ConfigError listing every mistake with its file, line and remedy.

    path: a file, or the name of a configuration that comes with the package, such as quickstart. more: further overrides, by path, as the schema has them (lists as tuples).
    """
    path = find_configuration(path)
    source = read_yaml(path, kind_of)
    values = source.values
    places = {key: f"{path}:{line}" for key, line in source.lines.items()}
    if "sweep" in values:
        raise ConfigError(
            f"{path}:{source.lines[('sweep',)]}: this file is a sweep over many settings; use: ensemble sweep {path}"
        )
    if "name" not in values:
        values["name"] = path.stem
        places[("name",)] = f"{path} (file name)"
    for override in overrides:
        apply_override(values, places, override)
    for key, value in (more or {}).items():
        put(values, places, key, value, ".".join(map(str, key)), "Python")
    experiment = parse_experiment(values, str(path), places, path.absolute().parent)
    return Loaded(experiment, _origins(experiment, places))


def parse_experiment(
    values: dict[str, Any],
    where: str = "configuration",
    places: dict[KeyPath, str] | None = None,
    folder: Path | None = None,
) -> Experiment:
    """Validate plain values (lists as tuples). Raises ConfigError.

    folder: where files are looked for that the configuration names beside it; without it the working directory.
    """
    places = places or {}
    values = _completed(named_in_full(values), folder)
    mistakes = _secrets(values, where, places) or _bad_paths(values, where, places)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    experiment = _validated(values, where, places)
    idle = [(tuple(key.split(".")), reason) for key, reason in contradictions(experiment)]
    if idle:
        raise ConfigError(
            "\n".join(f"{_place(path, where, places)}: {'.'.join(path)} {reason}" for path, reason in idle)
        )
    return experiment


def load_sets(path: Path) -> tuple[SetConfig, ...]:
    """The further sets of a YAML file, a configuration or one that holds `evaluation` alone. Raises ConfigError, also for none."""
    source = read_yaml(path, kind_of)
    bare: dict[str, Any] = {
        "name": "sets",
        "method": {"name": "deep_ensemble"},
        "num_members": 1,
        "model": {"name": "lenet5"},
    }
    places = {key: f"{path}:{line}" for key, line in source.lines.items()}
    values = {**bare, "evaluation": source.values.get("evaluation", {})}
    evaluation = parse_experiment(values, str(path), places, path.absolute().parent).evaluation
    if evaluation.tta.active:
        raise ConfigError(
            f"{path}: evaluation.tta belongs to the run, whose members vote alike on all sets; leave it out of a file of sets"
        )
    found = evaluation.sets
    if not found:
        raise ConfigError(f"{path}: names no sets; expected evaluation: {{sets: [...]}}")
    return found


def _completed(values: dict[str, Any], folder: Path | None) -> dict[str, Any]:
    """With what the sections of networks and data need from the folder of their configuration. Raises ConfigError."""
    folder = folder or Path.cwd()

    def completed(holder: Any) -> Any:
        model = holder.get("model") if isinstance(holder, dict) else None
        name = model.get("name") if isinstance(model, dict) else None
        section = Network.registry.find(name) if isinstance(name, str) else None
        return holder if section is None or model is None else {**holder, "model": section.complete(model, folder)}

    groups = values.get("members")
    if isinstance(groups, tuple):
        with_files = (
            probabilities_file.complete(group, folder, f"members.{n}") if isinstance(group, dict) else group
            for n, group in enumerate(groups)
        )
        values = {**values, "members": tuple(completed(group) for group in with_files)}
    if isinstance(data := values.get("data"), dict):
        values = {**values, "data": _completed_data(data, folder, "data")}
    evaluation = values.get("evaluation")
    sets = evaluation.get("sets") if isinstance(evaluation, dict) else None
    if isinstance(evaluation, dict) and isinstance(sets, tuple):
        sets = tuple(
            {**one, "data": _completed_data(data, folder, f"evaluation.sets.{n}.data")}
            if isinstance(one, dict) and isinstance(data := one.get("data"), dict)
            else one
            for n, one in enumerate(sets)
        )
        values = {**values, "evaluation": {**evaluation, "sets": sets}}
    return dict(completed(values))


def _completed_data(data: dict[str, Any], folder: Path, where: str) -> Mapping[str, Any]:
    section = DataConfig.registry.find(str(data.get("name")))
    return data if section is None else section.complete(data, folder, where)


def _place(path: KeyPath, where: str, places: dict[KeyPath, str]) -> str:
    path = tuple(int(part) if str(part).isdigit() else part for part in path)
    return next((places[path[:n]] for n in range(len(path), 0, -1) if path[:n] in places), where)


def _validated(values: dict[str, Any], where: str, places: dict[KeyPath, str]) -> Experiment:
    values = {**values, "members": _inherit_training(values)} if values.get("members") else values
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise ConfigError(explain(error, where, places)) from error


def parse_stored(values: dict[str, Any], where: str = "configuration") -> Experiment:
    """The experiment of a run folder's config.yaml (lists as YAML gives them); keys added since take their defaults, but for WITHOUT.

    Keys of `failures` that are gone since, and trackers that are not registered here, are left out: they never change a member. A stored precision of fp16, which
    earlier versions took and trained in float32, counts as that, and label smoothing, which gradient boosting never used,
    as none. Raises ConfigError when it holds anything else that this
    version does not know.
    """
    values = {**WITHOUT, **values}
    failures = values.get("failures")
    if isinstance(failures, dict):
        values = {**values, "failures": {k: v for k, v in failures.items() if k in FailureConfig.model_fields}}
    tracking = values.get("tracking")
    if isinstance(tracking, dict):
        known = {name: told for name, told in tracking.items() if TrackerSection.registry.find(str(name))}
        values = {**values, "tracking": known}
    compute = values.get("compute")
    if isinstance(compute, dict) and compute.get("precision") == "fp16":
        values = {**values, "compute": {**compute, "precision": "float32"}}
    method, training = values.get("method"), values.get("training")
    if isinstance(method, dict) and method.get("name") == "gradient_boosting" and isinstance(training, dict):
        values = {**values, "training": {**training, "label_smoothing": 0.0}}
    return _validated(_tuples(values), where, {})  # its paths were taken when the run was begun


def _secrets(values: dict[str, Any], where: str, places: dict[KeyPath, str]) -> list[str]:
    """A line for every key that looks like a secret and for every address that holds one."""
    lines = []
    for path, value in _entries(values):
        place = f"{places.get(path, where)}: {'.'.join(map(str, path))}"
        if names_secret(str(path[-1])) and path[-2:-1] != ("code",):  # whose keys are names of files
            lines.append(f"{place} {_BELONGS_ELSEWHERE}")
        elif remedy := secret_in(value, ".".join(map(str, path))):
            lines.append(f"{place}: {remedy}")
    return lines


def _bad_paths(values: dict[str, Any], where: str, places: dict[KeyPath, str]) -> list[str]:
    """A line for every path that cannot be taken as it is written."""
    lines = []
    evaluation = values.get("evaluation")
    sets = evaluation.get("sets") if isinstance(evaluation, dict) else None
    inner = [
        ("evaluation", "sets", n, *keys)
        for n in range(len(sets) if isinstance(sets, tuple) else 0)
        for keys in (("data", "root"), ("data", "path"), ("files",))
    ]
    for path in (*_PATHS, *inner):
        value: Any = values
        for part in path:
            value = _inside(value, part)
        if isinstance(value, str) and "://" not in value:
            try:
                given_path(value, ".".join(map(str, path)))
            except ConfigError as error:
                lines.append(f"{places.get(path, where)}: {error}")
    return lines


def _inside(value: Any, part: str | int) -> Any:
    """What stands under a key, or at a position of a list; None where there is nothing of the kind."""
    if isinstance(part, int):
        return value[part] if isinstance(value, tuple) and part < len(value) else None
    return value.get(part) if isinstance(value, dict) else None


def _tuples(value: Any) -> Any:
    """Plain values with tuples for lists, as the schema has them."""
    if isinstance(value, dict):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(_tuples(inner) for inner in value) if isinstance(value, list | tuple) else value


def _inherit_training(values: dict[str, Any]) -> Any:
    """Each group's training keys laid over the common ones, so that a group states only what differs."""
    common, groups = values.get("training", {}), values["members"]
    if not (isinstance(groups, tuple) and isinstance(common, dict)):
        return groups
    return tuple(
        {**group, "training": {**common, **group["training"]}}
        if isinstance(group, dict) and isinstance(group.get("training"), dict)
        else group
        for group in groups
    )


def apply_override(values: dict[str, Any], places: dict[KeyPath, str], override: str) -> None:
    """Put the value of one key=value into `values`, and where it came from into `places`. Raises ConfigError."""
    key, separator, text = override.partition("=")
    path = dotted(key.strip())
    where = f"override {_shown(override)}"
    if not separator or any(part == "" for part in path):
        raise ConfigError(f"{where}: expected key=value, for example training.epochs=5")
    if any(names_secret(str(part)) for part in path):
        raise ConfigError(f"{where} {_BELONGS_ELSEWHERE}")
    value = parse_value(text, where, kind_of(path), lambda inner: kind_of((*path, *inner)))
    within = [known for known in places if known[: len(path)] == path and places[known] == COMMAND_LINE]
    if within and path not in within:
        raise ConfigError(
            f"{where}: replaces the whole section, and with it {'.'.join(map(str, within[0]))}, which stands before it on the command line; write {key.strip()} first"
        )
    put(values, places, path, value, where, COMMAND_LINE)


def put(values: dict[str, Any], places: dict[KeyPath, str], path: KeyPath, value: Any, where: str, origin: str) -> None:
    """Put a value at its path into `values`, and where it came from into `places`. Raises ConfigError for no such place."""
    target: Any = values
    for i, part in enumerate(path[:-1]):
        if isinstance(part, int):
            raise ConfigError(
                f"{where}: {'.'.join(map(str, path[: i + 1]))} is an entry of a list; change the list in the file"
            )
        inner = target.get(part)
        if isinstance(inner, str):  # a section given by its name alone, such as schedule: cosine
            inner = {"name": inner}
            places[(*path[: i + 1], "name")] = places.get(path[: i + 1], origin)
        if inner is not None and not isinstance(inner, dict):
            raise ConfigError(f"{where}: {'.'.join(map(str, path[: i + 1]))} is no section of keys")
        target[part] = dict(inner or {})
        target = target[part]
    target[path[-1]] = value
    for known in [known for known in places if known[: len(path)] == path]:
        del places[known]
    for given in (path, *_paths(value, path)):
        places[given] = origin


def _shown(override: str) -> str:
    """An override for a message: without its value where that may be a secret."""
    key, equals, value = override.partition("=")
    hidden = equals and (any(map(names_secret, key.split("."))) or secret_in(value))
    return f"{key}=..." if hidden else repr(override)


def _paths(values: Any, prefix: KeyPath = ()) -> list[KeyPath]:
    return [path for path, _ in _entries(values, prefix) if isinstance(path[-1], str)]


def _entries(values: Any, prefix: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Every key and list entry inside a value, with its path."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, tuple) else ()
    for key, value in items:
        yield (*prefix, key), value
        yield from _entries(value, (*prefix, key))


def _origins(experiment: Experiment, places: dict[KeyPath, str]) -> dict[str, str]:
    found = {path: _origin(path, places) for path in _leaves(experiment, ())}
    filled = {path for path in found if found[path] == "default" and _filled_in(experiment, path)}
    return {".".join(map(str, path)): "filled in" if path in filled else found[path] for path in found}


def _filled_in(experiment: Experiment, path: KeyPath) -> bool:
    """True for a key of a part or a group that was completed (`Network.complete`): nobody gave it, and it is no default."""
    holder: Any = experiment
    for part in path[:-1]:
        holder = holder[part] if isinstance(part, int) else getattr(holder, str(part))
    if not isinstance(holder, Part | GroupConfig):
        return False
    key = str(path[-1])
    return bool(getattr(holder, key) != type(holder).model_fields[key].get_default())


def _origin(path: KeyPath, places: dict[KeyPath, str]) -> str:
    """Where one value was given: itself, by the section it is part of, or by the common recipe it inherits from."""
    if path in places:
        return places[path]
    above = next((path[:n] for n in range(len(path) - 1, 0, -1) if path[:n] in places), None)
    # A section may be given by its name alone, such as schedule: cosine.
    if above is not None and path == (*above, "name") and not any(known[:-1] == above for known in places):
        return places[above]
    if path[0] == "members" and "training" in path:
        return _origin(path[path.index("training") :], places)
    return "default"


def flat_values(experiment: Experiment) -> dict[str, Any]:
    """Every resolved value by its dotted key, as plain JSON values, in the order of the schema."""
    dumped = experiment.model_dump(mode="json")
    values = {}
    for path in _leaves(experiment, ()):
        value: Any = dumped
        for part in path:
            value = value[part]
        values[".".join(map(str, path))] = value
    return values


def _leaves(value: Any, path: KeyPath) -> list[KeyPath]:
    if isinstance(value, BaseModel):
        return [leaf for name in type(value).model_fields for leaf in _leaves(getattr(value, name), (*path, name))]
    if isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
        return [leaf for i, item in enumerate(value) for leaf in _leaves(item, (*path, i))]
    return [path]
