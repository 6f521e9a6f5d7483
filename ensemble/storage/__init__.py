"""The run folder: everything a run leaves behind, written atomically and checked by digest."""

from ensemble.storage.run_folder import Labels, RunFolder

__all__ = ["Labels", "RunFolder"]
