"""Test-time augmentation: on which further views of every image the members vote."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ensemble.config.base import Section


class TtaConfig(Section):
    """Each member votes on several views of an image, and says the mean of its probabilities. All off: on the image alone.

    It holds for validation, test and all further sets, and for pictures that are predicted later. The validation losses and errors
    of every epoch, by which weights may be kept, are of the images alone.
    """

    horizontal_flip: bool = Field(False, description="also every view mirrored; refused for characters")
    shift: int = Field(
        0, ge=0, le=64, description="also the image moved by so many pixels to the left, right, up and down"
    )
    crops: int = Field(
        0,
        ge=0,
        le=100,
        description="also so many crops at places drawn once for all images and runs, each stretched to the whole image",
    )
    crop_area: float = Field(
        0.7,
        gt=0,
        le=1,
        description="smallest share of the image that a crop shows, the ratio of its sides within 3/4 to 4/3 of the image's own",
    )

    @model_validator(mode="after")
    def _area_used(self) -> Self:
        if self.crop_area != type(self).model_fields["crop_area"].default and not self.crops:
            raise ValueError("crop_area has no effect without crops")
        return self

    @property
    def views(self) -> int:
        """On how many views of an image a member votes."""
        return (1 + (4 if self.shift else 0) + self.crops) * (2 if self.horizontal_flip else 1)

    @property
    def active(self) -> bool:
        """True where members vote on more than the image itself."""
        return self.views > 1
