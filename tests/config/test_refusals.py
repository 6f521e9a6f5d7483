"""What is refused before anything starts, each with the reason and the place: mistakes that no other test makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from ensemble.config import load_config
from ensemble.config.sweeping import load_sweep
from ensemble.errors import ConfigError

GOOD = "num_members: 2\nmodel: {name: mlp}\n"


def refused(folder: Path, text: str, *overrides: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"{GOOD}name: {'[' * 5000}", "mine.yaml: lists or sections nested too deeply"),
        (f'{GOOD}name: "a\\ud800"\n', "half of a character"),
        (f"{GOOD}training: {{lr: 0.{'1' * 5000}}}\n", "a number of 5,002 signs; expected at most"),
    ],
    ids=["depth", "character", "digits"],
)
def test_what_no_value_can_be(text: str, reason: str, tmp_path: Path) -> None:
    assert reason in refused(tmp_path, text)


def test_a_word_where_a_section_belongs_leads_to_the_key_that_takes_it(tmp_path: Path) -> None:
    text = f"{GOOD}method: {{name: bagging}}\n"
    assert "did you mean failures.policy: drop?" in refused(tmp_path, f"{text}failures: drop\n")
    assert "expected a section of keys: policy, crash_retries" in refused(tmp_path, f"{text}failures: perhaps\n")


@pytest.mark.parametrize(
    ("sweep", "reason"),
    [
        ("[1, 2]", "mine.yaml: sweep: expected a section with axes and seeds"),
        ("{axis: {seed: [1]}}", "expected a section with axes and seeds, found {'axis'"),
        ("{axes: {training.lr: 0.1}}", "sweep.axes.training.lr: expected a list of values, found 0.1"),
        ("{axes: {training.lr: []}}", "sweep.axes.training.lr: expected a list of values"),
    ],
)
def test_a_sweep_that_is_none(sweep: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"{GOOD}method: {{name: bagging}}\nsweep: {sweep}\n")
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, [])
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("method", "training", "reason"),
    [
        ("{name: snapshot}", "{early_stopping_epochs: 1, keep: best_validation}", "would end snapshot's cycles"),
        ("{name: fast_geometric, chains: 2, cycle_epochs: 5}", "{}", "method.cycle_epochs has no effect where num_members equals chains"),
        ("{name: gradient_boosting}", "{augmentation: {mixup_alpha: 0.2}}", "training.augmentation.mixup_alpha mixes labels"),
        ("{name: gradient_boosting}", "{sampling: balanced}", "training.sampling"),
        ("{name: gradient_boosting}", "{loss: focal}", "whose networks are fitted to gradients and not to labels"),
        ("{name: snapshot, chains: 3}", "{}", "num_members is 2, but snapshot trains 3 chain(s) side by side: expected a multiple of 3"),
        ("{name: filter_boosting}", "{augmentation: {shift: 0.1}}", "filter_boosting trains chains of three networks: expected a multiple of 3"),
    ],
)  # fmt: skip
def test_what_a_method_cannot_use(method: str, training: str, reason: str, tmp_path: Path) -> None:
    assert reason in refused(tmp_path, f"{GOOD}method: {method}\ntraining: {training}\n")
