"""The schema that editors go by takes what the program takes, and marks what it refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.config.json_schema import FILE, json_schema
from ensemble.config.keys import all_keys

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [
    path
    for path in sorted((ROOT / "configs").rglob("*.yaml"))
    if not {"accelerate", "wandb"} & set(path.relative_to(ROOT).parts)
]


def loose(content: str) -> Any:
    """As an editor reads YAML 1.2, in which 1e-3 is a number."""
    values = yaml.safe_load(content)

    def number(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: number(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [number(inner) for inner in value]
        if isinstance(value, str) and value[:1].isdigit():
            try:
                return float(value)
            except ValueError:
                return value
        return value

    return number(values)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_that_comes_along_fits(path: Path) -> None:
    values = loose(path.read_text())
    values.pop("sweep", None)  # of sweep files, which `ensemble sweep` reads
    jsonschema.validate(values, json_schema())


GOOD: dict[str, Any] = {"method": {"name": "bagging"}, "num_members": 2, "model": {"name": "lenet5"}}


@pytest.mark.parametrize(
    "mistake",
    [
        {"traning": {}}, {"num_members": "two"}, {"method": {"name": "baging"}}, {"method": {"name": "bagging", "chains": 2}},
        {"training": {"lr": -1}}, {"training": {"schedule": "one_cicle"}}, {"model": {"name": "cnn", "width": [3]}},
        {"data": {"name": "mnis"}}, {"compute": {"executor": "slurm"}}, {"training": {"augmentation": {"mixup": 0.2}}},
    ],
    ids=json.dumps,
)  # fmt: skip
def test_mistakes_are_marked(mistake: dict[str, Any]) -> None:
    jsonschema.validate(GOOD, json_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**GOOD, **mistake}, json_schema())


def keys_of(part: Any) -> Iterator[str]:
    """Every key that a schema knows, at any depth."""
    if isinstance(part, dict):
        yield from part["properties"] if isinstance(part.get("properties"), dict) else ()
        for inner in part.values():
            yield from keys_of(inner)


def test_it_has_every_key_with_its_meaning() -> None:
    schema = json_schema()
    assert {key[-1] for key in all_keys()} <= set(keys_of(schema))
    described = [
        key for key, facts in schema["$defs"]["AugmentationConfig"]["properties"].items() if facts.get("description")
    ]
    assert "mixup_alpha" in described


def test_the_command_prints_it_without_a_configuration() -> None:
    done = CliRunner().invoke(main, ["config", "--schema"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == json.loads(json.dumps(json_schema()))


def test_init_writes_it_beside_and_leaves_other_files_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["init", "digits"]).exit_code == 0
    text = (tmp_path / "digits.yaml").read_text()
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={FILE}"
    schema = json.loads((tmp_path / FILE).read_text())
    jsonschema.validate(loose(text), schema)
    for other in ("not json", '{"title": "mine"}'):
        (tmp_path / FILE).write_text(other)
        assert CliRunner().invoke(main, ["init", "digits", "--out", f"{len(other)}.yaml"]).exit_code == 0
        assert (tmp_path / FILE).read_text() == other
    (tmp_path / FILE).write_text(json.dumps({**schema, "properties": {}}))  # of an earlier version
    assert CliRunner().invoke(main, ["init", "digits", "--out", "again.yaml"]).exit_code == 0
    assert json.loads((tmp_path / FILE).read_text()) == schema
