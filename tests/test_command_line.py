"""The command a run records: as it was typed, but for secrets."""

from __future__ import annotations

import shlex

import pytest
from click.testing import CliRunner

from ensemble.commands.main import main
from ensemble.run.environment import command_line


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["/usr/bin/ensemble", "train", "quickstart", "training.lr=0.1"], "ensemble train quickstart training.lr=0.1"),
        (["/x/ensemble/__main__.py", "train", "a b.yaml"], "python -m ensemble train 'a b.yaml'"),
        (["e", "train", "x", "output_dir=s3://me:hunter2@bucket/runs"], "e train x output_dir=(hidden)"),
        (["e", "s3://me:hunter2@bucket/runs"], "e (hidden)"),
        (["e", "api_key=hunter2", "--token", "hunter2", "--password=hunter2"], "e api_key=(hidden) --token (hidden) --password=(hidden)"),
    ],
)  # fmt: skip
def test_secrets_are_hidden_and_the_rest_can_be_typed(words: list[str], shown: str) -> None:
    assert command_line(words) == shown
    assert "hunter2" not in shown
    if "hidden" not in shown:
        assert shlex.split(shown)[-len(words) + 1 :] == words[1:]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("list", "runs"), ("ls", "runs"), ("evaluat", "evaluate"), ("tarin", "train"), ("bogus", None), ("runsrunsruns", None)],
)  # fmt: skip
def test_a_command_that_there_is_not_is_answered_with_the_one_that_is_meant(typed: str, meant: str | None) -> None:
    done = CliRunner().invoke(main, [typed])
    assert done.exit_code == 2
    assert f"No such command '{typed}'." in done.output
    assert ("Did you mean" in done.output) is (meant is not None)
    assert meant is None or f"Did you mean `main {meant}`?" in done.output
