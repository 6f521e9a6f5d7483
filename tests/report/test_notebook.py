"""What a notebook shows of the objects that people get from Python: tables, with every name in them harmless."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from ensemble.evaluation.comparing import compare, single_system
from ensemble.evaluation.records import Evaluation
from ensemble.run.run import RunOutcome
from ensemble.run.stored import Run

SCRIPT = "<script>alert('x')</script>"
ALLOWED = {"table", "thead", "tbody", "tr", "th", "td", "p"}


class Read(HTMLParser):
    """The tags that a browser would see, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name != "style"]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_an_evaluation_with_names_that_are_scripts(evaluation_of: Callable[..., Evaluation], run_path: Path) -> None:
    names = (SCRIPT, *(f"{SCRIPT}{k}" for k in range(1, 10)))
    evaluation = evaluation_of(names=names, dataset=SCRIPT, skill=1.0, rows=300)
    worst = dataclasses.replace(evaluation, warnings=(f"{SCRIPT} is a warning",))
    for html in (worst._repr_html_(), RunOutcome(run_path, worst, (), 4, 1.0)._repr_html_()):
        read = Read(html)
        assert read.tags <= ALLOWED
        assert f"Warning: {SCRIPT} is a warning" in read.text
        assert worst.verdict.sentence in read.text
        assert "Worst class: <script>" in read.text, "the sentence on unequal classes names one"
    assert Read(Run(run_path)._repr_html_()).tags <= ALLOWED


def test_a_comparison_with_names_that_are_scripts() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 60)
    probs = generator.dirichlet([1.0] * 3, (2, 60))
    systems = [single_system(f"{SCRIPT}{s}", "file", probs[s]) for s in range(2)]
    found = compare(systems, labels, SCRIPT)
    read = Read(found._repr_html_())
    assert read.tags == ALLOWED
    for system in systems:
        assert system.name in read.text
    assert "is not distinguishable from" in read.text or "is better than" in read.text or "is worse than" in read.text
    assert f"{found.lines[0].wrong}" in read.text
    assert len(found.lines) == 3
    assert found._repr_html_().count("<tr>") == 1 + len(found.lines)
