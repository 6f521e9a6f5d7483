"""What the doors share: train a configuration as `ensemble train` does, print the leaderboard, leave with its exit code."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from ensemble import signals
from ensemble.config import Experiment
from ensemble.errors import EXIT_DEGRADED, EXIT_INTERNAL, EXIT_INTERRUPTED, ConfigError, EnsembleError
from ensemble.launch.surroundings import in_words
from ensemble.outside import json_capture, json_lines
from ensemble.outside.long_work import heard
from ensemble.outside.streams import open_missing_streams
from ensemble.report.failures import failure_lines
from ensemble.report.repeated import print_repeats, write_repeats
from ensemble.report.tables import print_evaluation
from ensemble.run.driver import MakeExecutor
from ensemble.run.made_files import MAKERS
from ensemble.run.repeats import run_repeats
from ensemble.run.run import RunOutcome, run_ensemble
from ensemble.tracking.build import build_trackers
from ensemble.tracking.wandb_sweep import as_try


def train_and_print(experiment: Experiment, make_executor: Callable[[Experiment], MakeExecutor]) -> int:
    """Train, judge and print; returns the exit code. Raises what the run raises.

    make_executor: of a run; with repeats there are several, one after the other.
    """
    experiment, note = as_try(experiment, os.environ)
    if note:
        json_lines.tell(f"note: {note}")

    def train(run: Experiment) -> RunOutcome:
        return run_ensemble(
            run, make_executor(run), lambda folder: build_trackers(run, folder.path, "progress", MAKERS)
        )

    with heard(json_lines.tell):
        if experiment.repeats > 1:
            if note:
                raise ConfigError("repeats: a try of a W&B sweep is one run; leave repeats out")
            found = run_repeats(experiment, train, json_lines.tell)
            outcomes = found.outcomes
            write_repeats(found.judged, found.folder)
            print_repeats(found.judged, found.folder)
        else:
            outcomes = (train(experiment),)
            print_evaluation(outcomes[0].evaluation, outcomes[0].path, costs=outcomes[0].costs)
    for outcome in outcomes:
        for line in failure_lines(outcome.failures, outcome.ended_early, outcome.path):
            json_lines.tell(line)
    return EXIT_DEGRADED if any(outcome.failures or outcome.ended_early for outcome in outcomes) else 0


def guarded(main: Callable[[], int], again: str) -> NoReturn:
    """Run a door's main and leave with its exit code; errors a user can mend become one message."""
    with signals.ending_process():
        signals.install()
        open_missing_streams()
        json_capture.begin()
        try:
            Path.cwd()  # raises where it is gone: torch's libraries would end the process in words of their own
            json_lines.check()
            code = main()
            sys.stdout.flush()
        except EnsembleError as error:
            json_lines.tell(f"error: {error}")
            code = error.exit_code
        except KeyboardInterrupt:
            _tell_interrupted(again)
            code = EXIT_INTERRUPTED
        except click.ClickException:  # which says itself what is wrong, and its exit code
            raise
        except Exception as error:
            if signals.requested():  # native code makes a SystemError of the KeyboardInterrupt, an import half a module
                _tell_interrupted(again)
                code = EXIT_INTERRUPTED
            else:
                code = _told(error)
        _give_up_output()
        sys.exit(code)
    raise AssertionError("the process has ended")


def _tell_interrupted(again: str) -> None:
    json_lines.tell(f"interrupted; finished members and checkpoints are kept. Go on with: {again}")


def _give_up_output() -> None:
    """What cannot be written goes nowhere, or Python would try again at its very end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _told(error: Exception) -> int:
    """Say what no part of the run has put into words; returns the exit code."""
    found = in_words(error)
    if found is not None:
        json_lines.tell(f"error: {found[0]}")
        return found[1]
    traceback.print_exception(error)  # a job's log is where it is looked for
    json_lines.tell(f"error: {type(error).__name__}: {error}\nthis is a mistake of the program, not yours")
    return EXIT_INTERNAL
