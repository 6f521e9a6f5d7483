"""`ensemble sweep`: many settings of one configuration. `cli` adds it to the other commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble.commands.words import GivenPath, say
from ensemble.outside.names import shell_word

if TYPE_CHECKING:
    from ensemble.config import Experiment


@click.command()
@click.argument("config", type=GivenPath(file=False))
@click.argument("words", nargs=-1, metavar="[KEY=A,B,C]... [KEY=VALUE]... [seeds=N]")
@click.option("--draw", type=click.IntRange(min=1), help="Only so many random settings of the grid.")
@click.option("--screen", type=click.IntRange(min=1), help="First train all settings for so many epochs only ...")
@click.option(
    "--survivors", type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="... and this best share of them in full (by default 0.5).",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; errors and the result only.")
def sweep(
    config: Path,
    words: tuple[str, ...],
    draw: int | None,
    screen: int | None,
    survivors: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Train many settings of a CONFIG file, several seeds each, and rank them by validation.

    KEY=A,B,C is an axis of the grid, KEY=VALUE a plain override. A setting that diverges is a result, not an error.
    The same command again trains only what is missing.
    """
    from ensemble.config.sweeping import load_sweep
    from ensemble.report.sweeps import print_sweep, write_sweep
    from ensemble.results.sweep import run_sweep

    if survivors is not None and screen is None:
        raise click.UsageError(f"--survivors {survivors:g} has nothing to choose from; give --screen EPOCHS too")
    plan = load_sweep(config, words, draw)
    say(f"{len(plan.settings)} settings, {plan.seeds} seed(s) each", err=True)
    result = run_sweep(
        plan, lambda experiment: _train(experiment, quiet), screen, 0.5 if survivors is None else survivors
    )
    folder = write_sweep(result)
    if as_json:
        say(json.dumps(result.to_json(), indent=1))
    else:
        print_sweep(result)
    say(f"table and figures: {folder}; its runs on one page: ensemble report {shell_word(str(folder))}", err=True)


def _train(experiment: Experiment, quiet: bool) -> Path:
    from ensemble.run.compose import run_experiment

    return run_experiment(experiment, "warnings" if quiet else "progress").path


COMMANDS = (sweep,)
