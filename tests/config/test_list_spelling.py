"""A key that takes a list and was given one value: the message says how the list is written, and written so it is one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from ensemble.config import load_config
from ensemble.config.keys import alternatives, is_section, tags
from ensemble.config.schema import Experiment
from ensemble.errors import ConfigError

BEGIN = "name: a\nmethod: {name: deep_ensemble}\nmodel: {name: lenet5}\ndata: {name: mnist}\n"
NEEDED = {
    "image_folder": "root: x, image_size: 8", "table": "path: x.csv, image_column: a, label_column: b, image_size: 8",
    "webdataset": "root: x, urls: 'a-{000..001}.tar', image_size: 8", "arrays": "path: x.npz",
    "huggingface": "path: x, image_size: 8", "python": "path: 'x.py:f'",
}  # fmt: skip


def list_keys(model: type[BaseModel] = Experiment, prefix: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key that takes a list: its path, the class that it lies in, what an entry may be, whether text is no list to it."""
    for name, info in model.model_fields.items():
        found = alternatives(info.annotation)
        for of in found:
            if get_origin(of) is tuple:
                yield (*prefix, name), model, alternatives(get_args(of)[0]), str not in found
            inner = get_args(of) if get_origin(of) is tuple else (of,)
            for section in (one for argument in inner for one in alternatives(argument) if is_section(one)):
                yield from list_keys(section, (*prefix, name, *([0] if get_origin(of) is tuple else [])))


KEYS = {(path, model): (entries, refused) for path, model, entries, refused in list_keys() if 0 not in path}


def value_for(entries: list[Any]) -> str:
    if any(is_section(entry) for entry in entries):
        return "something"
    if any(get_origin(entry) is dict for entry in entries):
        return "{fog: [1]}"
    if str in entries:
        return "some_text"
    words = [word for entry in entries for word in get_args(entry)]
    return str(words[0]) if words else "8" if int in entries else "0.5"


def message(tmp_path: Path, *overrides: str) -> str:
    (tmp_path / "a.yaml").write_text(BEGIN)
    (tmp_path / "x.py").write_text("def f():\n    pass\n")
    try:
        load_config(tmp_path / "a.yaml", overrides)
    except ConfigError as error:
        return str(error)
    return ""


def begun(path: tuple[str | int, ...], model: type[BaseModel]) -> list[str]:
    """Overrides after which that class is the one that lies there."""
    if path[0] in ("model", "data") and tags(model):
        name = tags(model)[0]
        return [f"{path[0]}={{name: {name}, {NEEDED.get(name, '') if path[0] == 'data' else ''}}}"]
    return []


def test_the_keys_are_found() -> None:
    names = {".".join(map(str, path)) for path, _ in KEYS}
    assert {"controls", "evaluation.sets", "model.widths", "training.betas", "tracking.wandb.tags", "members", "data.image_size"} <= names  # fmt: skip


@pytest.mark.parametrize(("path", "model"), KEYS, ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else value.__name__)  # fmt: skip
def test_one_value_for_a_list(tmp_path: Path, path: tuple[str | int, ...], model: type[BaseModel]) -> None:
    entries, refused = KEYS[path, model]
    key, value = ".".join(map(str, path)), value_for(entries)
    if path[-1] == "image_size":
        value = "some_text"  # a number is one, of a square
    if not refused:
        assert "expected a list" not in message(tmp_path, *begun(path, model), f"{key}={value}")
        return
    text = message(tmp_path, *begun(path, model), f"{key}={value}")
    if path[-1] in ("artifact", "corruptions"):  # they say themselves which words, and what lists, there are
        assert "a list" in text
        return
    spelled = re.search(rf"""(?:write|a list:) ('{re.escape(key)}=.*'|{re.escape(key)}=\S*)""", text)
    assert spelled, text
    (override,) = shlex.split(spelled[1])
    assert override.startswith(f"{key}=[")
    if path[-1] == "image_size":  # the value is as wrong within a list, so that an example stands there
        assert override == f"{key}=[160,224]"
    elif "..." not in override:
        assert override == f"{key}=[{value}]".replace("{fog: [1]}", "fog")
    assert "expected a list" not in message(tmp_path, *begun(path, model), override.replace(", ...", ""))


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("controls=longer", "write controls=[longer]"), ("controls=longer,wider", "write controls=[longer,wider]"),
        ("controls=(longer, wider)", "write controls=[longer,wider]"), ("controls=null", "write controls=[]"),
        ("training.betas=0.9", "write training.betas=[0.9,...]"), ("tracking.wandb.tags=my run", "write 'tracking.wandb.tags=[\"my run\"]'"),
        ("tracking.wandb.tags=no", "write 'tracking.wandb.tags=[\"no\"]'"), ("evaluation.sets=mnist_c", "write 'evaluation.sets=[{name: mnist_c, ...}]'"),
        ("evaluation.sets={name: s, kind: shifted}", "write 'evaluation.sets=[{name: s, kind: shifted}]'"),
        ("model.freeze=conv", "or a list: model.freeze=[conv]"),
    ],
)  # fmt: skip
def test_on_the_command_line(tmp_path: Path, given: str, spelled: str) -> None:
    assert spelled in message(tmp_path, given)


def test_within_another_list(tmp_path: Path) -> None:
    sets = (
        "evaluation.sets=[{name: s, kind: shifted, data: {name: image_folder, root: x, image_size: 8, value_range: 3}}]"
    )
    assert "evaluation.sets.0.data.value_range = 3: expected a list; write value_range: [3, ...]" in message(
        tmp_path, sets
    )


def test_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(f"{BEGIN}controls: longer, wider\n")
    with pytest.raises(
        ConfigError,
        match=re.escape("a.yaml:5: controls = 'longer, wider': expected a list; write controls: [longer, wider]"),
    ):
        load_config(tmp_path / "a.yaml", [])
