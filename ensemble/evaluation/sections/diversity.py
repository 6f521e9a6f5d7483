"""How different the members are on the test rows, pair by pair (`diversity`)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ensemble.evaluation import diversity as pairwise
from ensemble.evaluation.metrics import wrong_rows
from ensemble.evaluation.paper_table import PaperTable, records_csv
from ensemble.evaluation.record_base import NAN, Number, Record
from ensemble.evaluation.section import About, EvaluationSection, JudgedVotes, register_section
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.views import Cell, SectionTable
from ensemble.evaluation.written import loss, percent, percent_interval
from ensemble.types import DoubleArray, IntArray

PAIRED_MEMBERS = 1500  # members whose pairs are all measured
MATRIX_MEMBERS = 100  # members of the matrices kept: they grow with the square, and nobody reads larger ones


@dataclass(frozen=True)
class PairMeasure(Record):
    """A diversity measure over all pairs of members; undefined pairs (0/0) are counted and left out."""

    name: str
    mean: Number
    lowest: Number
    highest: Number
    undefined: int


@dataclass(frozen=True)
class Diversity(Record):
    """How different the members are on the test rows. disagreement: share of rows with different predicted classes.

    The matrices are of the first members only where there are many (`MATRIX_MEMBERS`); the measures are over
    all pairs, of very many members (`PAIRED_MEMBERS`) of some at equal distances.
    """

    measures: tuple[PairMeasure, ...]
    disagreement: tuple[tuple[float, ...], ...]
    double_fault: tuple[tuple[float, ...], ...]


@register_section
class DiversitySection(EvaluationSection[Diversity]):
    name, title, record = "diversity", "Diversity", Diversity

    def compute(self, votes: JudgedVotes, _chosen: Any) -> Diversity:
        """All pairwise measures; the two that are plain shares of rows also as matrices, of the first MATRIX_MEMBERS members.

        Of more than PAIRED_MEMBERS members, as many at equal distances are paired: the pairs of ten thousand take gigabytes.
        """
        test = votes.test
        classes_MN, members = test.favourites_MN, test.num_members
        if members <= PAIRED_MEMBERS:
            found = kept = _pairwise(classes_MN, test)
        else:
            found = _pairwise(classes_MN[np.linspace(0, members - 1, PAIRED_MEMBERS).round().astype(np.int64)], test)
            kept = _pairwise(classes_MN[:MATRIX_MEMBERS], test)
        return Diversity(
            measures=tuple(_measure(name, values) for name, values in found.items()),
            disagreement=_rows(kept["disagreement"]),
            double_fault=_rows(kept["double_fault"]),
        )

    def cautions(self, _found: Diversity, votes: JudgedVotes) -> Iterable[str]:
        """What is not held pair by pair; nothing for ensembles of a usual size."""
        members = votes.test.num_members
        if members > MATRIX_MEMBERS:
            paired = (
                "all pairs"
                if members <= PAIRED_MEMBERS
                else f"all pairs of {PAIRED_MEMBERS:,} members at equal distances"
            )
            yield f"disagreement and double fault are kept pair by pair for the first {MATRIX_MEMBERS} of {members:,} members; means, lowest and highest values of measures of pairs are over {paired}"

    def lines(self, found: Diversity, _about: About) -> Iterable[str]:
        measure = next(one for one in found.measures if one.name == "disagreement")
        if not math.isnan(measure.mean):
            yield (
                f"Disagreement: two members differ on {percent(measure.mean)} % of the test images on average "
                f"({percent_interval(measure.lowest, measure.highest)} over the pairs)."
            )

    def table(self, found: Diversity) -> SectionTable:
        rows: tuple[tuple[str | Cell, ...], ...] = tuple(
            (
                one.name.replace("_", " "), *(Cell(f"measures.{i}.{key}") for key in ("mean", "lowest", "highest")),
                Cell(f"measures.{i}.undefined", "count"),
            )
            for i, one in enumerate(found.measures)
        )  # fmt: skip
        return SectionTable(
            ("measure", "mean", "lowest", "highest", ("undefined", "pairs for which it is 0/0")), rows, "Between two members",
            "Disagreement: share of images on which two members name different classes. Q (Yule), correlation and kappa (Cohen) are of being right: 0 independent, 1 always together. Double fault: share of images both get wrong. Undefined: pairs for which it is 0/0.",
        )  # fmt: skip

    def paper_tables(self, found: Diversity) -> Iterable[PaperTable]:
        rows = [
            (one.name.replace("_", " "), loss(one.mean), loss(one.lowest), loss(one.highest)) for one in found.measures
        ]
        yield PaperTable(
            "diversity", "Measures of diversity over all pairs of members, on the test images.",
            ("measure", "mean", "lowest", "highest"), tuple(rows), records_csv(PairMeasure, found.measures),
        )  # fmt: skip


def _pairwise(classes_MN: IntArray, test: SplitVotes) -> dict[str, DoubleArray]:
    """Each measure of every pair of these members, by name."""
    counts = pairwise.pair_counts(wrong_rows(classes_MN, test.labels_N))
    return {
        "disagreement": pairwise.label_disagreement(classes_MN, test.num_classes),
        "q_statistic": pairwise.q_statistic(counts),
        "correlation": pairwise.error_correlation(counts),
        "kappa": pairwise.correctness_kappa(counts),
        "double_fault": pairwise.double_fault(counts),
    }


def _measure(name: str, values_MM: DoubleArray) -> PairMeasure:
    values = pairwise.pairs(values_MM)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return PairMeasure(name, NAN, NAN, NAN, len(values))
    return PairMeasure(
        name, float(defined.mean()), float(defined.min()), float(defined.max()), len(values) - len(defined)
    )


def _rows(values_MM: DoubleArray) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in values_MM[:MATRIX_MEMBERS, :MATRIX_MEMBERS].tolist())
