"""Every error that a person can mend says what is expected or what to do; of stored runs see damage/test_remedies.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ensemble

# What an instruction is made of: an imperative, what is expected or needed, or a command to type.
INSTRUCTS = re.compile(
    r"\b(expected|needs?|must|can only|only|at least|at most|use|give|leave|choose|set|put|correct|write|fetch|install|start|stop|"
    r"submit|remove|repair|restore|check|raise|lower|free|wait|move|name|say|spell|keep|train|add|list|try|draw|take|read|save|"
    r"see|pick|divide|join|run|rename|copy|load|export|make|expose|pass|goes on|did you mean|near it|usage)\b"
    r"|ensemble [a-z]+ |--[a-z]|_help\b|_usage\b|_example\b|\{(remedy|advice|hint|error)\}|`\w+=\w+",
    re.IGNORECASE,
)
# Messages that are made elsewhere, or that pass on another error, which says it.
PASSED_ON = re.compile(
    r"^(problem|NO_GPU|'\\n'\.join\(.*\)|explain\(.*\)|_no_room\(.*\)|f?'?\{?(error|called)\}?.*'?|f'\{key\}: \{error\}'"
    r"|others \+ listed|.*\{why_missing\(folder\)\}'|f'\{where\} \{_BELONGS_ELSEWHERE\}'|f'\{called\}: failed: .*')$"
)
KINDS = ("ConfigError", "DataError", "ComputeError", "QuorumError")


def messages(kind: str) -> Iterator[tuple[str, str]]:
    """Where an error of that kind is made, and what is written there."""
    root = Path(ensemble.__file__).parent
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == kind and node.args:
                yield f"{path.relative_to(root)}:{node.lineno}", ast.unparse(node.args[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_says_what_is_expected_or_what_to_do(kind: str) -> None:
    found = list(messages(kind))
    assert found
    without = [f"{where}: {text}" for where, text in found if not INSTRUCTS.search(text) and not PASSED_ON.match(text)]
    assert not without, "\n".join(without)
