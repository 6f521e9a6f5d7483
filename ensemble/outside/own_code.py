"""Source files of a user: collected where they lie, carried as text, executed where a network is built or data are read.

    code = collect(Path("my_nets.py"))          # {"my_nets.py": "...", "blocks.py": "..."}: with what it imports from beside it
    make = find(code, "my_nets.py", "make_net") # executes them

The text, not the path, is what a run is made of: it lies in the run's configuration, and travels with the tasks.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from ensemble.errors import ConfigError
from ensemble.outside.paths import read_regular_file

_MOST_BYTES = 2**20  # of a file
_PATH = re.compile(r"(?P<file>[A-Za-z_]\w*\.py):(?P<name>[A-Za-z_]\w*)", re.ASCII)
_importing = threading.RLock()


class EndsProgramError(RuntimeError):
    """A user's code called sys.exit."""


class _State:
    executing = 0


def executing() -> bool:
    """True while a user's code is executed, of whichever thread."""
    return _State.executing > 0


def parsed_path(path: str) -> tuple[str, str] | None:
    """File and name of FILE.py:NAME; None for a text of another form."""
    match = _PATH.fullmatch(path)
    return None if match is None else (match["file"], match["name"])


def files_of(path: object, folder: Path) -> list[Path]:
    """The files that FILE.py:NAME in a folder is made of; none for what is no such text. Raises ConfigError."""
    found = parsed_path(path) if isinstance(path, str) else None
    return [] if found is None else [folder / name for name in collect(folder / found[0])]


def with_code(values: Mapping[str, Any], folder: Path, where: str, example: str) -> Mapping[str, Any]:
    """A section with a path FILE.py:NAME and, as its code, the texts of the files in the folder. Raises ConfigError.

    where: the section's place in the configuration; example: of such a path; both for messages.
    """
    path = values.get("path")
    if not isinstance(path, str):
        return values  # which the schema explains
    found = parsed_path(path)
    if found is None:
        raise ConfigError(
            f"{where}.path = {path!r}: expected FILE.py:NAME with a file beside the configuration and a class or function in it, such as {example}"
        )
    code = collect(folder / found[0])
    if values.get("code", code) != code:
        raise ConfigError(
            f"{where}.code is filled in from the files themselves, and is not what {folder / found[0]} and its neighbours hold; leave it out"
        )
    return {**values, "code": code}


def collect(path: Path) -> dict[str, str]:
    """The text of a file, and of the modules beside it that it imports, by file name.

    Raises ConfigError for a file that is not there or is no Python.
    """
    found: dict[str, str] = {}
    waiting = [path.name]
    while waiting:
        name = waiting.pop()
        found[name] = text = _text(path.parent / name)
        tree = _parsed(text, path.parent / name)
        beside = (f"{module}.py" for module in _imported(tree))
        waiting += [file for file in beside if file not in found and (path.parent / file).is_file()]
    return dict(sorted(found.items()))


def _text(path: Path) -> str:
    try:
        return read_regular_file(path, _MOST_BYTES).decode("utf-8").replace("\r\n", "\n")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; expected a Python file") from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is no UTF-8 text ({error.reason} at byte {error.start}); expected a Python file"
        ) from error


def _parsed(text: str, path: Path) -> ast.Module:
    try:
        return ast.parse(text, str(path))
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise ConfigError(f"{path}{line}: is no Python: {getattr(error, 'msg', error)}; correct it") from error


def _imported(tree: ast.Module) -> Iterator[str]:
    """Top names of all modules that are imported anywhere in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def find(code: Mapping[str, str], path: str, key: str = "model.path") -> Callable[..., Any]:
    """What FILE.py:NAME names, after executing the file. key: where it stands, for messages.

    Raises ConfigError where that fails or there is no such thing.
    """
    file, name = parsed_path(path) or ("", "")
    if file not in code:
        raise ConfigError(
            f"{key} = {path!r}: the run holds no text of that file; expected one of {', '.join(code) or 'none'}"
        )
    try:
        with beside_each_other(code):
            module = importlib.import_module(file.removesuffix(".py"))
    except Exception as error:  # the code is not ours
        raise ConfigError(f"{key} {path}: executing the file failed: {told(error, code)}; correct it there") from error
    made = getattr(module, name, None)
    if not callable(made):
        known = ", ".join(
            sorted(key for key, value in vars(module).items() if callable(value) and not key.startswith("_"))
        )
        raise ConfigError(
            f"{key} {path}: there is no such class or function in {file}; expected one of those it has: {known or 'none'}"
        )
    result: Callable[..., Any] = made
    return result


def told(error: BaseException, code: Mapping[str, str]) -> str:
    """An error of the user's code, with the last line of theirs that it came through."""
    places, trace = [], error.__traceback__
    while trace is not None:
        name = Path(trace.tb_frame.f_code.co_filename).name
        if name in code:
            places.append(f"{name}:{trace.tb_lineno}: ")
        trace = trace.tb_next
    return f"{places[-1] if places else ''}{type(error).__name__}: {error}"


def _of_ray(error: SystemExit) -> bool:
    """Whether Ray's handler of signals raised it, in whatever line the process was."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__")).partition(".")[0] == "ray"


@contextmanager
def staying() -> Iterator[None]:
    """Inside, a user's code cannot end the program, which would look as if its work were done. Raises EndsProgramError instead."""
    try:
        yield
    except SystemExit as error:
        if _of_ray(error):
            raise
        text = f"it ends the program (sys.exit({'' if error.code is None else repr(error.code)})); leave that out"
        raise EndsProgramError(text).with_traceback(error.__traceback__) from error


@contextmanager
def beside_each_other(code: Mapping[str, str]) -> Iterator[None]:
    """Inside, these files are modules by their names; what had such a name before has it again afterwards."""
    with _importing:
        finder, names = _Finder(code), {file.removesuffix(".py") for file in code}
        hidden = {name: sys.modules.pop(name) for name in names if name in sys.modules}
        sys.modules.update({name: finder.kept[name] for name in names & finder.kept.keys()})
        sys.meta_path.insert(0, finder)
        _State.executing += 1
        try:
            with staying():
                yield
        finally:
            _State.executing -= 1
            sys.meta_path.remove(finder)
            finder.kept.update({name: sys.modules.pop(name) for name in names if name in sys.modules})
            sys.modules.update(hidden)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds modules among texts. Those of the same texts are the same modules every time."""

    _all: dict[str, dict[str, ModuleType]] = {}  # noqa: RUF012 - shared on purpose

    def __init__(self, code: Mapping[str, str]) -> None:
        self.code = code
        self.digest = hashlib.sha256(repr(sorted(code.items())).encode()).hexdigest()
        self.kept = self._all.setdefault(self.digest, {})

    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if f"{fullname}.py" not in self.code:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=self._place(fullname))

    def get_source(self, fullname: str) -> str:
        return self.code[f"{fullname}.py"]

    def get_code(self, fullname: str) -> CodeType:
        text, place = self.get_source(fullname), self._place(fullname)
        linecache.cache[place] = (len(text), None, text.splitlines(keepends=True), place)  # for traces
        return compile(text, place, "exec")

    def _place(self, fullname: str) -> str:
        return f"<{self.digest[:8]}>/{fullname}.py"
