"""data.image_size as one number or as height and width, and data.resize: read, shown, explained, compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.config import Experiment, load_config, parse_experiment
from ensemble.config.data import DataConfig
from ensemble.config.json_schema import json_schema
from ensemble.config.loading import parse_stored
from ensemble.config.sweeping import load_sweep
from ensemble.errors import ConfigError
from ensemble.report.listings import list_own_data
from ensemble.storage.identity import differences
from ensemble.tracking.wandb_projection import config_hash

TEXT = """\
num_members: 2
method: {name: bagging}
model: {name: cnn}
data:
  name: image_folder
  root: pictures
  image_size: SIZE
"""


def written(folder: Path, size: str = "[160, 224]") -> Path:
    path = folder / "mine.yaml"
    path.write_text(TEXT.replace("SIZE", size))
    return path


def made(**data: Any) -> Experiment:
    given = {"name": "image_folder", "root": "pictures", "image_size": 32, **data}
    values = {"name": "x", "num_members": 2, "method": {"name": "bagging"}, "model": {"name": "cnn"}, "data": given}
    return parse_experiment(values)


@pytest.mark.parametrize("size", ["224", "[160, 224]", "[224, 224]"])
def test_it_is_stored_and_shown_as_given(tmp_path: Path, size: str) -> None:
    data = load_config(written(tmp_path, size)).experiment.data
    given = yaml.safe_load(size)
    assert data.height_width == (tuple(given) if isinstance(given, list) else (given, given))
    dumped = data.model_dump(mode="json")
    assert dumped["image_size"] == given
    assert parse_stored({**made().model_dump(mode="json"), "data": dumped}).data == data
    shown = CliRunner().invoke(main, ["config", str(tmp_path / "mine.yaml")])
    line = next(line for line in shown.stdout.splitlines() if line.startswith("data.image_size"))
    assert size in line
    assert f"mine.yaml:{TEXT.splitlines().index('  image_size: SIZE') + 1}" in line


def test_on_the_command_line(tmp_path: Path) -> None:
    path = written(tmp_path, "32")
    data = load_config(path, ["data.image_size=[160,224]", "data.resize=pad"]).experiment.data
    assert (data.image_size, data.resize) == ((160, 224), "pad")
    assert load_config(path, ["data.image_size=4096"]).experiment.data.image_size == 4096


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ("3", "data.image_size = 3: expected at least 4, or a list: data.image_size: [160, 224]"),
        ("5000", "data.image_size = 5000: expected at most 4096, or a list: data.image_size: [160, 224]"),
        ("20.5", "data.image_size = 20.5: expected a whole number, or a list: data.image_size: [160, 224]"),
        ("large", "data.image_size = 'large': expected a whole number, or a list: data.image_size: [160, 224]"),
        ("true", "data.image_size = true: expected a whole number, or a list: data.image_size: [160, 224]"),
        ("[3, 20]", "data.image_size.0 = 3: expected at least 4"),
        ("[20, 4097]", "data.image_size.1 = 4097: expected at most 4096"),
        ("[20, 28, 3]", "data.image_size = [20, 28, 3]: expected at most 2 entries, found 3"),
        ("[20]", "data.image_size.1: missing"),
        (
            "{height: 20}",
            'data.image_size = {"height": 20}: expected a whole number, or a list: data.image_size: [160, 224]',
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path: Path, size: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(written(tmp_path, size))
    head, *lines = str(caught.value).splitlines()
    assert head.endswith("1 mistake in the configuration")
    assert len(lines) == 1
    assert message in lines[0]
    assert "mine.yaml:7" in lines[0]
    values = yaml.safe_load(TEXT.replace("SIZE", size))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, json_schema())


def test_the_schema_of_editors_takes_both_forms() -> None:
    for size in ("32", "[160, 224]"):
        for resize in ("crop", "pad", "squash"):
            jsonschema.validate(yaml.safe_load(f"{TEXT.replace('SIZE', size)}  resize: {resize}\n"), json_schema())


def test_resize_is_for_folders_of_pictures_alone() -> None:
    with pytest.raises(ConfigError, match=r"resize = 'fit': expected one of crop, pad, squash"):
        made(resize="fit")
    for data in ({"name": "mnist"}, {"name": "arrays", "path": "x.npz"}):
        for resize in ("crop", "pad"):
            with pytest.raises(ConfigError, match=f"resize has no effect with data set {data['name']}"):
                parse_experiment({**made().model_dump(), "data": {**data, "resize": resize}})


def test_a_run_is_the_same_however_its_square_is_written_and_cropping_named() -> None:
    """And as earlier versions knew it, which had no data.resize; any other size or resize is another run."""
    before = made().model_dump(mode="json")
    older = {**before, "data": {key: value for key, value in before["data"].items() if key != "resize"}}
    same = [made(), made(image_size=(32, 32)), made(resize="crop"), made(image_size=(32, 32), resize="crop")]
    for config in (each.model_dump(mode="json") for each in same):
        assert differences(older, config) == []
        assert config_hash(config) == config_hash(older)
    others = [made(resize="pad"), made(resize="squash"), made(image_size=(32, 28)), made(image_size=(28, 32))]
    dumped = [each.model_dump(mode="json") for each in others]
    assert len({config_hash(older), *map(config_hash, dumped)}) == 5
    for config, key in zip(dumped, ("resize", "resize", "image_size", "image_size"), strict=True):
        assert [line.partition(":")[0] for line in differences(older, config)] == [f"data.{key}"]
    assert differences(older, dumped[0]) == ["data.resize: 'crop' in the folder, 'pad' now"]


def test_a_sweep_over_sizes_and_resizes(tmp_path: Path) -> None:
    plan = load_sweep(written(tmp_path, "32"), ["data.image_size=24,[20,28],[28,20]", "data.resize=crop,pad"])
    found = [plan.experiment(setting, name="x").data for setting in plan.settings]
    assert [(data.image_size, data.resize) for data in found] == [
        (size, resize) for size in (24, (20, 28), (28, 20)) for resize in ("crop", "pad")
    ]
    assert len({setting.name for setting in plan.settings}) == 6
    for axis in ("data.image_size=24,[24,24]", "data.resize=null,crop"):
        with pytest.raises(ConfigError, match="two settings of the sweep are the same configuration"):
            load_sweep(written(tmp_path, "32"), [axis])


def test_data_sets_and_networks_are_listed_with_it(tmp_path: Path) -> None:
    for own in list_own_data():
        section = DataConfig.registry.all()[own["name"]]
        keys = {key for key in section.model_fields if key not in DataConfig.model_fields}
        assert set(own["keys"].split(", ")) == keys - {"code"}
    done = CliRunner().invoke(main, ["models", str(written(tmp_path, "[20, 28]")), "--json"])
    assert "images 3x20x28" in json.loads(done.stdout)["title"]
