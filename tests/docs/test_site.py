"""The site is built without a warning, and shows all that is made for it."""

from __future__ import annotations

import html.parser
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

import ensemble
from docs.making import command_page, python_page, schema_page
from docs.making.links import ROOT
from ensemble.commands.main import main

GENERATOR = ("sphinx", "myst_parser", "furo")


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    missing = [name for name in GENERATOR if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'ensemble-trainer[docs]'")
    words = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", str(source), str(target)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=500)


class _Page(html.parser.HTMLParser):
    """The anchors of a page and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(path.read_text())
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" and value is not None:
                self.anchors.add(value)
            if name in ("src", "href") and value is not None and (tag != "a"):
                self.addresses.append(value)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    done = build(ROOT / "docs", target)
    assert done.returncode == 0, done.stderr
    return target


def test_every_key_has_its_place(site: Path) -> None:
    page = _Page(site / "reference" / "configuration.html")
    for group in schema_page.groups():
        assert group.anchor in page.anchors, group.title
        for key in group.keys:
            assert key.anchor in page.anchors, key.path
            assert f"{key.path}" in page.text


def test_every_command_and_option_is_shown(site: Path) -> None:
    page = _Page(site / "reference" / "commands.html")
    for path, command in command_page.all_commands(main, "ensemble"):
        assert path.replace(" ", "-") in page.anchors, path
        for parameter in command.params:
            for name in [*parameter.opts, *parameter.secondary_opts] if isinstance(parameter, click.Option) else []:
                assert name in page.text, f"{path} {name}"


def test_everything_that_python_offers_is_there(site: Path) -> None:
    page = _Page(site / "reference" / "python.html")
    offered = {f"ensemble.{name}" for name in ensemble.__all__ if name != "__version__"}
    records = {f"{one.__module__}.{one.__qualname__}" for one in python_page.returned()}
    faults = {f"ensemble.errors.{error.__name__}" for error in command_page.all_errors()}
    assert (offered | records | faults) - page.anchors == set()
    assert {"ensemble.Run.leaderboard", "ensemble.TrainedEnsemble.predict_proba"} <= page.anchors


def test_examples_are_shown_whole(site: Path) -> None:
    text = _Page(site / "examples.html").text
    for path in (ROOT / "examples").rglob("*.py"):
        assert " ".join(path.read_text().split()) in text, path


def test_the_log_begins_with_its_index(site: Path) -> None:
    page = (site / "log.html").read_text()
    log = (ROOT / "docs" / "log.md").read_text()
    titles = re.findall(r"^## [\d-]+:? (.+)$", log, re.MULTILINE)
    before = page[page.index("<h1>") : page.index("<h2>")]
    led_to = re.findall(r'<a class="reference internal" href="#([^"]+)">', before)
    assert len(titles) == len(led_to) == len(set(led_to)) > 20
    assert set(led_to) <= _Page(site / "log.html").anchors


def test_nothing_is_asked_of_other_hosts(site: Path) -> None:
    asked = {address for page in site.rglob("*.html") for address in _Page(page).addresses if "//" in address}
    assert asked == set()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# Page\n\n[a page](nowhere.md)\n", "nowhere.md"),
        ("# Page\n\n[a place](index.md#nowhere)\n", "nowhere"),
        ("# Page\n\n[a place here](#nowhere)\n", "nowhere"),
    ],
)
def test_dead_links_fail(text: str, complaint: str, tmp_path: Path) -> None:
    source = tmp_path / "docs"
    source.mkdir()
    (source / "conf.py").write_text((ROOT / "docs" / "conf.py").read_text())
    (source / "index.md").write_text(text)
    done = build(source, tmp_path / "site")
    assert done.returncode != 0
    assert complaint in done.stderr
