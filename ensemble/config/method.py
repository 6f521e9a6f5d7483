"""What every method that a configuration can name has; the methods are in `ensemble/methods`, a file each."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from ensemble.config.base import Part, register
from ensemble.config.groups import Group
from ensemble.config.recipe import TrainingConfig
from ensemble.registry import Registry
from ensemble.types import IntArray

Aggregator = Literal["soft", "hard", "weighted", "geometric", "additive"]

_METHODS = "ensemble.methods"


@dataclass(frozen=True, eq=False)
class MethodJob:
    """What a method is built from. recipes: the group name of every member.

    train_rows, validation_rows: numbers of rows of the training array, none in both. labels_N: the class of each of its rows.
    groups_N: number of the group of each of its rows, where rows of a group stay together. class_names: for messages.
    """

    recipes: tuple[str, ...]
    train_rows: IntArray
    validation_rows: IntArray
    labels_N: IntArray
    num_classes: int
    seed: int
    groups_N: IntArray | None = None
    class_names: Sequence[str] = ()


class MethodSection(Part):
    """The keys of a method, how it is built, and what others must know of it."""

    registry: ClassVar[Registry[type[MethodSection]]] = Registry(
        "method", "ensemble.methods",
        {
            "deep_ensemble": f"{_METHODS}.one_round", "bagging": f"{_METHODS}.one_round",
            "cross_validation": f"{_METHODS}.cross_validation",
            "adaboost": f"{_METHODS}.adaboost", "filter_boosting": f"{_METHODS}.filter_boosting",
            "gradient_boosting": f"{_METHODS}.gradient_boosting", "snapshot": f"{_METHODS}.chained",
            "fast_geometric": f"{_METHODS}.chained",
        },
    )  # fmt: skip
    in_short: ClassVar[str] = ""  # a line for the model card, with the source; without it the name
    headline: ClassVar[Aggregator] = "soft"  # the vote that is reported first unless the user says otherwise
    additive: ClassVar[bool] = False  # members are parts of one sum, so that they vote by the additive vote too
    votes_where_fitted: ClassVar[bool] = False  # members vote on training rows that they were fitted to
    folds_votes: ClassVar[bool] = False  # votes on training rows are of the fold that a member leaves out
    mixed: ClassVar[bool] = False  # members may be of several groups
    independent: ClassVar[bool] = (
        False  # no member depends on another, on their number or on its own index but by its seed
    )
    training_defaults: ClassVar[dict[str, Any]] = {}  # keys of training that have other defaults
    baseline_by_default: ClassVar[bool] = False  # members see less than all rows, so people ask for one network on all

    @abstractmethod
    def build(self, job: MethodJob) -> Any:
        """The method (see `ensemble.methods.base.Method`)."""

    @property
    def together(self) -> int:
        """num_members must be a multiple of this."""
        return 1

    @property
    def in_words(self) -> str:
        """What `together` counts."""
        return "one network after the other"

    @property
    def share_of_rows(self) -> float:
        """How many rows a member goes through in an epoch, as a share of all training rows."""
        return 1.0

    def side_by_side(self, _members: int) -> int:
        """How many of so many members are asked for in one round, and so can train at the same time."""
        return self.together

    def problem(self, _training: TrainingConfig) -> str:
        """Why members cannot be trained so; "" where they can."""
        return ""

    def rows_problem(self, _job: MethodJob) -> str:
        """Why members cannot be trained on these rows; "" where they can. Asked before there is a run folder."""
        return ""

    def groups_of(self, alike: Group) -> tuple[Group, ...]:
        """Members of one kind as groups of one recipe each."""
        return (alike,)

    def idle_keys(self, _training: TrainingConfig, _members: int | None) -> Iterator[tuple[str, str]]:
        """Dotted keys that differ from their defaults and can change nothing, each with the reason."""
        return iter(())


_Class = TypeVar("_Class", bound=type[MethodSection])


def register_method(method: _Class) -> _Class:
    """Class decorator: configurations can name this method. Raises ConfigError where its name is taken."""
    register(method)
    return method
