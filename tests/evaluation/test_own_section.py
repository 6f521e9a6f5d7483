"""A section of a script or of an installed package: one class, one line, and everything there is works with it."""

from __future__ import annotations

import csv
import html
import json
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import ensemble
from ensemble import (
    About,
    Cell,
    Curve,
    EvaluationSection,
    JudgedVotes,
    Number,
    PaperTable,
    Record,
    SectionFigure,
    SectionTable,
    register_section,
)
from ensemble.commands.main import main
from ensemble.config import parse_experiment
from ensemble.errors import ConfigError
from ensemble.evaluation.cascade import choose_threshold
from ensemble.evaluation.checked_views import checked_paper_tables
from ensemble.evaluation.evaluate import evaluate
from ensemble.evaluation.records import Evaluation, MemberFacts
from ensemble.evaluation.section import OTHER_PARTS
from ensemble.evaluation.shown_sections import shown_sections
from ensemble.evaluation.splits import SplitVotes
from ensemble.executors import InlineExecutor
from ensemble.report.card import model_card
from ensemble.report.paper_tables import latex
from ensemble.run.run import run_ensemble
from ensemble.tracking.event_log import read_events
from tests import preloaded
from tests.installed_package import install
from tests.tracking.wandb_reader import plain, read_folder

KEYS: dict[str, Any] = {
    "name": "own", "num_members": 2, "method": {"name": "bagging"}, "data": {"name": "digits", "max_train_rows": 300},
    "model": {"name": "mlp", "widths": (8,)}, "training": {"epochs": 4, "batch_size": 16},
    "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
PACKAGE = """
from dataclasses import dataclass
from ensemble import EvaluationSection, Record, register_section
@dataclass(frozen=True)
class Rows(Record):
    rows: int
@register_section
class RowsSection(EvaluationSection[Rows]):
    name, record = "rows_of_a_package", Rows
    def compute(self, votes, chosen):
        return Rows(votes.test.num_rows)
    def lines(self, found, about):
        yield f"Rows of a package: {found.rows}."
    def numbers(self, found):
        return {"count": found.rows}
"""


@dataclass(frozen=True)
class Agreed(Record):
    """Share of the test images on which all members name one class, and the error there. seen: splits that were handed over."""

    share: float
    error: Number
    by_class: tuple[Number, ...]
    seen: tuple[str, str]


class Agreement(EvaluationSection[Agreed]):
    """Where all agree."""

    name, title, record = "agreement", "Where all <agree>", Agreed

    def choose(self, validation: SplitVotes) -> str:
        return validation.split

    def compute(self, votes: JudgedVotes, chosen: str) -> Agreed:
        classes_MN = votes.test.favourites_MN
        same_N = (classes_MN == classes_MN[0]).all(axis=0)
        labels_N = votes.test.labels_N
        shares = [np.float64(same_N[labels_N == k].mean()) for k in range(votes.test.num_classes)]
        return Agreed(same_N.mean(), float(votes.wrong_N[same_N].mean()), tuple(shares), (chosen, votes.test.split))

    def cautions(self, found: Agreed, votes: JudgedVotes) -> Iterable[str]:
        yield f"agreement counts {votes.how.aggregator} votes"

    def lines(self, found: Agreed, about: About) -> Iterable[str]:
        yield f"Agreement: all {about.members} members name one class on {found.share:.1%} of {about.test_rows} images\n."

    def short_lines(self, found: Agreed, about: About) -> Iterable[str]:
        yield f"Agreed in short: {found.share:.1%}."

    def paper_tables(self, found: Agreed) -> Iterable[PaperTable]:
        yield PaperTable("all", "Agreed & more.", ("what", "share"), (("all", f"{found.share:.4f}"),), "a,b\n1,2\n")

    def numbers(self, found: Agreed) -> dict[str, float]:
        return {"share": found.share, "nowhere": float("nan")}

    def note(self, found: Agreed) -> tuple[str | Cell, ...]:
        return "Error <there> ", Cell("error", "percent"), " %."

    def table(self, found: Agreed) -> SectionTable:
        rows = tuple((f"class {k}", Cell(f"by_class.{k}", "percent")) for k in range(len(found.by_class)))
        return SectionTable(("class", ("agreed %", "all name it")), rows, note="By class.")

    def figure(self, found: Agreed) -> SectionFigure:
        x = tuple(range(len(found.by_class)))
        bars = Curve(x, found.by_class, "share & more", "bars")
        level = Curve((0, 9), (found.share,) * 2, "all", "guide")
        band = Curve((0, 9), (0, 0), kind="band", upper=(0.5, 0.5), who="single")
        dots = Curve(x, found.by_class, kind="dots", who="third")
        return SectionFigure(
            'By "class"', "class", "share", (bars, level, band, dots), y_limits=(0, None), ticks=tuple("abcdefghij")
        )

    def card_rows(self, found: Agreed) -> Iterable[tuple[str, str]]:
        yield "images that all agree on, %", f"{100 * found.share:.2f}"

    def limits(self, found: Agreed) -> Iterable[str]:
        yield f"Where members differ, {1 - found.share:.0%} of the images, nobody looked."


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sections that a test registers are forgotten after it."""
    monkeypatch.setattr(EvaluationSection.registry, "_parts", {**EvaluationSection.registry.all()})
    register_section(Agreement)
    return


def train(folder: Path, **keys: Any) -> Path:
    experiment = parse_experiment({**KEYS, **keys, "output_dir": str(folder)})
    return run_ensemble(experiment, lambda *_: InlineExecutor(), lambda _folder: ()).path


def typed(*words: str) -> str:
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    return done.stdout


def judged(seed: int = 0) -> Evaluation:
    """A judgement of drawn votes."""
    rng = np.random.default_rng(seed)
    labels_N = rng.integers(0, 3, 60)
    probs_MNK = rng.random((3, 60, 3)) + np.eye(3)[labels_N]
    votes = (probs_MNK / probs_MNK.sum(axis=2, keepdims=True)).astype(np.float32)
    facts = [MemberFacts(m, "mlp", 10, 1.0, 1) for m in range(3)]
    given = SplitVotes("validation", votes, labels_N), SplitVotes("test", votes, labels_N)
    return evaluate(*given, facts, "soft", None, 3, "drawn", ("a", "b", "c"), choose=False)


def test_a_whole_run_has_it_everywhere(tmp_path: Path) -> None:
    run = train(tmp_path)
    stored = json.loads((run / "evaluation.json").read_text())
    found = stored["sections"]["agreement"]
    probs_MNK, labels_N = ensemble.load(run).votes("test"), ensemble.load(run).labels("test")
    same_N = probs_MNK[0].argmax(axis=1) == probs_MNK[1].argmax(axis=1)
    assert found["share"] == pytest.approx(same_N.mean())
    assert found["by_class"] == pytest.approx([same_N[labels_N == k].mean() for k in range(10)])
    assert found["seen"] == ["validation", "test"]
    assert "agreement counts soft votes" in stored["warnings"]
    python = ensemble.load(run).evaluation
    assert isinstance(python.sections["agreement"], Agreed)
    assert python.section("agreement") == python.sections["agreement"]
    assert python.section("calibration") == python.calibration

    line = f"Agreement: all 2 members name one class on {found['share']:.1%} of {stored['test_rows']} images"
    full, short = (" ".join(typed("evaluate", str(run), *more).split()) for more in (["--all"], []))
    assert line in full
    assert line not in short
    assert f"Agreed in short: {found['share']:.1%}." in short
    assert "warning: agreement counts soft votes" in short
    card = model_card(run)
    assert f"| images that all agree on, % | {100 * found['share']:.2f} |" in card
    assert "nobody looked" in card
    headline = [event for _, event in read_events(run / "events.jsonl")][-1].headline
    assert headline["agreement/share"] == found["share"]
    assert "agreement/nowhere" not in headline

    typed("report", str(run))
    page = (run / "report.html").read_text()
    part = page[page.index('id="run0-sections"') : page.index('id="run0-disputed"')]
    assert "<h3>Where all &lt;agree&gt;</h3>" in part
    assert 'aria-label="By &quot;class&quot;"' in part
    assert "share &amp; more" in part
    assert "Error &lt;there&gt;" in part
    numbers = dict(re.findall(r'<data value="([^"]*)" data-key="(sections[^"]*)"', part))
    keys = {key: value for value, key in numbers.items()}
    assert float(keys["sections.agreement.error"]) == found["error"]
    assert float(keys["sections.agreement.by_class.9"]) == found["by_class"][9]
    assert '<a href="#run0-sections">further figures</a>' in page
    for suffix in ("png", "svg"):
        assert (run / f"figures/section_agreement.{suffix}").stat().st_size > 1000
    rows = list(csv.reader((run / "tables/section_agreement.csv").read_text().splitlines()))
    assert rows[0] == ["class", "agreed %"]
    assert [float(row[1]) for row in rows[1:]] == found["by_class"]
    assert r"agreed \%" in (run / "tables/section_agreement.tex").read_text()
    assert r"Agreed \& more." in (run / "tables/section_agreement-all.tex").read_text()
    assert (run / "tables/section_agreement-all.csv").read_text() == "a,b\n1,2\n"


def test_resuming_and_judging_again_give_the_same(tmp_path: Path) -> None:
    run = train(tmp_path)
    before = (run / "evaluation.json").read_bytes()
    (run / "members/0001/votes.npz").unlink()
    assert train(tmp_path) == run
    first, second = json.loads(before), json.loads((run / "evaluation.json").read_text())
    assert first["sections"] == second["sections"]
    typed("evaluate", str(run), "--write")
    assert json.loads((run / "evaluation.json").read_text())["sections"] == first["sections"]


def test_an_older_run_gets_it_from_its_votes_and_one_without_the_section_is_as_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(EvaluationSection.registry._parts, "agreement")
    run = train(tmp_path)
    stored = json.loads((run / "evaluation.json").read_text())
    assert "sections" not in stored
    typed("report", str(run))
    assert "run0-sections" not in (run / "report.html").read_text()
    register_section(Agreement)
    assert ensemble.load(run).evaluation.sections == {}
    typed("evaluate", str(run), "--write")
    again = json.loads((run / "evaluation.json").read_text())
    assert again.pop("sections").keys() == {"agreement"}
    again["warnings"].remove("agreement counts soft votes")
    assert again == stored


def test_where_it_is_not_registered_a_run_is_read_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(tmp_path)
    stored = json.loads((run / "evaluation.json").read_text())
    monkeypatch.delitem(EvaluationSection.registry._parts, "agreement")
    evaluation = ensemble.load(run).evaluation
    assert evaluation.sections["agreement"] == stored["sections"]["agreement"]
    assert evaluation.to_json() == stored
    typed("report", str(run))
    said = "section agreement is not registered here: its figures are in evaluation.json, and not shown"
    assert said in html.unescape((run / "report.html").read_text())
    assert said in model_card(run).replace("\\", "")


def test_what_another_version_of_it_kept_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    record = judged().to_json()
    del record["sections"]["agreement"]["share"]
    evaluation = Evaluation.from_json(record)
    assert evaluation.sections["agreement"] == record["sections"]["agreement"]
    assert evaluation.to_json() == record
    from ensemble.report.wording import cautions, context

    assert any(
        "does not fit its record here and is not shown; `ensemble evaluate" in line for line in cautions(evaluation)
    )
    assert not any("Agreement" in line for line in context(evaluation))


@pytest.mark.parametrize("where", ["choose", "compute", "cautions"])
def test_one_that_fails_is_named_and_costs_nothing_else(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    whole = judged()
    monkeypatch.setattr(Agreement, where, lambda *_: [][0])
    evaluation = judged()
    assert "section agreement failed and is left out: IndexError: list index out of range" in evaluation.warnings
    assert evaluation.sections == {}
    bare = [replace(one, warnings=(), sections={}).to_json() for one in (evaluation, whole)]
    assert bare[0] == bare[1]


@pytest.mark.parametrize("value", [float("nan"), "words", object()])
def test_a_record_that_could_not_be_read_again_is_not_kept(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    monkeypatch.setattr(Agreement, "compute", lambda *_: Agreed(value, 0.5, (), ("", "")))
    evaluation = judged()
    assert evaluation.sections == {}
    assert any(line.startswith("section agreement failed and is left out: ") for line in evaluation.warnings)


def test_votes_cannot_be_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judged()

    def spoil(_: Any, votes: JudgedVotes, _chosen: Any) -> None:
        votes.test.probs_MNK[:] = 0

    monkeypatch.setattr(Agreement, "compute", spoil)
    evaluation = judged()
    assert any("agreement failed and is left out: ValueError" in line for line in evaluation.warnings)
    assert evaluation.to_json()["disputed"] == whole.to_json()["disputed"]
    assert evaluation.to_json()["diversity"] == whole.to_json()["diversity"]


def test_choosing_by_test_votes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Agreement, "compute", lambda _, votes, chosen: choose_threshold(votes.test))
    (line,) = (line for line in judged().warnings if "agreement" in line)
    assert "PeekingError: test votes were handed to a function that chooses something" in line


@pytest.mark.parametrize(
    "table",
    [
        "words", PaperTable("../escape", "", ("a",), (), ""), PaperTable("all", "", ("a", "b"), (("b", 3.0),), ""),  # type: ignore[arg-type]
        PaperTable("all", "", ("a", "b"), (("1", "2", "3"),), ""), PaperTable("all", "", "ab", (("c", "d"),), ""),  # type: ignore[arg-type]
        PaperTable("all", "", ("a",), (), "", None), PaperTable("all", "", ("a",), (), b"a"),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_a_paper_table_that_is_none_is_not_written(monkeypatch: pytest.MonkeyPatch, table: Any) -> None:
    monkeypatch.setattr(Agreement, "paper_tables", lambda *_: (table,))
    (found,) = (section for section in shown_sections(judged()) if section.name == "agreement")
    assert found.paper_tables == ()
    assert "section agreement: its paper_tables cannot be shown: " in found.problems[0]


def test_two_paper_tables_of_one_name_are_told() -> None:
    table = PaperTable("all", "", ("a",), (), "")
    with pytest.raises(ValueError, match="paper tables all: two are called so"):
        checked_paper_tables([table, table])


def test_rows_that_can_be_read_once_are_all_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Agreement, "paper_tables", lambda *_: iter([PaperTable("once", "", ("a",), ((str(i),) for i in range(3)), "")])
    )  # type: ignore[arg-type]
    monkeypatch.setattr(
        Agreement, "table", lambda *_: SectionTable(("a",), ((str(i), Cell("share")) for i in range(3)))
    )  # type: ignore[arg-type]
    monkeypatch.setattr(Agreement, "note", lambda *_: (word for word in ("One ", Cell("share"))))
    (found,) = (section for section in shown_sections(judged()) if section.name == "agreement")
    assert found.problems == ()
    assert found.paper_tables[0].rows == (("0",), ("1",), ("2",))
    assert found.table is not None
    assert [row[0] for row in found.table.rows] == ["0", "1", "2"]
    assert found.note == ("One ", Cell("share"))


ODD: list[tuple[str, Any]] = [
    ("table", SectionTable(("a",), (("row", 3),))),  # type: ignore[arg-type]
    ("table", SectionTable(("a",), (("row", None),))),  # type: ignore[arg-type]
    ("table", SectionTable((1, 2), ())),  # type: ignore[arg-type]
    ("table", SectionTable(("a",), (), None)),  # type: ignore[arg-type]
    ("table", SectionTable("ab", ())),  # type: ignore[arg-type]
    ("note", "one text"), ("note", (5,)), ("lines", "One text."), ("short_lines", "One text."), ("limits", "One text."),
]  # fmt: skip


@pytest.mark.parametrize(("what", "given"), ODD)
def test_whatever_else_it_shows_is_named_and_the_report_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, given: Any
) -> None:
    run = train(tmp_path)
    monkeypatch.setattr(Agreement, what, lambda *_: given)
    typed("report", str(run))
    page = html.unescape((run / "report.html").read_text())
    assert f"section agreement: its {what} cannot be shown: TypeError: expected " in page


def test_half_a_character_is_shown_as_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the names of files in other encodings."""
    run, half = train(tmp_path), "\ud800"
    monkeypatch.setattr(Agreement, "table", lambda *_: SectionTable((half,), ((half, half),), half, half))
    monkeypatch.setattr(Agreement, "note", lambda *_: (half,))
    monkeypatch.setattr(Agreement, "paper_tables", lambda *_: (PaperTable("half", half, (half,), ((half,),), half),))
    typed("report", str(run))
    assert (run / "tables/section_agreement-half.csv").read_text() == "\\ud800"
    assert "\\ud800" in (run / "report.html").read_text()


def test_a_row_in_latex_does_not_begin_with_what_belongs_to_the_line_before() -> None:
    text = latex(PaperTable("t", "c", ("a", "b"), (("[1, 2]", "x"), ("*", "y"), ("z*", "[")), ""))
    assert [line for line in text.splitlines() if "&" in line][1:] == [r"{}[1, 2] & x \\", r"{}* & y \\", r"z* & [ \\"]


def test_one_that_cannot_be_made_costs_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Agreement, "__init__", lambda _: 1 / 0)
    found = judged()
    assert "section agreement cannot be made and is left out: ZeroDivisionError: division by zero" in found.warnings
    assert "agreement" not in {section.name for section in shown_sections(found)}


@pytest.mark.parametrize(("keeps", "handed"), [(0.0, "validation"), (0.2, "calibration")])
def test_rows_that_nothing_else_is_chosen_by_are_handed_over_where_there_are_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keeps: float, handed: str
) -> None:
    monkeypatch.setattr(Agreement, "chooses_on", "calibration")
    run = train(tmp_path, data={**KEYS["data"], "calibration_fraction": keeps})
    assert ensemble.load(run).evaluation.sections["agreement"].seen == (handed, "test")


@pytest.mark.parametrize(
    "what", ["lines", "numbers", "note", "table", "figure", "card_rows", "limits", "short_lines", "paper_tables"]
)
def test_what_it_cannot_show_is_named_and_the_rest_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    run = train(tmp_path)
    wrong = {"note": lambda *_: (Cell("not.there"),), "table": lambda *_: SectionTable((), ((Cell("error.x"),),))}
    monkeypatch.setattr(Agreement, what, wrong.get(what, lambda *_: 1 / 0))
    typed("report", str(run))
    page = html.unescape((run / "report.html").read_text())
    assert f"section agreement: its {what} cannot be shown: " in page
    assert "Where all <agree>" in page
    assert f"section agreement: its {what} cannot be shown: " in " ".join(typed("evaluate", str(run), "--all").split())


def test_a_figure_that_cannot_be_drawn_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(tmp_path)
    bad = SectionFigure("x", "x", "y", (Curve((0,), (1,), "a"),), legend="in the cellar")
    monkeypatch.setattr(Agreement, "figure", lambda *_: bad)
    done = CliRunner().invoke(main, ["report", str(run)])
    assert done.exit_code == 0, done.output
    assert "section agreement: its figure cannot be drawn" in done.output
    assert "Where all &lt;agree&gt;" in (run / "report.html").read_text()


def test_every_part_of_a_judgement_is_a_section_or_known_not_to_be_one() -> None:
    own = {name for name in EvaluationSection.registry.all() if EvaluationSection.registry.is_own(name)}
    assert {field.name for field in fields(Evaluation)} - own == OTHER_PARTS


@pytest.mark.parametrize("name", ["verdict", "leaderboard", "members", "warnings", "sections"])
def test_nothing_of_the_judgement_is_put_out_of_its_place(name: str) -> None:
    taken = type("Taken", (Agreement,), {"name": name})
    with pytest.raises(ConfigError, match=f"section '{name}': a judgement has something of that name; choose another"):
        register_section(taken)


def test_names_are_not_taken_twice() -> None:
    register_section(Agreement)  # the same once more, as when a notebook's cell runs again

    class Other(Agreement):
        pass

    class Mine(Agreement):
        name = "calibration"

    for taken in (Other, Mine):
        with pytest.raises(ConfigError, match="there is one of that name already; choose another name"):
            register_section(taken)

    class Nameless(Agreement):
        name = "Two words"

    class Recordless(Agreement):
        name, record = "recordless", dict

    class Idle(EvaluationSection[Agreed]):
        name, record = "idle", Agreed

    class Peeking(Agreement):
        name, chooses_on = "peeking", "test"  # type: ignore[assignment]

    class Numbered(Agreement):
        name, title = "numbered", 5  # type: ignore[assignment]

    for wrong, why in (
        (Nameless, "expected a name"), (Recordless, "needs a record"), (Idle, "needs a method compute"),
        (Peeking, 'chooses_on is \'test\'; expected "validation"'),
        (Numbered, "title is 5; expected a text"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=why):
            register_section(wrong)


def test_weights_and_biases_gets_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ensemble.run.compose import run_experiment

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr("ensemble.tracking.wandb_tracker.CLOSE_TIMEOUT_S", {"offline": 120.0})  # on a busy machine
    keys = {**KEYS, "output_dir": str(tmp_path), "tracking": {"wandb": {"mode": "offline"}}}
    outcome = run_experiment(parse_experiment(keys), "silent")
    (told,) = (found for id, found in read_folder(outcome.path).items() if id.endswith("-ensemble"))
    share = outcome.evaluation.sections["agreement"].share
    assert plain(told.summary)["agreement/share"] == pytest.approx(share)


def test_an_installed_package_brings_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found by its entry point, by another process; one that cannot be imported costs itself alone."""
    points = ["rows_of_a_package = a_judging_package:RowsSection", "broken_of_a_package = a_judging_package:NotThere"]
    install(tmp_path, "a_judging_package", PACKAGE, "ensemble.sections", points, monkeypatch)
    (tmp_path / "own.yaml").write_text(json.dumps({**KEYS, "output_dir": "here"}))

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "ensemble", *words]
        done = preloaded.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("train", "own.yaml", "-q")
    stored = json.loads((tmp_path / "here/own/evaluation.json").read_text())
    assert stored["sections"] == {"rows_of_a_package": {"rows": stored["test_rows"]}}
    (line,) = (line for line in stored["warnings"] if "broken_of_a_package" in line)
    assert "a_judging_package:NotThere cannot be imported" in line
    assert "its figures are left out" in line
    assert f"Rows of a package: {stored['test_rows']}." in run("evaluate", "here/own", "--all")
