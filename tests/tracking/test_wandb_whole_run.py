"""A real run with everything that W&B can be given, read back from its files; and told again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.storage import RunFolder
from ensemble.tracking import wandb_tracker
from ensemble.tracking.figures import ENSEMBLE, MEMBER
from tests.tracking.wandb_reader import RunFile, plain, read_folder

CONFIG: dict[str, Any] = {
    "name": "all", "num_members": 3, "method": {"name": "deep_ensemble"}, "data": {"name": "digits"},
    "model": {"name": "mlp", "widths": [8]}, "training": {"epochs": 3},
    "compute": {"executor": "inline", "device": "cpu", "stack_size": 1},
}  # fmt: skip


def train(root: Path, **wandb: Any) -> Path:
    config = {**CONFIG, "output_dir": str(root), "tracking": {"wandb": {"mode": "offline", **wandb}}}
    (root / "all.yaml").write_text(json.dumps(config))
    shown = CliRunner().invoke(main, ["train", str(root / "all.yaml"), "-q"])
    assert shown.exit_code == 0, shown.output
    return root / "all"


def by_end(folder: Path) -> dict[str, RunFile]:
    return {id.rsplit("-", 1)[1]: run for id, run in read_folder(folder).items()}


@pytest.fixture(scope="module", autouse=True)
def patience() -> Iterator[None]:
    """Nothing here is about how long W&B may take at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(wandb_tracker.CLOSE_TIMEOUT_S, "offline", 120.0)
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(
        tmp_path_factory.mktemp("runs"), artifact=["votes", "weights", "report"], notes="two\nlines", group="of friends",
        name="The one", job_type="vote",
    )  # fmt: skip


def matches(name: str, table: tuple[Any, ...]) -> bool:
    from fnmatch import fnmatchcase

    return any(fnmatchcase(name, figure.name) for figure in table)


def test_every_figure_that_is_told_has_one_name_that_is_described(run: Path) -> None:
    for end, found in by_end(run).items():
        table = ENSEMBLE if end == "ensemble" else MEMBER
        told = {name for row in (*found.history, found.summary) for name in plain(row) if "." not in name}
        told -= {name for name in told if isinstance(found.summary.get(name), dict) and "_type" in found.summary[name]}
        assert {name for name in told if not matches(name, table)} == set()
    names = [figure.name for figure in ENSEMBLE]
    assert len(set(names)) == len(names)
    summary = by_end(run)["ensemble"].summary
    assert not {"test_error", "p_value", "validation_error", "seconds", "members", "failed"} & set(summary)
    assert summary["error/best_member"] >= 0


def test_the_docs_name_every_figure() -> None:
    page = (Path(__file__).parents[2] / "docs" / "wandb.md").read_text()
    for figure in (*MEMBER, *ENSEMBLE):
        assert f"`{figure.name}`" in page, figure.name


def test_curves_say_their_axis_and_what_their_summary_is(run: Path) -> None:
    found = by_end(run)["ensemble"]
    assert found.axes == {figure.name: figure.axis for figure in ENSEMBLE if figure.axis}
    assert found.summaries == {figure.name: figure.summary for figure in ENSEMBLE if figure.summary != "last"}
    member = by_end(run)["m0001"]
    stored = RunFolder.read(run).load_member(1)
    kept = stored.history[stored.kept_epoch - 1]
    assert member.summary["kept/epoch"] == stored.kept_epoch
    assert member.summary["kept/validation_error"] == kept.validation_error
    assert member.summary["kept/validation_loss"] == kept.validation_loss
    assert member.summary["validation/error"]["min"] == min(epoch.validation_error for epoch in stored.history)


def test_what_it_ran_on_is_in_the_config(run: Path) -> None:
    stored = json.loads((run / "environment.json").read_text())
    found = by_end(run)["ensemble"].config["environment"]
    for key in ("commit", "python", "packages", "processor", "cores", "system", "command"):
        assert found[key] == stored[key]
    assert (found["executor"], found["slots"]) == ("inline", 1)
    (place,) = found["places"]
    assert place.endswith(": cpu")
    assert "variables" not in found
    light = by_end(run)["m0000"].config["environment"]
    assert light["torch"] == stored["packages"]["torch"]
    assert set(light) == {"commit", "python", "executor", "ensemble-trainer", "torch"}
    assert by_end(run)["m0000"].summary["place"] == place


def test_the_page_of_the_ensemble_fills_while_members_train(run: Path) -> None:
    found = by_end(run)["ensemble"]
    live = [row for row in found.history if "live/members" in row]
    assert [row["live/member_epochs"] for row in live] == list(range(1, 10))
    first_end = next(row["_step"] for row in found.history if "members/finished" in row)
    assert live[0]["_step"] < first_end
    epochs = [row for row in found.history if "epoch/members" in row]
    assert [(row["epoch"], row["epoch/members"]) for row in epochs] == [(1, 3), (2, 3), (3, 3)]
    folder = RunFolder.read(run)
    last = [folder.load_member(index).history[2].validation_error for index in range(3)]
    assert epochs[-1]["epoch/validation_error_best"] == min(last)
    assert epochs[-1]["epoch/validation_error_worst"] == max(last)
    assert epochs[-1]["epoch/validation_error_mean"] == pytest.approx(np.mean(last))


def test_the_vote_of_the_finished_is_a_curve_that_ends_at_the_judgement(run: Path) -> None:
    found = by_end(run)["ensemble"]
    votes = [
        (row["members/finished"], row["vote/validation_error"]) for row in found.history if "members/finished" in row
    ]
    assert [count for count, _ in votes] == [1, 2, 3]
    assert votes[0][1] == pytest.approx(by_end(run)["m0000"].summary["kept/validation_error"])
    assert votes[-1][1] == found.summary["error/validation"]
    assert found.axes["vote/validation_error"] == "members/finished"


def test_names_notes_group_and_job_type_are_as_asked_for_and_ids_are_not(run: Path) -> None:
    runs = by_end(run)
    assert {found.run.run_group for found in runs.values()} == {"of friends"}
    ensemble = runs["ensemble"].run
    assert (ensemble.display_name, ensemble.notes, ensemble.job_type) == ("The one", "two\nlines", "vote")
    assert (runs["m0002"].run.display_name, runs["m0002"].run.job_type) == ("The one m0002", "member")
    assert all(id.startswith("all-") for id in read_folder(run))


def test_parts_of_the_run_are_artifacts_of_their_own(run: Path) -> None:
    kept = {a.type: a for a in by_end(run)["ensemble"].artifacts if a.type != "run_table"}
    base = ensemble_id(run).removesuffix("-ensemble")
    assert {type: a.name for type, a in kept.items()} == {
        "votes": f"{base}-votes", "model": f"{base}-weights", "report": f"{base}-report"
    }  # fmt: skip
    for artifact in kept.values():
        assert sorted(artifact.aliases) == ["3-members", "latest"]
        assert json.loads(artifact.metadata)["members"] == 3
        assert artifact.run_id == ensemble_id(run), "the run that made it"
    votes = {file.path for file in kept["votes"].manifest.contents}
    assert {"labels.npz", "dataset.json", *(f"members/{m:04d}/votes.npz" for m in range(3))} <= votes
    assert not any("weights" in name for name in votes)
    weights = {file.path: Path(file.local_path) for file in kept["model"].manifest.contents}
    assert (
        weights["members/0001/weights.safetensors"].read_bytes()
        == (run / "members/0001/weights.safetensors").read_bytes()
    )
    (page,) = [Path(file.local_path) for file in kept["report"].manifest.contents]
    assert "<html" in page.read_text()[:2000]


def ensemble_id(run: Path) -> str:
    return next(id for id in read_folder(run) if id.endswith("-ensemble"))


def test_charts_are_drawn_once_each(run: Path) -> None:
    found = by_end(run)["ensemble"]
    told = [name for row in found.history for name in row]
    for name, columns in {
        "error_by_size": ["members", "line", "test error"],
        "reliability": ["confidence", "line", "accuracy"],
        "confusion": ["actual", "predicted", "rows"],
    }.items():
        assert len([1 for each in told if each.startswith(f"{name}_chart_table") and each.endswith("._type")]) == 1
        assert [key for key in found.config if name in key] == [f"_wandb.visualize.{name}_chart"], "drawn by W&B"
        (path,) = (run / "wandb").glob(f"offline-run-*-ensemble/files/media/table/{name}_chart_table_*.table.json")
        table = json.loads(path.read_text())
        assert table["columns"] == columns
        assert table["data"]
    sizes = json.loads(next((run / "wandb").glob("*/files/media/table/error_by_size_chart_table_*.json")).read_text())[
        "data"
    ]
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert [y for _, line, y in sizes if line == "mean"] == [point["mean"] for point in evaluation["size_curve"]]


def records(run: RunFile) -> tuple[Any, ...]:
    """All that is told, without times and the random names of files."""

    def kept(row: dict[str, Any]) -> dict[str, Any]:
        flat = {name: value for name, value in row.items() if isinstance(value, int | float | str)}
        return {
            name: value
            for name, value in flat.items()
            if not name.startswith(("_timestamp", "_runtime", "_wandb"))
            and not name.endswith(("path", "sha256", ".size", "artifact_path"))
        }

    artifacts = [
        (a.name, sorted(a.aliases), [(f.path, f.digest) for f in a.manifest.contents])
        for a in run.artifacts
        if a.type in ("votes", "model")
    ]
    config = {name: value for name, value in run.config.items() if name != "_wandb"}
    return (
        [kept(row) for row in run.history],
        kept(run.summary),
        config,
        artifacts,
        run.axes,
        run.summaries,
        run.exit_code,
    )


def test_told_again_it_is_the_same(run: Path, tmp_path: Path) -> None:
    before = read_folder(run)
    copy = tmp_path / "all"
    shutil.copytree(run, copy, symlinks=True)
    shown = CliRunner().invoke(main, ["wandb", str(copy)])
    assert shown.exit_code == 0, shown.output
    after = read_folder(copy)
    assert set(after) == set(before)
    for id in before:
        for mine, theirs in zip(records(after[id]), records(before[id]), strict=True):
            assert mine == theirs, id


def test_a_finished_run_that_is_started_again_is_told_once(run: Path, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(run.parent, root, symlinks=True)
    config = json.loads((root / "all.yaml").read_text()) | {"output_dir": str(root)}
    (root / "all.yaml").write_text(json.dumps(config))
    assert CliRunner().invoke(main, ["train", str(root / "all.yaml"), "-q"]).exit_code == 0
    live = by_end(root / "all")["ensemble"]
    assert CliRunner().invoke(main, ["wandb", str(root / "all")]).exit_code == 0
    again = by_end(root / "all")["ensemble"]
    for mine, theirs in zip(records(again), records(live), strict=True):
        assert mine == theirs
    assert len([row for row in again.history if "size/members" in row]) == 3
    assert len([a for a in again.artifacts if a.type == "votes"]) == 1
