"""What went wrong in a run, as text: one line per member that failed, and why a method ended early."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ensemble.errors import EXIT_DEGRADED
from ensemble.report import wording
from ensemble.storage.remote import address_of
from ensemble.types import Failure


def failure_lines(failures: Sequence[Failure], ended_early: Sequence[str], folder: Path) -> list[str]:
    """The table of failed members (tries and time lost over all of them, where the trace lies) and its explanation."""
    lines = []
    if failures:
        lines.append(
            f"{wording.plural(len(failures), 'member')} failed and {'does' if len(failures) == 1 else 'do'} not vote (the ensemble is smaller than asked; exit code {EXIT_DEGRADED}):"
        )
        rows = [("member", "kind", "tries", "lost s", "reason")]
        rows += [(str(f.index), f.kind, str(f.tries), wording.seconds(f.seconds_lost), f.reason) for f in failures]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        for row in rows:
            cells = [row[0].rjust(widths[0]), row[1].ljust(widths[1]), row[2].rjust(widths[2]), row[3].rjust(widths[3])]
            lines.append("  " + "  ".join([*cells, row[4]]))
        if any(f.details for f in failures):
            lines.append(
                f"whole traces: {address_of(folder) or folder}/failures; start the same command again to try them again"
            )
    if ended_early:
        lines.append(f"the method ended before it had all members asked for (exit code {EXIT_DEGRADED}):")
        lines += [f"  {why}" for why in ended_early]
    return lines
