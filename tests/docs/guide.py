"""Carries out a page of docs/guides as a reader would who types everything on it, from the top to the bottom, in one empty folder.

- A block of Python or YAML whose first line is a comment with a file's name is that file. Further Python is typed into one session.
- A block of `sh` is typed into a shell, where `ensemble` and `python` are this environment's.
- A block of `text` behind either is what comes of it, in full or in part: each of its lines, up to a last `...`, must be there, in this order. Figures may be
  others, since processors round differently, and so may be the room between words.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests import preloaded
from tests.kernels_there import put_kernels

_BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (?P<name>[\w./-]+\.(?:py|yaml))$")
_FIGURE = re.compile(r"\d[\d.,:e-]*")


@dataclass(frozen=True)
class Block:
    """A fenced block. line: of the page, where it begins. file: the name of the file that it is; "" for what is typed."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str:
        """The name in the first line."""
        found = _FILE.match(self.text.partition("\n")[0])
        return "" if found is None else found["name"]


def blocks(page: Path) -> list[Block]:
    """All of a page, in order."""
    text = page.read_text()
    return [Block(b["language"], b["text"], text[: b.start()].count("\n") + 1) for b in _BLOCK.finditer(text)]


def follow(page: Path, folder: Path) -> None:
    """Do what the page says, there. Raises AssertionError naming the block that fails, or that promised something else."""
    said, session = "", ""
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if block.language == "text":
            assert_said(block.text, said, where)
        elif block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.language == "python":
            said = _carried_out(
                [sys.executable, "-c", f"{session}\nprint({_MARK!r})\n{block.text}"], folder, where
            ).rpartition(f"{_MARK}\n")[2]
            session += block.text
        elif block.language == "sh":
            said = _carried_out(["bash", "-euo", "pipefail", "-c", block.text], folder, where)
        else:
            raise AssertionError(
                f"{where}: a block of {block.language}, which no reader can carry out; expected python, yaml with a file's name, sh or text"
            )


def assert_said(promised: str, said: str, where: str) -> None:
    """Every line that was promised, in order, among those that were said."""
    lines = iter(_without_figures(said))
    for line in (each.removesuffix("...").rstrip() for each in _without_figures(promised)):
        assert any(line in other for other in lines), (
            f"{where}: {line!r} is not in what was said, or not in that place:\n{said}"
        )


def _without_figures(text: str) -> list[str]:
    return [_FIGURE.sub("0", " ".join(line.split())) for line in text.splitlines() if line.strip()]


_MARK = "what the new lines of the session say:"


def _carried_out(words: list[str], folder: Path, where: str) -> str:
    put_kernels(folder / ".cache")
    environment = {
        **os.environ, "ENSEMBLE_CACHE": str(folder / ".cache"), "WANDB_MODE": "disabled", "PYTHONUNBUFFERED": "1", "COLUMNS": "120",
    }  # fmt: skip
    environment["PATH"] = f"{preloaded.search_path(environment)}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = preloaded.run(
        words, cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, timeout=600,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, f"{where}: ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
