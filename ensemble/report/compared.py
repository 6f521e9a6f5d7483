"""A comparison as text: the table of systems, the sentence about the joint vote, and the pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ensemble.evaluation.comparing import ComparedLine, Comparison
from ensemble.evaluation.verdict import ALPHA
from ensemble.report import wording

if TYPE_CHECKING:
    from rich.console import Console

HEADERS = ("", "error %", "95 % int.", "wrong", "difference", "p", "val %", "NLL", "voters", "seconds")
NARROW = ("", "error %", "95 % int.", "difference", "p")
PAIRS_SHOWN = 15
LINES_SHOWN = 24


def cells(line: ComparedLine) -> tuple[str, ...]:
    """One line of the table, in the order of HEADERS."""
    difference = wording.NONE if line.only_this_wrong is None else f"{100 * line.difference:+.2f}"
    return (
        line.name,
        wording.percent(line.test_error),
        wording.percent_interval(line.lower, line.upper),
        wording.count(line.wrong),
        difference,
        wording.p_value(line.p_holm),
        wording.percent(line.validation_error),
        wording.loss(line.nll),
        str(line.voters),
        wording.seconds(line.train_seconds),
    )


def sentence(comparison: Comparison, line: ComparedLine) -> str:
    """What the test says about a line and the reference."""
    claim = "is not distinguishable from"
    if line.p_holm < ALPHA:
        claim = "is better than" if line.difference < 0 else "is worse than"
    reference = next(one for one in comparison.lines if one.name == comparison.reference)
    p = wording.p_value(line.p_holm)
    return (
        f"The {line.name} {claim} {comparison.reference}: test error {wording.percent(line.test_error)} % against "
        f"{wording.percent(reference.test_error)} %, a difference of {100 * line.difference:+.2f} points (95 % interval "
        f"{100 * line.difference_lower:+.2f} to {100 * line.difference_upper:+.2f}; p {'< ' + p[1:] if p.startswith('<') else '= ' + p})."
    )


def notes(comparison: Comparison) -> list[str]:
    """What the columns mean."""
    return [
        f"difference: points of error against {comparison.reference}, the reference (the first item, or --reference).",
        "p: exact McNemar test against the reference on the same images, adjusted for the number of lines (Holm).",
    ]


def print_comparison(comparison: Comparison) -> None:
    """Print it to stdout; a narrow terminal shows fewer columns and of many members the best and worst."""
    from ensemble.terminal import open_table_console

    console = open_table_console()
    if console.is_terminal:
        _show(console, comparison)
        return
    with console.capture() as captured:
        _show(console, comparison)
    # rich fills every line up with spaces, which a file or a diff has no use for.
    console.file.write("".join(line.rstrip() + "\n" for line in captured.get().splitlines()))


def _show(console: Console, comparison: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    name = comparison.dataset or "foreign probabilities"
    console.print(Text(f"{name}: {len(comparison.lines)} lines on {comparison.test_rows:,} test images", style="bold"))
    console.print()
    wide = console.width >= 100
    shown = [i for i, title in enumerate(HEADERS) if wide or title in NARROW]
    table = Table(box=None, header_style="bold", padding=(0, 2 if wide else 1, 0, 0), pad_edge=False)
    for i in shown:
        table.add_column(HEADERS[i], justify="right" if i else "left", no_wrap=i > 0, overflow="fold")
    for line in _shown_lines(comparison):
        row = ("...",) + ("",) * (len(HEADERS) - 1) if line is None else cells(line)
        is_reference = line is not None and line.name == comparison.reference
        label = row[0] + (" (reference)" if is_reference else "")
        joint = line is not None and line.kind == "joint"
        table.add_row(label, *(row[i] for i in shown[1:]), style="bold" if joint else "")
    console.print(table)
    console.print()
    for line in comparison.lines:
        if line.kind == "joint":
            console.print(Text(sentence(comparison, line)))
    console.print()
    _print_pairs(console, comparison)
    for note in notes(comparison):
        console.print(Text(note))


def _shown_lines(comparison: Comparison) -> list[ComparedLine | None]:
    """All lines, or of many the joint votes, the reference and the ends of the others by test error."""
    if len(comparison.lines) <= LINES_SHOWN:
        return list(comparison.lines)
    kept = [one for one in comparison.lines if one.kind == "joint" or one.name == comparison.reference]
    others = sorted((one for one in comparison.lines if one not in kept), key=lambda one: one.test_error)
    half = (LINES_SHOWN - len(kept)) // 2
    return [*kept, *others[:half], None, *others[-half:]]


def _print_pairs(console: Console, comparison: Comparison) -> None:
    from rich.table import Table
    from rich.text import Text

    if not 1 < len(comparison.pairs) <= PAIRS_SHOWN:
        if len(comparison.pairs) > PAIRS_SHOWN:
            console.print(Text(f"{len(comparison.pairs):,} pairs of systems: all of them with --json"))
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("each pair", overflow="fold")
    for title in ("only 1st wrong", "only 2nd wrong", "p (Holm)"):
        table.add_column(title, justify="right", no_wrap=True)
    for pair in comparison.pairs:
        counts = (str(pair.only_first_wrong), str(pair.only_second_wrong))
        table.add_row(f"{pair.first} - {pair.second}", *counts, wording.p_value(pair.p_holm))
    console.print(table)
    console.print()


def comparison_markdown(comparison: Comparison) -> str:
    """The table, the sentences and the notes for a README."""
    lines = [
        "| " + " | ".join(HEADERS) + " |",
        "|---|" + "---:|" * (len(HEADERS) - 1),
        *("| " + " | ".join(cells(line)).replace("|", "\\|", 0) + " |" for line in comparison.lines),
    ]
    texts = [sentence(comparison, line) for line in comparison.lines if line.kind == "joint"]
    return (
        "\n".join([*lines, "", *(f"{text}\n" for text in texts), *(f"- {note}" for note in notes(comparison))]) + "\n"
    )
