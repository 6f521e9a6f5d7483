"""What the JSON files of a run say, each in one form that every reader goes by."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ensemble.config.schema import Aggregator
from ensemble.storage.parsing import Stored

Positive = Annotated[int, Field(ge=1)]
Index = Annotated[int, Field(ge=0)]


class PictureFacts(Stored):
    """What was read of a person's own data and what was left out, in sentences. duplicates: by part, see `data.account`."""

    remarks: list[str] = Field(default_factory=list)
    duplicates: dict[str, Index] = Field(default_factory=dict)


class DatasetFacts(Stored):
    """dataset.json: what the members were trained on.

    image_shape: (C, H, W). mean, std: by channel, of the training rows on the scale [0, 1]. images_sha256: of all pixels
    (`data.images_digest`). labels_sha256: of labels and split (`member_files.labels_digest`). pixels: how pictures become
    bytes (`data.pixel_rule`). pictures: what was read and left out. Earlier versions wrote only the first two.
    """

    name: str
    class_names: Annotated[list[str], Field(min_length=1)]
    image_shape: Annotated[list[Positive], Field(min_length=3, max_length=3)] | None = None
    mean: list[float] | None = None
    std: list[Annotated[float, Field(gt=0)]] | None = None
    images_sha256: str | None = None
    labels_sha256: str | None = None
    pixels: dict[str, Any] | None = None
    pictures: PictureFacts | None = None

    @model_validator(mode="after")
    def _classes_once(self) -> Self:
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names has a name more than once; expected each class once")
        return self

    @model_validator(mode="after")
    def _one_statistic_per_channel(self) -> Self:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and self.image_shape is not None and len(values) != self.image_shape[0]:
                raise ValueError(f"{name} has {len(values)} values; expected one per channel, {self.image_shape[0]}")
        return self


class RoundFacts(Stored):
    """A round of a method that the report describes."""

    round: Index | None = None
    members: list[Index] = Field(default_factory=list)


class MethodReport(Stored):
    """What the method noted. dropped: finished members that do not vote."""

    dropped: list[Index] = Field(default_factory=list)
    rounds: list[RoundFacts] = Field(default_factory=list)


class MethodFacts(Stored):
    """method.json. vote_weights: by member; None where the method has none."""

    vote_weights: dict[str, float] | None = None
    report: MethodReport | None = None

    @property
    def dropped(self) -> set[int]:
        return set(self.report.dropped) if self.report else set()

    @property
    def rounds(self) -> list[RoundFacts]:
        return self.report.rounds if self.report else []


class MemberFile(Stored):
    """members/NNNN/member.json. files_sha256: of the member's other files, so that none of them can be another member's."""

    index: Index
    recipe: str
    num_parameters: Index
    train_seconds: float
    kept_epoch: Index
    stack_size: Positive
    facts: dict[str, float] = Field(default_factory=dict)
    device: str = ""
    files_sha256: dict[str, str] = Field(default_factory=dict)
    shared_parameters: Index = 0


class AskedSchedule(Stored):
    """The configuration's schedule of learning rates."""

    name: str = "constant"


class AskedTraining(Stored):
    """What judging needs of a recipe: whether anything in it goes by validation."""

    keep: str = "last"
    schedule: AskedSchedule = AskedSchedule()

    @property
    def by_validation(self) -> bool:
        """Whether validation chooses an epoch or lowers the learning rate."""
        return self.keep != "last" or self.schedule.name == "plateau"


class AskedMembers(Stored):
    """A group of a configuration: how many members it asks for, by which recipe where it has its own."""

    count: Positive
    training: AskedTraining | None = None


class AskedFailures(Stored):
    """The configuration's section on failures."""

    min_members: Index


class AskedMethod(Stored):
    """The configuration's section on the method."""

    name: str
    error_rows: str | None = None


class JudgedConfig(Stored):
    """What judging needs of config.yaml, in the form that every version has written."""

    aggregator: Aggregator
    num_members: Positive | None = None
    members: list[AskedMembers] = Field(default_factory=list)
    failures: AskedFailures
    method: AskedMethod
    training: AskedTraining = AskedTraining()

    @model_validator(mode="after")
    def _asks_for_members(self) -> Self:
        if self.num_members is None and not self.members:
            raise ValueError("neither num_members nor members says how many are asked for")
        return self

    @property
    def chooses_by_validation(self) -> bool:
        """Whether validation rows had a part in the training of any member."""
        recipes = [group.training or self.training for group in self.members] or [self.training]
        return any(recipe.by_validation for recipe in recipes)

    @property
    def asked_members(self) -> int:
        """How many members the run was asked for."""
        return self.num_members or sum(group.count for group in self.members)


class PlanFacts(Stored):
    """plan.json, as far as every reader needs it; `planning.Plan` has the whole."""

    stack_sizes: dict[str, Positive]
    device: str | None = None
