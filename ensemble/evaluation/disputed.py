"""The test rows that the members dispute most, with who said what."""

from __future__ import annotations

import numpy as np

from ensemble.evaluation.aggregation import Decision
from ensemble.evaluation.decomposition import UncertaintyTerms
from ensemble.evaluation.records import DisputedRow
from ensemble.evaluation.risk import most_disputed
from ensemble.evaluation.splits import SplitVotes


def disputed_rows(test: SplitVotes, vote: Decision, terms: UncertaintyTerms) -> tuple[DisputedRow, ...]:
    """The test rows with the most dispute, worst first."""
    classes_MN = test.favourites_MN
    return tuple(
        DisputedRow(
            row=int(row),
            label=int(test.labels_N[row]),
            predicted=int(vote.classes_N[row]),
            votes=tuple(np.bincount(classes_MN[:, row], minlength=test.num_classes).tolist()),
            member_classes=tuple(classes_MN[:, row].tolist()),
            entropy=float(terms.total_N[row]),
            mutual_information=float(terms.epistemic_N[row]),
        )
        for row in most_disputed(terms.epistemic_N, classes_MN)
    )
