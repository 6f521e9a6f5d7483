"""`ensemble compare`: runs, members and foreign probabilities on the same test rows. `cli` adds it to the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ensemble.commands.words import GivenPath, say

if TYPE_CHECKING:
    from ensemble.config.schema import Aggregator

FILE = GivenPath()


@click.command()
@click.argument("items", nargs=-1, required=True, metavar="ITEM...")
@click.option(
    "--aggregator",
    type=click.Choice(["soft", "hard", "geometric"]),
    default="soft",
    show_default=True,
    help="Rule of the joint vote.",
)
@click.option("--reference", help="Line all others are tested against; by default the first.")
@click.option("--labels", type=FILE, help="True classes of the test rows, where no ITEM has them.")
@click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True, max_open=True),
    metavar="POINTS",
    help="Also test whether each line is as good as the reference, within so many percentage points of error, such as 0.1.",
)
@click.option(
    "--on",
    metavar="SET[:PART]",
    help="Compare on a further set that the runs have voted on, such as 'corrupted:fog 5', instead of the test images.",
)
@click.option(
    "--out", type=FILE, help="Also write the table here: as LaTeX where the name ends in .tex, else as Markdown."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")
def compare(
    items: tuple[str, ...],
    aggregator: Aggregator,
    reference: str | None,
    labels: Path | None,
    margin: float | None,
    on: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Judge several ITEMS on the same test images: each alone, as one joint vote, and pair by pair.

    \b
    ITEM is one of
      RUN            the vote of a run (its folder, or its name under runs/)
      RUN:INDEX      one member of it;  RUN:members  each of them
      FILE.npz       test_probs [N, K] or [M, N, K], and test_labels [N] if wanted
      FILE.npy       the array test_probs alone
      FILE.csv       columns p0,p1,... and, if wanted, label; one line per test image

    Rows are the test images in the data set's order.
    """  # fmt: skip
    from ensemble.report.compared import comparison_latex, comparison_markdown, print_comparison
    from ensemble.report.keeping import mark_of, refuse_other
    from ensemble.results.comparison import compare_items
    from ensemble.storage.atomic import write_bytes

    mark = mark_of(
        "compare", [*items, aggregator, reference or "", str(labels or ""), *(str(one) for one in (margin, on) if one)]
    )
    if out is not None:
        refuse_other(out, mark, "the table of another comparison")
    share = float("nan") if margin is None else margin / 100
    comparison = compare_items(items, aggregator, reference, labels, margin=share, on=on)
    if out is not None:
        written = comparison_latex if out.suffix == ".tex" else comparison_markdown
        write_bytes(out, written(comparison, mark).encode())
    if as_json:
        say(json.dumps(comparison.to_json(), indent=1))
    else:
        print_comparison(comparison)


COMMANDS = (compare,)
