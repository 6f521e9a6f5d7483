"""The commands that use what was trained: `ensemble predict | export | card | cost`. `cli` adds them to the others."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ensemble.commands.words import GivenPath, say
from ensemble.errors import ConfigError, DataError, StorageError

if TYPE_CHECKING:
    from ensemble.config.schema import Aggregator
    from ensemble.inference.export import Format
    from ensemble.storage.cost_file import CostFile

RUN = click.argument("run")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
AGGREGATOR = click.option(
    "--aggregator",
    type=click.Choice(["soft", "hard", "weighted", "geometric", "additive"]),
    help="Another vote than the run's own.",
)
TRUST = click.option(
    "--trust-code",
    is_flag=True,
    help="Execute the code that the run's folder holds, where its network is made, or its data are read, by some.",
)
FILE = GivenPath()


@click.command()
@RUN
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@AS_JSON
@click.option("--figure", type=FILE, help="Draw each image beside its class probabilities (.png, .svg, .pdf).")
@click.option(
    "--invert/--no-invert",
    default=None,
    help="Dark on light, or light on dark; without it the image itself tells.",
)
@click.option(
    "--doubt",
    type=click.FloatRange(0, 1),
    default=0.05,
    show_default=True,
    help="Call answers doubtful that are less sure than this share of the validation images; 0: none.",
)
@click.option(
    "--reject",
    metavar="risk=RISK",
    help="Give no answer where the vote is too unsure: of the answers at most this share is wrong, such as risk=0.01, as promised by images that no member was trained on.",
)
@click.option(
    "--sets",
    metavar="alpha=ALPHA",
    help="Say which classes each image may be of: sets that miss the true one in at most this share of cases, such as alpha=0.05. For runs with data.calibration_fraction.",
)
@click.option(
    "--unknown",
    is_flag=True,
    help="Call images unknown of which the vote is less sure than of 95 % of the images that no member was trained on, or by the score that the run has chosen for that (evaluation.sets: chooses_score); says how many of the run's sets of unknown images that catches.",
)
@AGGREGATOR
@TRUST
def predict(
    run: str,
    images: tuple[str, ...],
    as_json: bool,
    figure: Path | None,
    invert: bool | None,
    doubt: float,
    reject: str | None,
    sets: str | None,
    unknown: bool,
    aggregator: Aggregator | None,
    trust_code: bool,
) -> None:
    """Say what is on each IMAGE, by the vote of a RUN (its folder, or its name under runs/).

    IMAGE is a picture file of any size, a folder of them, or - for one on stdin. For MNIST and its kin the character
    is cut out and centred as in the data set. A picture that cannot be used does not cost the others their answers; the
    exit status is then 3.
    """
    if images.count("-") > 1:
        raise ConfigError("- stands twice, but stdin holds one image; name it once")
    from ensemble.inference.abstaining import Rules, reject_rule, sets_rule, unknown_rule
    from ensemble.inference.answers import answers_json, answers_text, ask_all, doubt_note
    from ensemble.inference.figure import check_figure, write_figure
    from ensemble.inference.prepare import Preparation, find_pictures
    from ensemble.inference.trained import load_ensemble
    from ensemble.results.judging import find_run

    trained = load_ensemble(find_run(run, Path("runs")), aggregator=aggregator, trust_code=trust_code)
    rules = Rules(
        None if reject is None else reject_rule(trained.vote, _share("--reject", "risk", reject)),
        None if sets is None else sets_rule(trained.vote, _share("--sets", "alpha", sets)),
        unknown_rule(trained.vote) if unknown else None,
    )
    asked = find_pictures(images, sys.stdin.buffer.read)
    if figure is not None:
        check_figure(figure, len(asked.pictures))
    vote = trained.vote
    preparation = Preparation(vote.dataset, vote.image_shape, vote.pixels, invert, keep_shown=figure is not None)
    answers, faults, notes = ask_all(trained, preparation, asked.pictures, rules)
    promises = [rule.sentence for rule in (rules.reject, rules.sets, rules.unknown) if rule is not None]
    for note in (*asked.notes, *notes, *promises):
        say(f"note: {note}", err=True)
    if as_json:
        say(json.dumps(answers_json(answers, trained.class_names, doubt), indent=1))
    elif answers:
        say(answers_text(answers, doubt))
    if doubts := doubt_note(answers, doubt):
        say(f"note: {doubts}", err=True)
    if figure is not None and answers:
        write_figure(figure, answers, trained.class_names)
        say(f"figure: {figure}", err=True)
    if faults := [*asked.faults, *faults]:
        listed = "\n".join(faults)
        others = f"{len(answers)} pictures are answered; without an answer:\n" if answers else ""
        raise DataError(others + listed)


def _share(option: str, name: str, text: str) -> float:
    """The number behind name=; a number alone means the same. Raises ConfigError for what is none between 0 and 1."""
    try:
        value = float(text.removeprefix(f"{name}="))
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise ConfigError(f"{option} {text}: expected {name}= and a share between 0 and 1, such as {name}=0.01")
    return value


@click.command()
@RUN
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["torch_export", "onnx"]),
    required=True,
    help="torch_export: a program of torch.export, for PyTorch; onnx: for any ONNX runtime.",
)
@click.option("--out", type=FILE, help="The file; without it the run's name, in this folder.")
@AGGREGATOR
@TRUST
@AS_JSON
def export(
    run: str, file_format: Format, out: Path | None, aggregator: Aggregator | None, trust_code: bool, as_json: bool
) -> None:
    """Write the whole vote of a RUN as one file: uint8 images [N, C, H, W] in, probabilities and classes out."""
    from dataclasses import asdict

    from ensemble.inference.export import FORMATS, export_ensemble
    from ensemble.inference.trained import load_ensemble
    from ensemble.results.judging import find_run

    trained = load_ensemble(find_run(run, Path("runs")), aggregator=aggregator, device="cpu", trust_code=trust_code)
    path = out or Path(trained.vote.experiment.name + FORMATS[file_format].suffix)
    exported = export_ensemble(trained, file_format, path)
    size, checked = exported.size, exported.checked
    shape = ", ".join(map(str, trained.image_shape))
    if as_json:
        facts: dict[str, Any] = {
            "path": str(path),
            "bytes": size,
            "format": file_format,
            "members": len(trained.vote.members),
        }
        facts |= {"image_shape": trained.image_shape, "classes": trained.class_names, "compared": asdict(checked)}
        say(json.dumps(facts, indent=1))
    else:
        say(
            f"{path}: {trained.vote.aggregator} vote of {len(trained.vote.members)} members, {size / 1e6:.1f} MB; "
            f"images uint8 [N, {shape}] -> probabilities [N, {len(trained.class_names)}], classes [N]\n{checked.sentence}"
        )


@click.command()
@RUN
@click.option("--out", type=FILE, help="The file; without it the card goes to stdout.")
def card(run: str, out: Path | None) -> None:
    """Write the model card of a RUN as Markdown, every field filled from the run."""
    from ensemble.report.card import model_card
    from ensemble.results.judging import find_run
    from ensemble.storage.atomic import write_bytes

    text = model_card(find_run(run, Path("runs")))
    if out is None:
        say(text, nl=False)
    else:
        write_bytes(out, text.encode())
        say(f"card: {out}", err=True)


@click.command()
@RUN
@AGGREGATOR
@TRUST
@AS_JSON
def cost(run: str, aggregator: Aggregator | None, trust_code: bool, as_json: bool) -> None:
    """Measure what a prediction of a RUN takes on this machine: the whole vote, the single model that validation picks, the network on all rows.

    From images as bytes to probabilities, in one process; medians over about a second each. What is measured is kept with the run,
    for its leaderboards, in place of what was measured more briefly at its end.
    """
    from ensemble.inference.cost import costs_text, machine, measure, to_store
    from ensemble.inference.trained import load_ensemble
    from ensemble.results.judging import find_run, judge
    from ensemble.storage import RunFolder

    path = find_run(run, Path("runs"))
    trained = load_ensemble(path, aggregator=aggregator, trust_code=trust_code)
    costs = measure(trained, judge(RunFolder.read(path), aggregator))
    if as_json:
        say(json.dumps({"machine": machine(trained), "costs": [one.to_json() for one in costs]}, indent=1))
    else:
        say(f"{machine(trained)}\n\n{costs_text(costs)}")
    if aggregator in (None, trained.vote.experiment.aggregator):
        _keep(path, to_store(costs, trained))


def _keep(path: Path, costs: CostFile) -> None:
    """Keep what was measured with the run, where that can be: the figures have been said already."""
    from ensemble.run.kept_costs import keep_costs

    try:
        keep_costs(path, costs)
    except StorageError as error:
        say(f"note: not kept with the run: {error}", err=True)


COMMANDS = (predict, export, card, cost)
