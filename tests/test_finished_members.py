"""A member that was trained elsewhere joins a run's vote with its weights as they are, and is known as such everywhere."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

import ensemble
from ensemble.config import Experiment, parse_experiment
from ensemble.data import load_dataset
from ensemble.errors import ConfigError
from ensemble.events import Event, MemberFinished, Notice, TaskStarted
from ensemble.executors import InlineExecutor
from ensemble.inference.export import export_ensemble
from ensemble.inference.trained import load_ensemble
from ensemble.report.card import model_card
from ensemble.run.later_votes import vote_later
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.storage import RunFolder
from ensemble.tracking.run_identity import member_config
from ensemble.tracking.sentences import describe

MLP = {"name": "mlp", "widths": (12,)}
CONFIG: dict[str, Any] = {
    "name": "run", "seed": 3, "method": {"name": "bagging"}, "data": {"name": "digits"},
    "training": {"epochs": 2, "batch_size": 64, "ema_decay": 0.9, "keep": "best_validation"},
    "compute": {"executor": "inline", "device": "cpu"}, "tracking": {"wandb": {"mode": "disabled"}},
}  # fmt: skip
SETS = {"sets": ({"name": "changed", "kind": "shifted", "corruptions": ({"stripe": ()},)},)}


def experiment(root: Path, weights: Path, **changes: Any) -> Experiment:
    groups = (
        {"count": 2, "model": {"name": "lenet5"}},
        {"count": 1, "model": {**MLP, "weights": str(weights)}, "finished": True},
    )
    return parse_experiment({**CONFIG, "members": groups, "output_dir": str(root), **changes})


def run(config: Experiment, heard: list[Event] | None = None) -> RunOutcome:
    class Ear:
        def handle(self, event: Event, _time: float) -> None:
            if heard is not None:
                heard.append(event)

        def close(self, _finished: bool) -> None: ...

    return run_ensemble(config, lambda *_: InlineExecutor(), lambda _: [Ear()])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def elsewhere(root: Path) -> Path:
    """The weights of a network that was trained in another run."""
    found = ensemble.train(
        model=MLP, data="digits", method="deep_ensemble", num_members=1, training={"epochs": 4, "lr": 0.01}, seed=8,
        name="elsewhere", output_dir=str(root),
    )  # fmt: skip
    return found.path / "members/0000/weights.safetensors"


@pytest.fixture(scope="module")
def heard() -> list[Event]:
    return []


@pytest.fixture(scope="module")
def joined(root: Path, elsewhere: Path, heard: list[Event]) -> RunOutcome:
    return run(experiment(root, elsewhere, evaluation=SETS), heard)


def test_it_votes_as_it_did_where_it_was_trained(joined: RunOutcome, elsewhere: Path) -> None:
    mine, other = (
        RunFolder.read(path).load_weights(index) for path, index in ((joined.path, 2), (elsewhere.parents[2], 0))
    )
    assert {name: array.tobytes() for name, array in mine.items()} == {
        name: array.tobytes() for name, array in other.items()
    }
    member = RunFolder.read(joined.path).load_member(2)
    images = load_dataset(experiment(joined.path, elsewhere).data).test_images_NCHW
    np.testing.assert_allclose(
        member.votes.test_NK, load_ensemble(elsewhere.parents[2]).member_probs(images)[0], atol=2e-6
    )
    assert (member.recipe, member.history, member.kept_epoch) == ("mlp-finished", (), 0)
    assert len(member.votes.rows) == 0, "nobody knows which rows are out of its bag"
    assert len(RunFolder.read(joined.path).load_member(0).votes.rows) > 0


def test_the_vote_is_of_all_three(joined: RunOutcome) -> None:
    folder = RunFolder.read(joined.path)
    mean_NK = np.mean([folder.load_member(index).votes.test_NK for index in range(3)], axis=0)
    wrong = (mean_NK.argmax(1) != folder.load_labels().test_labels_N).mean()
    assert joined.evaluation.verdict.vote_error == pytest.approx(float(wrong))
    assert joined.trained == 3


def test_it_is_marked_wherever_it_is_shown(joined: RunOutcome, elsewhere: Path, heard: list[Event]) -> None:
    assert [member.recipe for member in joined.evaluation.members] == ["lenet5", "lenet5", "mlp-finished"]
    card = model_card(joined.path)
    assert "1 x mlp-finished" in card
    digest = RunFolder.read(joined.path).config()["members"][1]["model"]["weights_sha256"]
    assert "weights of mlp-finished trained elsewhere, which vote as they are" in card
    assert f"SHA-256 {digest[:16]}" in card
    assert "members trained elsewhere" in card
    said = [event.message for event in heard if isinstance(event, Notice)]
    assert any("mlp-finished: trained elsewhere, nobody here knows on which images" in message for message in said)
    started = next(event for event in heard if isinstance(event, TaskStarted) and event.recipe == "mlp-finished")
    assert "mlp-finished, trained elsewhere, votes on" in str(describe(started))
    finished = next(event for event in heard if isinstance(event, MemberFinished) and event.member == 2)
    assert "has voted: validation error" in str(describe(finished))
    votes, labels = RunFolder.read(joined.path).load_member(2).votes, RunFolder.read(joined.path).load_labels()
    wrong_N = votes.validation_NK.argmax(1) != labels.train_labels_N[labels.validation_rows]
    assert finished.validation_error == pytest.approx(float(wrong_N.mean()))
    config = experiment(joined.path, elsewhere).model_dump(mode="json")
    assert member_config(config, 2, "mlp-finished")["model"]["name"] == "mlp"


def test_reports_predictions_exports_and_later_votes_take_it_along(
    joined: RunOutcome, elsewhere: Path, tmp_path: Path
) -> None:
    images = load_dataset(experiment(joined.path, elsewhere).data).test_images_NCHW
    trained = load_ensemble(joined.path)
    stored = np.stack([RunFolder.read(joined.path).load_member(i).votes.test_NK for i in range(3)])
    np.testing.assert_allclose(trained.member_probs(images), stored, atol=2e-6)
    assert export_ensemble(trained, "torch_export", tmp_path / "vote.pt2").checked.real_rows > 0
    assert np.load(joined.path / "votes/changed/0000.npz")["members_M"].tolist() == [0, 1, 2]
    (tmp_path / "more.yaml").write_text("evaluation: {sets: [{name: later, kind: shifted, corruptions: [identity]}]}\n")
    vote_later(joined.path, [str(tmp_path / "more.yaml")])
    kept = np.load(joined.path / "votes/later/0000.npz")
    np.testing.assert_array_equal(kept["probs_MNK"], stored)
    page = ensemble.load(joined.path).report()
    assert "mlp-finished" in page.read_text()


def test_the_digest_of_its_weights_binds_the_run(
    joined: RunOutcome, root: Path, elsewhere: Path, tmp_path: Path
) -> None:
    assert run(experiment(root, elsewhere, evaluation=SETS)).trained == 0
    copy = tmp_path / "copy" / "w.safetensors"
    copy.parent.mkdir()
    shutil.copy(elsewhere, copy)
    changed = {name: torch.from_numpy(array + 1) for name, array in load_file(elsewhere).items()}
    other = tmp_path / "other.safetensors"
    save_file(changed, other)
    with pytest.raises(ConfigError, match=r"members\.1\.model\.weights_sha256: .* in the folder, .* now"):
        run(experiment(root, other, evaluation=SETS))


def test_an_ensemble_may_be_of_finished_members_alone(root: Path, elsewhere: Path, tmp_path: Path) -> None:
    groups = tuple(
        {"count": 1, "name": name, "model": {**MLP, "weights": str(elsewhere)}, "finished": True}
        for name in ("one", "two")
    )
    heard: list[Event] = []
    outcome = run(experiment(tmp_path, elsewhere, members=groups, method={"name": "deep_ensemble"}), heard)
    assert [member.recipe for member in outcome.evaluation.members] == ["one-finished", "two-finished"]
    assert not [event for event in heard if isinstance(event, Notice) and event.warning]
    assert (ensemble.load(outcome.path).report()).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 2}, "finished: count is 2: all would be the same network; expected 1"),
        ({"training": {"epochs": 3}}, "finished: training has no effect on a member that is not trained"),
        ({"model": {**MLP}}, "finished: such a member votes with the weights that it has: give model.weights"),
        ({"freeze": "backbone"}, "finished: model.freeze has no effect"),
        ({"new_head": True}, "finished: model.new_head has no effect"),
    ],
)
def test_what_could_change_nothing_is_refused(
    change: dict[str, Any], message: str, root: Path, elsewhere: Path
) -> None:
    model = {**MLP, "weights": str(elsewhere)}
    inner = {key: change.pop(key) for key in ("freeze", "new_head") if key in change}
    group = {"count": 1, "model": {**model, **inner}, "finished": True, **change}
    with pytest.raises(ConfigError, match=message):
        experiment(root, elsewhere, members=(group,))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            {"name": "mlp", "widths": (13,)},
            r"model\.weights: .*1\.weight is \[12, 784\], but \[13, 784\] in this network.* votes as it is",
        ),
        ({"name": "lenet5"}, r"model\.weights: .* of this network.* votes as it is \(finished\)"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(
    model: dict[str, Any], message: str, tmp_path: Path, elsewhere: Path
) -> None:
    group = {"count": 1, "model": {**model, "weights": str(elsewhere)}, "finished": True}
    with pytest.raises(ConfigError, match=message):
        run(experiment(tmp_path, elsewhere, members=(group,)))
    assert not (tmp_path / "run").exists()


def test_a_last_layer_for_other_classes_is_not_drawn_anew(tmp_path: Path, elsewhere: Path) -> None:
    tensors = {name: torch.from_numpy(array) for name, array in load_file(elsewhere).items()}
    last = list(tensors)[-2:]
    save_file(
        {name: tensor[:7].contiguous() if name in last else tensor for name, tensor in tensors.items()},
        tmp_path / "w.safetensors",
    )
    with pytest.raises(ConfigError, match=r"is \[7.*but \[10.*votes as it is"):
        run(experiment(tmp_path, tmp_path / "w.safetensors"))
