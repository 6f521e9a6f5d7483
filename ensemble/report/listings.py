"""What there is to choose from: networks and data sets, as rows and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ensemble.config import load_config, parse_experiment
from ensemble.config.data import DataConfig
from ensemble.config.groups import Group
from ensemble.config.keys import kind_of
from ensemble.config.network import Network
from ensemble.config.shipped import find_configuration
from ensemble.config.yaml_source import parse_value
from ensemble.data import DATASETS
from ensemble.data.files import data_root
from ensemble.errors import ConfigError
from ensemble.models import ImageShape, build_model, num_parameters
from ensemble.outside.long_work import working
from ensemble.outside.names import shown
from ensemble.report.layer_table import LayerRow, layer_rows
from ensemble.tracking.terminal import open_table_console
from ensemble.training import check_network, largest_stack, shares_features, starts
from ensemble.training.stack import unstackable

_MNIST: tuple[ImageShape, int] = ((1, 28, 28), 10)


def list_models() -> list[dict[str, Any]]:
    """Every network: name, what it is, keys with defaults, parameters with those defaults on MNIST, stackable."""
    networks = Network.registry.all()
    with working("building the networks", len(networks)) as done:  # for the first, torch and torchvision are imported
        rows = []
        for name, network in networks.items():
            rows.append(_listed(name, network))
            done()
    return rows


def _listed(name: str, network: type[Network]) -> dict[str, Any]:
    fields = {key: field for key, field in network.model_fields.items() if key not in Network.model_fields}
    needed = [key for key, field in fields.items() if field.is_required()]
    model = None if needed else build_model(network(name=name), *_MNIST)
    return {
        "name": name, "description": (network.__doc__ or "").strip(),
        "keys": {key: "(needed)" if key in needed else field.default for key, field in fields.items()},
        "parameters": None if model is None else num_parameters(model),
        "stackable": model is None or not unstackable(model),
    }  # fmt: skip


@dataclass(frozen=True)
class Described:
    """A network as it is shown: a title, its layers, and what a run would say of it."""

    title: str
    layers: list[LayerRow]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return {"title": self.title, "layers": [layer.to_json() for layer in self.layers], "notes": self.notes}


def describe_network(
    name: str, keys: Sequence[str], image: ImageShape | None = None, classes: int | None = None
) -> Described:
    """A network given by its name and key=value pairs, by FILE.py:NAME and the arguments of that, or by a configuration file.

    image, classes: what it is built for, by default what the configuration's data set has, else as on MNIST. Raises
    ConfigError for an unknown name or key, and for a network that does not do.
    """
    path = find_configuration(Path(name))
    if path.suffix in (".yaml", ".yml"):
        experiment = load_config(path, keys).experiment
        group = experiment.groups[0]
        shape, count = experiment.data.image_shape or _MNIST[0], experiment.data.num_classes or _MNIST[1]
        return _described(f"{group.name} of {name}", group, image or shape, classes or count)
    plain = {"name": "listing", "num_members": 2, "method": {"name": "deep_ensemble"}}
    values = dict(_pair(key) for key in keys)
    shape, count = image or _MNIST[0], classes or _MNIST[1]
    if ".py:" in name:
        file, _, function = name.rpartition(":")
        model = {"name": "python", "path": f"{Path(file).name}:{function}", "args": values}
        experiment = parse_experiment({**plain, "model": model}, f"model {name}", folder=Path(file).parent)
        return _described(name, experiment.groups[0], shape, count)
    if Network.registry.find(name) is None:
        known = ", ".join(Network.registry.all())
        raise ConfigError(f"no such network: {name}; expected one of {known}, a configuration file, or FILE.py:NAME")
    experiment = parse_experiment({**plain, "model": {"name": name, **values}}, f"model {name}")
    return _described(name, experiment.groups[0], shape, count)


def _described(what: str, group: Group, shape: ImageShape, classes: int) -> Described:
    title = f"{what}: images {'x'.join(map(str, shape))}, {classes} classes"
    shared = shares_features(group, shape, classes)
    notes = list(check_network(group.model, shape, classes, several=not shared))
    if shared:
        notes.insert(0, "members are last layers on the features of one frozen network, which are computed once")
    elif largest_stack(group.model, shape, classes, 2) == 2:
        notes.insert(0, "members are computed as one network")
    notes += starts([group], shape, classes).notes
    return Described(title, layer_rows(build_model(group.model, shape, classes), shape), notes)


def _pair(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"{text!r}: expected key=value, such as widths=[16,32]")
    return key, parse_value(value, text, kind_of(("model", key)), lambda inner: kind_of(("model", key, *inner)))


def print_models(rows: list[dict[str, Any]]) -> None:
    """The networks as a table on stdout."""
    table = Table("name", "parameters", "keys and defaults", "what it is", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for row in rows:
        keys = ", ".join(f"{key}={_short(value)}" for key, value in row["keys"].items()) or "none"
        table.add_row(
            row["name"], "" if row["parameters"] is None else f"{row['parameters']:,}", keys, row["description"]
        )
    console = open_table_console()
    _print_whole(console, table)
    console.print("parameters: on MNIST, with the defaults.")
    common = [key for key in Network.model_fields if key not in ("name", "weights_sha256")]
    console.print(f"Every network also takes {', '.join(common)}.")


def list_datasets() -> list[dict[str, Any]]:
    """Every data set: size, classes, source, and whether its files are in the folder that would be used."""
    root = data_root()[0]
    rows = []
    for info in DATASETS.values():
        folder = root / info.place
        rows.append({
            "name": info.name, "title": info.title, "train": info.train_images, "test": info.test_images,
            "classes": len(info.class_names), "shape": list(info.image_shape), "flips": info.flippable,
            "download_mb": info.download_mb, "source": info.source,
            "present": info.download_mb == 0 or folder.exists(), "folder": str(folder),
        })  # fmt: skip
    return rows


def list_own_data() -> list[dict[str, str]]:
    """The forms in which people bring images of their own: name, what it is, keys of the data section."""
    return [
        {
            "name": name,
            "title": source.in_short or (source.__doc__ or "").strip().partition("\n")[0],
            "keys": ", ".join(source.own_keys()),
        }
        for name, source in DataConfig.registry.all().items()
        if name not in source.published
    ]


def print_datasets(rows: list[dict[str, Any]]) -> None:
    """The data sets as a table on stdout."""
    table = Table("name", box=None, header_style="bold")
    for number in ("train", "test", "classes"):
        table.add_column(number, justify="right")
    for text in ("image", "flips", "here"):
        table.add_column(text)
    table.add_column("MB", justify="right")
    table.add_column("source")
    for row in rows:
        size = str(row["download_mb"] or "-")
        shape = "x".join(str(side) for side in row["shape"])
        yes = {True: "yes", False: "no"}
        table.add_row(
            row["name"], f"{row['train']:,}", f"{row['test']:,}", str(row["classes"]), shape,
            yes[row["flips"]], yes[row["present"]], size, row["source"],
        )  # fmt: skip
    console = open_table_console()
    _print_whole(console, table)
    console.print(
        f"here: the files are in {shown(str(data_root()[0]))}; MB: to download where they are not; flips: a mirrored image keeps its class"
    )
    console.print("\nyour own images:")
    own = Table("name", "what it is", "keys under data", box=None, header_style="bold")
    for entry in list_own_data():
        own.add_row(entry["name"], entry["title"], entry["keys"])
    _print_whole(console, own)


def _print_whole(console: Console, table: Table) -> None:
    """Print a table without cutting a word: what stands there is to be typed.

    On a narrow terminal longer texts are folded, and what does not fit even then is left to the terminal to wrap.
    """
    table.padding, table.pad_edge = (0, 1, 0, 0), False
    for column in table.columns:
        column.overflow = "fold"
        texts = (str(column.header), *map(str, column.cells))
        column.min_width = max(len(word) for text in texts for word in (text.split() or [""]))
    table.columns[0].no_wrap = True
    console.print(table, crop=False)


def _short(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, tuple) else str(value)
