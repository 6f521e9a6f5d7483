from __future__ import annotations

import base64
import io
import json
import re
import time
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble.errors import ConfigError, StorageError
from ensemble.report.html import render_page, write_report
from ensemble.report.run_facts import read_run
from ensemble.storage import RunFolder

MEGABYTE = 1_000_000
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """What the tests need of a page: its numbers by run, its elements, and whether its tags fit together."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.numbers: list[tuple[str, str, str, str]] = []  # run, key, exact, shown
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sentences: dict[str, str] = {}
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.elements.append((tag, found))
        if tag not in VOID:
            self._open.append((tag, found))
            if tag == "data":
                self.numbers.append((self._run(), found["data-key"] or "", found["value"] or "", ""))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        opened, _ = self._open.pop()
        assert opened == tag, f"<{opened}> closed by </{tag}>"

    def handle_data(self, data: str) -> None:
        tag, attributes = self._open[-1] if self._open else ("", {})
        if tag == "data":
            run, key, exact, shown = self.numbers[-1]
            self.numbers[-1] = (run, key, exact, shown + data)
        elif attributes.get("data-key") == "verdict.sentence":
            self.sentences[self._run()] = data

    def _run(self) -> str:
        return next((str(a["data-run"]) for _, a in reversed(self._open) if "data-run" in a), "")


def found_in(record: Any, key: str) -> Any:
    for part in key.split("."):
        record = record[int(part)] if isinstance(record, list) else record[part]
    return record


def page_without_figures(*paths: Path) -> str:
    return render_page([read_run(path) for path in paths], [[] for _ in paths])


@pytest.fixture(scope="module")
def text(page_path: Path) -> str:
    return page_path.read_text("utf-8")


def test_the_page_and_the_figures_lie_in_the_run(page_path: Path, run_path: Path) -> None:
    assert page_path == run_path / "report.html"
    names = {path.name for path in (run_path / "figures").iterdir()}
    assert {"size_curve.png", "size_curve.svg", "confusion.png", "disputed.svg"} <= names


def test_every_number_is_that_of_the_evaluation(text: str, run_path: Path) -> None:
    record = json.loads((run_path / "evaluation.json").read_text())
    page = Page(text)
    assert len(page.numbers) > 300
    for _, key, exact, shown in page.numbers:
        value = found_in(record, key)
        if value is None:
            assert (exact, shown) == ("", "-"), key
            continue
        assert float(exact) == value, key
        written = float(shown.replace(",", "").replace("<", ""))
        percent = re.search(
            r"error$|lower$|upper$|[._]ece|risk$|coverage$|aurc$|mean$|best$|worst$|difference$|gain$|area$", key
        )
        scale = 100 if percent and not key.startswith("diversity") else 1
        digits = len(shown.split(".")[1]) if "." in shown else 0
        if shown.startswith("<"):
            assert value < written, key
        else:
            tolerance = 0.5000001 * 10**-digits
            assert abs(written - scale * value) <= tolerance + 1e-9, (key, shown, value)
    assert page.sentences == {"0": record["verdict"]["sentence"]}


def test_the_main_figures_are_all_there(text: str, run_path: Path) -> None:
    keys = {key for _, key, _, _ in Page(text).numbers}
    record = json.loads((run_path / "evaluation.json").read_text())
    columns = (
        "test_error", "wrong", "lower", "upper", "validation_error", "nll", "brier", "ece", "p_holm", "ties",
        "num_parameters", "train_seconds",
    )  # fmt: skip
    expected = {f"leaderboard.{i}.{name}" for i in range(len(record["leaderboard"])) for name in columns}
    expected |= {f"confusion.{i}.{j}" for i in range(10) for j in range(10)}
    expected |= {f"size_curve.{i}.mean" for i in range(4)} | {f"contributions.{i}.gain" for i in range(4)}
    expected |= {"out_of_bag.error", "calibration.ece_equal_width", "verdict.difference_lower", "uncertainty.total"}
    expected |= {f"disputed.{i}.row" for i in range(len(record["disputed"]))}
    # An interval that does not exist has no two ends to show.
    missing = {key for key in expected - keys if found_in(record, key) is not None}
    assert not missing


def test_nothing_is_asked_of_the_network(text: str) -> None:
    for tag, attributes in Page(text).elements:
        for name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"https?://|@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_names_and_details_are_text_not_markup(text: str) -> None:
    assert "&lt;b&gt;eight&lt;/b&gt;" in text
    assert "<b>eight</b>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "loss &lt;nan&gt; at step 12" in text
    assert sum(tag == "script" for tag, _ in Page(text).elements) == 1


def test_disputed_images_are_shown_with_every_members_vote(text: str, run_path: Path) -> None:
    run = read_run(run_path)
    addresses = [str(a["src"]) for tag, a in Page(text).elements if tag == "img"]
    assert len(addresses) == len(run.evaluation.disputed)
    first = np.asarray(Image.open(io.BytesIO(base64.b64decode(addresses[0].split(",")[1]))))
    np.testing.assert_array_equal(first, run.images[run.evaluation.disputed[0].row][0])
    row = run.evaluation.disputed[0]
    for k in set(row.member_classes):
        members = ", ".join(str(m) for m, voted in enumerate(row.member_classes) if voted == k)
        assert f"<small>member {members}</small>" in text


def test_failures_configuration_and_commands_are_told(text: str, run_path: Path) -> None:
    assert "1 member failed at least once" in text
    assert "degraded: 4 of the 5 members asked for vote" in text
    assert "method: {name: bagging}" in text
    assert f"ensemble evaluate {run_path}" in text
    assert "host-a: cpu, 1 thread per task" in text
    assert "not installed" in text


def test_a_run_without_images_says_so(run_of: Callable[..., Path], tmp_path: Path) -> None:
    text = page_without_figures(run_of(tmp_path, "bare", images=False, bags=False))
    assert "kept no pictures" in text
    assert "<img" not in text
    assert "No member failed." in text


def test_colour_images_keep_their_colours(run_of: Callable[..., Path], tmp_path: Path) -> None:
    text = page_without_figures(run_of(tmp_path, "colour", channels=3))
    address = next(str(a["src"]) for tag, a in Page(text).elements if tag == "img")
    assert Image.open(io.BytesIO(base64.b64decode(address.split(",")[1]))).mode == "RGB"


def test_several_runs_as_a_whole_have_the_overview_first(run_of: Callable[..., Path], tmp_path: Path) -> None:
    paths = [run_of(tmp_path, name, members=m, recipes=("lenet5", "mlp"), seed=m) for name, m in (("a", 2), ("b", 3))]
    page_path = write_report(paths, whole=True)
    assert page_path == tmp_path / "report.html"
    page = Page(page_path.read_text())
    records = {str(i): json.loads((path / "evaluation.json").read_text()) for i, path in enumerate(paths)}
    assert {run for run, *_ in page.numbers} == {"0", "1"}
    for run, key, exact, _ in page.numbers:
        value = found_in(records[run], key)
        assert (exact == "") if value is None else (float(exact) == value), (run, key)
    ids = [a["id"] for _, a in page.elements if a.get("id")]
    assert len(ids) == len(set(ids))
    targets = {str(a["href"])[1:] for tag, a in page.elements if tag == "a"}
    assert targets <= set(ids)
    assert (tmp_path / "a" / "figures").is_dir()
    assert (tmp_path / "b" / "figures").is_dir()


def test_out_names_the_file(run_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "sub" / "page.html"
    assert write_report([run_path], out) == out
    assert Page(out.read_text()).numbers


def test_a_lone_member_without_images_or_bags_still_makes_a_page(run_of: Callable[..., Path], tmp_path: Path) -> None:
    text = page_without_figures(run_of(tmp_path, "lone", members=1, images=False, bags=False))
    assert "There is only one member" in text
    assert ">nan<" not in text


def test_perfect_votes_still_make_a_page_and_figures(run_of: Callable[..., Path], tmp_path: Path) -> None:
    text = write_report([run_of(tmp_path, "perfect", members=3, skill=60.0)]).read_text()
    assert ">nan<" not in text
    assert "not distinguishable" in text


def test_what_is_no_judged_run_is_an_error(run_path: Path, run_of: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no run here"):
        write_report([tmp_path])
    with pytest.raises(ConfigError, match="one or more different runs"):
        write_report([])
    with pytest.raises(ConfigError, match="one or more different runs"):
        write_report([run_path, run_path])
    unjudged = run_of(tmp_path, "unjudged", members=2)
    with RunFolder.open(tmp_path, "unjudged", RunFolder.read(unjudged).config(), {}) as folder:
        folder.forget(["evaluation.json"])
    with pytest.raises(StorageError, match="not been judged yet"):
        write_report([unjudged])


def test_a_torn_last_event_is_passed_over(run_of: Callable[..., Path], tmp_path: Path) -> None:
    path = run_of(tmp_path, "torn", members=2, failed=7)
    with (path / "events.jsonl").open("a") as log:
        log.write('{"event": "Notice", "mess')
    assert [one.member for one in read_run(path).failures] == [7]


@pytest.mark.timed
def test_a_hundred_members_take_seconds_and_stay_small(run_of: Callable[..., Path], tmp_path: Path) -> None:
    path = run_of(tmp_path, "large", members=100, rows=500, choose=False, bags=False, epochs=30)
    started = time.process_time()
    page = write_report([path])
    assert time.process_time() - started < 8  # about 3 s on one core without AVX-512
    assert page.stat().st_size < 3 * MEGABYTE
    Page(page.read_text())
