"""The tables of a run for papers and spreadsheets: tables/NAME.tex and NAME.csv beside its figures.

The LaTeX needs \\\\usepackage{booktabs}. The CSV has the numbers with all digits, rates as fractions; the LaTeX has them as the page does.
"""

from __future__ import annotations

from pathlib import Path

from ensemble.evaluation.paper_table import PaperTable
from ensemble.evaluation.records import Evaluation
from ensemble.outside.names import shown
from ensemble.report.section_parts import section_tables
from ensemble.report.set_tables import further_tables
from ensemble.report.tables import leaderboard_cells, leaderboard_csv
from ensemble.results.line_costs import LineCosts
from ensemble.storage.atomic import write_bytes

TABLES = "tables"
_SIGNS = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def escaped(text: str) -> str:
    """Text in which nothing is a command of LaTeX."""
    return "".join(_SIGNS.get(sign, sign) for sign in shown(text, 4096))


def latex(table: PaperTable, mark: str = "") -> str:
    """The table as a LaTeX float. mark: by which the file is known again, see `keeping`."""
    lines = []
    for place, row in enumerate(table.rows):
        if row is None:
            lines.append(r"\midrule")
            continue
        cells = [escaped(cell) for cell in row]
        if cells[0][:1] in ("[", "*"):  # which would belong to the line's end before it
            cells[0] = "{}" + cells[0]
        if place in table.bold:
            cells = [rf"\textbf{{{cell}}}" if cell else "" for cell in cells]
        lines.append(" & ".join(cells) + r" \\")
    head = " & ".join(map(escaped, table.headers)) + r" \\"
    return "\n".join([
        *([f"% {mark}"] if mark else []),
        r"\begin{table}", r"\centering", rf"\caption{{{escaped(table.caption)}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.headers) - 1)}}}", r"\toprule", head, r"\midrule", *lines, r"\bottomrule",
        r"\end{tabular}", r"\end{table}", "",
    ])  # fmt: skip


def run_tables(evaluation: Evaluation, costs: LineCosts | None = None) -> list[PaperTable]:
    """The leaderboard, the further sets, and what every section has for papers."""
    headers, rows, bold = leaderboard_cells(evaluation, costs)
    return [
        PaperTable("leaderboard", evaluation.verdict.sentence, headers, rows, leaderboard_csv(evaluation, costs), bold),
        *further_tables(evaluation),
        *section_tables(evaluation),
    ]


def write_tables(evaluation: Evaluation, folder: Path, costs: LineCosts | None = None) -> list[Path]:
    """Write NAME.tex and NAME.csv of each; returns the paths."""
    paths = []
    for table in run_tables(evaluation, costs):
        for suffix, text in ((".tex", latex(table)), (".csv", table.csv)):
            write_bytes(folder / f"{table.name}{suffix}", text.encode(errors="backslashreplace"))
            paths.append(folder / f"{table.name}{suffix}")
    return paths
