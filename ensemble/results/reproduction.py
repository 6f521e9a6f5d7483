"""Published single networks, trained again over several seeds and judged without picking on the test set.

    results = reproduce(["lenet5", "tiny_phase4"], seeds=5, overrides=["data.root=DATA"], train=run)

A row is a configuration in configs/seeds/ and the figure its document gives. The seeds of a row are the members of one
deep ensemble, so they train as one stack, and every start goes on where the last one stopped. Each seed's weights are
chosen on validation (training.keep) and its test votes read once. The curve on the test set (training.watch_test) is
there to be drawn, and to say what picking the epoch on the test set, as most of the documents did, would have shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ensemble.config import Experiment, load_config
from ensemble.config.shipped import FOLDER
from ensemble.errors import ConfigError
from ensemble.evaluation.records import Evaluation
from ensemble.evaluation.statistics import Interval, mean_interval
from ensemble.results.voters import voting_members
from ensemble.storage import RunFolder
from ensemble.types import DoubleArray, EpochRecord

LAST_EPOCHS = 3  # over which a goal on the last epochs must hold


@dataclass(frozen=True)
class SeedRow:
    """A published system. published: its test error as a fraction, or None where only curves were shown.

    goal: a stricter error of our own, or None. goal_every: the goal must hold in each of the last epochs, as the mean
    over seeds, rather than for the weights chosen on validation.
    """

    name: str
    system: str
    published: float | None
    how: str
    goal: float | None = None
    goal_every: bool = False


ROWS = {
    row.name: row
    for row in (
        SeedRow("lenet5", "LeNet-5", 0.0072, "best of 200 test epochs", goal=0.0060),
        SeedRow("lenet5_augmented", "LeNet-5, deformed images", None, "", goal=0.0055),
        SeedRow("lenet5_augmented_200", "LeNet-5, deformed images, 200 epochs", 0.0072, "of the plain LeNet-5"),
        SeedRow("resnet50", "ResNet-50", None, "curve below LeNet-5's"),
        SeedRow("mlp_784_128", "784-784-128-10, dropout", 0.0248, "97.52 % right"),
        SeedRow("mlp_128_64_sgd", "784-128-64-10, SGD", 0.026, "97.4 % right"),
        SeedRow("cnn_3x3_sgd", "CNN 3x3, SGD", 0.013, "98.7 % right"),
        SeedRow("cnn_5x5_adam", "CNN 5x5, Adam 1e-4", 0.008, "99.2 % right"),
        SeedRow("tiny_phase1", "under 8,000 parameters, plain", 0.0112, "best of 15 test epochs"),
        SeedRow("tiny_phase2", "under 8,000, batch norm", 0.0079, "best of 15 test epochs"),
        SeedRow("tiny_phase3", "under 8,000, deformed images", 0.0070, "best of 15 test epochs"),
        SeedRow("tiny_phase4", "under 8,000, schedule", 0.0053, "best of 15 test epochs", 0.0055, goal_every=True),
        SeedRow("mlp_128_64_adam", "784-128-64-10, Adam", 0.0258, "97.42 % right"),
        SeedRow("cnn_3x3_adam", "CNN 32-64, Adam", 0.0112, "98.88 % right"),
    )
}


@dataclass(frozen=True)
class Reproduced:
    """What became of a row. Errors are fractions; `errors` has one entry per seed, of its weights by validation.

    last_errors: the mean over seeds in each of the last epochs; test_picked: each seed's best test epoch, what nobody
    may quote as a result; both empty without a test curve. vote_error: all seeds voting together.
    """

    row: SeedRow
    path: Path
    num_parameters: int
    epochs: int
    planned_epochs: int
    errors: tuple[float, ...]
    interval: Interval
    kept_epochs: tuple[int, ...]
    last_errors: tuple[float, ...]
    test_picked: tuple[float, ...]
    vote_error: float
    seconds: float

    @property
    def mean_error(self) -> float:
        return sum(self.errors) / len(self.errors)

    @property
    def reached(self) -> bool | None:
        """Whether our mean is at or below the published error; None where no figure was published."""
        return None if self.row.published is None else self.mean_error <= self.row.published

    @property
    def goal_reached(self) -> bool | None:
        """Whether our own goal is reached; None where there is none."""
        if self.row.goal is None:
            return None
        if self.row.goal_every:
            return len(self.last_errors) == LAST_EPOCHS and max(self.last_errors) <= self.row.goal
        return self.mean_error <= self.row.goal

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            **asdict(self),
            "path": str(self.path),
            "mean_error": self.mean_error,
            "reached": self.reached,
            "goal_reached": self.goal_reached,
        }


def chosen_rows(names: Sequence[str]) -> list[SeedRow]:
    """The rows of those names, all where none is named. Raises ConfigError for an unknown name."""
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        raise ConfigError(f"no such row: {', '.join(unknown)}; expected some of {', '.join(ROWS)}")
    return [ROWS[name] for name in names] if names else list(ROWS.values())


def seed_experiment(row: SeedRow, folder: Path, seeds: int | None, overrides: Sequence[str]) -> Experiment:
    """The experiment of a row with that many seeds as one stack (None: as many as its file says)."""
    path = folder / f"{row.name}.yaml"
    count = [] if seeds is None else [f"num_members={seeds}", f"compute.stack_size={seeds}"]
    return load_config(path, [*count, *overrides]).experiment


def find_configurations() -> Path:
    """The folder with the rows' files: configs/seeds here, or the package's own."""
    here = Path("configs/seeds")
    return here if here.is_dir() else FOLDER / "seeds"


def reproduce(
    rows: Sequence[SeedRow],
    seeds: int | None,
    overrides: Sequence[str],
    train: Callable[[Experiment], tuple[Path, Evaluation]],
) -> list[Reproduced]:
    """Train what is missing of every row, and read the results.

    overrides: key=value for all rows, or ROW.key=value for one. train: runs an experiment and returns its folder and evaluation. All configurations are read before the first row
    trains, so a mistake in an override shows at once. Raises the EnsembleError of whatever stopped it.
    """
    folder = find_configurations()
    planned = {row.name: seed_experiment(row, folder, None, []).training.epochs for row in rows}
    experiments = [(row, seed_experiment(row, folder, seeds, overrides_of(row, overrides))) for row in rows]
    return [
        read_row(row, *train(experiment), planned_epochs=planned[row.name], epochs=experiment.training.epochs)
        for row, experiment in experiments
    ]


def overrides_of(row: SeedRow, overrides: Sequence[str]) -> list[str]:
    """The overrides meant for a row: those for all, and those that begin with its name (resnet50.training.epochs=4)."""
    own = [word.removeprefix(f"{row.name}.") for word in overrides if word.startswith(f"{row.name}.")]
    return [word for word in overrides if word.partition(".")[0] not in ROWS] + own


def read_row(row: SeedRow, path: Path, evaluation: Evaluation, epochs: int, planned_epochs: int) -> Reproduced:
    """The figures of a row from its finished run."""
    folder = RunFolder.read(path)
    labels_N = folder.load_labels().test_labels_N
    members = [folder.load_member(index) for index in voting_members(folder)]
    errors = tuple(float((m.votes.test_NK.argmax(axis=1) != labels_N).mean()) for m in members)
    curves = [watched_errors(member.history) for member in members]
    watched = [curve for curve in curves if curve]
    last = range(-min(LAST_EPOCHS, epochs), 0) if len(watched) == len(members) else range(0)
    return Reproduced(
        row=row,
        path=path,
        num_parameters=members[0].num_parameters,
        epochs=epochs,
        planned_epochs=planned_epochs,
        errors=errors,
        interval=mean_interval(errors),
        kept_epochs=tuple(member.kept_epoch for member in members),
        last_errors=tuple(sum(curve[e] for curve in watched) / len(watched) for e in last),
        test_picked=tuple(min(curve) for curve in watched),
        vote_error=evaluation.headline.test_error,
        seconds=sum(member.train_seconds for member in members),
    )


def watched_errors(history: Sequence[EpochRecord]) -> list[float]:
    """The test error after every epoch; empty where it was not watched."""
    return [record.test_error for record in history if record.test_error is not None]


def class_accuracies(path: Path) -> tuple[DoubleArray, tuple[str, ...]]:
    """Share of right answers per true class, [seeds, classes], and the classes' names."""
    import json

    import numpy as np

    from ensemble.results.judging import DATASET

    folder = RunFolder.read(path)
    labels_N = folder.load_labels().test_labels_N
    names = tuple(json.loads(folder.read_bytes(DATASET))["class_names"])
    right_SN = np.stack([
        folder.load_member(index).votes.test_NK.argmax(axis=1) == labels_N for index in voting_members(folder)
    ])  # fmt: skip
    return np.stack([right_SN[:, labels_N == k].mean(axis=1) for k in range(len(names))], axis=1), names
