"""Members of one kind: their network and their recipe, as they are written and as they are resolved."""

from __future__ import annotations

from pydantic import Field

from ensemble.config.base import Section
from ensemble.config.network import Network
from ensemble.config.recipe import TrainingConfig

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class GroupConfig(Section):
    """Some members of a mixed ensemble: their own model, and training keys that replace the common ones."""

    count: int = Field(ge=1, description="members of this kind")
    name: str | None = Field(None, pattern=NAME_PATTERN, description="of the group; without it that of its network")
    model: Network = Field(description="their network")
    training: TrainingConfig | None = Field(
        None, description="keys of training that differ from those of the experiment"
    )


class Group(Section):
    """A resolved group: `count` members of one model and recipe, under a name that is unique in the run."""

    name: str
    count: int
    model: Network
    training: TrainingConfig
