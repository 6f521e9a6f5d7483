"""What there is to choose from: networks and data sets, as rows and as tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, get_args

from rich.console import Console
from rich.table import Table

from ensemble.config.models import CnnConfig, LeNet5Config, MlpConfig, ResNetConfig
from ensemble.data import DATASETS, OWN_DATA
from ensemble.models import build_model, num_parameters
from ensemble.training.stack import unstackable

_CONFIGS = (LeNet5Config, MlpConfig, CnnConfig, ResNetConfig)


def list_models() -> list[dict[str, Any]]:
    """Every network: name, what it is, keys with defaults, parameters with those defaults on MNIST, stackable."""
    rows = []
    for config_type in _CONFIGS:
        fields = config_type.model_fields
        keys = {name: field.default for name, field in fields.items() if name != "name"}
        for name in get_args(fields["name"].annotation):
            model = build_model(config_type(name=name), (1, 28, 28), 10)
            rows.append({
                "name": name, "description": (config_type.__doc__ or "").strip(), "keys": keys,
                "parameters": num_parameters(model), "stackable": not unstackable(model),
            })  # fmt: skip
    return rows


def print_models(rows: list[dict[str, Any]]) -> None:
    """The networks as a table on stdout."""
    table = Table("name", "parameters", "keys and defaults", "what it is", box=None, header_style="bold")
    table.columns[1].justify = "right"
    for row in rows:
        keys = ", ".join(f"{key}={_short(value)}" for key, value in row["keys"].items()) or "none"
        table.add_row(row["name"], f"{row['parameters']:,}", keys, row["description"])
    Console().print(table)
    print("parameters: on MNIST, with the defaults. Every one of them can be trained in stacks.")  # noqa: T201


def list_datasets() -> list[dict[str, Any]]:
    """Every data set: size, classes, source, and whether its files are in the folder that would be used."""
    root = Path(os.environ.get("ENSEMBLE_DATA", "data"))
    rows = []
    for info in DATASETS.values():
        folder = root / info.idx.folder if info.idx else root / "cifar-10-batches-py"
        rows.append({
            "name": info.name, "title": info.title, "train": info.train_images, "test": info.test_images,
            "classes": len(info.class_names), "shape": list(info.image_shape), "flips": info.flippable,
            "download_mb": info.download_mb, "source": info.source,
            "present": info.download_mb == 0 or folder.is_dir(), "folder": str(folder),
        })  # fmt: skip
    return rows


def list_own_data() -> list[dict[str, str]]:
    """The forms in which people bring images of their own: name, what it is, keys of the data section."""
    return [{"name": own.name, "title": own.title, "keys": own.keys} for own in OWN_DATA.values()]


def print_datasets(rows: list[dict[str, Any]]) -> None:
    """The data sets as a table on stdout."""
    table = Table("name", "train", "test", "classes", "image", "flips", "here", "download", "source", box=None)
    table.header_style = "bold"
    for row in rows:
        size = f"{row['download_mb']} MB" if row["download_mb"] else "comes with scikit-learn"
        shape = "x".join(str(side) for side in row["shape"])
        yes = {True: "yes", False: "no"}
        table.add_row(
            row["name"], f"{row['train']:,}", f"{row['test']:,}", str(row["classes"]), shape,
            yes[row["flips"]], yes[row["present"]], size, row["source"],
        )  # fmt: skip
    console = Console()
    console.print(table)
    console.print("\nyour own images:")
    own = Table("name", "what it is", "keys under data", box=None, header_style="bold")
    for entry in list_own_data():
        own.add_row(entry["name"], entry["title"], entry["keys"])
    console.print(own)


def _short(value: Any) -> str:
    return "[" + ",".join(map(str, value)) + "]" if isinstance(value, tuple) else str(value)
