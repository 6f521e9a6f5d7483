"""The methods a configuration can name, with their keys."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ensemble.config.base import Section

ErrorRows = Literal["held_out", "out_of_bag", "training"]
UseWeights = Literal["resample", "resample_every_epoch", "loss"]


class MethodSection(Section):
    """What all methods share: how many members they train at a time."""

    @property
    def together(self) -> int:
        """num_members must be a multiple of this."""
        return 1

    @property
    def in_words(self) -> str:
        """What `together` counts."""
        return "one network after the other"

    def side_by_side(self, _members: int) -> int:
        """How many of so many members are asked for in one round, and so can train at the same time."""
        return self.together


class DeepEnsembleConfig(MethodSection):
    """Independent members on all training rows (Lakshminarayanan et al. 2017)."""

    name: Literal["deep_ensemble"]

    def side_by_side(self, members: int) -> int:
        return members


class BaggingConfig(MethodSection):
    """Members on bootstrap samples of the training rows (Breiman 1996)."""

    name: Literal["bagging"]
    sample_fraction: float = Field(
        1.0, gt=0, le=10, description="rows drawn per member, as a share of the training rows"
    )
    replacement: bool = Field(True, description="draw with replacement; without, sample_fraction must stay below 1")

    @model_validator(mode="after")
    def _leaves_rows_out(self) -> Self:
        if not self.replacement and self.sample_fraction >= 1:
            raise ValueError(
                "sample_fraction must be below 1 without replacement: every member would get the same rows"
            )
        return self

    def side_by_side(self, members: int) -> int:
        return members


class AdaBoostConfig(MethodSection):
    """SAMME boosting (Zhu et al. 2009) with errors from rows a network was not fitted to."""

    name: Literal["adaboost"]
    error_rows: ErrorRows = Field(
        "held_out", description="rows that judge a network: its fold, rows outside its bag, or those it was fitted to"
    )
    folds: int | None = Field(
        None, ge=2, le=100, description="networks per round with error_rows: held_out; without it 4"
    )
    use_weights: UseWeights = Field(
        "resample_every_epoch", description="how sample weights reach the training: rows drawn by weight, or the loss"
    )
    learning_rate: float = Field(0.5, gt=0, le=10, description="factor on every alpha; 1 is SAMME as published")
    chains: int = Field(1, ge=1, le=1000, description="independent chains that boost side by side")
    redraws: int = Field(
        1, ge=0, le=10, description="per round: further tries for networks that failed or are no better than guessing"
    )
    min_effective_share: float = Field(
        0.01, ge=0, lt=1, description="a chain stops when 1 / sum w^2 falls below this share of the training rows"
    )

    @model_validator(mode="after")
    def _folds_used(self) -> Self:
        if self.folds is not None and self.error_rows != "held_out":
            raise ValueError(f"folds has no effect with error_rows: {self.error_rows}; remove it, or use held_out")
        return self

    @property
    def networks_per_round(self) -> int:
        """How many networks one round of one chain trains."""
        return (self.folds or 4) if self.error_rows == "held_out" else 1

    @property
    def together(self) -> int:
        return self.networks_per_round * self.chains

    @property
    def in_words(self) -> str:
        return f"{self.chains} chain(s) of {self.networks_per_round} network(s) per round"


class FilterBoostingConfig(MethodSection):
    """Three networks, the later ones on deformed images that the earlier ones choose (Drucker et al. 1993)."""

    name: Literal["filter_boosting"]
    max_passes: int = Field(
        100, ge=1, le=100_000, description="how often, at most, every training image is deformed and looked at"
    )

    @property
    def together(self) -> int:
        return 3

    @property
    def in_words(self) -> str:
        return "chains of three networks"

    def side_by_side(self, members: int) -> int:
        return members // 3


class GradientBoostingConfig(MethodSection):
    """Each network is fitted to the negative gradient of the cross-entropy (Friedman 2001); the outputs are summed."""

    name: Literal["gradient_boosting"]
    shrinkage: float = Field(0.5, gt=0, le=1, description="share of each step that is taken")
    line_search: Literal["validation", "training", "none"] = Field(
        "validation", description="rows on which the length of each step is found; none: 1"
    )


class ChainedConfig(MethodSection):
    """Chains in which every network begins with the weights of the one before."""

    chains: int = Field(1, ge=1, le=1000, description="independent chains side by side")

    @property
    def together(self) -> int:
        return self.chains

    @property
    def in_words(self) -> str:
        return f"{self.chains} chain(s) side by side"


class SnapshotConfig(ChainedConfig):
    """One training of many falling cycles, a member at the end of each (Huang et al. 2017)."""

    name: Literal["snapshot"]


class FastGeometricConfig(ChainedConfig):
    """One training, then short cycles from where it ended, a member at the end of each (Garipov et al. 2018)."""

    name: Literal["fast_geometric"]
    cycle_epochs: int = Field(2, ge=1, le=100_000)
    cycle_lr: float | None = Field(None, gt=0, description="highest rate of a cycle; without it training.lr")
    low_fraction: float = Field(0.01, ge=0, lt=1, description="lowest rate of a cycle, as a share of the highest")


MethodConfig = Annotated[
    DeepEnsembleConfig
    | BaggingConfig
    | AdaBoostConfig
    | FilterBoostingConfig
    | GradientBoostingConfig
    | SnapshotConfig
    | FastGeometricConfig,
    Field(discriminator="name"),
]
