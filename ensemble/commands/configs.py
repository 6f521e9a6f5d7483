"""`ensemble configs`: the configurations that come with the package. `main` adds it to the other commands."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from ensemble.commands.words import GivenPath, say


@click.command()
@click.argument("name", required=False)
@click.option("--copy", type=GivenPath(file=False), help="Write it to this new file, or into this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
def configs(name: str | None, copy: Path | None, as_json: bool) -> None:
    """List the configurations that come with the package; with a NAME, print it or --copy it.

    Each can be given by name where a CONFIG file is expected, for example: ensemble train quickstart.
    """
    import shutil
    import textwrap

    from ensemble.config.shipped import shipped
    from ensemble.errors import ConfigError

    known = shipped()
    if name is None:
        if copy is not None:
            raise click.UsageError(f"--copy {copy}: give the NAME of the configuration to copy")
        if as_json:
            rows = [{"name": each.name, "use": each.use, "about": each.about} for each in known.values()]
            say(json.dumps(rows, indent=1))
            return
        columns = max(40, shutil.get_terminal_size().columns)
        for each in known.values():
            say(each.name)
            say(textwrap.fill(each.about, columns, initial_indent="    ", subsequent_indent="    "))
            if not each.use.startswith("ensemble train"):
                say(f"    use: {each.use}")
        return
    if name not in known:
        raise ConfigError(f"no configuration named {name} comes with the package; expected one of {', '.join(known)}")
    chosen = known[name]
    if copy is None:
        say(json.dumps({"name": name, "text": chosen.text}) if as_json else chosen.text.rstrip("\n"))
        return
    target = copy / chosen.path.name if os.path.isdir(copy) else copy  # noqa: PTH112  # Path.is_dir raises
    try:
        with target.open("x", encoding="utf-8") as file:  # never over what somebody has changed
            file.write(chosen.text)
    except FileExistsError as error:
        raise ConfigError(f"--copy {target}: is there already; give another name, or remove it") from error
    except OSError as error:
        raise ConfigError(f"--copy {target}: cannot be written: {error.strerror or error}") from error
    say(json.dumps({"name": name, "path": str(target)}) if as_json else target)


COMMANDS = (configs,)
