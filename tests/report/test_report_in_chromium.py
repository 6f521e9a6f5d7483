"""The page in a real browser: no error, no request, tables that sort, readable from phone to desktop, light and dark."""

from __future__ import annotations

import importlib.util
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ensemble.report.html import render_overview
from ensemble.report.many_runs import read_overview
from ensemble.report.run_facts import read_run


def load_driver() -> ModuleType:
    """The driver beside this file; test folders are no packages, so it has no import name."""
    spec = importlib.util.spec_from_file_location("report_browser", Path(__file__).with_name("browser.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_browser"] = module
    spec.loader.exec_module(module)
    return module


DRIVER = load_driver()
pytestmark = pytest.mark.skipif(
    DRIVER.find_chromium() is None, reason="needs Chromium (Debian: apt-get install chromium)"
)
COLUMN = "[...document.querySelectorAll('.leaderboard tbody tr')].map(row => row.cells[{}].innerText)"
CLICK = "document.querySelectorAll('.leaderboard thead th')[1].click()"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with DRIVER.Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.mark.parametrize(("width", "mobile"), [(1280, False), (390, True)])
def test_the_page_opens_without_a_problem_and_fits(
    browser: Any, page_path: Path, tmp_path: Path, width: int, mobile: bool
) -> None:
    browser.resize(width, 850, mobile)
    browser.open(page_path)
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    if not mobile:  # where there is room, no column is out of sight, and the tiles are one row
        box = "document.querySelector('table.leaderboard').parentElement"
        assert browser.evaluate(f"{box}.scrollWidth <= {box}.clientWidth")
        assert (
            browser.evaluate("new Set([...document.querySelectorAll('.tiles div')].map(tile => tile.offsetTop)).size")
            == 1
        )
    assert browser.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    # A figure that is drawn takes up room; one with broken markup has none.
    sizes = browser.evaluate(
        "[...document.querySelectorAll('figure > svg')].map(svg => svg.getBoundingClientRect().height)"
    )
    assert len(sizes) >= 7
    assert min(sizes) > 150
    picture = np.asarray(Image.open(io.BytesIO(browser.screenshot(tmp_path / "page.png"))).convert("L"))
    assert picture.std() > 5
    assert browser.problems == []


def test_a_click_sorts_down_a_second_up_and_a_third_restores(browser: Any, page_path: Path, run_path: Path) -> None:
    browser.open(page_path)
    leaderboard = read_run(run_path).evaluation.leaderboard
    stored = [f"{100 * row.test_error:.2f}" for row in leaderboard]
    exact = sorted(row.test_error for row in leaderboard)
    assert browser.evaluate(COLUMN.format(1)) == stored
    browser.evaluate(CLICK)
    assert browser.evaluate(COLUMN.format(1)) == [f"{100 * error:.2f}" for error in exact]
    browser.evaluate(CLICK)
    assert browser.evaluate(COLUMN.format(1)) == [f"{100 * error:.2f}" for error in reversed(exact)]
    browser.evaluate(CLICK)
    assert browser.evaluate(COLUMN.format(1)) == stored
    assert browser.problems == []


def test_missing_values_sort_last_both_ways(browser: Any, page_path: Path) -> None:
    browser.open(page_path)
    place = browser.evaluate(
        "[...document.querySelectorAll('.leaderboard thead th')].findIndex(h => h.innerText.trim() === 'p')"
    )
    for _ in range(2):
        browser.evaluate(f"document.querySelectorAll('.leaderboard thead th')[{place}].click()")
        cells = [text.strip() for text in browser.evaluate(COLUMN.format(place))]
        dashes = cells.count("-")
        assert dashes >= 3
        assert cells[-dashes:] == ["-"] * dashes


def test_headings_sort_by_key_for_readers_without_a_mouse(browser: Any, page_path: Path) -> None:
    browser.open(page_path)
    browser.evaluate("document.querySelectorAll('.leaderboard thead th')[3].focus()")
    browser.call("Input.dispatchKeyEvent", type="keyDown", key="Enter")
    assert browser.evaluate("document.querySelectorAll('.leaderboard thead th')[3].ariaSort") == "ascending"


def test_dark_screens_get_a_dark_page_and_readable_figures(browser: Any, page_path: Path, tmp_path: Path) -> None:
    lightness = {}
    for scheme in ("light", "dark"):
        browser.resize(1280, 850, scheme=scheme)
        browser.open(page_path)
        picture = Image.open(io.BytesIO(browser.screenshot(tmp_path / f"{scheme}.png"))).convert("L")
        lightness[scheme] = float(np.asarray(picture).mean())
    assert lightness["light"] > 200
    assert lightness["dark"] < 70
    label = browser.evaluate("getComputedStyle(document.querySelector('figure > svg text')).fill")
    assert label == "rgb(232, 234, 237)"


def test_several_runs_sort_by_error(browser: Any, run_of: Callable[..., Path], tmp_path: Path) -> None:
    paths = [run_of(tmp_path, name, members=2, skill=s, seed=1) for name, s in (("weak", 2.0), ("strong", 5.0))]
    page = tmp_path / "both.html"
    page.write_text(render_overview(read_overview(paths), ["", ""]))
    browser.open(page)
    names = "[...document.querySelectorAll('#comparison tbody th')].map(cell => cell.innerText)"
    assert browser.evaluate(names) == ["weak", "strong"]
    browser.evaluate("document.querySelectorAll('#comparison thead th')[1].click()")
    assert browser.evaluate(names) == ["strong", "weak"]
    assert browser.problems == []
