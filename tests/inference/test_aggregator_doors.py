"""Every door that takes a vote's name agrees about which there are, and which a method's members can give."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from ensemble import load_ensemble
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.config.schema import AGGREGATORS
from ensemble.errors import ConfigError
from ensemble.results.comparison import JOINT_VOTES, compare_items
from ensemble.results.judging import judge
from ensemble.storage import RunFolder

BAGGED = {
    "name": "x", "num_members": 2, "method": {"name": "bagging"}, "baseline": False, "data": {"name": "digits"},
    "model": {"name": "lenet5"}, "training": {"epochs": 1},
}  # fmt: skip


def configured(_run_path, name):
    parse_experiment({**BAGGED, "aggregator": name})


def loaded(run_path, name):
    load_ensemble(run_path, aggregator=name, device="cpu")


def judged(run_path, name):
    judge(RunFolder.read(run_path), name)


@pytest.mark.parametrize("door", [configured, loaded, judged])
@pytest.mark.parametrize("name", [*AGGREGATORS, "mean", "Soft", ""])
def test_the_same_votes_are_taken_and_refused_everywhere(run_path, door, name):
    if name == "" and door is not configured:
        name = "no such vote"  # nothing given is the run's own
    if name in AGGREGATORS and name != "additive":
        door(run_path, name)
        return
    with pytest.raises(ConfigError, match="gradient_boosting" if name == "additive" else "soft.*hard.*weighted"):
        door(run_path, name)


@pytest.mark.parametrize("command", ["evaluate", "predict", "export", "compare"])
def test_the_commands_offer_the_votes_that_there_are(command):
    options = {option.name: option for option in main.commands[command].params}
    choice = options["aggregator"].type
    assert isinstance(choice, click.Choice)
    assert tuple(choice.choices) == (JOINT_VOTES if command == "compare" else AGGREGATORS)


@pytest.mark.parametrize(
    "words", [["evaluate", "RUN"], ["evaluate", "RUN", "--write"], ["predict", "RUN", "x.png"], ["export", "RUN", "--format", "torch_export"]]
)  # fmt: skip
def test_the_sum_of_boosting_is_no_vote_of_bagged_members(run_path, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = (run_path / "evaluation.json").read_bytes()
    words = [str(run_path) if word == "RUN" else word for word in words]
    done = CliRunner().invoke(main, [*words, "--aggregator", "additive"])
    assert done.exit_code == 2, done.output
    assert "belongs to gradient_boosting" in done.stderr
    assert (run_path / "evaluation.json").read_bytes() == before
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["mean", "weighted", "additive"])
def test_a_joint_vote_without_weights(run_path, name):
    with pytest.raises(ConfigError, match="expected one of soft, hard, geometric"):
        compare_items([str(run_path), f"{run_path}:0"], name)
