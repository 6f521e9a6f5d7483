"""The page about many runs: what each came to, and only those of their settings in which they differ."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.errors import ConfigError, StorageError
from ensemble.report.html import write_report
from ensemble.report.many_runs import read_overview
from ensemble.report.many_runs_plots import _scale, drawable_keys
from ensemble.results.differing_keys import differing_settings
from ensemble.storage import RunFolder
from tests.report.test_html_report import Page, found_in

SMALL = {"rows": 60, "choose": False, "bags": False, "epochs": 1, "members": 2}


def with_config(path: Path, **changes: Any) -> Path:
    """The run with other settings in its stored configuration."""
    folder = RunFolder.read(path)
    config = {**folder.config(), **changes}
    with RunFolder.open(path.parent, path.name, folder.config(), {}) as opened:
        opened.write("config.yaml", json.dumps(config).encode())
    return path


def test_differing_settings() -> None:
    bagging = {"name": "a", "seed": 1, "method": {"name": "bagging", "replacement": True}, "training": {"lr": 0.1}}
    other = {"name": "b", "seed": 2, "method": {"name": "deep_ensemble"}, "training": {"lr": 0.1}}
    assert differing_settings([bagging, other]) == {"method.name": ("bagging", "deep_ensemble"), "seed": (1, 2)}
    third = {**bagging, "method": {"name": "bagging", "replacement": False}, "training": {"lr": 1}}
    assert differing_settings([other, bagging, third]) == {
        "method.name": ("deep_ensemble", "bagging", "bagging"),
        "training.lr": (0.1, 0.1, 1),
        "method.replacement": (None, True, False),
        "seed": (2, 1, 1),
    }
    assert (
        differing_settings([bagging, {**bagging, "name": "c", "output_dir": "elsewhere", "compute": {"slots": 4}}])
        == {}
    )
    assert differing_settings([{"a": True}, {"a": 1}]) == {"a": (True, 1)}  # 1 == True, and yet another setting


def test_numbers_links_and_settings(run_of: Callable[..., Path], tmp_path: Path) -> None:
    paths = [
        with_config(run_of(tmp_path, name, seed=i, **SMALL), training={"lr": lr}, seed=i)
        for i, (name, lr) in enumerate((("a", 0.0003), ("b", 0.001), ("c", 0.003)))
    ]
    write_report([paths[1]])
    page_path = write_report(paths)
    assert page_path == tmp_path / "report.html"
    text = page_path.read_text()
    page = Page(text)
    for run, key, exact, _ in page.numbers:
        value = found_in(json.loads((paths[int(run)] / "evaluation.json").read_text()), key)
        assert (exact == "") if value is None else (float(exact) == value), (run, key)
    assert {run for run, *_ in page.numbers} == {"0", "1", "2"}
    links = [str(a["href"]) for tag, a in page.elements if tag == "a"]
    assert links == ["b/report.html"]  # the only run that has a page of its own
    cells = re.findall(r'<td class="text">([^<]*)</td>', text)
    assert cells == ["0.0003", "0", "0.001", "1", "0.003", "2"]
    assert "0.0003</text>" in text  # numbers in figures are not cut
    assert not (tmp_path / "a" / "figures").exists()
    assert write_report(paths, tmp_path / "elsewhere" / "page.html").read_text().count("../b/report.html") == 1


def test_runs_on_different_images_say_so(run_of: Callable[..., Path], tmp_path: Path) -> None:
    paths = [run_of(tmp_path, name, **{**SMALL, "rows": rows}) for name, rows in (("a", 60), ("b", 80))]
    page = write_report(paths).read_text()
    assert "judged on different images" in page
    assert "<figure" not in page  # which would compare them


def test_what_has_not_been_judged_is_left_out_and_said(run_of: Callable[..., Path], tmp_path: Path) -> None:
    paths = [run_of(tmp_path, name, **SMALL) for name in "abc"]
    (paths[2] / "evaluation.json").write_text("{}")
    told: list[str] = []
    page = write_report(paths, tell=told.append).read_text()
    assert "2 runs compared" in page
    assert "left out" in page
    assert len(told) == 1
    assert str(paths[2]) in told[0]
    for path in paths[:2]:
        (path / "evaluation.json").write_text("{}")
    with pytest.raises(StorageError, match="damaged"):
        read_overview(paths)


def test_a_folder_of_runs_and_what_a_shell_makes_of_a_star(run_of: Callable[..., Path], tmp_path: Path) -> None:
    paths = [run_of(tmp_path, name, **SMALL) for name in "ab"]
    (tmp_path / "notes").mkdir()
    first = CliRunner().invoke(main, ["report", str(tmp_path)])
    assert first.exit_code == 0, first.output
    written = (tmp_path / "report.html").read_bytes()
    again = CliRunner().invoke(main, ["report", *map(str, [*paths, tmp_path / "report.html"])])
    assert again.exit_code == 0, again.output
    assert (tmp_path / "report.html").read_bytes() == written
    (tmp_path / "mine.html").write_text("<p>a page of somebody else</p>")
    other = CliRunner().invoke(
        main, ["report", "--out", str(tmp_path / "x.html"), *map(str, [*paths, tmp_path / "mine.html"])]
    )
    assert "mine.html" in other.output


def test_an_overview_is_replaced_by_one_of_the_same_runs_and_more(run_of: Callable[..., Path], tmp_path: Path) -> None:
    paths = [run_of(tmp_path, name, **SMALL) for name in "abc"]
    page = write_report(paths[:2])
    assert write_report(paths) == page
    assert page.read_text().count('<tr data-run="') == 3
    with pytest.raises(ConfigError, match="the report of other runs"):
        write_report(paths[1:])


def test_runs_of_one_name_are_told_apart_and_a_mistyped_one_is_an_error(
    run_of: Callable[..., Path], tmp_path: Path
) -> None:
    paths = [run_of(tmp_path / folder, "run", **SMALL) for folder in ("first", "second")]
    other = run_of(tmp_path / "first", "other", **SMALL)
    names = [line.name for line in read_overview([*paths, other]).lines]
    assert names == ["first/run", "second/run", "other"]
    with pytest.raises(StorageError, match="nowhere: no run here"):
        read_overview([*paths, tmp_path / "nowhere"])


def test_values_on_an_axis() -> None:
    heights, ticks = _scale((2, None, 4, 8))
    assert heights[1] == 0.0
    assert 0 < heights[0] < heights[2] < heights[3] == 1.0
    assert ("8", 1.0) in [(text, height) for height, text in ticks]
    assert ticks[-1] == (0.0, "-")
    assert [text for _, text in _scale((True, False))[1]] == ["true", "false"]
    assert _scale((0.0001, 0.001, 0.01))[0] == pytest.approx([0, 0.5, 1])


def test_axes_of_the_figure_of_keys() -> None:
    many = tuple(f"text {i}" for i in range(40))
    changed = {"lr": tuple(range(40)), "words": many, "same": ("a", "b") * 20, "gone": (None, 1) * 20}
    assert drawable_keys(changed) == ["lr", "same", "gone"]


def test_fifty_runs_in_a_small_page(run_of: Callable[..., Path], tmp_path: Path) -> None:
    paths = [
        with_config(run_of(tmp_path, f"run-{i:02d}", seed=i, **SMALL), training={"lr": 10.0 ** -(i % 5), "epochs": i})
        for i in range(50)
    ]
    begun = time.process_time()
    page = write_report(paths)
    assert time.process_time() - begun < 10
    assert page.stat().st_size < 1_000_000
    assert page.read_text().count('<tr data-run="') == 50
