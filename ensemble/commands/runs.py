"""`ensemble runs` and `ensemble runs rm`: what runs there are, how far they are, what they cost. `main` adds it to the others."""

from __future__ import annotations

import json
import sys

import click

from ensemble.commands.words import say
from ensemble.errors import EXIT_OK, StorageError

_LIST = "ls"  # what `ensemble runs` does where no other word of its own follows


class RunsGroup(click.Group):
    """A group whose first word may be left out: `ensemble runs FOLDER` is `ensemble runs ls FOLDER`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As every group does, with the word that was left out."""
        if not args or args[0] not in (*self.commands, "--help", "-h"):
            args = [_LIST, *args]
        return super().parse_args(ctx, args)


@click.group(cls=RunsGroup, subcommand_metavar="[FOLDER] [OPTION]... | rm NAME...")
def runs() -> None:
    """List the runs of a FOLDER (by default runs) or an address, a line each; `rm` removes some.

    \b
    ensemble runs
    ensemble runs --filter method=bagging --filter 'error<2%' --sort error
    ensemble runs s3://bucket/runs --json
    ensemble runs --cost --price cuda=2.50 --price cpu=0.04
    ensemble runs rm old_run

    Options of the list: ensemble runs ls --help.
    """  # fmt: skip


@runs.command(_LIST)
@click.argument("folder", default="runs")
@click.option(
    "--sort",
    default="-date",
    show_default=True,
    metavar="KEY",
    help="Sort by a key, such as error; -KEY the other way round.",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="CONDITION",
    help="Only runs with KEY=VALUE, != < <= > or >=: method=bagging, state=running,failed, 'error<1%', 'age<2d', 'training.lr>=0.01'. All that are given must hold.",
)
@click.option(
    "--cost",
    is_flag=True,
    help="Also the seconds of CPU slots and GPUs that trained, and those of tries that left nothing.",
)
@click.option(
    "--price",
    "prices",
    multiple=True,
    metavar="KIND=NUMBER",
    help="What one GPU (cuda=2.50) or one slot without (cpu=0.04) costs an hour; implies --cost.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
@click.option("--csv", "as_csv", is_flag=True, help="Print a table for spreadsheets to stdout.")
def list_runs(
    folder: str, sort: str, filters: tuple[str, ...], cost: bool, prices: tuple[str, ...], as_json: bool, as_csv: bool
) -> None:
    """List the runs of a FOLDER or of an address such as s3://bucket/runs, a line each, from what they have stored.

    Keys to sort and filter by: name, state (finished, running, interrupted, failed, damaged, no run), members, failed, epochs,
    method, network, data, error, best, nll, size, date, age, with --cost cpu_seconds, gpu_seconds, lost_seconds, and every key of the
    configuration, such as training.lr. Of a run under an address only its manifest, config.yaml, plan.json, evaluation.json and event log are read.

    \b
    ensemble runs --filter state=finished --sort error
    """  # fmt: skip
    from ensemble.overview.filters import chosen, in_order, parse_filter
    from ensemble.overview.prices import parse_prices
    from ensemble.overview.rows import read_rows
    from ensemble.overview.sources import find_sources
    from ensemble.overview.table import print_rows, rows_csv, rows_json
    from ensemble.storage.no_run import ROOT
    from ensemble.storage.remote import is_address

    if as_json and as_csv:
        raise click.UsageError("--json and --csv cannot be printed both; choose one")
    conditions, priced = [parse_filter(text) for text in filters], parse_prices(prices)
    keys = [sort.removeprefix("-"), *(each.key for each in conditions)]
    cost = cost or bool(priced)
    counted = [key for key in keys if key in ("cpu_seconds", "gpu_seconds", "lost_seconds")]
    if counted and not cost:
        raise click.UsageError(f"{counted[0]} is counted with --cost only; give that too")
    try:
        sources = find_sources(folder)
    except StorageError:
        if folder != ROOT:
            raise
        sources = []
    if is_address(folder):
        say(
            f"{folder}: of each run its manifest, config.yaml, plan.json, evaluation.json and events.jsonl are read",
            err=True,
        )
    rows = in_order(chosen(read_rows(sources, cost), conditions), sort)
    if as_json:
        say(json.dumps(rows_json(rows, cost, priced), indent=1))
    elif as_csv:
        say(rows_csv(rows, cost, priced), nl=False)
    elif rows:
        print_rows(rows, cost, priced)
    else:
        say(f"no runs in {folder}" if not sources else f"none of {len(sources)} runs in {folder} meets the conditions")


@runs.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--yes", is_flag=True, help="Do not ask.")
def rm(names: tuple[str, ...], yes: bool) -> None:
    """Remove runs by NAME (under runs/), folder or address, with everything in their folders.

    A run that is being written to is refused, and so is whatever is no run folder. Links in a folder are removed, what they
    point to stays. Under an address the files that the run's manifest lists are removed, and this machine's copy of it.

    \b
    ensemble runs rm old_run runs/other --yes
    """  # fmt: skip
    from ensemble.overview.keys import size_text
    from ensemble.overview.removal import removable, remove

    found = [removable(name) for name in dict.fromkeys(names)]  # all are looked at before any is removed
    for each in found:
        members = f", {each.row.members_finished} of {each.row.members} members" if each.row.members else ""
        say(f"{each.source.place}: {each.row.state}{members}, {size_text(each.size)}", err=True)
    if not yes and not _agreed(len(found)):
        say("nothing was removed", err=True)
        raise SystemExit(EXIT_OK)
    freed = 0
    for each in found:
        size = remove(each)
        freed += size
        also = f", with this machine's copy {each.copy}" if each.copy else ""
        say(f"{each.source.place}: removed{also}, {size_text(size)} freed")
    if len(found) > 1:
        say(f"{size_text(freed)} freed in all")


def _agreed(number: int) -> bool:
    if not sys.stdin.isatty():
        raise click.UsageError(
            "nobody can be asked here, since stdin is no terminal; give --yes to remove without asking"
        )
    return click.confirm(f"remove {'this run' if number == 1 else f'these {number} runs'}?", err=True)


COMMANDS = (runs,)
