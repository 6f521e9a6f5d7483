"""The page for every eye and hand: contrast, nothing cut or on top of each other, an order that keys and screen readers follow."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ensemble.report.html import render_overview, write_report
from ensemble.report.many_runs import read_overview
from tests.report.browser import Browser, find_chromium
from tests.report.legible import FOCUSABLE, problems

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (Debian: apt-get install chromium)")
HEADINGS = "[...document.querySelectorAll('h1, h2, h3')].map(one => Number(one.tagName[1]))"
UNNAMED = """[...document.querySelectorAll('img, figure > svg')].filter(one =>
  !(one.alt || one.getAttribute('aria-label') || one.querySelector('title'))).map(one => one.outerHTML.slice(0, 80))"""
STOPS = f"[...document.querySelectorAll(`{FOCUSABLE}`)].filter(one => one.checkVisibility()).length"
AT = f"[...document.querySelectorAll(`{FOCUSABLE}`)].filter(one => one.checkVisibility()).indexOf(document.activeElement)"
OUTLINE = "getComputedStyle(document.activeElement).outlineStyle"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def many_classes(run_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 classes with long names."""
    names = [f"class {k} of the kind with a rather long name" for k in range(300)]
    options = {"members": 3, "rows": 600, "skill": 4.0, "choose": False, "bags": False, "epochs": 2}
    return write_report([run_of(tmp_path_factory.mktemp("many"), names=names, channels=3, **options)])


@pytest.fixture(scope="module")
def several(run_of: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    paths = [run_of(folder, name, members=2, skill=s, seed=1) for name, s in (("weak", 2.0), ("strong", 5.0))]
    (folder / "both.html").write_text(render_overview(read_overview(paths), ["", ""]))
    return folder / "both.html"


@pytest.fixture(params=["page_path", "many_classes", "several"])
def page(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_all_text_can_be_read(browser: Any, page: Path, tmp_path: Path, width: int, scheme: str) -> None:
    browser.resize(width, 900, mobile=width < 500, scheme=scheme)
    browser.open(page)
    found = problems(browser, tmp_path)
    assert not found, "\n".join(found[:20])
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_faint_cut_and_crossing_text_is_found(browser: Any, tmp_path: Path) -> None:
    """The check itself, on a page that has one of each, and much that is well."""
    lines = "".join(f"<p>line {k}</p>" for k in range(60))
    page = tmp_path / "bad.html"
    page.write_text(
        f"<body style='background: white; color: black'>{lines}<p style='color: #999'>faint words</p>"
        "<p style='position: relative'><span style='position: absolute; left: 0; top: 0'>upper</span><span>lower</span></p>"
        "<div style='width: 60px; overflow: hidden; white-space: nowrap'>this is longer than its box</div>"
        "<p style='position: relative; color: #ccc'><b style='position: absolute; inset: 0; background: #222'></b>"
        "<span style='position: relative'>light on a dark bar</span></p></body>"
    )
    browser.resize(800, 900)
    browser.open(page)
    assert problems(browser, tmp_path) == [
        "cut off: 'this is longer than its box'", "faint, 2.85:1: 'faint words'", "on each other: 'upper' and 'lower'",
    ]  # fmt: skip


def test_keys_and_screen_readers_go_from_top_to_bottom(browser: Any, page: Path) -> None:
    browser.resize(1280, 900)
    browser.open(page)
    levels = browser.evaluate(HEADINGS)
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), "no level is left out"
    assert browser.evaluate(UNNAMED) == []
    assert browser.evaluate("[...document.querySelectorAll('th')].every(one => one.closest('thead') || one.scope)")
    assert not browser.evaluate("[...document.querySelectorAll('[tabindex]')].some(one => one.tabIndex > 0)")
    stops = min(40, browser.evaluate(STOPS))
    places = []
    for _ in range(stops):
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        place = browser.evaluate(AT)
        if place >= 0:  # scrolling boxes are stops as well
            places.append(place)
            assert browser.evaluate(OUTLINE) != "none", "where one is can be seen"
    assert len(places) > stops // 2
    assert places == sorted(places)
    assert places[0] == 0
