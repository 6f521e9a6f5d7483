"""A member that is known by its probabilities alone: it votes as its file says, is marked everywhere, and predicts nothing new."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import ensemble
from ensemble.commands.main import main
from ensemble.config import Experiment, load_config, parse_experiment
from ensemble.data import Dataset, load_dataset, split_of
from ensemble.errors import ConfigError, EnsembleError
from ensemble.events import Event, MemberFinished, Notice
from ensemble.report.card import model_card
from ensemble.report.html import write_report
from ensemble.run.later_votes import vote_later
from ensemble.run.run import RunOutcome
from ensemble.storage import RunFolder
from ensemble.tracking.run_identity import member_config, tag_names
from ensemble.tracking.sentences import describe
from tests.test_finished_members import run

CONFIG: dict[str, Any] = {
    "name": "run", "seed": 3, "method": {"name": "bagging"}, "data": {"name": "digits"},
    "training": {"epochs": 2, "batch_size": 64}, "compute": {"executor": "inline", "device": "cpu"},
    "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
Arrays = dict[str, np.ndarray]


def experiment(root: Path, file: Path, **changes: Any) -> Experiment:
    groups = (
        {"count": 2, "model": {"name": "mlp", "widths": (12,)}},
        {"count": 1, "name": "forest", "probabilities": str(file)},
    )
    return parse_experiment({**CONFIG, "members": groups, "output_dir": str(root), **changes})


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(parse_experiment({**CONFIG, "model": {"name": "lenet5"}, "num_members": 1}).data)


@pytest.fixture(scope="module")
def arrays(digits: Dataset) -> Arrays:
    """What a nearest-mean classifier in numpy says: somebody else's model."""
    x = digits.train_images_NCHW.reshape(len(digits.train_labels_N), -1) / 255.0
    means = np.stack([x[digits.train_labels_N == k].mean(0) for k in range(10)])

    def probs(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), 1, -1) / 255.0
        scores = -((flat - means) ** 2).sum(-1)
        exps = np.exp(scores - scores.max(1, keepdims=True))
        return exps / exps.sum(1, keepdims=True)

    return {"test_probs": probs(digits.test_images_NCHW), "train_probs": probs(digits.train_images_NCHW)}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def file(root: Path, arrays: Arrays) -> Path:
    np.savez(root / "forest.npz", **arrays)
    return root / "forest.npz"


@pytest.fixture(scope="module")
def heard() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def joined(root: Path, file: Path, heard: list[Event]) -> RunOutcome:
    return run(experiment(root, file), heard)


def test_it_votes_as_its_file_says(joined: RunOutcome, arrays: Arrays) -> None:
    folder = RunFolder.read(joined.path)
    member, labels = folder.load_member(2), folder.load_labels()
    np.testing.assert_array_equal(member.votes.test_NK, arrays["test_probs"].astype(np.float32))
    np.testing.assert_array_equal(
        member.votes.validation_NK, arrays["train_probs"].astype(np.float32)[labels.validation_rows]
    )
    assert (member.recipe, member.history, member.kept_epoch, member.num_parameters) == ("forest-finished", (), 0, 0)
    assert len(member.votes.rows) == 0, "nobody knows which rows are out of its bag"
    mean_NK = np.mean([folder.load_member(index).votes.test_NK for index in range(3)], axis=0)
    wrong = (mean_NK.argmax(1) != labels.test_labels_N).mean()
    assert joined.evaluation.verdict.vote_error == pytest.approx(float(wrong))
    assert joined.trained == 3


def test_nobody_knows_its_parameters(joined: RunOutcome, tmp_path: Path) -> None:
    """Nor those of a line that needs it: no 0, and no sum of the others. No page proposes to measure its predictions."""
    rows = {row.name: row for row in joined.evaluation.leaderboard}
    assert not joined.evaluation.can_predict
    assert rows["member 0 (mlp)"].num_parameters > 0
    for name in ("soft vote", "mean member", "member 2 (forest-finished)"):
        assert np.isnan(rows[name].num_parameters), name
    stored = json.loads((joined.path / "evaluation.json").read_text())["leaderboard"]
    assert [row["num_parameters"] for row in stored if row["name"] == "soft vote"] == [None]
    page = write_report([joined.path], tmp_path / "page.html").read_text()
    assert "ensemble cost" not in page
    assert "| parameters in all | - |" in model_card(joined.path)


def test_it_is_marked_wherever_it_is_shown(
    joined: RunOutcome, file: Path, heard: list[Event], root: Path, arrays: Arrays
) -> None:
    assert [member.recipe for member in joined.evaluation.members] == ["mlp", "mlp", "forest-finished"]
    digest = RunFolder.read(joined.path).config()["members"][1]["probabilities_sha256"]
    card = model_card(joined.path)
    assert "forest-finished without a network" in card
    assert f"the probabilities in forest.npz (SHA-256 {digest[:16]}...), without a network" in card
    assert "members trained elsewhere" in card
    assert str(root) not in card.partition("## Use")[0], "where the file lay is nobody's business"
    assert "ensemble predict" not in card.partition("## Use")[2], "it would be refused"
    said = [event.message for event in heard if isinstance(event, Notice)]
    assert any(
        "forest-finished: votes with the probabilities in" in line and "trained elsewhere" in line for line in said
    )
    told = next(event for event in heard if isinstance(event, MemberFinished) and event.member == 2)
    assert "has voted: validation error" in str(describe(told))
    folder = RunFolder.read(joined.path)
    labels = folder.load_labels()
    wrong_N = arrays["train_probs"][labels.validation_rows].argmax(1) != labels.train_labels_N[labels.validation_rows]
    assert told.validation_error == pytest.approx(float(wrong_N.mean()))
    config = experiment(joined.path, file).model_dump(mode="json")
    assert member_config(config, 2, "forest-finished")["model"]["probabilities"] == str(file)
    assert member_config(config, 0, "mlp")["model"]["name"] == "mlp"
    assert tag_names(member_config(config, 2, "forest-finished"), ("mine",)) == ("bagging", "digits", "mine")
    assert tag_names(config, ()) == ("bagging", "digits", "mlp")
    assert "forest-finished" in ensemble.load(joined.path).report().read_text()


def test_what_needs_a_network_says_which_member_has_none(joined: RunOutcome, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", np.zeros((28, 28), np.uint8))
    sets = tmp_path / "more.yaml"
    sets.write_text("evaluation: {sets: [{name: later, kind: shifted, corruptions: [identity]}]}\n")
    for command in (
        ["predict", str(joined.path), str(tmp_path / "image.npy")],
        ["export", str(joined.path), "--format", "onnx"],
        ["cost", str(joined.path)],
        ["evaluate", str(joined.path), "--on", str(sets)],
    ):
        said = CliRunner().invoke(main, command)
        assert said.exit_code == 2, said.output
        assert "forest-finished has no network, only probabilities from a file" in said.output
        assert "model with weights, and finished: true" in said.output
    with pytest.raises(ConfigError, match="forest-finished has no network"):
        vote_later(joined.path, [str(sets)])
    with pytest.raises(ConfigError, match="forest-finished has no network"):
        ensemble.load_ensemble(joined.path)


def test_the_run_is_judged_checked_and_compared_as_any_other(joined: RunOutcome) -> None:
    path = str(joined.path)
    for command in (["evaluate", path, "--all"], ["check", path], ["wandb", path, "--mode", "offline"]):
        said = CliRunner().invoke(main, command)
        assert said.exit_code == 0, said.output
        assert "ensemble cost" not in said.output, "it would be refused"
    done = CliRunner().invoke(main, ["compare", str(joined.path), f"{joined.path}:2", "--json"])
    assert done.exit_code == 0, done.output
    assert [line["name"] for line in json.loads(done.output)["lines"]][:2] == ["run", "run:2"]


def test_the_digest_of_its_file_binds_the_run(joined: RunOutcome, file: Path, arrays: Arrays, tmp_path: Path) -> None:
    root = tmp_path / "runs"  # a copy, since the run names the file of its last start
    shutil.copytree(joined.path, root / "run")
    before = (root / "run/members/0002/votes.npz").read_bytes()
    shutil.copy(file, tmp_path / "copy.npz")
    assert run(experiment(root, tmp_path / "copy.npz")).trained == 0, "wherever it lies"
    np.savez(tmp_path / "other.npz", **{**arrays, "test_probs": arrays["test_probs"][:, ::-1]})
    with pytest.raises(ConfigError, match=r"members\.1\.probabilities_sha256: .* in the folder, .* now"):
        run(experiment(root, tmp_path / "other.npz"))
    assert (root / "run/members/0002/votes.npz").read_bytes() == before


def test_a_damaged_one_is_taken_from_its_file_again(root: Path, file: Path, tmp_path: Path) -> None:
    outcome = run(experiment(tmp_path, file))
    votes = outcome.path / "members/0002/votes.npz"
    before = votes.read_bytes()
    votes.write_bytes(before[:-20])
    assert run(experiment(tmp_path, file)).trained == 1
    assert votes.read_bytes() == before


def test_a_run_may_be_of_such_members_alone(file: Path, tmp_path: Path) -> None:
    groups = tuple({"count": 1, "name": name, "probabilities": str(file)} for name in ("one", "two"))
    outcome = run(experiment(tmp_path, file, members=groups, method={"name": "deep_ensemble"}))
    assert [member.recipe for member in outcome.evaluation.members] == ["one-finished", "two-finished"]
    assert ensemble.load(outcome.path).report().exists()


def test_a_file_of_validation_rows_names_them(file: Path, arrays: Arrays, digits: Dataset, tmp_path: Path) -> None:
    """In any order; rows of another split are refused, since nobody could tell them apart later."""
    config = experiment(tmp_path, file)
    rows = split_of(digits, config.data, config.seed).validation_rows
    shuffled = np.random.default_rng(0).permutation(rows)
    part = {
        "test_probs": arrays["test_probs"], "validation_probs": arrays["train_probs"][shuffled],
        "validation_rows": shuffled, "validation_labels": digits.train_labels_N[shuffled],
    }  # fmt: skip
    np.savez(tmp_path / "part.npz", **part)
    outcome = run(experiment(tmp_path, tmp_path / "part.npz"))
    np.testing.assert_array_equal(
        RunFolder.read(outcome.path).load_member(2).votes.validation_NK, arrays["train_probs"].astype(np.float32)[rows]
    )
    with pytest.raises(EnsembleError, match=r"validation_rows names row \d+, which is none of them \(another seed"):
        run(experiment(tmp_path, tmp_path / "part.npz", seed=4, name="other"))
    assert not (tmp_path / "other").exists()


def broken(arrays: Arrays, name: str, place: Any, value: float) -> Arrays:
    changed = {**arrays, name: arrays[name].copy()}
    changed[name][place] = value
    return changed


def test_whatever_is_no_vote_on_these_images_is_refused_by_name(
    arrays: Arrays, digits: Dataset, tmp_path: Path
) -> None:
    test, train = arrays["test_probs"], arrays["train_probs"]
    wrong_labels = digits.test_labels_N[::-1]
    cases: list[tuple[Arrays, str]] = [
        ({"test_probs": test}, r"train_probs \(or validation_probs with validation_rows\) missing; found test_probs"),
        ({"train_probs": train}, "test_probs missing; found train_probs"),
        ({"probs": test}, "test_probs missing; found probs"),
        ({**arrays, "validation_probs": train}, "holds train_probs and validation_probs; expected one"),
        ({"test_probs": test, "validation_probs": train[:9]}, r"validation_probs has 9 rows, but there are \d+ validation"),
        ({**arrays, "test_probs": test[:-1]}, r"test_probs has 354 rows, but there are 355 test images"),
        ({**arrays, "train_probs": train[1:]}, r"train_probs has [\d,]+ rows, but there are [\d,]+ training images"),
        ({**arrays, "test_probs": test[:, :7]}, r"test_probs has 7 columns, but the data set has 10 classes \(0, 1, 2"),
        ({**arrays, "test_probs": test[None]}, r"test_probs has shape 1x355x10, as of 1 networks"),
        ({**arrays, "test_probs": test.argmax(1)}, r"looks like class numbers; expected the probability of every class"),
        ({**arrays, "test_probs": (test > 0.5).astype(int)}, r"test_probs is int64 of shape 355x10; expected floats"),
        ({**arrays, "test_probs": np.log(test)}, r"355 rows are no probabilities.*look like logits: apply softmax"),
        ({**arrays, "test_probs": test * 100}, r"355 rows are no probabilities.*sum 100.*divide each row by its sum"),
        ({**arrays, "test_probs": test * 0.9}, r"355 rows are no probabilities.*sum 0\.9.*divide each row by its sum"),
        (broken(arrays, "train_probs", (7, 2), np.nan), r"train_probs: 1 rows hold numbers that are not finite.* row 7:"),
        (broken(arrays, "test_probs", (3, 0), -0.2), r"test_probs: 1 rows are no probabilities, the first is row 3: -0\.2"),
        ({**arrays, "test_labels": wrong_labels}, r"test_labels differs from the data set's labels in \d+ rows, the first"),
        ({**arrays, "train_labels": wrong_labels}, r"train_labels is int64 \[355\]; expected [\d,]+ class numbers"),
    ]  # fmt: skip
    for number, (held, message) in enumerate(cases):
        path = tmp_path / f"case{number}.npz"
        np.savez(path, **held)
        with pytest.raises(EnsembleError, match=message) as found:
            run(experiment(tmp_path, path))
        assert path.name in str(found.value)
        assert not (tmp_path / "run").exists()
    np.savez(tmp_path / "pickle.npz", **{**arrays, "test_probs": np.array([{}], dtype=object)})
    with pytest.raises(EnsembleError, match=r"pickle\.npz: cannot be read: it holds Python objects"):
        run(experiment(tmp_path, tmp_path / "pickle.npz"))
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(EnsembleError, match=r"text\.npz: cannot be read: .*; expected an \.npz file with test_probs"):
        run(experiment(tmp_path, tmp_path / "text.npz"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 2}, "probabilities: count is 2: all would vote alike; expected 1"),
        ({"training": {"epochs": 3}}, "probabilities: training has no effect on a member whose votes come from a file"),
        ({"model": {"name": "lenet5"}}, "probabilities: model has no effect on a member whose votes come from a file"),
        ({"finished": True}, "probabilities: finished has no effect on a member whose votes come from a file"),
        ({"probabilities": None}, "members.1: needs a model, or a file of probabilities"),
        ({"probabilities": "p.npy"}, r"members\.1\.probabilities = 'p\.npy': expected an \.npz file .* a single array cannot"),
        ({"probabilities": "none.npz"}, r"members\.1\.probabilities: .*none\.npz: cannot be read: No such file"),
        ({"probabilities_sha256": "0" * 64}, r"members\.1\.probabilities_sha256 is filled in from the file itself"),
    ],
)  # fmt: skip
def test_what_could_change_nothing_is_refused(change: dict[str, Any], message: str, root: Path, file: Path) -> None:
    groups = (
        {"count": 1, "model": {"name": "lenet5"}},
        {"count": 1, "name": "x", "probabilities": str(file), **change},
    )
    with pytest.raises(ConfigError, match=message):
        experiment(root, file, members=groups)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evaluation": {"sets": ({"name": "c", "kind": "shifted", "corruptions": ({"stripe": ()},)},)}}, r"evaluation\.sets: forest-finished has no network"),
        ({"data": {"name": "digits", "calibration_fraction": 0.1}}, r"data\.calibration_fraction: forest-finished has no network"),
        ({"method": {"name": "adaboost"}}, "adaboost needs members of one kind"),
    ],
)  # fmt: skip
def test_what_needs_votes_that_the_file_has_not_is_refused(
    change: dict[str, Any], message: str, root: Path, file: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        experiment(root, file, **change)


def test_views_that_nobody_would_vote_on_are_refused(root: Path, file: Path) -> None:
    groups = ({"count": 1, "probabilities": str(file)},)
    with pytest.raises(ConfigError, match=r"evaluation\.tta has no effect on members whose votes come from files"):
        experiment(root, file, members=groups, evaluation={"tta": {"crops": 4}})


def test_it_lies_beside_its_configuration_and_is_called_by_its_file(file: Path, tmp_path: Path) -> None:
    shutil.copy(file, tmp_path / "old model (2).npz")
    (tmp_path / "c.yaml").write_text(
        "method: {name: deep_ensemble}\ndata: {name: digits}\nmembers:\n"
        "  - {count: 1, model: {name: lenet5}}\n  - {count: 1, probabilities: old model (2).npz}\n"
    )
    loaded = load_config(tmp_path / "c.yaml")
    assert loaded.experiment.recipes == ("lenet5", "old-model-2-finished")
    assert loaded.experiment.members[1].probabilities == str(tmp_path / "old model (2).npz")
    assert loaded.origins["members.1.probabilities_sha256"] == "filled in"
