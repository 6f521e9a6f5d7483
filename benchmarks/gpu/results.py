"""What the parts found: kept in memory, written as JSON and Markdown after every case, never half a file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from benchmarks.gpu.report import markdown

Record = dict[str, Any]


class Results:
    """The record of one go of the benchmark and its two files, `file` (JSON) and the same name with .md."""

    def __init__(self, file: Path, header: Record) -> None:
        self.file, self.record = file, {**header, "parts": {}}
        file.parent.mkdir(parents=True, exist_ok=True)

    def part(self, name: str, **values: Any) -> None:
        """Add values to a part's record and write the files."""
        self.record["parts"].setdefault(name, {"cases": {}}).update(values)
        self._write()

    def case(self, part: str, name: str, values: Record) -> None:
        """Add a case to a part's record and write the files."""
        self.record["parts"].setdefault(part, {"cases": {}})["cases"][name] = values
        self._write()

    @property
    def all_passed(self) -> bool:
        """True when every part ran to its end and none of its cases failed."""
        return all(part["state"] == "passed" for part in self.record["parts"].values())

    def _write(self) -> None:
        _replace(self.file, json.dumps(self.record, indent=1) + "\n")
        _replace(self.file.with_suffix(".md"), markdown(self.record))


def _replace(file: Path, text: str) -> None:
    scratch = file.with_name(f"{file.name}.{os.getpid()}")
    scratch.write_text(text)
    scratch.replace(file)
