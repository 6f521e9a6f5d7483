"""`ensemble train CONFIG repeats=N`: the same run with several seeds, and a table over them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from ensemble.commands.words import say
from ensemble.errors import EXIT_DEGRADED, ConfigError

if TYPE_CHECKING:
    from ensemble.config import Experiment
    from ensemble.run.run import RunOutcome


def train(
    experiment: Experiment,
    one: Callable[[Experiment], RunOutcome],
    as_json: bool,
    everything: bool,
    trial: bool,
    quiet: bool,
) -> None:
    """Train all repeats and show the table. one: trains a run. trial: the command is a try of a W&B sweep, which is one run."""
    from ensemble.report.failures import failure_lines
    from ensemble.report.repeated import print_repeats, write_repeats
    from ensemble.run.repeats import run_repeats

    if trial:
        raise ConfigError("repeats: a try of a W&B sweep is one run; leave repeats out")
    if everything:
        raise click.UsageError(
            "--all has no effect on the table of repeats, which is whole; of one of the runs: ensemble evaluate RUN --all"
        )
    found = run_repeats(experiment, one, lambda line: None if quiet else say(line, err=True))
    write_repeats(found.judged, found.folder)
    if as_json:
        say(json.dumps(found.judged.to_json(), indent=1))
    else:
        print_repeats(found.judged, found.folder)
    for outcome in found.outcomes:
        if outcome.failures or outcome.ended_early:
            say("\n".join(failure_lines(outcome.failures, outcome.ended_early, outcome.path)), err=True)
    if found.degraded:
        raise SystemExit(EXIT_DEGRADED)
