"""Texts that speak of the program: the names, commands and figures in them are those that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ensemble.commands.main import main
from ensemble.config.method import MethodSection
from ensemble.config.schema import AGGREGATORS
from ensemble.report.card import VOTES

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "ensemble").rglob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "configs").rglob("*.yaml"))]


def test_the_card_knows_every_method_and_vote():
    for name, method in MethodSection.registry.all().items():
        assert re.search(r"\(.+ (19|20)\d\d\)$", method.in_short), f"{name}: a line with its source"
    assert set(VOTES) == set(AGGREGATORS)


@pytest.mark.parametrize("path", [*SOURCES, *DOCUMENTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_text_names_exists(path):
    text = path.read_text()
    named = re.findall(r"`ensemble ([a-z]+)\b", text) + re.findall(
        r"^(?:# |    \$? ?)ensemble ([a-z]+) ", text, re.MULTILINE
    )
    for command in named:
        assert command in main.commands, f"{path}: ensemble {command}"
    for command, option in re.findall(r"`ensemble ([a-z]+)[^`\n]* (--[a-z-]+)", text):
        known = {
            name for parameter in main.commands[command].params for name in parameter.opts + parameter.secondary_opts
        }
        assert option in known | {"--help"}, f"{path}: ensemble {command} {option}"


def test_figures_in_configurations_are_those_of_the_documents():
    """ "Expect X % ... against Y %" must be found where the results are written down."""
    results = "".join(path.read_text() for path in DOCUMENTS if path.suffix == ".md")
    missing = []
    for path in sorted((ROOT / "configs").glob("*.yaml")):
        for line in path.read_text().splitlines():
            if line.startswith("# Expect"):
                promised = re.findall(r"(\d+\.\d\d)(?= %| and)", line.partition("(")[0])
                missing += [f"{path.name}: {figure} %" for figure in promised if figure not in results]
    assert not missing


def test_the_deep_ensemble_promises_what_the_readme_shows():
    header = (ROOT / "configs/deep_ensemble_lenet5_mnist.yaml").read_text()
    found = re.search(r"Expect (\S+) % test error against (\S+) %", header)
    assert found is not None
    assert re.search(rf"test\s+error\s+{found[1]}\s+%\s+against\s+{found[2]}\s+%", (ROOT / "README.md").read_text())
