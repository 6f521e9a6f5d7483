"""`tracking.tensorboard`: whether TensorBoard's event files are written (`tensorboard_files.py`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from ensemble.config.tracker import TrackerJob, TrackerSection, register_tracker
from ensemble.errors import ConfigError

if TYPE_CHECKING:
    from ensemble.tracking.base import Tracker


@register_tracker("tensorboard")
class TensorBoardConfig(TrackerSection):
    """TensorBoard's event files."""

    value_of = "wanted_files"
    wanted_files: bool = Field(
        False, description="also write TensorBoard's event files, into the run folder under tensorboard/"
    )

    @property
    def wanted(self) -> bool:
        return self.wanted_files

    def require(self) -> None:
        """Also where the package does not fit its own dependencies."""
        try:
            from tensorboard.compat.proto import event_pb2  # noqa: F401
        except (
            ImportError,
            TypeError,
        ) as error:  # a TypeError is how protobuf says that generated code is too old for it
            raise ConfigError(
                f"tracking.tensorboard is true and needs the package tensorboard: pip install tensorboard (or 'ensemble-trainer[tensorboard]'), or leave the key out ({error})"
            ) from error

    def build(self, job: TrackerJob) -> Tracker:
        from ensemble.tracking.projected import told_to
        from ensemble.tracking.tensorboard_files import TensorBoardFiles

        return told_to(job, TensorBoardFiles.title, lambda: TensorBoardFiles(job.folder))
