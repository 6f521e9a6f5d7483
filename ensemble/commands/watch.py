"""`ensemble watch`: a run that goes on elsewhere, followed. `main` adds it to the other commands."""

from __future__ import annotations

import sys

import click

from ensemble.commands.words import say


@click.command()
@click.argument("run")
@click.option("--once", is_flag=True, help="Print how it stands now, and leave.")
def watch(run: str, once: bool) -> None:
    """Follow a RUN (its folder, its name under runs/, or an address) that another process trains, and say how it ended.

    On a terminal this is the live table of `ensemble train`, in a pipe a line for what happens. Nothing in the run is
    touched. Ctrl-C leaves; the run goes on.

    \b
    ensemble watch quickstart
    """  # fmt: skip
    from ensemble.overview.sources import find_source
    from ensemble.overview.watching import print_state
    from ensemble.overview.watching import watch as follow

    source = find_source(run)
    try:
        row = print_state(source, sys.stdout) if once else follow(source, sys.stdout)
    except KeyboardInterrupt:
        say(f"{source.place} goes on; look again with: ensemble watch {source.place}", err=True)
        return
    if row.state != "finished":
        return
    from ensemble.report.tables import print_evaluation
    from ensemble.results.judging import stored_evaluation
    from ensemble.results.line_costs import costs_of
    from ensemble.storage.names import COST

    with source.opened((COST,)) as folder:
        evaluation = stored_evaluation(folder)[1]
        costs = costs_of(folder, evaluation)
    say()
    print_evaluation(evaluation, source.place, costs=costs)


COMMANDS = (watch,)
