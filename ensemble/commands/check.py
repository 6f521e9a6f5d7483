"""`ensemble check`: whether a run folder is sound. `cli` adds it to the others."""

from __future__ import annotations

import json
from pathlib import Path

import click

from ensemble.commands.words import say
from ensemble.errors import StorageError


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
def check(run: str, as_json: bool) -> None:
    """Read every file of a RUN (its folder, or its name under runs/) and name those that are damaged."""
    from ensemble.results.checking import check_run
    from ensemble.results.judging import find_run
    from ensemble.storage import RunFolder
    from ensemble.storage.remote import address_of

    path = find_run(run, Path("runs"))
    problems = check_run(path)
    folder = RunFolder.read(path)
    if as_json:
        found = {"files": len(folder.files()), "members": len(folder.finished()), "problems": problems}
        say(json.dumps(found, indent=1))
    elif not problems:
        say(
            f"{address_of(path) or path}: {len(folder.files())} files of {len(folder.finished())} finished members: all sound"
        )
    else:
        say("\n".join(problems))
    if problems:
        raise SystemExit(StorageError.exit_code)


COMMANDS = (check,)
