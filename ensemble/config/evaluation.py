"""Further sets of images that the members vote on besides the validation and the test part.

evaluation:
  sets:
    - {name: corrupted, kind: shifted, corruptions: mnist_c}
    - {name: rotated, kind: shifted, corruptions: [{rotate: [0, 15, ..., 180]}]}
    - {name: fashion, kind: unknown, data: {name: fashion_mnist}}
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from ensemble.config.base import Section
from ensemble.config.data import DataConfig
from ensemble.config.tta import TtaConfig

SET_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$"
CALIBRATION = "calibration"  # the set of the rows that nothing else is chosen by
UNKNOWN = -1  # the label of an image that is of none of the run's classes
TEST = "test"  # the set of the test images, for energies beside those of unknown images
RESERVED = frozenset({"train", "training", "validation", TEST, "out_of_bag", CALIBRATION})
MOST_LEVELS = 1000  # of one corruption

Recipe = Literal["mnist_c", "cifar10_c"]
# By the name of a corruption its levels; none where it has no level.
Levels = dict[str, tuple[float, ...]]


class SetConfig(Section):
    """One set of images, or several parts of it that are changed in different ways.

    Without `data` the images are the test images of the run.
    """

    name: str = Field(pattern=SET_PATTERN, description="of the set, in tables and as the folder of its votes")
    kind: Literal["shifted", "unknown"] = Field(
        description="shifted: images of the run's classes, taken in another way; unknown: images of none of the classes"
    )
    data: DataConfig | None = Field(None, description="where the images are from; without it the run's test images")
    part: Literal["test", "all"] | None = Field(
        None,
        description="which images of data: its test part or all; without it all of one's own pictures and tables, of others the test part",
    )
    corruptions: Recipe | tuple[Levels, ...] = Field(
        (),
        description="mnist_c or cifar10_c: that benchmark's recipe; or a list such as [{gaussian_noise: [1, 3, 5]}, stripe, {rotate: [0, 15, ..., 180]}], each a part of the set",
    )
    files: str | None = Field(
        None,
        min_length=1,
        description="folder with the published files of that recipe, which are then taken instead of a draw: MNIST-C's NAME/test_images.npy and test_labels.npy, CIFAR-10-C's NAME.npy and labels.npy",
    )
    max_images: int | None = Field(None, ge=10, description="only so many of the images, drawn evenly over the classes")
    chooses_score: bool = Field(
        False,
        description="for one set of kind unknown: the score that tells its images best from the validation images is the one that all other unknown sets are judged by, and predict --unknown; without such a set it is the largest probability, fixed before",
    )

    @model_validator(mode="before")
    @classmethod
    def _levels_written_out(cls, values: Any) -> Any:
        given = values.get("corruptions") if isinstance(values, dict) else None
        if given is None:
            return values
        if isinstance(given, str) and given in get_args(Recipe):
            return values
        if not isinstance(given, list | tuple):
            raise ValueError(f"corruptions is {given!r}; expected mnist_c, cifar10_c or a list, {_EXAMPLE}")
        return {**values, "corruptions": tuple(_written_out(item) for item in given)}

    @model_validator(mode="after")
    def _has_images_of_its_own(self) -> Self:
        if self.name.lower() in RESERVED:
            raise ValueError(f"name is {self.name}, which stands for a part of the run's own data; choose another name")
        if self.data is None and not self.corruptions:
            raise ValueError(
                f"set {self.name}: without data and corruptions it would be the test images; give data (other images), corruptions, or both"
            )
        if self.chooses_score and self.kind != "unknown":
            raise ValueError(
                f"set {self.name}: chooses_score is of a score for unknown images, and this set is {self.kind}; give it to a set of kind unknown, or leave it out"
            )
        if self.chooses_score and self.data is None:
            raise ValueError(
                f"set {self.name}: chooses_score needs images of its own, since the run's test images choose nothing; give it data, or leave chooses_score out"
            )
        if self.part is not None and self.data is None:
            raise ValueError(f"set {self.name}: part has no effect without data; leave it out")
        if self.files is not None and (self.data is not None or not isinstance(self.corruptions, str)):
            raise ValueError(
                f"set {self.name}: files are those of a published benchmark: give corruptions mnist_c or cifar10_c beside it, and no data"
            )
        if self.data is not None and (idle := self._idle_keys(self.data)):
            raise ValueError(
                f"set {self.name}: data.{idle[0]} has no effect on a set that nobody is trained on; leave it out"
            )
        if any(not levels for levels in self.corruptions):
            raise ValueError(f"set {self.name}: corruptions has an empty entry; expected such as {{gaussian_noise: 3}}")
        return self

    def _idle_keys(self, data: DataConfig) -> list[str]:
        """Keys of data that divide training rows, or hold back test rows where all are taken."""
        fields, keys = DataConfig.model_fields, ("validation_fraction", "calibration_fraction", "max_train_rows")
        idle = [key for key in keys if getattr(data, key) != fields[key].default]
        held_back = self.part != "test" and data.array_rule.test_fraction is not None
        return [*idle, "test_fraction"] if held_back else idle


class EvaluationConfig(Section):
    """What the ensemble is asked besides its test error."""

    sets: tuple[SetConfig, ...] = Field((), description="further sets of images that every member votes on")
    tta: TtaConfig = TtaConfig()
    time_predictions: bool = Field(
        True,
        description="measure at the end what a prediction takes, for the leaderboards: the vote, the single model, the network on all rows",
    )

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [one.name.lower() for one in self.sets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"sets: two have the name {twice[0]}; give each its own name")
        choosing = [one.name for one in self.sets if one.chooses_score]
        if len(choosing) > 1:
            raise ValueError(
                f"sets: {' and '.join(choosing)} both have chooses_score; the score for unknown images is chosen on one set: leave it out of the others"
            )
        return self


def _written_out(item: Any) -> dict[str, tuple[float, ...]]:
    """One entry of a list of corruptions as {name: levels}."""
    if isinstance(item, str):
        return {item: ()}
    if not isinstance(item, dict) or not all(isinstance(name, str) for name in item):
        raise ValueError(f"corruptions holds {item!r}; expected a name, or a name and its levels, {_EXAMPLE}")
    return {name: _levels(name, levels) for name, levels in item.items()}


def _levels(name: str, given: Any) -> tuple[float, ...]:
    """A level, several, or the first two and the last of evenly spaced ones, [0, 15, ..., 180]."""
    if given is None:
        return ()
    several = list(given) if isinstance(given, list | tuple) else [given]
    at = several.index("...") if "..." in several else None
    numbers = [
        one for one in several if isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one)
    ]
    if len(numbers) != len(several) - (at is not None):
        raise ValueError(
            f"corruptions: the level of {name} is {given!r}; expected a number or a list of numbers, {_EXAMPLE}"
        )
    if at is None:
        return tuple(map(float, numbers))
    if at < 2 or at != len(several) - 2:
        raise ValueError(
            f"corruptions: {name} is {several}: ... stands between the first levels and the last one, {_EXAMPLE}"
        )
    return (
        *map(float, several[: at - 1]),
        *_spaced(name, *map(float, (several[at - 2], several[at - 1], several[-1]))),
    )


def _spaced(name: str, first: float, second: float, last: float) -> Iterator[float]:
    """The levels from the second to the last, evenly spaced as the first two are."""
    step = second - first
    count = (last - second) / step if step else math.inf
    if not 0 <= count <= MOST_LEVELS or abs(count - round(count)) > 1e-6:
        raise ValueError(
            f"corruptions: {name} is [{first:g}, {second:g}, ..., {last:g}]: steps of {step:g} do not lead to {last:g}"
        )
    for number in range(round(count) + 1):
        yield round(second + number * step, 9)


_EXAMPLE = "such as [{gaussian_noise: [1, 3, 5]}, stripe, {rotate: [0, 15, ..., 180]}]"
