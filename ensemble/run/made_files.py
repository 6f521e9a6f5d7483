"""Files that are made of a finished run for others to keep: the whole vote as one file, and its page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path


def write_onnx(run: Path, target: Path) -> None:
    """The whole vote in ONNX. Raises ComputeError where its packages are missing or the network cannot be written so,
    ConfigError where the network comes with code of its own, which is not executed here."""
    from ensemble.inference.export import export_ensemble
    from ensemble.inference.trained import load_ensemble

    export_ensemble(load_ensemble(run, device="cpu"), "onnx", target)


def write_page(run: Path, target: Path) -> None:
    """The report. Raises StorageError where the run has not been judged."""
    from ensemble.report.html import write_report

    write_report([run], target)


MAKERS: Mapping[str, Callable[[Path, Path], None]] = {"onnx": write_onnx, "report": write_page}
