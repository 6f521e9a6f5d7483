"""What W&B is told, worked out without W&B."""

from __future__ import annotations

import pytest

from ensemble.events import MemberFailed, MemberFinished, RunStarted, TaskStarted
from ensemble.tracking.run_identity import config_hash, member_config, tag_names
from ensemble.tracking.wandb_projection import (
    Finish,
    Open,
    Projection,
    Row,
    Shown,
    Summary,
    TableData,
)
from tests.contracts.tracker_contract import T0, a_run, epoch

CONFIG = {
    "name": "bag",
    "seed": 1,
    "output_dir": "runs",
    "method": {"name": "bagging"},
    "baseline": False,
    "data": {"name": "mnist", "root": "/data"},
    "model": {"name": "lenet5"},
    "training": {"lr": 1e-3},
    "compute": {"executor": "ray", "threads_per_task": 1},
    "members": [],
}


def told(projection, events):
    return [instruction for time, event in events for instruction in projection.handle(event, time)]


def of(instructions, id, kind):
    return [i for i in instructions if isinstance(i, kind) and i.id == id]


def test_ids_come_from_the_name_and_what_binds_the_members():
    one = Projection("bag", CONFIG)
    elsewhere = {**CONFIG, "output_dir": "/other", "data": {"name": "mnist", "root": "/elsewhere"}}
    assert Projection("bag", elsewhere).group == one.group == f"bag-{config_hash(CONFIG)}"
    assert one.member_id(3) == f"{one.group}-m0003"
    assert one.ensemble == f"{one.group}-ensemble"
    for change in ({"seed": 2}, {"training": {"lr": 2e-3}}, {"compute": {"executor": "ray", "threads_per_task": 2}}):
        assert Projection("bag", {**CONFIG, **change}).group != one.group
    assert Projection("bag", {**CONFIG, "compute": {"executor": "inline", "threads_per_task": 1}}).group == one.group


def test_every_run_of_a_run():
    projection = Projection("bag", CONFIG, Shown(tags=("night",)))
    instructions = [*told(projection, a_run()), *projection.close(True)]
    opened = [i for i in instructions if isinstance(i, Open)]
    assert [(run.job_type, run.name) for run in opened] == [
        ("ensemble", "bag ensemble"), ("member", "bag m0000"), ("member", "bag m0001"),
        ("member", "bag m0002"), ("member", "bag m0002"),  # tried again: told anew
    ]  # fmt: skip
    assert {run.group for run in opened} == {projection.group}
    assert opened[1].tags == ("bagging", "mnist", "lenet5", "night")
    assert opened[1].config["member"] == 0
    assert [(i.id, i.exit_code) for i in instructions if isinstance(i, Finish)] == [
        (projection.member_id(0), 0), (projection.member_id(1), 0), (projection.member_id(2), 1),
        (projection.member_id(2), 1), (projection.ensemble, 0),
    ]  # fmt: skip
    (summary,) = of(instructions, projection.member_id(1), Summary)
    assert summary.values == {
        "status": "finished", "place": "host: cpu", "kept/epoch": 2, "kept/validation_error": (0.1 + 1 / 30) / 2,
        "kept/validation_loss": 1.25 / 2, "kept/train_loss": 1.5 / 2, "num_parameters": 61706, "train_seconds": 7.5,
    }  # fmt: skip
    assert [row.values["validation/error"] for row in of(instructions, projection.member_id(2), Row)] == [
        0.1,
        0.05,
        0.3,
    ]


def test_rows_of_the_ensemble_count_its_members():
    projection = Projection("bag", CONFIG)
    every = of(told(projection, a_run()), projection.ensemble, Row)
    assert [row.step for row in every] == list(range(1, len(every) + 1))
    rows = [row for row in every if "members/finished" in row.values]
    assert len(rows) == 3
    assert [(row.values["members/finished"], row.values["members/failed"]) for row in rows] == [(1, 0), (2, 0), (2, 1)]
    assert rows[1].values["members/mean_validation_error"] == pytest.approx((0.1 / 3 + (0.1 + 1 / 30) / 2) / 2)


def test_a_retried_member_whose_run_is_still_open_is_told_anew_with_the_epochs_that_still_stand():
    projection = Projection("bag", CONFIG)
    first = [(T0, epoch(0, 1)), (T0 + 1, epoch(0, 2)), (T0 + 2, epoch(0, 3, error=0.9))]
    told(projection, first)
    again = projection.handle(epoch(0, 2, error=0.4), T0 + 9)
    assert isinstance(again[0], Open)
    assert [(row.step, row.time, row.values["validation/error"]) for row in again[1:]] == [
        (1, T0, 0.1),
        (2, T0 + 9, 0.2),
    ]


def test_an_earlier_session_is_remembered_but_its_members_are_not_opened():
    projection = Projection("bag", CONFIG)
    earlier = [*a_run()[:9], (T0 + 50, epoch(7, 1))]  # member 0 finished; member 7 was cut off after an epoch
    for time, event in earlier:
        projection.recall(event, time)
    opened = projection.handle(RunStarted("bag", "bagging", 3, 1, "inline", 1), T0 + 60)
    assert {type(i) for i in opened[1:]} == {Row}
    assert isinstance(opened[0], Open)
    assert [row.values["member/index"] for row in opened[1:] if "member/index" in row.values] == [0]
    continued = projection.handle(epoch(7, 2), T0 + 61)
    assert [row.step for row in of(continued, projection.member_id(7), Row)] == [1, 2]
    ended = projection.handle(MemberFinished(1, "lenet5", 10, 1.0, 3, 0.5), T0 + 62)
    assert [row.values["members/finished"] for row in of(ended, projection.ensemble, Row)] == [2]


def test_a_member_that_failed_before_its_first_epoch_is_shown():
    projection = Projection("bag", CONFIG)
    instructions = projection.handle(MemberFailed(4, "out_of_memory", "6 GiB", 1, 2.0, "drop"), T0)
    assert [type(i) for i in instructions] == [Open, Summary, Finish, Open, Row]
    assert instructions[1].values["failure/kind"] == "out_of_memory"


def test_members_cut_off_end_as_failed():
    projection = Projection("bag", CONFIG)
    told(projection, [(T0, RunStarted("bag", "bagging", 1, 0, "inline", 1)), (T0, epoch(0, 1))])
    assert projection.close(False) == [Finish(projection.member_id(0), 1), Finish(projection.ensemble, 1)]
    assert projection.close(False) == []


def test_the_judgement_follows_the_rows_of_the_members():
    projection = Projection("bag", CONFIG)
    before = of(told(projection, a_run()), projection.ensemble, Row)[-1].step
    table = TableData("leaderboard", ("name",), (("soft",),))
    *rows, shown, summary = projection.judge({"error/test": 0.1}, [{"size/members": 1}, {"size/members": 2}], [table])
    assert [row.step for row in rows] == [before + 1, before + 2]
    assert (shown.step, shown.data) == (before + 3, table)
    assert summary == Summary(projection.ensemble, {"error/test": 0.1})


def test_a_member_of_a_mixed_ensemble_shows_its_own_model_and_training():
    mixed = {
        **CONFIG,
        "model": None,
        "members": [
            {"name": None, "count": 1, "model": {"name": "lenet5"}, "training": None},
            {"name": "big", "count": 2, "model": {"name": "resnet18"}, "training": {"lr": 0.1}},
        ],
    }
    assert member_config(mixed, 2, "big")["model"] == {"name": "resnet18"}
    assert member_config(mixed, 2, "big")["training"] == {"lr": 0.1}
    assert member_config(mixed, 0, "lenet5")["training"] == {"lr": 1e-3}
    assert "members" not in member_config(mixed, 0, "lenet5")
    assert tag_names(mixed, ()) == ("bagging", "mnist", "lenet5", "resnet18")
    projection = Projection("mix", mixed)
    projection.handle(TaskStarted("t", (2,), "big", 3, "h", 1, "cpu", 1), T0)
    assert projection.handle(epoch(2, 1), T0)[0].tags == ("bagging", "mnist", "resnet18")


def test_a_member_whose_network_has_another_name_than_its_section_has_its_model() -> None:
    """Groups without a name are called by their function or architecture: the model's section is python, or torchvision."""
    models = [
        {"name": "python", "path": "nets.py:make_net"},
        {"name": "torchvision", "architecture": "resnet18"},
        {"name": "mlp"},
    ]
    mixed = {**CONFIG, "model": None, "members": [{"name": None, "count": 2, "model": model} for model in models]}
    for index, recipe in enumerate(("make_net", "make_net", "resnet18", "resnet18", "mlp", "mlp")):
        assert member_config(mixed, index, recipe)["model"] == models[index // 2]


def test_views_at_test_time_are_another_run_and_a_run_without_them_keeps_its_hash() -> None:
    before = {key: value for key, value in CONFIG.items() if key != "evaluation"}
    for none in ({}, {"sets": []}, {"sets": [], "tta": {"shift": 0, "crops": 0}}):
        assert config_hash({**before, "evaluation": none}) == config_hash(before)
    shifts = [config_hash({**before, "evaluation": {"sets": [], "tta": {"shift": n}}}) for n in (0, 1, 2)]
    assert len(set(shifts)) == 3
