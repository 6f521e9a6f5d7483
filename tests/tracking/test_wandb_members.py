"""How members are shown: a run each with its epochs, with its summary alone, or a table in the ensemble's run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ensemble.config import parse_experiment
from ensemble.errors import ConfigError
from ensemble.tracking.trackers.wandb import WandbConfig
from ensemble.tracking.wandb_projection import Finish, Open, Projection, Row, Shown, Summary, Table
from ensemble.tracking.wandb_tracker import WandbTracker, replay
from tests.contracts.tracker_contract import a_run
from tests.tracking.test_wandb_offline import CONFIG
from tests.tracking.wandb_reader import plain, read_folder


def told(projection: Projection, events: list[Any]) -> list[Any]:
    return [*(i for time, event in events for i in projection.handle(event, time)), *projection.close(True)]


def ensembles_rows(members: Any) -> list[Any]:
    projection = Projection("bag", CONFIG, Shown(members=members))
    return [i for i in told(projection, a_run()) if isinstance(i, Row) and i.id == projection.ensemble]


def test_a_summary_alone_is_that_of_the_whole_run() -> None:
    full, summary = (Projection("bag", CONFIG, Shown(members=how)) for how in ("full", "summary"))
    whole, short = told(full, a_run()), told(summary, a_run())
    for index in range(3):
        id = summary.member_id(index)
        assert [type(i) for i in short if i.id == id] == [Open, Summary, Finish]
        assert [i for i in short if i.id == id][1:] == [i for i in whole if i.id == id][-2:]
    assert ensembles_rows("summary") == ensembles_rows("full") == ensembles_rows("none")


def test_a_member_that_was_cut_off_has_a_summary_too() -> None:
    projection = Projection("bag", CONFIG, Shown(members="summary"))
    instructions = told(projection, a_run()[:5])
    of_first = [i for i in instructions if i.id == projection.member_id(0)]
    assert [type(i) for i in of_first] == [Open, Summary, Finish]
    assert of_first[1].values == {"status": "unfinished", "epoch": 2}


def test_without_runs_of_members_there_is_a_table_of_them() -> None:
    projection = Projection("bag", CONFIG, Shown(members="none"))
    instructions = told(projection, a_run())
    assert {i.id for i in instructions} == {projection.ensemble}
    (table,) = [i.data for i in instructions if isinstance(i, Table)]
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [(row["member"], row["status"], row["kept_epoch"], row["failure_kind"]) for row in rows] == [
        (0, "finished", 3, None), (1, "finished", 2, None), (2, "failed", None, "diverged")
    ]  # fmt: skip
    cut_off = Projection("bag", CONFIG, Shown(members="none"))
    (table,) = [i.data for i in told(cut_off, a_run()[:5]) if isinstance(i, Table)]
    assert [row[2] for row in table.rows] == ["unfinished", "unfinished"]


@pytest.mark.parametrize("how", ["summary", "none"])
def test_files_hold_as_many_runs_and_a_replay_the_same(how: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("ensemble.tracking.wandb_tracker.CLOSE_TIMEOUT_S", {"offline": 120.0})
    config = WandbConfig(mode="offline", members=how)
    tracker = WandbTracker(config, "bag", CONFIG, tmp_path)
    for moment, event in a_run():
        tracker.handle(event, moment)
    tracker.close(True)
    live = read_folder(tmp_path)
    assert len(live) == {"summary": 4, "none": 1}[how]
    assert [run for id, run in live.items() if not id.endswith("ensemble") and run.history] == []
    assert replay(a_run(), config, "bag", CONFIG, tmp_path)
    again = read_folder(tmp_path)
    assert set(again) == set(live)
    for id, run in again.items():
        assert [flat(row) for row in run.history] == [flat(row) for row in live[id].history]
        assert flat(run.summary) == flat(live[id].summary)
        assert run.exit_code == live[id].exit_code


def flat(row: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in plain(row).items()
        if isinstance(value, int | float) and not name.endswith(".size")
    }


def test_ids_have_nothing_to_do_with_how_runs_are_shown() -> None:
    one = Projection("bag", CONFIG)
    for shown in (Shown(group="bag"), Shown(name="bag"), Shown(job_type="member"), Shown(members="none")):
        other = Projection("bag", CONFIG, shown)
        assert (other.ensemble, other.member_id(1)) == (one.ensemble, one.member_id(1))
    same_group = [Projection(name, CONFIG, Shown(group="all", name="all")) for name in ("a", "b")]
    ids = [id for each in same_group for id in (each.ensemble, *(each.member_id(m) for m in range(3)))]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("name", ""), ("name", " a"), ("name", "x" * 101), ("name", "a\nb"), ("group", "a\x1b[31m"), ("group", "x" * 129),
        ("job_type", "a\tb"), ("job_type", "member"), ("notes", "x" * 8001), ("notes", "a\x00"), ("members", "some"),
        ("artifact", []), ("artifact", ["votes", "votes"]), ("artifact", ["everything"]),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused_by_its_key(key: str, value: Any) -> None:
    values = {
        "name": "x", "num_members": 2, "method": {"name": "bagging"}, "model": {"name": "lenet5"},
        "tracking": {"wandb": {key: tuple(value) if isinstance(value, list) else value}},
    }  # fmt: skip
    with pytest.raises(ConfigError, match=rf"tracking\.wandb\.{key}") as refused:
        parse_experiment(values)
    assert "\x1b" not in str(refused.value)
    assert "\x00" not in str(refused.value)
