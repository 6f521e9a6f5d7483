"""The run folder: everything a run leaves behind, written atomically and checked by digest."""

from ensemble.storage.member_files import Labels
from ensemble.storage.run_folder import RunFolder

__all__ = ["Labels", "RunFolder"]
