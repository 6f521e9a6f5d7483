"""Configuration: what is accepted, where values come from, and messages good enough to mend a mistake by."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ensemble.config import load_config, parse_experiment
from ensemble.config.loading import flat_values
from ensemble.errors import ConfigError

SWEEPS = sorted(Path("configs").glob("sweeps/*.yaml"))
CONFIGS = sorted(
    set(Path("configs").glob("**/*.yaml"))
    - set(SWEEPS)
    - set(Path("configs").glob("accelerate/*.yaml"))
    - set(Path("configs").glob("wandb/*.yaml"))
)
GOOD = """
num_members: 4
method: {name: bagging}
model: {name: cnn, widths: [16, 32]}
training: {lr: 1e-3, schedule: cosine}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "some.yaml"
    path.write_text(text)
    return path


def mistakes(folder: Path, text: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, text), overrides)
    return str(caught.value)


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_shipped_configuration_loads(path: Path) -> None:
    assert load_config(path).experiment.total_members >= 1


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_a_resolved_configuration_can_be_loaded_again(path: Path, tmp_path: Path) -> None:
    """What a run stores as config.yaml is itself a configuration, of the same experiment."""
    experiment = load_config(path).experiment
    stored = tmp_path / "config.yaml"
    stored.write_text(yaml.safe_dump(experiment.model_dump(mode="json")))
    assert load_config(stored).experiment.model_dump() == experiment.model_dump()


def test_values_overrides_and_origins(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, GOOD), ["training.batch_size=32", "training.schedule.warmup_fraction=0.1"])
    experiment, origins = loaded.experiment, loaded.origins
    assert (experiment.name, experiment.training.lr, experiment.training.batch_size) == ("some", 1e-3, 32)
    assert experiment.training.schedule.name == "cosine"
    assert origins["num_members"].endswith("some.yaml:2")
    assert origins["model.widths"].endswith("some.yaml:4")
    assert origins["training.schedule.name"].endswith("some.yaml:5")
    assert origins["training.batch_size"] == "command line"
    assert origins["training.epochs"] == "default"
    assert set(origins) == set(flat_values(experiment))


def test_all_mistakes_are_listed_at_once_with_line_value_and_nearest_name(tmp_path: Path) -> None:
    text = mistakes(
        tmp_path,
        "num_members: 4\n"
        "method: {name: baging}\n"
        "model: {name: cnn, width: [1, 2]}\n"
        "trainig: {lr: 1}\n"
        "training:\n"
        "  learning_rate: 1e-3\n"
        "  lr: fast\n"
        "  epochs: -1\n"
        "  optimizer: adm\n",
        "training.batchsize=3",
    )
    for expected in (
        "8 mistakes",
        "some.yaml:2: method.name = 'baging': expected one of deep_ensemble",
        "did you mean bagging?",
        "some.yaml:3: model.width: unknown key; did you mean model.widths?",
        "some.yaml:4: trainig: unknown key; did you mean training?",
        "some.yaml:6: training.learning_rate: unknown key; did you mean training.lr?",
        "some.yaml:7: training.lr = 'fast': expected a number",
        "some.yaml:8: training.epochs = -1: expected at least 1",
        "some.yaml:9: training.optimizer = 'adm'",
        "did you mean adam?",
        "command line: training.batchsize: unknown key; did you mean training.batch_size?",
    ):
        assert expected in text, f"{expected!r} not in:\n{text}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_members: 4\nnum_members: 5\n", "some.yaml:2: the key 'num_members' stands twice"),
        ("name: !!python/object/apply:os.system [echo]\n", "not allowed"),
        ("a: [1, 2\n", "not valid YAML"),
        ("- 1\n", "expected keys and values"),
        (GOOD + "seed: .nan\n", "seed"),
        (GOOD.replace("lr: 1e-3", "lr: .inf"), "training.lr"),
        (GOOD + "name: ../../x\n", "name"),
        (GOOD + "name: " + "x" * 300 + "\n", "name"),
        (GOOD.replace("lr: 1e-3", "momentum: 0.9"), "momentum has no effect with optimizer adam"),
        (GOOD.replace("num_members: 4\n", ""), "num_members are needed"),
        (GOOD.replace("{name: bagging}", "{name: bagging, replacement: false}"), "below 1 without replacement"),
        (GOOD + "tracking: {wandb: {api_key: abc}}\n", "secrets belong in the environment"),
        (GOOD + "failures: {retries: 2}\n", "crash_retries"),
        (GOOD.replace("model: {name: cnn", "model: {kind: cnn"), "model"),
    ],
)
def test_refused(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in mistakes(tmp_path, text)


def test_alias_bomb_and_huge_file(tmp_path: Path) -> None:
    bomb = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
    )
    assert "more than 20,000 values" in mistakes(tmp_path, bomb)
    assert "larger than" in mistakes(tmp_path, "# " + "x" * 1_100_000)


def test_missing_file_names_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "near.yaml").write_text(GOOD)
    with pytest.raises(ConfigError, match=r"no such configuration file; in that folder: near\.yaml"):
        load_config(tmp_path / "nera.yaml")


@pytest.mark.parametrize("override", ["epochs", "=3", "training..lr=1", "num_members.x=1", "members.0.count=2"])
def test_refused_overrides(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError):
        load_config(write(tmp_path, GOOD), [override])


def test_groups_inherit_the_common_recipe() -> None:
    experiment = parse_experiment({
        "name": "mixed", "method": {"name": "deep_ensemble"}, "training": {"epochs": 7, "lr": 0.5},
        "members": (
            {"count": 2, "model": {"name": "lenet5"}},
            {"count": 1, "model": {"name": "mlp"}, "training": {"epochs": 3}},
        ),
    })  # fmt: skip
    first, second = experiment.groups
    assert (first.training.epochs, first.training.lr) == (7, 0.5)
    assert (second.training.epochs, second.training.lr) == (3, 0.5)
    assert experiment.total_members == 3


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"num_members": 9}, "num_members is 9, but the groups under members hold 2"),
        ({"model": {"name": "lenet5"}}, "not both"),
        ({"members": ({"count": 1, "model": {"name": "mlp"}},) * 2}, "same name"),
    ],
)
def test_groups_that_contradict(change: dict[str, object], expected: str) -> None:
    values = {
        "name": "m", "method": {"name": "deep_ensemble"}, "members": ({"count": 2, "model": {"name": "lenet5"}},),
    }  # fmt: skip
    with pytest.raises(ConfigError, match=expected):
        parse_experiment({**values, **change})


def test_typo_in_any_key_finds_its_name(tmp_path: Path) -> None:
    """One letter dropped from every key of a full configuration: the right key is suggested for at least 95 %."""
    keys = [key for key in flat_values(load_config(write(tmp_path, GOOD)).experiment) if not key.endswith(".name")]
    tried, found = 0, 0
    for key in keys:
        leaf = key.rsplit(".", 1)[-1]
        if len(leaf) < 4:
            continue
        typo = key[: -len(leaf)] + leaf[:2] + leaf[3:]
        with pytest.raises(ConfigError) as caught:
            load_config(write(tmp_path, GOOD), [f"{typo}=1"])
        tried += 1
        found += f"did you mean {key}?" in str(caught.value)
    assert tried > 40
    assert found / tried >= 0.95


def test_errors_come_before_torch_or_ray(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from ensemble.commands.main import main\n"
        f"result = CliRunner().invoke(main, ['train', {str(write(tmp_path, 'nmae: x'))!r}])\n"
        "assert result.exit_code == 2, result\n"
        "heavy = {'torch', 'ray', 'accelerate', 'wandb', 'torchvision'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("path", SWEEPS, ids=str)
def test_every_shipped_sweep_loads(path: Path) -> None:
    from ensemble.config.sweeping import load_sweep

    plan = load_sweep(path, [])
    assert plan.in_one_run
    assert plan.mixed().total_members == len(plan.settings) * plan.seeds


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=1e3", "seed = 1000.0: expected a whole number; write 1000"), ("seed=1.0", "seed = 1.0: expected a whole number; write 1"),
        ("seed=1.5", "seed = 1.5: expected a whole number"), ("seed=1_000", "seed = '1_000': expected a whole number"),
        ("seed=1:30", "seed = '1:30': expected a whole number"), ("training.epochs=0", "training.epochs = 0: expected at least 1"),
        ("training.lr=1,5", "training.lr = '1,5': expected a number"), ("training.lr=0", "training.lr = 0: expected more than 0"),
        ("tracking.metrics_port=99999", "tracking.metrics_port = 99999: expected at most 65535"),
    ],
)  # fmt: skip
def test_numbers_are_explained_in_the_words_of_a_person(tmp_path: Path, word: str, said: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("name: c\nnum_members: 2\nmethod: {name: bagging}\nmodel: {name: mlp}\ndata: {name: digits}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(path, [word])
    assert str(caught.value).splitlines()[-1] == f"  command line: {said}"
