"""What is uploaded with a job: the configuration and the files it names, and where wanted the program; never a whole folder unasked.

    found = collect(Path("my.yaml"), ("num_members=4",))
    found.files                   # {"my.yaml": Path(".../my.yaml"), "my_nets.py": ...}
    with staged(found) as folder: # a folder with just these, for Ray's working_dir

Relative paths of a configuration are of this machine, and their files travel; absolute ones are of the cluster, and are
looked for there.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ensemble
from ensemble.config import load_config, weights_file
from ensemble.config.data import DataConfig
from ensemble.config.keys import kind_of, named_in_full
from ensemble.config.loading import apply_override
from ensemble.config.shipped import find_configuration
from ensemble.config.yaml_source import read_yaml
from ensemble.errors import ConfigError
from ensemble.outside import own_code
from ensemble.outside.object_storage import is_address
from ensemble.outside.paths import given_path
from ensemble.run.repeats import run_name

MOST_BYTES = 100 * 2**20  # Ray's dashboard takes no larger request
DEFAULT_OUTPUT = "~/ensemble_runs"  # on the head, where a configuration leaves output_dir open
_PACKAGE = Path(ensemble.__file__).parent
_PROGRAM = (".py", ".typed", ".yaml", ".json", ".c", ".h", ".html", ".css", ".js")
_NOT_SENT = frozenset({"__pycache__", ".git", ".venv", "venv"})
_OWN_FILE = re.compile(r"([A-Za-z_]\w*\.py):", re.ASCII)


@dataclass(frozen=True)
class Upload:
    """Files by the place they get in the job's folder, and what else the job is submitted with.

    config: the place of the configuration. name, output_dir: of the run. runs: where the runs lie below output_dir, several with
    repeats. there: what is looked for on the cluster, "key: path". program: number of files of the program itself.
    """

    files: Mapping[str, Path]
    config: str
    name: str
    output_dir: str
    runs: tuple[str, ...]
    there: tuple[str, ...] = ()
    program: int = 0

    def sizes(self) -> dict[str, int]:
        """Bytes of each file."""
        return {name: path.stat().st_size for name, path in self.files.items()}


def collect(
    config: Path, overrides: Sequence[str] = (), more: Sequence[str | Path] = (), install: bool = False
) -> Upload:
    """What a job of this configuration needs. more: further files and folders, below the working directory.

    install: the program too. Raises ConfigError for a configuration that is wrong, names pictures that are not sent, or is
    more than Ray takes.
    """
    config, here = find_configuration(config), Path.cwd()
    values = _values(config, overrides)
    groups = _list(values.get("members"))
    models = [m for m in (values.get("model"), *(_of(group, "model") for group in groups)) if m]
    votes = [
        given_path(file, "probabilities") for group in groups if isinstance(file := _of(group, "probabilities"), str)
    ]
    elsewhere = [w for m in models if (w := _weights(m)) is not None and w.is_absolute()]
    elsewhere += [file for file in votes if file.is_absolute()]
    if all(path.is_file() for path in elsewhere):
        load_config(config, overrides)  # all mistakes, before anything is sent
    beside = [Path(os.path.abspath(config))]  # noqa: PTH100 - links stay as they are
    for model in models:
        beside += _files_of_model(model, beside[0].parent)
    beside += [Path(os.path.abspath(beside[0].parent / file)) for file in votes if not file.is_absolute()]  # noqa: PTH100 - as above
    for _, section in _data_sections(values):
        beside += _source(section).files_beside(section, beside[0].parent)
    files = _placed(beside, here)
    place = next(name for name, path in files.items() if path == beside[0])
    given = _given(more, here)
    files |= given
    there = [f"{'probabilities' if path in votes else 'model.weights'}: {path}" for path in elsewhere]
    there += _data(values, here, files, set(given))
    program = _program() if install or _in_repository(here) else {}
    files |= program
    _check_size(files)
    output_dir = values.get("output_dir")
    return Upload(
        files, place, str(values["name"]), str(output_dir or DEFAULT_OUTPUT), _runs(values), tuple(there), len(program)
    )


def _runs(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the runs of a configuration lie below its output_dir."""
    name, repeats, seed = str(values["name"]), values.get("repeats"), values.get("seed")
    if not isinstance(repeats, int) or repeats < 2:
        return (name,)
    first = seed if isinstance(seed, int) else 0
    return tuple(f"{name}/{run_name(name, first + number)}" for number in range(repeats))


def _values(config: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """The plain values of a configuration, as they are written. Raises ConfigError."""
    values = {"name": config.stem, **read_yaml(config, kind_of).values}
    for override in overrides:
        apply_override(values, {}, override)
    return dict(named_in_full(values))


def _of(holder: Any, key: str) -> Any:
    return holder.get(key) if isinstance(holder, dict) else None


def _list(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else ()


def _weights(model: Any) -> Path | None:
    """The file of weights that a network's section names; None for none, and for weights that a library knows by name."""
    weights = _of(model, "weights")
    named = isinstance(weights, str) and weights_file.is_file_name(weights)
    return given_path(weights, "model.weights") if named else None


def _files_of_model(model: Any, folder: Path) -> list[Path]:
    """Files beside the configuration that a network's section needs."""
    found = []
    own = _OWN_FILE.match(str(_of(model, "path")))
    if _of(model, "name") == "python" and own:
        found += [folder / name for name in own_code.collect(folder / own[1])]
    weights = _weights(model)
    if weights is not None and not weights.is_absolute():
        path = Path(os.path.abspath(folder / weights))  # noqa: PTH100 - without `..`, but links stay
        found += [*weights_file.files_of(path), *weights_file.companions(path)]
    return found


def _placed(files: Sequence[Path], here: Path) -> dict[str, Path]:
    """Files that must keep their places to each other: as below the working directory where they lie there."""
    base = Path(os.path.commonpath([path.parent for path in files]))
    prefix = base.relative_to(here) if base.is_relative_to(here) else Path("configuration")
    return {(prefix / path.relative_to(base)).as_posix(): path for path in files}


def _given(paths: Sequence[str | Path], here: Path) -> dict[str, Path]:
    """What --with names: files, and all files of folders. Raises ConfigError for what is not below the working directory."""
    found = {}
    for given in paths:
        path = Path(os.path.abspath(given_path(given, "--with")))  # noqa: PTH100 - links stay as they are
        if not path.is_relative_to(here) or path == here:
            raise ConfigError(f"--with {given}: expected a file or folder below the working directory {here}")
        if not path.exists():
            raise ConfigError(f"--with {given}: is not there; expected a file or folder")
        inside = [path] if path.is_file() else list(_files_below(path)) if path.is_dir() else []
        if not inside:
            raise ConfigError(f"--with {given}: is no regular file, and no folder with any; there is nothing to upload")
        found.update({file.relative_to(here).as_posix(): file for file in inside})
    return found


def _files_below(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in _NOT_SENT)
        yield from (path for name in sorted(names) if (path := Path(root, name)).is_file())


def _data_sections(values: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every section of data with its place in the configuration."""
    sets = _list(_of(values.get("evaluation"), "sets"))
    for where, section in (
        ("data", values.get("data")),
        *((f"evaluation.sets.{n}.data", _of(one, "data")) for n, one in enumerate(sets)),
    ):
        if isinstance(section, dict):
            yield where, section


def _source(section: Mapping[str, Any]) -> type[DataConfig]:
    """The source that a section names; what all have in common where there is none of that name, which is said elsewhere."""
    return DataConfig.registry.find(str(section.get("name"))) or DataConfig


def _data(values: Mapping[str, Any], here: Path, files: dict[str, Path], given: set[str]) -> list[str]:
    """Adds the files that sections of data name to `files`; returns what is looked for on the cluster. Raises ConfigError."""
    there = []
    sets = _list(_of(values.get("evaluation"), "sets"))
    named = [(f"evaluation.sets.{n}.files", _of(one, "files"), True) for n, one in enumerate(sets)]
    for where, section in _data_sections(values):
        source = _source(section)
        own, places = source.pictures, source.places(section)
        root, path = (section.get(key) if key in places else None for key in ("root", "path"))
        local = Path(path) if isinstance(path, str) and not is_address(path) else None
        folder = local is not None and (here / given_path(local, f"{where}.path")).is_dir()
        named += [(f"{where}.root", root, own), (f"{where}.path", path, folder)]
        named += [(f"{where}.{key}", section.get(key), False) for key in places if key not in ("root", "path")]
        if own and not folder and root is None and local and not given_path(local, f"{where}.path").is_absolute():
            named.append((f"{where}.root", str(local.parent), True))  # a table's pictures, beside it
    for key, text, needed in named:
        if not isinstance(text, str):
            continue
        if is_address(text):
            there.append(f"{key}: {text}")
            continue
        path = given_path(text, key)
        if path.is_absolute():
            there.append(f"{key}: {path}")
        elif ".." in path.parts:
            raise ConfigError(
                f"{key}: {text}: lies outside the working directory {here}; start from a folder above it, or give the absolute path that it has on the cluster"
            )
        elif (here / path).is_file():
            files[path.as_posix()] = here / path
        elif needed and not any(Path(name).is_relative_to(path) for name in given):
            raise ConfigError(
                f"{key}: {text}: a folder of this machine, and folders are not uploaded; give the absolute path that it has on the cluster, such as {key if key.endswith('.path') else key.rpartition('.')[0] + '.root'}=/shared/{path.name or 'pictures'}, or send it along: --with {shown_folder(path)} (up to {MOST_BYTES >> 20} MiB)"
            )
        elif not needed and not key.endswith(".root"):
            raise ConfigError(
                f"{key}: {text}: is no file of this machine, where relative paths are looked for; give one that is, or the absolute path that it has on the cluster"
            )
        elif key.endswith(".root") and not needed:
            there.append(f"{key}: {text}, in the job's own folder: what is not there is downloaded")
    return there


def shown_folder(path: Path) -> str:
    """A folder for a command to type."""
    return "FOLDER" if path == Path() else str(path)


def _in_repository(here: Path) -> bool:
    """True where the program that runs is the one in this very folder: then its changes are meant to be tried."""
    return (here / "ensemble").is_dir() and (here / "ensemble").samefile(_PACKAGE)


def _program() -> dict[str, Path]:
    return {
        f"ensemble/{path.relative_to(_PACKAGE).as_posix()}": path
        for path in _files_below(_PACKAGE)
        if path.suffix in _PROGRAM
    }


def _check_size(files: Mapping[str, Path]) -> None:
    sizes = {name: path.stat().st_size for name, path in files.items()}
    if sum(sizes.values()) < MOST_BYTES:
        return
    largest = max(sizes, key=lambda name: sizes[name])
    raise ConfigError(
        f"{len(sizes)} files of {sum(sizes.values()) / 2**20:,.0f} MiB would be uploaded, and Ray takes less than {MOST_BYTES >> 20}: the largest is {largest} ({sizes[largest] / 2**20:,.0f} MiB); put it where the cluster's machines see it and give that absolute path"
    )


@contextmanager
def staged(upload: Upload) -> Iterator[Path]:
    """A temporary folder that holds just the files of an upload, each at its place."""
    with tempfile.TemporaryDirectory(prefix="ensemble-submit-") as folder:
        for name, path in upload.files.items():
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(path, target)
            except OSError as error:
                raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
        yield Path(folder)
