"""`ensemble data prepare | ls | rm`: images that this machine keeps, decoded from pictures or read from array files. `main` adds it to the other commands."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from ensemble.commands.words import GivenPath, say
from ensemble.errors import ConfigError


@click.group()
def data() -> None:
    """Images that this machine keeps decoded, for data.storage mapped."""


@data.command()
@click.argument("config", type=GivenPath(file=False))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def prepare(config: Path, overrides: tuple[str, ...]) -> None:
    """Decode the pictures of a CONFIG, or read its array file, now and once, so that every later start has them; a killed one goes on where it was.

    Values of the file are replaced by KEY=VALUE, for example data.image_size=224.
    """
    from ensemble.config import load_config
    from ensemble.data import load_dataset
    from ensemble.data.mapped import place_of

    wanted = load_config(config, overrides).experiment.data
    if "storage" not in type(wanted).model_fields:
        kept = sorted(name for name, section in wanted.registry.all().items() if "storage" in section.model_fields)
        raise ConfigError(f"data.name is {wanted.name}, which is not kept; expected one of {', '.join(kept)}")
    if wanted.model_dump()["storage"] == "memory":
        raise ConfigError("data.storage is memory, which keeps nothing; leave it out, or set it to mapped")
    dataset = load_dataset(wanted.model_copy(update={"storage": "mapped"}))
    for remark in dataset.account.remarks():
        say(f"data: {remark.text}", err=True)
    place = place_of(dataset.kept_images[0])
    assert place is not None, "mapped pictures lie somewhere"
    say(place.folder)


@data.command("ls")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
def list_kept(as_json: bool) -> None:
    """List what is kept decoded on this machine, last used first."""
    from ensemble.data.prepared import kept
    from ensemble.data.shard_index import kept_indices

    found = kept()
    if as_json:
        rows = [
            {
                "key": each.key, "root": each.root, "shape": each.shape, "bytes": each.bytes_used, "used": each.used,
                "complete": each.complete,
            }
            for each in found
        ]  # fmt: skip
        say(json.dumps(rows, indent=1))
        return
    if not found:
        say("nothing is kept decoded on this machine")
    for each in found:
        what = "x".join(map(str, each.shape)) if each.complete else "not complete"
        day = time.strftime("%Y-%m-%d", time.localtime(each.used))
        say(f"{each.key}  {each.bytes_used / 2**20:10,.1f} MiB  last used {day}  {what}  {each.root}")
    if (indices := kept_indices()).count:
        say(
            f"and the indices of {indices.count:,} shards, {indices.bytes_used / 2**20:,.1f} MiB; rm --all removes them too"
        )


@data.command()
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "everything", is_flag=True, help="All that is listed.")
def rm(keys: tuple[str, ...], everything: bool) -> None:
    """Remove what is kept decoded under these KEYS of `ensemble data ls`; the pictures and array files themselves stay."""
    from ensemble.data.prepared import kept, remove
    from ensemble.data.shard_index import remove_indices

    if everything == bool(keys):
        raise click.UsageError("give the KEYs to remove, or --all")
    for key in [each.key for each in kept()] if everything else keys:
        remove(key)
        say(f"{key}: removed")
    if everything and (count := remove_indices()):
        say(f"indices of {count:,} shards: removed")


COMMANDS = (data,)
