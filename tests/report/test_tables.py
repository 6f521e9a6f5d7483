from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ensemble.evaluation.power import mcnemar_power
from ensemble.evaluation.records import Evaluation, LabelReview
from ensemble.evaluation.verdict import against_baseline
from ensemble.report.tables import leaderboard_csv, leaderboard_markdown, print_evaluation
from ensemble.report.wording import outlook
from ensemble.results.line_costs import LineCosts
from ensemble.storage.cost_file import StoredCost

Make = Callable[..., Evaluation]


def printed(
    evaluation: Evaluation,
    monkeypatch: pytest.MonkeyPatch,
    width: int = 80,
    everything: bool = True,
    costs: LineCosts | None = None,
) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    stream = io.StringIO()
    print_evaluation(evaluation, Path("runs/demo"), everything, stream, costs)
    return stream.getvalue()


def costs_of_vote(evaluation: Evaluation) -> LineCosts:
    indices = [member.index for member in evaluation.members]
    cost = StoredCost(kind="vote", members=indices, parameters=10, one_ms=1.25, each_of_batch_ms=0.125)
    return LineCosts("CPU, 1 thread", 64, cost, {}, {})


def line_of(text: str, name: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(name))


def with_headline(evaluation: Evaluation, **changes: object) -> Evaluation:
    first = dataclasses.replace(evaluation.leaderboard[0], **changes)
    return dataclasses.replace(evaluation, leaderboard=(first, *evaluation.leaderboard[1:]))


def with_baseline(evaluation: Evaluation) -> Evaluation:
    vote, best = evaluation.headline, next(row for row in evaluation.leaderboard if row.kind == "best_member")
    row = dataclasses.replace(best, kind="baseline", name="one network on all training rows", member=None)
    place = evaluation.leaderboard.index(best) + 1
    return dataclasses.replace(
        evaluation,
        leaderboard=(*evaluation.leaderboard[:place], row, *evaluation.leaderboard[place:]),
        baseline=against_baseline(vote, row, 3, 20, evaluation.test_rows),
    )


class Tty(io.StringIO):
    """What says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("outcome", ["better", "worse", "not distinguishable"])
def test_colour_is_a_ground_behind_black_or_white_and_so_legible_on_any_terminal(
    evaluation_of: Make, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    evaluation = evaluation_of()
    sentence = f"The soft vote is {outcome} than the rest."
    evaluation = dataclasses.replace(
        evaluation, verdict=dataclasses.replace(evaluation.verdict, outcome=outcome, sentence=sentence)
    )
    stream = Tty()
    print_evaluation(evaluation, Path("runs/demo"), False, stream)
    used = {code for codes in re.findall(r"\x1b\[([0-9;]*)m", stream.getvalue()) for code in codes.split(";")}
    assert used & {"41", "42", "43"}
    assert not used & {"32", "33", "36"}, "green, yellow and cyan letters are no darker than a white ground"
    assert re.search(rf"\x1b\[[0-9;]+m{outcome}\x1b", stream.getvalue())


@pytest.mark.parametrize("timed", [False, True])
@pytest.mark.parametrize("members", [2, 20])
def test_the_short_answer_fits_a_small_terminal(
    evaluation_of: Make, monkeypatch: pytest.MonkeyPatch, members: int, timed: bool
) -> None:
    """80 x 24, with a line for the next command; unequal classes and a baseline make it longest."""
    evaluation = with_baseline(evaluation_of(members=members))
    costs = costs_of_vote(evaluation) if timed else None
    text = printed(evaluation, monkeypatch, 80, everything=False, costs=costs)
    assert (" ms\n" in text, " 1.25\n" in text, "ms: to predict one image" in text) == (timed, timed, timed)
    lines = text.splitlines()
    assert len(lines) <= 23
    assert max(map(len, lines)) <= 80
    first = [line.split("  ")[0] for line in lines[3:7]]
    assert first[0] == "soft vote *"
    assert first[1].startswith("best by validation (")
    assert first[2:] == ["one network, all rows", "mean member"]
    flowing = " ".join(text.split())
    assert evaluation.verdict.sentence in flowing
    assert evaluation.baseline is not None
    assert evaluation.baseline.sentence in flowing
    assert "Worst class:" in flowing
    assert "ensemble evaluate runs/demo --all, ensemble report runs/demo" in text
    assert not [line for line in lines if line.startswith(("hard vote", "greedy", "member 0", "oracle", "Cascade"))]


def test_the_short_answer_keeps_its_warnings(evaluation_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = dataclasses.replace(evaluation_of(), degraded=True, warnings=("members 0 and 1 are the same",))
    text = printed(evaluation, monkeypatch, everything=False)
    assert "warning: degraded" in text
    assert "warning: members 0 and 1 are the same" in text


def test_all_lines_have_the_baseline_beside_the_single_members(
    evaluation_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = printed(with_baseline(evaluation_of()), monkeypatch).splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("one network, all rows"))
    assert lines[place - 1].startswith("best by validation")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_number_is_broken(
    evaluation_of: Make, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    evaluation = evaluation_of(recipes=("lenet5", "resnet18_small"))
    text = printed(evaluation, monkeypatch, width)
    assert max(map(len, text.splitlines())) <= width
    for row in evaluation.leaderboard:
        assert f" {100 * row.test_error:.2f} {100 * row.lower:.2f}-{100 * row.upper:.2f}" in re.sub(" +", " ", text)


def test_eighty_columns_keep_every_column_where_members_are_alike(
    evaluation_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = printed(dataclasses.replace(evaluation_of(), balance=None), monkeypatch)  # of classes about equal
    header = next(line for line in text.splitlines() if "error %" in line)
    assert header.split() == ["error", "%", "95", "%", "int.", "wrong", "val", "%", "NLL", "p", "seconds"]
    assert "Every member has 61,706 parameters." in text


def test_parameters_have_a_column_where_members_differ(evaluation_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(evaluation_of(recipes=("lenet5", "mlp")), monkeypatch, 120)
    assert "params" in text
    assert "parameters." not in text
    assert line_of(text, "member 1 (mlp)").split()[-2] == "62,706"


def test_a_line_says_what_its_record_holds(evaluation_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = with_headline(
        evaluation_of(), test_error=0.0039, wrong=39, lower=0.00286, upper=0.00532, validation_error=0.0051,
        nll=0.01234, p_holm=0.0123, train_seconds=780.4, balanced_error=0.0047,
    )  # fmt: skip
    evaluation = dataclasses.replace(evaluation, balance=None)
    cells = line_of(printed(evaluation, monkeypatch), "soft vote *").split()
    assert cells[3:] == ["0.39", "0.29-0.53", "39", "0.51", "0.0123", "0.012", "780"]


def test_the_balanced_error_stands_beside_the_error_where_classes_are_unequal(
    evaluation_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = with_headline(evaluation_of(), balanced_error=0.0047)
    assert evaluation.balance is not None
    for largest, shown in ((150, False), (151, True)):
        balance = dataclasses.replace(evaluation.balance, smallest=100, largest=largest)
        text = printed(dataclasses.replace(evaluation, balance=balance), monkeypatch, 120)
        assert ("bal. %" in text) == ("Balanced error" in text) == shown
        assert ("0.47" in line_of(text, "soft vote *").split()) == shown


def test_missing_figures_are_a_dash_and_negative_ends_stay_readable(
    evaluation_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = with_headline(evaluation_of(), lower=-0.001, upper=0.002, p_holm=math.nan, nll=math.nan)
    line = line_of(printed(evaluation, monkeypatch, 120), "soft vote *")
    assert "-0.10 to 0.20" in line
    assert line.split()[-4:-2] == ["-", "-"]
    assert "nan" not in line


def test_reference_and_oracle_are_named_for_what_they_are(evaluation_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = evaluation_of()
    text = printed(evaluation, monkeypatch)
    best = next(row for row in evaluation.leaderboard if row.kind == "best_member")
    oracle = next(row for row in evaluation.leaderboard if row.kind == "oracle")
    assert line_of(text, f"best by validation ({best.member})")
    assert line_of(text, f"oracle, by test ({oracle.member})")
    assert "nobody could have chosen it beforehand" in text
    assert text.index("soft vote *") < text.index("stacking") < text.index("best by") < text.index("member 0")
    assert text.index("member 3") < text.index("oracle, by test")


def test_verdict_context_and_place_follow_the_table(evaluation_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = evaluation_of()
    text = printed(evaluation, monkeypatch, 100)
    flat = " ".join(text.split())
    assert evaluation.verdict.sentence in flat
    bags = evaluation.out_of_bag
    assert bags is not None
    assert f"Out of bag: error {100 * bags.error:.2f} %" in flat
    assert f"differ on {100 * evaluation.diversity.measures[0].mean:.2f} % of the test images" in flat
    assert text.splitlines()[-1] == "run: runs/demo"


def test_cautions_are_printed(evaluation_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluation = dataclasses.replace(evaluation_of(asked=6), warnings=("members 1, 2 have identical votes",))
    flat = " ".join(printed(evaluation, monkeypatch).split())
    assert "warning: degraded: 4 of the 6 members asked for vote" in flat
    assert "warning: members 1, 2 have identical votes" in flat
    assert "warning" not in printed(evaluation_of(), monkeypatch)


def test_reviewed_labels_have_a_line(evaluation_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    review = LabelReview("somebody", "a rule", 10, 5, 9995, 35, 35 / 9995, 0.0025, 0.0049, 6)
    flat = " ".join(printed(dataclasses.replace(evaluation_of(), label_review=review), monkeypatch).split())
    assert "Reviewed labels: error 0.35 % (95 % interval 0.25-0.49), 35 wrong of 9,995; 10 labels corrected" in flat


def test_many_members_are_summarised_between_best_and_worst(
    evaluation_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation = evaluation_of(members=20, rows=150, choose=False, bags=False)
    text = printed(evaluation, monkeypatch)
    shown = [int(line.split()[1]) for line in text.splitlines() if line.startswith("member ")]
    rows = sorted((row for row in evaluation.leaderboard if row.kind == "member"), key=lambda row: row.validation_error)
    assert shown == [row.member for row in (*rows[:6], *rows[-6:])]
    errors = [100 * row.test_error for row in rows[6:-6]]
    assert line_of(text, "... 8 more").split()[-1] == f"{min(errors):.2f}-{max(errors):.2f}"


def test_a_lone_member_is_printed(evaluation_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    text = printed(evaluation_of(members=1), monkeypatch)
    assert "There is only one member" in " ".join(text.split())
    assert "Disagreement" not in text


@pytest.mark.parametrize("settings", [{}, {"NO_COLOR": "1"}, {"PYTHONIOENCODING": "ascii"}])
def test_piped_output_has_no_control_codes(
    run_path: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = (
        "import json, sys, pathlib; from ensemble.evaluation.records import Evaluation;"
        "from ensemble.report.tables import print_evaluation; path = pathlib.Path(sys.argv[1]);"
        "print_evaluation(Evaluation.from_json(json.loads((path / 'evaluation.json').read_text())), path)"
    )
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("COLUMNS", raising=False)
    done = subprocess.run([sys.executable, "-c", program, str(run_path)], capture_output=True, timeout=60, check=True)
    assert b"\x1b" not in done.stdout
    lines = done.stdout.decode("ascii").splitlines()
    assert all(line == line.rstrip() for line in lines)
    evaluation = Evaluation.from_json(json.loads((run_path / "evaluation.json").read_text()))
    assert evaluation.verdict.sentence in lines, "a pipe has no width: nothing is broken"
    assert lines[-1] == f"run: {run_path}"  # a path is never broken
    assert done.stderr == b""


def test_csv_holds_every_digit(evaluation_of: Make) -> None:
    evaluation = evaluation_of()
    rows = list(csv.DictReader(io.StringIO(leaderboard_csv(evaluation))))
    records = evaluation.to_json()["leaderboard"]
    assert len(rows) == len(records)
    for row, record in zip(rows, records, strict=True):
        assert [*row] == [*record, "one_image_ms", "image_of_batch_ms"]
        for name, value in record.items():
            if value is None:
                assert row[name] == ""
            elif isinstance(value, bool | str):
                assert row[name] == str(value)
            else:
                assert float(row[name]) == value


def test_markdown_is_a_table_with_the_same_figures(evaluation_of: Make) -> None:
    evaluation = evaluation_of()
    table = [line for line in leaderboard_markdown(evaluation).splitlines() if line.startswith("|")]
    assert {line.count("|") for line in table} == {table[0].count("|")}
    assert len(table) == 2 + len(evaluation.leaderboard)
    head = evaluation.headline
    assert table[2].startswith(rf"| **soft vote \*** | **{100 * head.test_error:.2f}** |")
    assert evaluation.verdict.sentence in leaderboard_markdown(evaluation)


def test_what_would_help_is_read_off_the_curve_and_the_test(evaluation_of: Make) -> None:
    evaluation = evaluation_of(members=8)
    curve = {point.size: point.mean for point in evaluation.size_curve}
    more, *images = outlook(evaluation)
    assert (
        f"from 2 to 4 by {100 * (curve[4] - curve[2]):+.2f}, from 4 to 8 by {100 * (curve[8] - curve[4]):+.2f} points"
        in more
    )
    assert bool(images) == (evaluation.verdict.outcome == "not distinguishable" and evaluation.verdict.difference != 0)
    undecided = dataclasses.replace(
        evaluation.verdict, outcome="not distinguishable", only_vote_wrong=4, only_member_wrong=10, difference=-6 / 400
    )
    sentence = outlook(dataclasses.replace(evaluation, verdict=undecided))[1]
    rows = int(re.search(r"about ([\d,]+) images", sentence)[1].replace(",", ""))  # type: ignore[index]
    assert rows > 400
    assert mcnemar_power(6 / 400, 14 / 400, rows) >= 0.8
    assert mcnemar_power(6 / 400, 14 / 400, round(0.85 * rows)) < 0.8
    assert outlook(evaluation_of(members=2)) == [] or "More members" not in outlook(evaluation_of(members=2))[0]
