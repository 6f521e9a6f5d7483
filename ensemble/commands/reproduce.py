"""`ensemble reproduce`: published single networks, trained again over seeds. `cli` adds it to the other commands."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble.commands.words import GivenPath, say
from ensemble.errors import ConfigError

if TYPE_CHECKING:
    from ensemble.config import Experiment
    from ensemble.evaluation.records import Evaluation
    from ensemble.results.reproduction import Reproduced, SeedRow


@click.command()
@click.argument("rows", nargs=-1, metavar="[ROW]... [KEY=VALUE]...")
@click.option("--out", type=GivenPath(file=False), help="Write table and figures here.")
@click.option("--list", "only_list", is_flag=True, help="List the rows and what was published.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
@click.option("-q", "--quiet", is_flag=True, help="No progress; errors and the result only.")
def reproduce(rows: tuple[str, ...], out: Path | None, only_list: bool, as_json: bool, quiet: bool) -> None:
    """Train published single networks over several seeds and print ours beside the published figures.

    ROW names a configuration of configs/seeds/ (all where none is named); seeds=5 says how many networks per row, and
    other KEY=VALUE replace values of the files, ROW.KEY=VALUE of one file only. The epoch is chosen on validation, the test set read once.
    """
    from ensemble.report.keeping import mark_of, refuse_other
    from ensemble.report.reproduced import TABLE, print_reproduced
    from ensemble.results.reproduction import chosen_rows
    from ensemble.results.reproduction import reproduce as train_rows

    values = [word for word in rows if "=" in word]
    chosen = chosen_rows([word for word in rows if "=" not in word])
    if only_list:
        if values or out is not None:
            raise click.UsageError(
                f"--list trains nothing, so {values[0] if values else '--out'} has no effect; leave one of them out"
            )
        _list(chosen, as_json)
        return
    seeds, overrides = _seeds(values)
    mark = mark_of("reproduce", sorted(row.name for row in chosen))
    if out is not None:
        refuse_other(out / TABLE, mark, "the table of other rows")
    results = train_rows(chosen, seeds, overrides, lambda experiment: _train(experiment, quiet))
    if out is not None:
        _write(results, out, mark)
    if as_json:
        say(json.dumps([result.to_json() for result in results], indent=1))
    else:
        print_reproduced(results)


def _list(chosen: Sequence[SeedRow], as_json: bool) -> None:
    if as_json:
        rows = [
            {"name": row.name, "system": row.system, "how": row.how, "published_error": row.published} for row in chosen
        ]
        say(json.dumps(rows, indent=1))
        return
    for row in chosen:
        published = "-" if row.published is None else f"{100 * row.published:.2f} %"
        say(f"{row.name:<22} {published:>7}  {row.system} {row.how and f'({row.how})'}".rstrip())


def _seeds(words: list[str]) -> tuple[int | None, list[str]]:
    """The number in seeds=N, and the words that are overrides."""
    given = [word.partition("=")[2] for word in words if word.startswith("seeds=")]
    others = [word for word in words if not word.startswith("seeds=")]
    if not given:
        return None, others
    if len(given) > 1 or not given[0].isdigit() or int(given[0]) < 1:
        raise ConfigError(f"seeds={' seeds='.join(given)}: expected one whole number of at least 1, such as seeds=5")
    return int(given[0]), others


def _train(experiment: Experiment, quiet: bool) -> tuple[Path, Evaluation]:
    from ensemble.run.compose import run_experiment

    outcome = run_experiment(experiment, "warnings" if quiet else "progress")
    return outcome.path, outcome.evaluation


def _write(results: list[Reproduced], out: Path, mark: str) -> None:
    from ensemble.config.loading import parse_stored
    from ensemble.data import load_dataset
    from ensemble.report.reproduced import TABLE, markdown
    from ensemble.report.seed_figures import write_sample_figures, write_seed_figures
    from ensemble.storage import RunFolder
    from ensemble.storage.atomic import write_bytes

    write_bytes(out / TABLE, markdown(results, mark).encode())
    write_seed_figures(results, out)
    shown = results[0]
    folder = RunFolder.read(shown.path)
    dataset = load_dataset(parse_stored(folder.config()).data)
    votes = folder.load_member(0).votes.test_NK
    write_sample_figures(
        out, dataset.test_images_NCHW, dataset.test_labels_N, dataset.class_names, votes, shown.row.system
    )
    say(f"table and figures: {out}", err=True)


COMMANDS = (reproduce,)
