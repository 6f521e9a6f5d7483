"""Control networks: one network each beside the members, which never votes and asks whether one would have done.

    longer    the recipe of the members on all training rows, for as many epochs as all members have together
    wider     as many epochs as a member, widened to about as many parameters as all members have together
              (Abe et al. 2022, "Deep Ensembles Work, But Are They Necessary?")

Which width that is depends on the images and the number of classes, so `models.widening` finds it; here is what the configuration
alone says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from ensemble.config.groups import Group, GroupConfig
from ensemble.config.method import MethodSection
from ensemble.config.recipe import ExponentialConfig, PlateauConfig, StepConfig, TrainingConfig

Control = Literal["longer", "wider"]
MOST_EPOCHS = 100_000  # as `training.epochs`
TIMES, WIDTH = "times_as_long", "width"  # what a control notes of itself, under `facts`


class Asked(Protocol):
    """What counts of an experiment (`schema.Experiment`, which imports this module)."""

    @property
    def controls(self) -> tuple[Control, ...]: ...
    @property
    def members(self) -> tuple[GroupConfig, ...]: ...
    @property
    def method(self) -> MethodSection: ...
    @property
    def groups(self) -> tuple[Group, ...]: ...
    @property
    def total_members(self) -> int: ...


def controls_problem(experiment: Asked) -> str:
    """Why a run cannot have the controls it asks for; "" where it can."""
    wanted = experiment.controls
    if len(set(wanted)) < len(wanted):
        return f"controls names {next(name for name in wanted if wanted.count(name) > 1)} twice; name each once"
    if wanted and experiment.members:
        return "controls are networks by the recipe of all members; with groups under members there is no such recipe: leave them out"
    if wanted and experiment.total_members == 1:
        return "controls compare the vote of several members with one network; num_members is 1: leave them out, or take more members"
    if "longer" in wanted:
        epochs, own = epochs_together(experiment), experiment.groups[0].epochs
        if epochs <= own:
            return f"controls: longer would train {epochs} epochs, no more than a member, since all members together see no more rows: leave longer out"
        if epochs > MOST_EPOCHS:
            return f"controls: longer would train {epochs:,} epochs, as many as all members together; expected at most {MOST_EPOCHS:,}: take fewer epochs or members, or leave longer out"
    return _problem_of_width(experiment) if "wider" in wanted else ""


def _problem_of_width(experiment: Asked) -> str:
    model = experiment.groups[0].model
    if model.has_weights:
        return "controls: wider cannot start from model.weights, which are of the network's own width: leave wider out, or the weights"
    if model.widened(2.0) in (None, model):
        return (
            f"controls: wider needs a network with a width, and {model.label} (model {model.name}) has none that is known: leave wider out, "
            "or register a network of your own whose class has a method widened(factor), see ensemble.config.network.Network.widened"
        )
    return ""


def epochs_together(experiment: Asked) -> int:
    """Passes over all training rows that take as much computation as all members have together, rounded."""
    epochs = sum(group.count * group.epochs for group in experiment.groups)
    return max(1, round(epochs * experiment.method.share_of_rows))


def control_group(experiment: Asked, control: Control, width: float = 1.0) -> Group:
    """The one network of a control, under the name of the members' group. width: of wider, as a multiple of the members' own."""
    group = experiment.groups[0]
    if control == "longer":
        training = stretched(group.training, epochs_together(experiment))
        return group.model_copy(update={"count": 1, "training": training})
    return group.model_copy(update={"count": 1, "model": group.model.widened(width)})


def stretched(training: TrainingConfig, epochs: int) -> TrainingConfig:
    """The same recipe over more epochs: all that counts epochs (warm-up, steps, patience) stretches with them.

    Cosine, one-cycle and triangular schedules are shares of the training, and stretch by themselves.
    """
    times = epochs / training.epochs
    changes: dict[str, Any] = {"epochs": epochs, "warmup_epochs": training.warmup_epochs * times}
    if training.early_stopping_epochs is not None:
        changes["early_stopping_epochs"] = round(training.early_stopping_epochs * times)
    schedule = training.schedule
    if isinstance(schedule, StepConfig):
        changes["schedule"] = schedule.model_copy(update={"every": round(schedule.every * times)})
    elif isinstance(schedule, ExponentialConfig):
        changes["schedule"] = schedule.model_copy(update={"gamma": schedule.gamma ** (1 / times)})
    elif isinstance(schedule, PlateauConfig):
        changes["schedule"] = schedule.model_copy(update={"patience": round((schedule.patience + 1) * times) - 1})
    return training.model_copy(update=changes)


def widths(given: Sequence[int], factor: float) -> tuple[int, ...]:
    """Whole numbers of channels or units, each a multiple of what is given, at least one."""
    return tuple(max(1, round(width * factor)) for width in given)
