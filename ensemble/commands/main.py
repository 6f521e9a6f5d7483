"""The command line: `ensemble train | submit | sweep | reproduce | evaluate | check | compare | runs | watch | report | predict | export | card | cost | wandb | config | configs | init | models | datasets | data`.

Data goes to stdout (with --json as one JSON document), progress and messages to stderr. Heavy packages are imported
inside the commands, so that help and configuration errors come at once. Exit codes: README, "Exit codes".
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from ensemble import __version__, signals
from ensemble.commands import check, compare, configs, data, inference, init, repeats, reproduce, runs, sweep
from ensemble.commands import watch as watch_command
from ensemble.commands.ending import PoliteGroup, output_finished
from ensemble.commands.words import GivenPath, say
from ensemble.errors import (
    EXIT_DEGRADED,
    ConfigError,
)
from ensemble.launch.submit import submit
from ensemble.outside import json_lines
from ensemble.outside.foreign_variables import settle_variables
from ensemble.outside.long_work import heard
from ensemble.outside.streams import open_missing_streams

if TYPE_CHECKING:
    from ensemble.config import Experiment
    from ensemble.config.schema import Aggregator
    from ensemble.evaluation.records import Evaluation
    from ensemble.run.run import RunOutcome

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
ALL = click.option(
    "--all", "everything", is_flag=True, help="All lines of the leaderboard, and all that is said about it."
)
TRUST = inference.TRUST
CONFIG = click.argument("config", type=GivenPath(file=False))
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")


class _Image(click.ParamType):  # type: ignore[type-arg]  # generic in the newest click only
    name = "image"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int, int]:
        sides = str(value).lower().split("x")
        if len(sides) != 3 or not all(side.isascii() and side.isdigit() and 0 < int(side) <= 4096 for side in sides):
            self.fail(f"{value!r} is no size of an image; expected such as 3x224x224", param, ctx)
        channels, height, width = map(int, sides)
        return channels, height, width


IMAGE = _Image()
_TRAINING = ("train", "sweep", "reproduce")
_ALONE = "`ensemble {}` is one process and follows its configuration (a launcher's processes: -m ensemble.launch.accelerate_run)"


# What to type after `ensemble`, and what it does; `ensemble COMMAND --help` has the rest.
GROUPS = (
    ("Begin", (
        ("configs", "list configurations that come along"),
        ("init photos/", "write a configuration for your pictures"),
        ("config my.yaml", "show every value, and where it came from"),
        ("models resnet18", "list networks, or the layers of one"),
        ("datasets", "list data sets, and which are here"),
        ("data ls", "pictures kept decoded; data prepare, rm"),
    )),
    ("Train", (
        ("train quickstart", "train and judge; again: finish it"),
        ("submit my.yaml --address URL", "train on a Ray cluster; fetch the run"),
        ("sweep my.yaml num_members=4,8", "train many settings, rank them"),
        ("reproduce lenet5", "published networks beside ours"),
        ("watch quickstart", "follow a run that goes on elsewhere"),
        ("runs --sort error", "list runs and what they cost; runs rm"),
    )),
    ("Judge", (
        ("evaluate quickstart --all", "judge a run again, from its votes"),
        ("compare run_a run_b", "runs, members, foreign votes, in pairs"),
        ("report quickstart", "one HTML page, and figures"),
        ("card quickstart", "the model card, as Markdown"),
        ("check quickstart", "read every file; name damaged ones"),
    )),
    ("Use", (
        ("predict quickstart photo.png", "what is on a picture"),
        ("export quickstart --format onnx", "the whole vote as one file"),
        ("cost quickstart", "what a prediction takes on this machine"),
        ("wandb quickstart", "tell Weights & Biases about it again"),
    )),
)  # fmt: skip


@click.group(cls=PoliteGroup, groups=GROUPS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ensemble")
@click.option("--debug", is_flag=True, help="Show whole traces of errors.")
@click.pass_context
def main(context: click.Context, debug: bool) -> None:
    """Train ensembles of image classifiers and judge, with intervals, whether they beat the single model.

    Below are examples of all commands: ensemble train quickstart. More about each: ensemble train --help.
    """
    del debug  # read by _Group
    Path.cwd()  # where it is gone, torch's libraries would end the process in words of their own
    json_lines.check()
    taken = settle_variables(alone=True)
    if taken and context.invoked_subcommand in _TRAINING:
        say(f"note: {', '.join(taken)}: set, but not heeded; {_ALONE.format(context.invoked_subcommand)}", err=True)
    signals.install()
    context.with_resource(heard(lambda line: say(line, err=True)))


@main.command()
@CONFIG
@OVERRIDES
@AS_JSON
@click.option("-q", "--quiet", is_flag=True, help="No progress; errors, warnings and the result only.")
@ALL
def train(config: Path, overrides: tuple[str, ...], as_json: bool, quiet: bool, everything: bool) -> None:
    """Train the ensemble of a CONFIG file, then judge it.

    CONFIG is a file or the name of a configuration that comes with the package: quickstart; see `ensemble configs`.
    Values of the file are replaced by KEY=VALUE, for example training.epochs=5. The same command again finishes what
    is missing and retrains nothing that is finished.
    """
    from ensemble.config import load_config
    from ensemble.tracking.wandb_sweep import as_try

    experiment, line = as_try(load_config(config, overrides).experiment, os.environ)
    if line:
        say(f"note: {line}", err=True)
    if experiment.repeats > 1:
        repeats.train(experiment, lambda run: _train(run, quiet), as_json, everything, trial=bool(line), quiet=quiet)
        return
    outcome = _train(experiment, quiet)
    _show(outcome.evaluation, outcome.path, as_json, everything)
    if outcome.failures or outcome.ended_early:
        from ensemble.report.failures import failure_lines

        say("\n".join(failure_lines(outcome.failures, outcome.ended_early, outcome.path)), err=True)
        raise SystemExit(EXIT_DEGRADED)


def _train(experiment: Experiment, quiet: bool) -> RunOutcome:
    from ensemble.run.compose import run_experiment

    return run_experiment(experiment, "warnings" if quiet else "progress")


@main.command()
@click.argument("run")
@click.option(
    "--aggregator", type=click.Choice(["soft", "hard", "weighted", "geometric", "additive"]), help="Headline vote."
)
@click.option("--write", is_flag=True, help="Also replace the judgement kept in the run folder, for reports.")
@click.option(
    "--on",
    "sets",
    multiple=True,
    metavar="SET",
    help="First let the members vote on a further set: mnist_c or cifar10_c (the test images, corrupted), a data set such as fashion_mnist (images of none of the classes), a set of the run's configuration by its name, or a YAML file with evaluation: {sets: [...]}. May stand several times; implies --write.",
)
@click.option(
    "--forget", multiple=True, metavar="SET", help="First remove the votes on a further set; implies --write."
)
@click.option(
    "--executor",
    type=click.Choice(["auto", "inline", "processes", "ray"]),
    help="Where --on votes; by default as the run says.",
)
@TRUST
@AS_JSON
@ALL
def evaluate(
    run: str,
    aggregator: Aggregator | None,
    write: bool,
    sets: tuple[str, ...],
    forget: tuple[str, ...],
    executor: Literal["auto", "inline", "processes", "ray"] | None,
    trust_code: bool,
    as_json: bool,
    everything: bool,
) -> None:
    """Judge a RUN (its folder, or its name under runs/) again from its stored votes."""
    from ensemble.results.judging import find_run, judge
    from ensemble.storage import RunFolder

    path = find_run(run, Path("runs"))
    for option, given in (("--executor", executor is not None), ("--trust-code", trust_code)):
        if given and not sets and not (trust_code and write):
            raise ConfigError(f"{option} has no effect without --on; leave it out")
    if forget:
        from ensemble.run.later_votes import forget_sets

        forget_sets(path, forget)
    if sets:
        from ensemble.run.later_votes import vote_later

        vote_later(path, sets, executor, trust_code, tell=lambda line: say(line, err=True))
    if write or sets or forget:
        from ensemble.run.run import judge_again

        evaluation = judge_again(path, aggregator, trust_code)
    else:
        evaluation = judge(RunFolder.read(path), aggregator)
    _show(evaluation, path, as_json, everything)


def _show(evaluation: Evaluation, path: Path, as_json: bool, everything: bool) -> None:
    if as_json:
        say(json.dumps(evaluation.to_json(), indent=1))
        return
    from ensemble.report.tables import print_evaluation
    from ensemble.results.line_costs import costs_of
    from ensemble.storage import RunFolder

    print_evaluation(evaluation, path, everything, costs=costs_of(RunFolder.read(path), evaluation))


@main.command()
@click.argument("runs", nargs=-1, required=True)
@click.option("--out", type=GivenPath(), help="Write the page here, and no figures or tables beside the run.")
@click.option("--whole", is_flag=True, help="Of several runs: also all about each, below the overview.")
def report(runs: tuple[str, ...], out: Path | None, whole: bool) -> None:
    """Write one self-contained HTML page about a run, with figures as PNG and SVG and tables as LaTeX and CSV; or an overview of several RUNS, or of all in a folder."""
    from ensemble.report.html import write_report
    from ensemble.results.judging import find_runs

    paths = find_runs(runs, Path("runs"))
    say(write_report(paths, out, tell=lambda line: say(line, err=True), whole=whole))


@main.command()
@click.argument("run")
@click.option(
    "--mode", type=click.Choice(["online", "offline"]), help="Instead of the mode the run was configured with."
)
def wandb(run: str, mode: Literal["online", "offline"] | None) -> None:
    """Tell Weights & Biases about a RUN again, whole: a finished, killed or offline one."""
    from ensemble.results.judging import find_run
    from ensemble.run.made_files import MAKERS
    from ensemble.tracking.wandb_replay import replay_run

    if not replay_run(find_run(run, Path("runs")), mode, MAKERS):
        raise SystemExit(EXIT_DEGRADED)


def _print_schema(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from ensemble.config.json_schema import json_schema

        say(json.dumps(json_schema(), indent=1))
        context.exit()


@main.command("config")
@CONFIG
@OVERRIDES
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of configurations, for editors, and do nothing else.",
)
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
    shown = {key: _in_a_line(value) for key, value in values.items()}
    middle = min(40, max(len(value) for value in shown.values()))
    for key, value in shown.items():
        say(f"{key:<{width}}  {value:<{middle}}  {loaded.origins[key]}")


def _in_a_line(value: Any) -> str:
    """A value as JSON; of texts of several lines, such as code, how many they have."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)}: {_in_a_line(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, str) and "\n" in value:
        return f"({len(value.splitlines())} lines)"
    return json.dumps(value)


@main.command()
@click.argument("name", required=False)
@click.argument("keys", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--image", type=IMAGE, metavar="CxHxW", help="What it is built for: channels, height, width of an image.")
@click.option("--classes", type=click.IntRange(2), help="As many classes.")
@AS_JSON
def models(
    name: str | None, keys: tuple[str, ...], image: tuple[int, int, int] | None, classes: int | None, as_json: bool
) -> None:
    """List the networks with their keys, defaults and parameters on MNIST; with a NAME, its layers and how it trains.

    NAME is one of the networks, with keys such as widths=[16,32]; or FILE.py:NAME, a network of your own, with the
    arguments it takes; or a configuration file.
    """
    from ensemble.report.layer_table import print_layers
    from ensemble.report.listings import describe_network, list_models, print_models

    if name is not None:
        found = describe_network(name, keys, image, classes)
        if as_json:
            say(json.dumps(found.to_json(), indent=1))
        else:
            print_layers(found.title, found.layers, found.notes)
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
    *check.COMMANDS,
    *compare.COMMANDS,
    *configs.COMMANDS,
    *data.COMMANDS,
    *inference.COMMANDS,
    *init.COMMANDS,
    *reproduce.COMMANDS,
    *runs.COMMANDS,
    *sweep.COMMANDS,
    *watch_command.COMMANDS,
    submit,
):
    main.add_command(_command)


def run_cli() -> None:
    """Entry point of the `ensemble` command."""
    with signals.ending_process(), output_finished():
        open_missing_streams()
        main()


__all__ = ["ConfigError", "main", "run_cli"]


if __name__ == "__main__":
    run_cli()
