"""Members of one kind: their network and their recipe, as they are written and as they are resolved."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ensemble.config.base import Section
from ensemble.config.network import Network
from ensemble.config.recipe import TrainingConfig

FINISHED = "-finished"  # ends the names of groups whose members were trained elsewhere, wherever they are shown
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class GroupConfig(Section):
    """Some members of a mixed ensemble: their own model, and training keys that replace the common ones."""

    count: int = Field(ge=1, description="members of this kind")
    name: str | None = Field(None, pattern=NAME_PATTERN, description="of the group; without it that of its network")
    model: Network = Field(description="their network")
    training: TrainingConfig | None = Field(
        None, description="keys of training that differ from those of the experiment"
    )
    finished: bool = Field(
        False,
        description="one member that was trained elsewhere: it votes with model.weights as they are, and nothing of it is trained; its name ends in -finished",
    )

    @model_validator(mode="after")
    def _finished_as_it_is(self) -> Self:
        if not self.finished:
            return self
        if not self.model.has_weights:
            raise ValueError("finished: such a member votes with the weights that it has: give model.weights")
        idle = {
            "count": self.count != 1, "training": self.training is not None, "model.new_head": self.model.new_head,
            "model.freeze": self.model.freeze != "none",
        }  # fmt: skip
        if found := [key for key, used in idle.items() if used]:
            expected = f"count is {self.count}: all would be the same network; expected 1" if idle["count"] else ""
            raise ValueError(
                f"finished: {expected or f'{found[0]} has no effect on a member that is not trained; leave it out'}"
            )
        return self

    @property
    def recipe(self) -> str:
        """The name by which its members are known."""
        return recipe_of(self.name or self.model.label, self.finished)


def recipe_of(name: str, finished: bool) -> str:
    """The name by which the members of a group are known: its own, marked where they were trained elsewhere."""
    return name + FINISHED if finished and not name.endswith(FINISHED) else name


class Group(Section):
    """A resolved group: `count` members of one model and recipe, under a name that is unique in the run."""

    name: str
    count: int
    model: Network
    training: TrainingConfig
    finished: bool = False

    @property
    def epochs(self) -> int:
        """How many epochs its members train: none where they are finished."""
        return 0 if self.finished else self.training.epochs
