"""Members of one kind: their network and their recipe, as they are written and as they are resolved."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from ensemble.config.base import Section
from ensemble.config.network import Network
from ensemble.config.recipe import TrainingConfig

FINISHED = "-finished"  # ends the names of groups whose members were trained elsewhere, wherever they are shown
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_LONGEST = 64  # letters of a name


class GroupConfig(Section):
    """Some members of a mixed ensemble: their own model, and training keys that replace the common ones."""

    count: int = Field(ge=1, description="members of this kind")
    name: str | None = Field(None, pattern=NAME_PATTERN, description="of the group; without it that of its network")
    model: Network | None = Field(None, description="their network; needed unless there is a file of probabilities")
    training: TrainingConfig | None = Field(
        None, description="keys of training that differ from those of the experiment"
    )
    finished: bool = Field(
        False,
        description="one member that was trained elsewhere: it votes with model.weights as they are, and nothing of it is trained; its name ends in -finished",
    )

    probabilities: str | None = Field(
        None,
        description="instead of a network: one member that was trained elsewhere and votes with the class probabilities in this .npz file, beside the configuration or by its path; test_probs [test images, classes] and train_probs [training images, classes] in the data set's order (or, instead of the latter, validation_probs with validation_rows); its name ends in -finished",
    )
    probabilities_sha256: str | None = Field(
        None, pattern="^[0-9a-f]{64}$", description="of that file; filled in when it is read"
    )

    @model_validator(mode="after")
    def _probabilities_alone(self) -> Self:
        if self.probabilities is None:
            if self.model is None:
                raise ValueError("needs a model, or a file of probabilities that votes in place of one")
            if self.probabilities_sha256 is not None:
                raise ValueError(
                    "probabilities_sha256 is filled in from the file that probabilities names; leave it out"
                )
            return self
        idle = {
            "model": self.model is not None, "training": self.training is not None, "finished": self.finished,
        }  # fmt: skip
        if found := [key for key, used in idle.items() if used]:
            raise ValueError(
                f"probabilities: {found[0]} has no effect on a member whose votes come from a file; leave one of them out"
            )
        if self.count != 1:
            raise ValueError(f"probabilities: count is {self.count}: all would vote alike; expected 1")
        return self

    @model_validator(mode="after")
    def _finished_as_it_is(self) -> Self:
        if not self.finished or self.model is None:
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
        """The name by which its members are known: without a name that of its network, or of its file."""
        return recipe_of(self.name or self._label, self.elsewhere)

    @property
    def elsewhere(self) -> bool:
        """True for a member that was trained elsewhere, whether its network is known or its votes alone."""
        return self.finished or self.probabilities is not None

    @property
    def _label(self) -> str:
        if self.model is not None:
            return self.model.label
        assert self.probabilities is not None, "one of the two is there"
        return name_of_file(self.probabilities)


def name_of_file(probabilities: str) -> str:
    """What a member is called whose votes come from this file: the file's name, without what a name may not hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(probabilities).stem).strip("._-")[:_LONGEST] or "file"


def recipe_of(name: str, finished: bool) -> str:
    """The name by which the members of a group are known: its own, marked where they were trained elsewhere."""
    return name + FINISHED if finished and not name.endswith(FINISHED) else name


def stored_groups(config: Mapping[str, Any]) -> Iterator[tuple[range, Mapping[str, Any]]]:
    """The groups under `members` of a stored configuration, plain values, each with the numbers of its members."""
    first = 0
    for group in config.get("members") or ():
        yield range(first, first + int(group["count"])), group
        first += int(group["count"])


class GivenVotes(Section):
    """A member without a network: its name, and the file that its votes come from."""

    name: str
    file: str
    sha256: str | None


class Group(Section):
    """A resolved group: `count` members of one model and recipe, under a name that is unique in the run.

    margin: pixels on each side that training images are kept with beyond what a network is shown of them, see `data.margin`.
    """

    name: str
    count: int
    model: Network
    training: TrainingConfig
    finished: bool = False
    margin: int = 0

    @property
    def crops(self) -> bool:
        """True when training shows other pixels of an image than a vote, or changes them."""
        return self.margin > 0 or self.training.augmentation.active

    @property
    def epochs(self) -> int:
        """How many epochs its members train: none where they are finished."""
        return 0 if self.finished else self.training.epochs
