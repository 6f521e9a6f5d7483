"""The command line: `ensemble train | sweep | reproduce | evaluate | check | compare | report | predict | export | card | wandb | config | models | datasets`.

Data goes to stdout (with --json as one JSON document), progress and messages to stderr. Heavy packages are imported
inside the commands, so that help and configuration errors come at once. Exit codes: README, "Exit codes".
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import socket
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import click

from ensemble import __version__, cli_check, cli_compare, cli_inference, cli_reproduce, cli_sweep, interruption
from ensemble.cli_words import GivenPath, say
from ensemble.errors import (
    EXIT_DEGRADED,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    ComputeError,
    ConfigError,
    EnsembleError,
    StorageError,
)
from ensemble.foreign_variables import settle_variables
from ensemble.visible import visible

if TYPE_CHECKING:
    from ensemble.config import Experiment
    from ensemble.config.schema import Aggregator
    from ensemble.evaluation.records import Evaluation
    from ensemble.run import RunOutcome

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
CONFIG = click.argument("config", type=GivenPath(file=False))
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


_TRAINING = ("train", "sweep", "reproduce")
_ALONE = "`ensemble {}` is one process and follows its configuration (a launcher's processes: -m launch.accelerate_run)"


class _Group(click.Group):
    """Turns the errors a user can mend into one message and the exit code of their family."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _visible_usage_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, context: click.Context) -> Any:
        try:
            with _visible_usage_errors():
                return super().invoke(context)
        except EnsembleError as error:
            _stop(str(error), error.exit_code, error, context)
        except KeyboardInterrupt as error:
            again = shlex.join(["ensemble", *sys.argv[1:]])
            _stop(f"interrupted; finished members are kept. Go on with: {again}", EXIT_INTERRUPTED, error, context)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except OSError as error:
            message, code = _of_system(error)
            _stop(message, code, error, context)
        except Exception as error:
            hint = "this is a mistake of the program, not yours; the whole trace comes with ensemble --debug ..."
            _stop(f"{type(error).__name__}: {error}\n{hint}", EXIT_INTERNAL, error, context)


@contextlib.contextmanager
def _visible_usage_errors() -> Iterator[None]:
    """click repeats what was typed in its messages."""
    try:
        yield
    except click.ClickException as error:
        error.message = visible(error.message)  # type: ignore[misc]  # final by its annotation alone
        raise


def _of_system(error: OSError) -> tuple[str, int]:
    """What to say about an error of the operating system that no door has put into words, and its exit code."""
    reason = error.strerror or str(error)
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return (
            f"the network does not answer: {reason}; try again, or check addresses and proxies",
            ComputeError.exit_code,
        )
    if error.filename is None:
        return f"the output cannot be written: {reason}; free space, or send it elsewhere", StorageError.exit_code
    return f"{error.filename}: {reason}; check the path, its permissions and the free space", StorageError.exit_code


def _stop(message: str, code: int, error: BaseException, context: click.Context) -> NoReturn:
    with contextlib.suppress(OSError):  # where even that cannot be written, the exit code says it
        if context.params.get("debug"):
            traceback.print_exception(error)
        say(f"error: {message}", err=True)
    raise SystemExit(code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ensemble")
@click.option("--debug", is_flag=True, help="Show whole traces of errors.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Train ensembles of image classifiers and judge, with intervals, whether they beat the single model."""
    del debug  # read by _Group
    taken = settle_variables(alone=True)
    if taken and context.invoked_subcommand in _TRAINING:
        say(f"note: {', '.join(taken)}: set, but not heeded; {_ALONE.format(context.invoked_subcommand)}", err=True)
    interruption.install()


@main.command()
@CONFIG
@OVERRIDES
@AS_JSON
@click.option("-q", "--quiet", is_flag=True, help="No progress; errors, warnings and the result only.")
def train(config: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool) -> None:
    """Train the ensemble of a CONFIG file, then judge it.

    Values of the file are replaced by KEY=VALUE, for example training.epochs=5. The same command again finishes what
    is missing and retrains nothing that is finished.
    """
    from ensemble.config import load_config

    experiment = load_config(config, overrides).experiment
    outcome = _train(experiment, quiet)
    _show(outcome.evaluation, outcome.path, as_json)
    if outcome.failures or outcome.ended_early:
        from ensemble.report.failures import failure_lines

        say("\n".join(failure_lines(outcome.failures, outcome.ended_early, outcome.path)), err=True)
        raise SystemExit(EXIT_DEGRADED)


def _train(experiment: Experiment, quiet: bool) -> RunOutcome:
    from ensemble.executors import build_executor
    from ensemble.run import run_ensemble
    from ensemble.tracking.build import build_trackers

    return run_ensemble(
        experiment,
        lambda device, tasks, images: build_executor(experiment.compute, device, tasks, images),
        lambda folder: build_trackers(experiment, folder.path, quiet),
    )


@main.command()
@click.argument("run")
@click.option(
    "--aggregator", type=click.Choice(["soft", "hard", "weighted", "geometric", "additive"]), help="Headline vote."
)
@click.option("--write", is_flag=True, help="Also replace the judgement kept in the run folder, for reports.")
@AS_JSON
def evaluate(run: str, aggregator: Aggregator | None, write: bool, as_json: bool) -> None:
    """Judge a RUN (its folder, or its name under runs/) again from its stored votes."""
    from ensemble.judging import find_run, judge
    from ensemble.storage import RunFolder

    path = find_run(run, Path("runs"))
    if write:
        from ensemble.run import judge_again

        evaluation = judge_again(path, aggregator)
    else:
        evaluation = judge(RunFolder.read(path), aggregator)
    _show(evaluation, path, as_json)


def _show(evaluation: Evaluation, path: Path, as_json: bool) -> None:
    if as_json:
        say(json.dumps(evaluation.to_json(), indent=1))
        return
    from ensemble.report.tables import print_evaluation

    print_evaluation(evaluation, path)


@main.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", type=GivenPath(), help="Write the page here, and no figures beside the run.")
def report(runs: tuple[str, ...], out: Path | None) -> None:
    """Write one self-contained HTML page about one or several RUNS, and their figures as PNG and SVG."""
    from ensemble.judging import find_run
    from ensemble.report.html import write_report

    paths = [find_run(run, Path("runs")) for run in runs]
    say(write_report(paths, out, tell=lambda line: say(line, err=True)))


@main.command()
@click.argument("run")
@click.option(
    "--mode", type=click.Choice(["online", "offline"]), help="Instead of the mode the run was configured with."
)
def wandb(run: str, mode: Literal["online", "offline"] | None) -> None:
    """Tell Weights & Biases about a RUN again, whole: a finished, killed or offline one."""
    from ensemble.judging import find_run
    from ensemble.tracking.build import replay_run

    if not replay_run(find_run(run, Path("runs")), mode):
        raise SystemExit(EXIT_DEGRADED)


@main.command("config")
@CONFIG
@OVERRIDES
@AS_JSON
def show_config(config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Show every resolved value of a CONFIG file and where it came from."""
    from ensemble.config import load_config
    from ensemble.config.loading import flat_values

    loaded = load_config(config, overrides)
    values = flat_values(loaded.experiment)
    if as_json:
        rows = {key: {"value": value, "origin": loaded.origins[key]} for key, value in values.items()}
        say(json.dumps(rows, indent=1))
        return
    width = max(len(key) for key in values)
    shown = {key: json.dumps(value) for key, value in values.items()}
    middle = min(40, max(len(value) for value in shown.values()))
    for key, value in shown.items():
        say(f"{key:<{width}}  {value:<{middle}}  {loaded.origins[key]}")


@main.command()
@click.argument("name", required=False)
@click.argument("keys", nargs=-1, metavar="[KEY=VALUE]...")
@AS_JSON
def models(name: str | None, keys: tuple[str, ...], as_json: bool) -> None:
    """List the networks with their keys, defaults and parameters on MNIST; with a NAME, its layers.

    NAME is one of the networks, with keys such as widths=[16,32], or a configuration file.
    """
    from ensemble.report.layer_table import print_layers
    from ensemble.report.listings import layers_of, list_models, print_models

    if name is not None:
        title, layers = layers_of(name, keys)
        if as_json:
            say(json.dumps([layer.to_json() for layer in layers], indent=1))
        else:
            print_layers(title, layers)
        return
    rows = list_models()
    if as_json:
        say(json.dumps(rows, indent=1))
    else:
        print_models(rows)


@main.command()
@AS_JSON
def datasets(as_json: bool) -> None:
    """List the data sets, their sizes, and which of them are on this machine."""
    from ensemble.report.listings import list_datasets, print_datasets

    rows = list_datasets()
    if as_json:
        say(json.dumps(rows, indent=1))
    else:
        print_datasets(rows)


for _command in (
    *cli_check.COMMANDS,
    *cli_compare.COMMANDS,
    *cli_inference.COMMANDS,
    *cli_reproduce.COMMANDS,
    *cli_sweep.COMMANDS,
):
    main.add_command(_command)


def run_cli() -> None:
    """Entry point of the `ensemble` command."""
    with interruption.ending_process(), _output_finished():
        _open_missing_streams()
        main()


@contextlib.contextmanager
def _output_finished() -> Iterator[None]:
    """Around a command: its exit code also says whether its output could be written."""
    try:
        yield
    except SystemExit as error:
        raise SystemExit(_code_after_output(error.code)) from None


def _open_missing_streams() -> None:
    """Give a closed stdin, stdout or stderr to nobody, or the next file that is opened would take its number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _code_after_output(code: str | int | None) -> str | int | None:
    """The exit code once all output is out: that of storage where it cannot be written.

    A reader that closes the pipe early (head) is no error. What is left then goes nowhere, or Python would try again
    at its very end, and complain.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if code in (0, None, EXIT_DEGRADED):
            message, code = _of_system(error)
            with contextlib.suppress(OSError):
                say(f"error: {message}", err=True)
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    return code


__all__ = ["ConfigError", "main", "run_cli"]


if __name__ == "__main__":
    run_cli()
