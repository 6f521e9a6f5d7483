"""The judgement as figures, curves and tables: nothing lost, nothing worked out anew."""

from __future__ import annotations

import numpy as np

from ensemble.evaluation.records import Evaluation
from ensemble.tracking.wandb_evaluation import curves, figures, tables
from tests.tracking.judgement import CONFUSION, judgement


def test_the_example_has_the_keys_of_the_real_one():
    assert set(judgement()) <= set(Evaluation.__dataclass_fields__)


def test_figures_are_those_of_the_headline_and_the_verdict():
    found = figures(judgement())
    assert found["error/test"] == 0.1
    assert found["error/best_member"] == 2 / 15
    assert found["error/mean_member"] == 0.15
    assert found["verdict/p_value"] == 0.25
    assert found["verdict/outcome"] == "not distinguishable"
    assert all(value is not None for value in found.values())


def test_the_size_curve_is_one_row_per_size():
    assert curves(judgement())[0] == {
        "size/members": 1, "size/error": 0.15, "size/error_lower": 0.13, "size/error_upper": 0.17,
        "size/error_best": 0.13, "size/error_worst": 0.17,
    }  # fmt: skip
    assert [row["size/members"] for row in curves(judgement())] == [1, 2]


def test_tables_hold_every_record():
    found = {table.name: table for table in tables(judgement(), {})}
    board = found["leaderboard"]
    assert [dict(zip(board.columns, row, strict=True)) for row in board.rows] == judgement()["leaderboard"]
    assert found["contributions"].rows[1] == (1, -0.01, None)
    cells = {(actual, predicted): count for actual, predicted, count in found["confusion"].rows}
    assert cells == {(str(a), str(p)): CONFUSION[a][p] for a in range(3) for p in range(3)}
    assert found["confusion"].chart == "confusion"


def test_disputed_rows_name_their_votes_and_show_their_images():
    image = np.zeros((28, 28), np.uint8)
    (table,) = [table for table in tables(judgement(), {4: image}) if table.name == "disputed"]
    assert table.columns[0] == "image"
    assert table.rows[0][0] is image
    assert table.rows[0][1:] == (4, "2", "0", "0: 1, 2: 1", 0.69, 0.4)
    assert table.rows[1][0] is None
    (bare,) = [table for table in tables(judgement(), {}) if table.name == "disputed"]
    assert bare.columns[0] == "row"
