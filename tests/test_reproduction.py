"""Reproduced rows: real small trainings, read back and compared with the stored votes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.errors import ConfigError
from ensemble.report.reproduced import markdown
from ensemble.results.reproduction import (
    ROWS,
    Reproduced,
    chosen_rows,
    find_configurations,
    overrides_of,
    seed_experiment,
)
from ensemble.storage import RunFolder

SMALL = ["data={name: digits}", "training.epochs=4", "compute.executor=inline", "tracking.wandb.mode=disabled"]


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    """The JSON of a row trained small, and the folder with table and figures."""
    root = tmp_path_factory.mktemp("reproduce")
    command = ["reproduce", "mlp_128_64_adam", "seeds=3", f"output_dir={root}", *SMALL]
    result = CliRunner().invoke(main, [*command, "--json", "-q", "--out", str(root / "out")])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert len(document) == 1
    return document[0], root


def test_figures_are_those_of_the_stored_votes(printed: tuple[dict[str, object], Path]) -> None:
    found, root = printed
    folder = RunFolder.read(root / "seed_mlp_128_64_adam")
    labels_N = folder.load_labels().test_labels_N
    members = [folder.load_member(index) for index in range(3)]
    errors = [float((m.votes.test_NK.argmax(1) != labels_N).mean()) for m in members]
    assert found["errors"] == pytest.approx(errors)
    assert found["test_picked"] == [min(r.test_error for r in m.history if r.test_error is not None) for m in members]
    assert found["kept_epochs"] == [m.kept_epoch for m in members]
    mean_vote = np.mean([m.votes.test_NK.astype(np.float64) for m in members], axis=0)
    assert found["vote_error"] == pytest.approx(float((mean_vote.argmax(1) != labels_N).mean()))


def test_the_kept_epoch_is_chosen_on_validation(printed: tuple[dict[str, object], Path]) -> None:
    _, root = printed
    folder = RunFolder.read(root / "seed_mlp_128_64_adam")
    labels_N = folder.load_labels().test_labels_N
    for index in range(3):
        member = folder.load_member(index)
        best = min(member.history, key=lambda record: record.validation_loss)
        assert member.kept_epoch == best.epoch
        assert best.test_error == pytest.approx(float((member.votes.test_NK.argmax(1) != labels_N).mean()))


def test_table_and_pictures_are_written(printed: tuple[dict[str, object], Path]) -> None:
    _, root = printed
    names = {path.name for path in (root / "out").iterdir()}
    assert names == {
        "seeds.md", "curves_mlp_128_64_adam.png", "classes_mlp_128_64_adam.png",
        "confusion_mlp_128_64_adam.png", "samples.png",
        "image_and_probabilities.png",
    }  # fmt: skip
    text = (root / "out" / "seeds.md").read_text()
    assert "| mlp_128_64_adam |" in text
    assert "| 4 of 5 |" in text  # fewer epochs than the file's say so
    assert "| 2.58 | 97.42 % right |" in text


def test_the_table_of_other_rows_is_not_replaced(printed: tuple[dict[str, object], Path]) -> None:
    _, root = printed
    before = (root / "out" / "seeds.md").read_bytes()
    command = ["reproduce", "lenet5", "seeds=1", f"output_dir={root}", *SMALL, "--out", str(root / "out"), "-q"]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 2, refused.output
    assert "the table of other rows" in refused.stderr
    assert (root / "out" / "seeds.md").read_bytes() == before
    assert not (root / "seed_lenet5").exists()  # refused before anything was trained


def test_a_second_start_trains_nothing(printed: tuple[dict[str, object], Path]) -> None:
    first, root = printed
    command = ["reproduce", "mlp_128_64_adam", "seeds=3", f"output_dir={root}", *SMALL, "--json", "-q"]
    again = json.loads(CliRunner().invoke(main, command).stdout)[0]
    assert again == first


def result(**changes: object) -> Reproduced:
    plain = Reproduced(
        ROWS["tiny_phase4"], Path("x"), 7753, 15, 15, (0.005, 0.0052), (0.004, 0.006), (15, 15),
        (0.0051, 0.0055, 0.0054), (0.0049, 0.005), 0.0045, 1.0,
    )  # type: ignore[arg-type] # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def test_reached_and_goal() -> None:
    assert result().reached
    assert not result(errors=(0.0053, 0.0054)).reached
    assert result().goal_reached
    assert not result(last_errors=(0.0051, 0.00551, 0.0050)).goal_reached  # one epoch above is enough to miss
    assert not result(last_errors=(0.0051,)).goal_reached  # not watched for long enough
    assert result(row=ROWS["resnet50"]).reached is None
    assert result(row=ROWS["lenet5"], errors=(0.0061,)).goal_reached is False
    assert "yes (0.51, 0.55, 0.54)" in markdown([result()])


def test_unknown_rows_and_seeds_are_refused() -> None:
    with pytest.raises(ConfigError, match="no such row: lenet6"):
        chosen_rows(["lenet6"])
    answer = CliRunner().invoke(main, ["reproduce", "lenet5", "seeds=0"])
    assert answer.exit_code == 2
    assert "whole number of at least 1" in answer.output


def test_every_row_has_its_configuration_and_watches_the_test_curve() -> None:
    folder = find_configurations()
    assert {path.stem for path in folder.glob("*.yaml")} == ROWS.keys()
    for row in ROWS.values():
        experiment = seed_experiment(row, folder, 2, [])
        assert experiment.training.watch_test
        assert experiment.total_members == 2
        assert experiment.compute.stack_size == 2


def test_an_override_can_be_meant_for_one_row() -> None:
    words = ["training.epochs=3", "resnet50.training.epochs=1", "resnet50.training.lr=0.1", "lenet5.seed=4"]
    assert overrides_of(ROWS["resnet50"], words) == ["training.epochs=3", "training.epochs=1", "training.lr=0.1"]
    assert overrides_of(ROWS["lenet5_augmented"], words) == ["training.epochs=3"]
