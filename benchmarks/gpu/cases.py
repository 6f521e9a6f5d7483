"""How a part hands over its results: one line of JSON per case, on disk before the next case starts."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Cases:
    """The file of a part's cases.

        with cases.case("64 members") as values:
            values["seconds"] = measure()

    An exception ends its case only: it is written beside what the case found until then, and the part goes on.
    """

    def __init__(self, file: Path) -> None:
        self._file, self.failed = file, 0

    @contextmanager
    def case(self, name: str) -> Iterator[dict[str, Any]]:
        values: dict[str, Any] = {}
        try:
            yield values
        except Exception as error:  # whatever it was, the next case may still work
            traceback.print_exc()
            self.failed += 1
            values["error"] = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            traceback.clear_frames(error.__traceback__)  # they would keep what they had on the GPU
        self._append(name, values)
        _release_memory()

    def _append(self, name: str, values: dict[str, Any]) -> None:
        with self._file.open("a") as lines:
            lines.write(json.dumps({"case": name, "values": values}) + "\n")
            lines.flush()
            os.fsync(lines.fileno())


def read_cases(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The cases in whole lines of such a file; an unfinished last line is left out."""
    whole = text[: text.rfind("\n") + 1]
    return [(line["case"], line["values"]) for line in map(json.loads, whole.splitlines())]


def _release_memory() -> None:
    """Free what the case left on the GPU, so that the next one starts as the first."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available() or not torch.cuda.is_initialized():
        return
    import gc

    gc.collect()
    try:
        torch.cuda.empty_cache()
    except RuntimeError:  # after an illegal access every call fails; the next case will say so
        traceback.print_exc()
