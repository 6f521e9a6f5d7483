"""What the documentation takes from the program is whole, and says something about each thing."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any, Literal

import click
import pytest
from pydantic import Field

import ensemble
from docs.making import command_page, contents, fill, links, log_index, python_page, schema_page, text
from docs.making.links import ROOT
from ensemble import errors
from ensemble.commands.main import main
from ensemble.config.json_schema import json_schema
from ensemble.config.keys import all_keys
from ensemble.config.network import Network


def test_every_key_of_the_schema_is_told() -> None:
    schema = json_schema()
    there = {("Experiment", key) for key in schema["properties"]}
    there |= {(name, key) for name, one in schema["$defs"].items() for key in one.get("properties", ())}
    told = {origin for group in schema_page.groups() for origin in group.origins}
    assert there == told


def test_every_path_of_a_configuration_is_told_where_its_section_is_first() -> None:
    told = {key.path for group in schema_page.groups() for key in group.keys}
    chosen = {"name", "kind"}  # by which a section is chosen: headings
    missing = {
        ".".join(key) for key in all_keys()
        if key[-1] not in chosen and key[0] != "members" and key[:3] != ("evaluation", "sets", "data")
    } - told  # fmt: skip
    assert missing == set()


def test_every_key_says_what_it_is_for() -> None:
    silent = [
        f"{group.title}: {key.path}" for group in schema_page.groups() for key in group.keys if not key.meaning.strip()
    ]
    assert silent == [], "give these keys a description in the schema"


def test_every_section_and_choice_says_what_it_is() -> None:
    assert [group.title for group in schema_page.groups() if not group.about.strip()] == []


def test_a_key_is_told_with_its_type_range_and_default() -> None:
    keys = {key.anchor: key for group in schema_page.groups() for key in group.keys}
    assert (keys["training-batch-size"].kind, keys["training-batch-size"].default) == (
        "whole number from 1 to 1,000,000",
        "`64`",
    )
    assert keys["data-validation-fraction"].kind == "number above 0, below 1"
    assert keys["compute-executor"].kind == "`auto`, `inline`, `processes`, `ray` or `accelerate`"
    assert keys["num-members"].default == ""
    assert keys["model-cnn-widths"].kind == "list with at least one entry of: whole number from 1 to 65,536"
    assert keys["data-arrays-value-range"].kind == "list of 2: number"
    assert "needed" in keys["model-layers-layers"].kind
    assert keys["training-schedule-one-cycle-start-divisor"].default == "`25.0`"


def test_what_somebody_registers_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network.registry, "_parts", {**Network.registry.all()})

    @ensemble.register_network
    class Tiny(Network):
        """One hidden layer."""

        name: Literal["tiny"]
        width: int = Field(8, ge=1, description="of the hidden layer")

        def build(self, image_shape: tuple[int, int, int], num_classes: int) -> Any:
            raise AssertionError("a page builds no network")

    group = next(group for group in schema_page.groups() if group.anchor == "model-tiny")
    assert (group.title, group.about) == ("`tiny`", "One hidden layer.")
    assert [(key.path, key.default, key.meaning) for key in group.keys] == [
        ("model.width", "`8`", "of the hidden layer")
    ]


def test_anchors_are_there_once() -> None:
    anchors = [key.anchor for group in schema_page.groups() for key in group.keys if not key.is_section]
    anchors += [group.anchor for group in schema_page.groups()]
    assert {anchor for anchor in anchors if anchors.count(anchor) > 1} == set()
    led_to = {key.anchor for group in schema_page.groups() for key in group.keys if key.is_section}
    assert led_to <= {group.anchor for group in schema_page.groups()}


def test_every_option_says_what_it_does() -> None:
    silent = [
        f"{path} {parameter.name}"
        for path, command in command_page.all_commands(main, "ensemble")
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []
    assert [path for path, command in command_page.all_commands(main, "ensemble") if not command.help] == []


def test_exit_codes_are_those_of_the_program_and_of_the_readme() -> None:
    of_program = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    of_program |= {error.exit_code for error in command_page.all_errors()}
    on_page = set(map(int, re.findall(r"^\| (\d+) \|", command_page.exit_codes(), re.MULTILINE)))
    in_readme = set(
        map(
            int,
            re.findall(
                r"^\| (\d+) \|",
                (ROOT / "README.md").read_text().partition("## Exit codes")[2].partition("\n## ")[0],
                re.MULTILINE,
            ),
        )
    )
    assert on_page == of_program == in_readme


def test_what_python_gives_back_is_found_through_properties_and_records() -> None:
    names = {one.__name__ for one in python_page.returned()}
    assert {"Evaluation", "LeaderboardRow", "Verdict", "Comparison", "Decision"} <= names


def test_a_docstring_becomes_text_that_shows_it_as_it_is() -> None:
    assert text.markdown("a_b is `c_d` or *x* [N, K] <y>") == r"a\_b is `c_d` or \*x\* \[N, K\] \<y\>"
    assert text.rst_lines(["classes_ of `x_`, |y|", "", "    run(*a)"]) == [
        r"classes\_ of ``x_``, \|y\|",
        "",
        "::",
        "",
        "    run(*a)",
        "",
    ]
    said = "Train. epochs: how many. lr, eps: small; seed: any. Raises E where epochs: is 0."
    assert text.rst_lines([said], ["epochs", "lr", "eps", "seed"])[::2] == [
        "Train.", "- ``epochs``: how many.", "- ``lr``, ``eps``: small;", "- ``seed``: any.", "Raises E where epochs: is 0.",
    ]  # fmt: skip
    assert (
        text.markdown_blocks("One.\n\n\b\nensemble runs *\n\nTwo.") == "One.\n\n```text\nensemble runs *\n```\n\nTwo."
    )


def test_links_hold_on_the_page_that_shows_a_file() -> None:
    page = ROOT / "docs" / "overview.md"
    shown = links.settle(
        "[a](docs/log.md#x) [b](CONTRIBUTING.md) [c](examples) ![d](docs/report.png) [e](https://x.y/z) [f](#here)",
        ROOT / "README.md",
        page,
    )
    assert shown == "[a](log.md#x) [b](contributing.md) c (`examples/`) ![d](report.png) [e](https://x.y/z) [f](#here)"
    assert links.settle("```\n[a](docs/log.md)\n```\n", ROOT / "README.md", page) == "```\n[a](docs/log.md)\n```\n"
    assert (
        links.settle("[gone](docs/gone.md)", ROOT / "README.md", page) == "[gone](gone.md)"
    )  # which the build then finds


def test_the_log_has_an_index_of_all_its_entries() -> None:
    log = (ROOT / "docs" / "log.md").read_text()
    made = log_index.with_index(log)
    titles = re.findall(r"^## (.+)$", log, re.MULTILINE)
    assert len(re.findall(r"^- \[", made[: made.index("\n## ")], re.MULTILINE)) == len(titles)
    assert log_index.index("## 2026-11-28: One `x`, two\n\n## 2026-11-29 Three\n") == (
        "**2026-11-29**\n\n- [Three](#2026-11-29-three)\n\n**2026-11-28**\n\n- [One `x`, two](#2026-11-28-one-x-two)"
    )


def test_the_contents_are_the_lists_of_the_first_page() -> None:
    made = contents.toctrees("# T\n\n## One\n\n- [a](a.md), [b](x/b.md#c)\n\n## Two\n\n- [a](a.md)\n- [d](d.md)\n")
    assert made.count("{toctree}") == 2
    assert ":caption: One\n\na <a>\nb <x/b>\n" in made
    assert ":caption: Two\n\nd <d>\n" in made


def test_a_mark_that_names_nothing_is_an_error() -> None:
    with pytest.raises(KeyError, match="weather"):
        fill("<!-- made: weather -->")
    assert fill("before\nA line. <!-- made: exit codes -->\nafter").startswith("before\n| code |")


def test_a_part_can_be_printed_alone() -> None:
    words = [sys.executable, "-m", "docs.making"]
    done = subprocess.run([*words, "exit codes"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("| code |")
    wrong = subprocess.run([*words, "weather"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1
    assert "expected one of" in wrong.stderr


def test_no_page_is_left_out_of_the_contents() -> None:
    made = contents.toctrees((ROOT / "docs" / "index.md").read_text())
    pages = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    listed = set(re.findall(r"^[^-\n]+ <([\w./-]+)>$", made, re.MULTILINE))
    assert pages - listed == {"index"}
    assert listed <= pages
