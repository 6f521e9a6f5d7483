"""`tracking.wandb`: the keys of Weights & Biases, and the tracker that they ask for (`wandb_tracker.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from pydantic import Field, ValidationInfo, field_validator

from ensemble.config.tracker import TrackerJob, TrackerSection, register_tracker

if TYPE_CHECKING:
    from ensemble.tracking.base import Tracker

ArtifactPart = Literal["votes", "weights", "onnx", "report"]


@register_tracker("wandb")
class WandbConfig(TrackerSection):
    """Weights & Biases: a run for the ensemble and one per member.

    A missing package is no reason not to train: it is said, and `ensemble wandb` tells the run later.
    """

    always = True
    mode: Literal["online", "offline", "disabled"] = Field(
        "online", description="online falls back to offline without a key"
    )
    project: str = Field("ensemble", pattern=r"^[A-Za-z0-9._ -]{1,128}$", description="the project the runs are in")
    entity: str | None = Field(None, description="user or team; without it the one that the key belongs to")
    tags: tuple[str, ...] = Field((), description="further tags of all runs")
    members: Literal["full", "summary", "none"] = Field(
        "full",
        description="full: a run per member, with its epochs; summary: one with its summary alone; none: only the ensemble's run, with a table of the members",
    )
    name: str | None = Field(
        None,
        max_length=100,
        description="what the ensemble's run is called there, and the members' with their numbers behind; without it by the name of the run",
    )
    notes: str | None = Field(None, max_length=8000, description="notes of the ensemble's run; may have several lines")
    group: str | None = Field(
        None, max_length=128, description="the group all runs are in; without it name and hash of the configuration"
    )
    job_type: str | None = Field(
        None,
        max_length=64,
        description="job type of the ensemble's run; without it ensemble, which the workspace asks for",
    )
    artifact: bool | tuple[ArtifactPart, ...] = Field(
        False,
        description="also keep as an artifact: true the run folder, or a list of its parts, each one of its own: votes, weights, onnx (the whole vote as one file), report (the HTML page)",
    )

    @field_validator("name", "notes", "group", "job_type")
    @classmethod
    def _can_be_shown(cls, value: str | None, info: ValidationInfo) -> str | None:
        """W&B takes neither empty names nor such with control characters; ids are made without them."""
        if value is None:
            return None
        kept = value.replace("\n", "") if info.field_name == "notes" else value
        if not value.strip() or value != value.strip() or not kept.isprintable():
            raise ValueError(
                f"is {value!r}; expected text that is not empty, without spaces at its ends and without control characters"
            )
        if info.field_name == "job_type" and value == "member":
            raise ValueError("is 'member', which the runs of members have; expected another word")
        return value

    @field_validator("artifact", mode="before")
    @classmethod
    def _parts(cls, value: object) -> object:
        """Before the types are looked at, which would ask for true or false alone."""
        if isinstance(value, bool):
            return value
        known = get_args(ArtifactPart)
        listed = list(value) if isinstance(value, list | tuple) else []
        if listed and all(part in known for part in listed) and len(set(listed)) == len(listed):
            return tuple(listed)
        found = listed if isinstance(value, list | tuple) else value
        raise ValueError(f"is {found!r}; expected true, false or a list of {', '.join(known)}, each at most once")

    @property
    def wanted(self) -> bool:
        return self.mode != "disabled"

    def build(self, job: TrackerJob) -> Tracker:
        from ensemble.tracking.wandb_tracker import WandbTracker, images_of

        return WandbTracker(
            self,
            job.name,
            job.experiment,
            job.folder,
            earlier=job.earlier(),
            test_images=images_of(job.folder),
            notify=job.notify,
            makers=job.makers,
        )
