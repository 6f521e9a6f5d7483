"""Control networks: one trained longer, one wider, beside the vote; never voters, each compared by a test of its own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from scipy.stats import binomtest

from ensemble.config import parse_experiment
from ensemble.config.controls import control_group, epochs_together, stretched
from ensemble.config.network import Network, register_network
from ensemble.config.recipe import TrainingConfig
from ensemble.config.sweeping import load_sweep
from ensemble.errors import ConfigError, StorageError
from ensemble.evaluation.records import Evaluation
from ensemble.events import EpochFinished, Notice, TaskStarted
from ensemble.executors import InlineExecutor
from ensemble.executors.base import Arrays, Emit, Outcome, Train, Wanted, always
from ensemble.models import build_model, num_parameters
from ensemble.models.widening import as_large_as, count_parameters
from ensemble.overview.rows import read_row
from ensemble.overview.sources import find_sources
from ensemble.report.html import write_report
from ensemble.report.tables import leaderboard_markdown
from ensemble.report.wording import short_name
from ensemble.results.judging import headline_figures, judge
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.storage import RunFolder
from ensemble.tracking.event_log import read_events
from ensemble.tracking.wandb_evaluation import figures
from ensemble.training.schedules import rate
from ensemble.types import Task
from tests.config.test_effects import METHODS
from tests.test_run import CONFIG, Crashing, CutAfter, Limited, digests

BOTH = ("longer", "wider")
PLAIN: dict[str, Any] = {**CONFIG, "method": {"name": "deep_ensemble"}, "num_members": 2}


def run(root: Path, make: Any = None, **changes: Any) -> RunOutcome:
    experiment = parse_experiment({**PLAIN, "controls": BOTH, "output_dir": str(root), **changes})
    return run_ensemble(experiment, make or (lambda *_: InlineExecutor()), lambda _: [])


def messages(path: Path, warning: bool = False) -> list[str]:
    events = [event for _, event in read_events(path / "events.jsonl")]
    return [event.message for event in events if isinstance(event, Notice) and event.warning == warning]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    return run(tmp_path_factory.mktemp("done"))


def test_they_are_the_networks_that_their_recipes_give(done: RunOutcome, tmp_path: Path) -> None:
    """Members 3 and 4 of deep ensembles with those recipes have the same starts, rows and orders."""
    found = RunFolder.read(done.path)
    wide = as_large_as(parse_experiment(PLAIN).groups[0].model, 2 * 12_730, (1, 28, 28), 10)
    for which, index, recipe in (
        ("longer", 3, {"training": {**CONFIG["training"], "epochs": 4}}),
        ("wider", 4, {"model": wide.network.model_dump()}),
    ):
        alone = {**CONFIG["compute"], "stack_size": 1}
        run(tmp_path / which, num_members=index + 1, controls=(), compute=alone, **recipe)
        expected = RunFolder.read(tmp_path / which / "run").load_weights(index)
        own = found.load_beside(which, weights=True)
        assert own is not None
        assert own.index == index
        assert own.weights.keys() == expected.keys()
        assert all(np.array_equal(own.weights[name], expected[name]) for name in own.weights)


def test_the_members_stay_what_they_were_and_alone_vote(done: RunOutcome, tmp_path: Path) -> None:
    without = run(tmp_path, controls=())
    names = {name: digest for name, digest in digests(done.path.parent).items() if name.startswith("members/")}
    assert names == digests(tmp_path)
    assert done.trained == 2
    assert done.evaluation.headline.test_error == without.evaluation.headline.test_error
    assert without.evaluation.controls == ()
    assert not (without.path / "controls").exists()
    kinds = [[row.kind for row in outcome.evaluation.leaderboard] for outcome in (done, without)]
    assert set(kinds[0]) - set(kinds[1]) == set(BOTH)
    events = [event for _, event in read_events(done.path / "events.jsonl")]
    assert {event.member for event in events if isinstance(event, EpochFinished)} == {0, 1}
    assert not any(event.task in BOTH for event in events if isinstance(event, TaskStarted))


def test_the_comparisons_are_what_the_stored_votes_say(done: RunOutcome) -> None:
    evaluation = done.evaluation
    labels = np.load(done.path / "labels.npz")["test_labels_N"]
    members = [np.load(done.path / f"members/{m:04d}/votes.npz")["test_NK"] for m in range(2)]
    vote = np.mean(members, 0).argmax(1) != labels
    assert [one.control for one in evaluation.controls] == list(BOTH)
    for found in evaluation.controls:
        alone = np.load(done.path / "controls" / found.control / "votes.npz")["test_NK"].argmax(1) != labels
        only_vote, only_alone = int((vote & ~alone).sum()), int((alone & ~vote).sum())
        assert (found.only_vote_wrong, found.only_control_wrong) == (only_vote, only_alone)
        assert only_vote + only_alone > 5
        assert found.p_value == pytest.approx(binomtest(only_vote, only_vote + only_alone).pvalue)
        assert found.difference == pytest.approx(vote.mean() - alone.mean())
        assert found.difference_lower < found.difference < found.difference_upper
        row = next(row for row in evaluation.leaderboard if row.kind == found.control)
        facts = json.loads((done.path / "controls" / found.control / "member.json").read_text())
        assert (row.wrong, row.member, row.num_parameters) == (int(alone.sum()), None, facts["num_parameters"])
        assert (found.parameters, found.of_members) == (facts["num_parameters"], 2 * 12_730)
        assert f"{alone.mean():.2%}".rstrip("%") in found.sentence
        assert found.sentence in leaderboard_markdown(evaluation)
    longer, wider = evaluation.controls
    assert (longer.epochs, longer.factor, longer.parameters) == (4, 2.0, 12_730)
    assert wider.epochs == 2
    assert wider.parameters == pytest.approx(2 * 12_730, rel=0.02)
    assert "One network trained 2 times as long (4 epochs on all training rows): the soft vote" in longer.sentence
    assert Evaluation.from_json(evaluation.to_json()).controls == evaluation.controls


def test_page_dashboards_and_the_list_of_runs_have_them(done: RunOutcome) -> None:
    page = Path(write_report([done.path], None)).read_text()
    told = figures(json.loads((done.path / "evaluation.json").read_text()))
    (source,) = find_sources(str(done.path.parent))
    spent = read_row(source, cost=True).spent
    for place, found in enumerate(done.evaluation.controls):
        row = next(row for row in done.evaluation.leaderboard if row.kind == found.control)
        assert row.name in page
        assert short_name(row, one_recipe=True) in page
        assert told[f"error/{found.control}"] == found.control_error
        assert headline_figures(done.evaluation)[f"error/{found.control}"] == found.control_error
        assert spent is not None
        assert spent[2 + place].seconds == row.train_seconds > 0


def test_predictions_cost_is_measured_of_each(done: RunOutcome) -> None:
    from ensemble import load_ensemble
    from ensemble.inference.cost import measure

    costs = {one.kind: one for one in measure(load_ensemble(done.path), done.evaluation)}
    assert list(costs) == ["vote", "member", "longer", "wider"]
    assert costs["wider"].parameters == done.evaluation.controls[1].parameters


def test_the_start_says_what_is_trained(done: RunOutcome) -> None:
    rows = len(RunFolder.read(done.path).load_labels().train_rows)
    longer, wider = (line for line in messages(done.path) if line.startswith("control") and "finished" not in line)
    assert (
        longer
        == f"control longer: one network on all {rows:,} training rows is trained for 4 epochs, as many as all members together, to compare the vote with"
    )
    assert wider.endswith("to compare the vote with; all members together have 25,460")


@pytest.mark.parametrize("limit", [0, 2])
def test_an_interrupted_run_ends_with_the_same_bits(limit: int, done: RunOutcome, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, lambda *_: Limited(limit))
    again = Limited()
    run(tmp_path, lambda *_: again)
    assert again.given == 3 - limit
    assert digests(tmp_path) == digests(done.path.parent)


def test_one_that_is_killed_in_its_middle_goes_on_there(
    done: RunOutcome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ensemble.training.stack_run._CAPTURES_APART", 0)
    given: list[Task] = []

    class Noting(Limited):
        def run(
            self, tasks: Sequence[Task], train: Train, arrays: Arrays, emit: Emit, wanted: Wanted = always
        ) -> Iterator[Outcome]:
            given.extend(tasks)
            return super().run(tasks, train, arrays, emit, wanted)

    often = {"compute": {**CONFIG["compute"], "checkpoint_every_s": 1e-9}}
    with pytest.raises(KeyboardInterrupt):  # two members are 46 steps; the longest task is the first, of 84
        run(tmp_path, lambda *_: CutAfter(60), **often)
    run(tmp_path, lambda *_: Noting(), **often)
    assert next(task for task in given if task.id == "longer").checkpoint is not None
    assert digests(tmp_path) == digests(done.path.parent)
    assert not [name for name in RunFolder.read(tmp_path / "run").files() if name.startswith("checkpoints/")]


def test_they_can_be_added_one_by_one_and_stay(done: RunOutcome, tmp_path: Path) -> None:
    run(tmp_path, controls=())
    given = Limited()
    added = run(tmp_path, lambda *_: given, controls=("wider",))
    assert given.given == 1
    assert [one.control for one in added.evaluation.controls] == ["wider"]
    run(tmp_path)
    assert digests(tmp_path) == digests(done.path.parent)
    unsaid = {key: value for key, value in PLAIN.items() if key != "controls"}
    again = run_ensemble(parse_experiment({**unsaid, "output_dir": str(tmp_path)}), lambda *_: Limited(0), lambda _: [])
    assert again.evaluation.controls == done.evaluation.controls
    assert RunFolder.read(again.path).config()["controls"] == list(BOTH), "what a run was begun with"


def test_one_that_fails_costs_its_comparison_only(tmp_path: Path) -> None:
    outcome = run(tmp_path, lambda *_: Crashing("wider"))
    assert not outcome.failures
    assert [one.control for one in outcome.evaluation.controls] == ["longer"]
    said = messages(outcome.path, warning=True)
    assert said[0] == "control wider: crash: its process died; it is tried again"
    assert said[-1] == "control wider: crash: its process died; the vote is not compared with it"
    assert len(said) == 1 + 3, "crash_retries"


@pytest.mark.parametrize("file", ["weights.safetensors", "member.json"])
def test_a_damaged_one_is_named_and_trained_again(file: str, done: RunOutcome, tmp_path: Path) -> None:
    path = run(tmp_path).path
    damaged = path / "controls" / "longer" / file
    damaged.write_bytes(damaged.read_bytes()[:-3])
    assert [error.name for error in RunFolder.read(path).damaged_files()] == [f"controls/longer/{file}"]
    if file == "member.json":
        with pytest.raises(StorageError, match=rf"controls/longer/{file}.*trains the control longer again"):
            judge(RunFolder.read(path))
    run(tmp_path)
    assert digests(tmp_path) == digests(done.path.parent)
    assert not RunFolder.read(path).damaged_files()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_them(method: str, tmp_path: Path) -> None:
    changes = {key: value for key, value in METHODS[method].items() if "." not in key}
    changes.setdefault("method", {"name": method})
    training = {**CONFIG["training"], "augmentation": {"shift": 0.1}}
    changes = {"num_members": 2, **changes, "data": {"name": "digits", "max_train_rows": 100}, "training": training}
    if method == "snapshot":
        training["schedule"] = {"name": "cosine"}
    outcome = run(tmp_path, **changes)
    assert [one.control for one in outcome.evaluation.controls] == list(BOTH)
    assert outcome.evaluation.controls[0].epochs == 2 * changes["num_members"]
    assert len(outcome.evaluation.members) == changes["num_members"]


FAMILIES: dict[str, dict[str, Any]] = {
    "lenet5": {}, "lenet4": {"width": 0.5}, "mlp": {"widths": (8, 6)}, "cnn": {"widths": (4,), "fully_connected": (8,)},
    "layers": {"layers": (
        {"kind": "conv", "channels": 4, "batch_norm": True, "activation": "relu"}, {"kind": "max_pool"},
        {"kind": "linear", "width": 8, "activation": "tanh"}, {"kind": "linear", "width": "classes"},
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_a_wide_one_of_as_many_parameters(name: str, tmp_path: Path) -> None:
    outcome = run(
        tmp_path, num_members=3, controls=("wider",), model={"name": name, **FAMILIES[name]},
        data={"name": "digits", "max_train_rows": 60}, training={"epochs": 1},
    )  # fmt: skip
    (wider,) = outcome.evaluation.controls
    assert wider.of_members == 3 * outcome.evaluation.members[0].num_parameters
    assert wider.parameters == pytest.approx(wider.of_members, rel=0.06)
    assert 1 < wider.factor <= 3


@pytest.mark.parametrize(("name", "keys"), [("resnet18", {"stem": "small"}), ("resnet18", {}), ("resnet50", {})])
def test_a_wide_resnet_is_one_and_takes_images(name: str, keys: dict[str, Any]) -> None:
    kind = Network.registry.find(name)
    assert kind is not None
    network, shape = kind(name=name, width=0.125, **keys), (3, 32, 32)
    own = count_parameters(network, shape, 10)
    found = as_large_as(network, 4 * own, shape, 10)
    module = build_model(found.network, shape, 10)
    assert num_parameters(module) == found.parameters == pytest.approx(4 * own, rel=0.02)
    import torch

    assert module.eval()(torch.zeros(2, *shape)).shape == (2, 10)
    whole = build_model(kind(name=name, **keys), shape, 10)
    scaled = build_model(kind(name=name, width=1.0000001, **keys), shape, 10)
    shapes = [{key: value.shape for key, value in one.state_dict().items()} for one in (whole, scaled)]
    assert shapes[0] == shapes[1], "a width of one is torchvision's network"


def test_the_nearest_width_is_taken() -> None:
    """Of all widths of one hidden layer: h units have 785 h + 10 (h + 1) parameters."""
    kind = Network.registry.find("mlp")
    assert kind is not None
    network = kind(name="mlp", widths=(16,))
    for wanted in (12_730, 20_000, 50_000, 123_456):
        found = as_large_as(network, wanted, (1, 28, 28), 10)
        every = [795 * units + 10 for units in range(16, 400)]
        assert found.parameters == min(every, key=lambda count: abs(count - wanted))


class Counted(Network):
    """One hidden layer, of which nobody but itself knows how wide it is."""

    name: Literal["counted"]
    units: int = 4

    def widened(self, factor: float) -> Network:
        return self.model_copy(update={"units": round(self.units * factor)})

    def build(self, image_shape: tuple[int, int, int], num_classes: int) -> Any:
        from torch import nn

        layers = [nn.Linear(math.prod(image_shape), self.units), nn.ReLU(), nn.Linear(self.units, num_classes)]
        return nn.Sequential(nn.Flatten(), *layers)


def test_a_network_of_ones_own_is_widened_by_its_own_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Network.registry, "_parts", {**Network.registry.all()})
    register_network(Counted)
    small = {"model": {"name": "counted"}, "data": {"name": "digits", "max_train_rows": 60}, "training": {"epochs": 1}}
    (wider,) = run(tmp_path, controls=("wider",), num_members=3, **small).evaluation.controls
    assert (wider.factor, wider.parameters, wider.of_members) == (3.0, 795 * 12 + 10, 3 * (795 * 4 + 10))


NO_WIDTH = (
    "needs a network with a width, and .* has none that is known: leave wider out, or register a network of your own"
)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"name": "torchvision", "architecture": "resnet18"}}, NO_WIDTH),
        ({"model": {"name": "timm", "architecture": "resnet18"}}, NO_WIDTH),
        ({"model": {"name": "mlp", "widths": ()}}, NO_WIDTH),
        ({"controls": ("longer", "longer")}, "names longer twice; name each once"),
        ({"controls": ("deeper",)}, "expected one of longer, wider"),
        ({"num_members": 1}, "num_members is 1: leave them out, or take more members"),
        ({"training": {"epochs": 60_000}}, "longer would train 120,000 epochs"),
        ({"method": {"name": "bagging", "sample_fraction": 0.5}}, "longer would train 2 epochs, no more than a member"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_is_refused_with_a_remedy(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_experiment({**PLAIN, "controls": BOTH, **changes})


def test_a_network_from_a_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def net(num_classes, in_channels): ...\n")
    values = {**PLAIN, "controls": BOTH, "model": {"name": "python", "path": "mine.py:net"}}
    with pytest.raises(ConfigError, match=rf"{NO_WIDTH}.*widened\(factor\)"):
        parse_experiment(values, folder=tmp_path)


def test_given_weights_have_a_width_of_their_own(done: RunOutcome) -> None:
    model = {**PLAIN["model"], "weights": str(done.path / "members/0000/weights.safetensors")}
    with pytest.raises(ConfigError, match=r"wider cannot start from model.weights"):
        parse_experiment({**PLAIN, "controls": BOTH, "model": model})
    assert parse_experiment({**PLAIN, "controls": ("longer",), "model": model}).controls == ("longer",)


def test_groups_of_members_have_no_common_recipe() -> None:
    group = {"count": 2, "model": {"name": "mlp"}}
    values = {key: value for key, value in PLAIN.items() if key not in ("model", "num_members")}
    with pytest.raises(ConfigError, match="controls are networks by the recipe of all members"):
        parse_experiment({**values, "members": (group, {**group, "name": "other"}), "controls": BOTH})


@pytest.mark.parametrize(
    ("method", "epochs"),
    [
        ({"name": "deep_ensemble"}, 4 * 10), ({"name": "bagging", "sample_fraction": 0.5}, 20),
        ({"name": "fast_geometric", "cycle_epochs": 3}, 10 + 3 * 3), ({"name": "snapshot"}, 40),
    ],
)  # fmt: skip
def test_longer_has_the_epochs_of_all_members_together(method: dict[str, Any], epochs: int) -> None:
    training = {"epochs": 10, "schedule": {"name": "cosine"}}
    found = parse_experiment({**PLAIN, "num_members": 4, "method": method, "training": training})
    assert epochs_together(found) == epochs
    assert control_group(found, "longer").training.epochs == epochs
    assert control_group(found, "wider", 2.0).training == found.groups[0].training


SCHEDULES = [
    {"name": "step", "every": 4}, {"name": "exponential", "gamma": 0.8}, {"name": "cosine"}, {"name": "one_cycle"},
    {"name": "triangular"}, {"name": "constant"},
]  # fmt: skip


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: schedule["name"])
def test_schedules_stretch_with_the_epochs(schedule: dict[str, Any]) -> None:
    """At each share of the training the rate is the same, but for the width of a step."""
    warmup = 0 if schedule["name"] == "one_cycle" else 2  # which has one of its own
    own = TrainingConfig.model_validate({"epochs": 12, "warmup_epochs": warmup, "schedule": schedule})
    long, steps = stretched(own, 12 * 8), 50
    for place in (1, 3, 5, 7, 11):
        wanted, found = rate(own, int(place * steps), steps), rate(long, int(place * 8 * steps), steps)
        assert found == pytest.approx(wanted, rel=0.12)
    assert long.warmup_epochs == 8 * warmup


def test_patience_stretches_with_the_epochs() -> None:
    values = {"epochs": 10, "keep": "best_validation", "early_stopping_epochs": 3, "schedule": {"name": "plateau"}}
    found = stretched(TrainingConfig.model_validate(values), 40)
    assert (found.early_stopping_epochs, found.keep) == (12, "best_validation")
    assert getattr(found.schedule, "patience", None) == 4 * (5 + 1) - 1


def test_settings_of_a_sweep_with_controls_have_runs_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "num_members: 2\nmethod: {name: deep_ensemble}\nmodel: {name: mlp, widths: [8]}\n"
    )
    assert load_sweep(tmp_path / "mine.yaml", ["training.lr=0.1,0.01"]).in_one_run
    plan = load_sweep(tmp_path / "mine.yaml", ["training.lr=0.1,0.01", "controls=[longer]"])
    assert not plan.in_one_run
    assert plan.experiment(plan.settings[0]).controls == ("longer",)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("executor", ["ray", "accelerate"])
def test_several_processes_train_the_same_bits(executor: str, done: RunOutcome, tmp_path: Path) -> None:
    compute = {**CONFIG["compute"], "executor": executor, **({"slots": 2} if executor == "ray" else {})}
    (tmp_path / "c.yaml").write_text(json.dumps({**PLAIN, "controls": BOTH, "compute": compute}))
    door = [sys.executable, "-m", "ensemble", "train"]
    if executor == "accelerate":
        door = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "-m",
            "ensemble.launch.accelerate_run",
        ]
    arguments = [*door, str(tmp_path / "c.yaml"), f"output_dir={tmp_path}"]
    found = subprocess.run(arguments, capture_output=True, text=True, timeout=840, check=False)
    assert found.returncode == 0, found.stderr
    assert "One network trained 2 times as long" in found.stdout
    assert digests(tmp_path) == digests(done.path.parent)
