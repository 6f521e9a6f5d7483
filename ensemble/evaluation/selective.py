"""Selective prediction: answering only the rows a score is most certain of, and what that saves in errors.

Selective risk is the error among the rows answered, coverage their share of all rows. Rows of equal confidence are answered
together, here as in `risk.risk_coverage`, whose AURC is the mean over all rows of the risk when that row's group is answered.

torch-uncertainty 0.13 has other digits for the same names: it takes the trapezoid over coverages 1/N..1 and divides by 1 - 1/N,
and lets argsort decide among equal confidences. Without equal confidences its AURC and AUGRC are

    a + (a - (r_1 + r_N) / 2) / (N - 1)

for our area a and the curve's first and last value r_1 and r_N: less than 1e-6 off for 10,000 rows with an error of 5 %, about 2e-4
for 100 rows. With ten distinct confidences both are about 2e-3 lower than here for 10,000 rows, and change with the order of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ensemble.evaluation.bootstrap import bootstrap_p, percentile_interval
from ensemble.evaluation.risk import RiskCurve, risk_coverage
from ensemble.evaluation.statistics import PairedDifference
from ensemble.types import DoubleArray, IntArray

BoolArray = npt.NDArray[np.bool_]
BAND_DRAWS = 1000
DIFFERENCE_DRAWS = 2000
TOGETHER = 20_000  # rows of bootstrap draws at a time


class Answered(NamedTuple):
    """Rows answered and those of them in error, for each of G distinct confidences as the lowest one answered, highest first."""

    confidence_G: DoubleArray
    answered_G: IntArray
    wrong_G: IntArray


class RiskBand(NamedTuple):
    """Selective risk at each of C coverages with both ends of its pointwise interval."""

    coverage_C: DoubleArray
    risk_C: DoubleArray
    lower_C: DoubleArray
    upper_C: DoubleArray


class _Ranked(NamedTuple):
    """The order of N rows, the most certain first, and where each of G groups of equal confidence ends in it."""

    order_N: IntArray
    ends_G: IntArray


def answered_together(confidence_N: DoubleArray, wrong_N: BoolArray) -> Answered:
    """What is answered at each distinct confidence, as counts.

    Parameters
    ----------
    confidence_N, wrong_N
        A score that is higher for surer rows, and which rows are in error, both of shape (N,); at least one row, no NaN.
    """
    order_N, ends_G = _rank(confidence_N, wrong_N)
    return Answered(confidence_N[order_N][ends_G], ends_G + 1, np.cumsum(wrong_N[order_N], dtype=np.int64)[ends_G])


def aurc(confidence_N: DoubleArray, wrong_N: BoolArray) -> float:
    """Area under the risk-coverage curve (Geifman and El-Yaniv 2017; `risk_coverage`), the mean of the selective risk over all rows.

    Parameters
    ----------
    confidence_N, wrong_N
        As in `answered_together`.
    """
    return risk_coverage(confidence_N, wrong_N).area


def excess_aurc(confidence_N: DoubleArray, wrong_N: BoolArray) -> float:
    """E-AURC (Geifman, Uziel and El-Yaniv 2019): AURC minus that of the perfect order, all right rows before all wrong ones.

    The perfect order's is summed over the rows, sum_j j / (N - W + j) / N for j = 1..W wrong rows, not taken from the paper's
    approximation r + (1 - r) ln(1 - r). Never negative; 0 for the perfect order without equal confidences.

    Parameters
    ----------
    confidence_N, wrong_N
        As in `answered_together`.
    """
    wrong, rows = int(wrong_N.sum()), len(wrong_N)
    perfect = float(np.sum(np.arange(1, wrong + 1) / np.arange(rows - wrong + 1, rows + 1))) / rows
    return max(0.0, aurc(confidence_N, wrong_N) - perfect)  # never negative by rounding


def augrc(confidence_N: DoubleArray, wrong_N: BoolArray) -> float:
    """AUGRC (Traub et al. 2024): the mean over coverages of errors among the rows answered / all rows.

    Unlike AURC it does not weigh the most certain rows' errors more. The estimator is the mean over all rows, each at the end of its
    group of equal confidences, as for AURC. Without equal confidences it is the paper's closed form plus r / (2 N):

        (1 - AUROC) r (1 - r) + r^2 / 2 + r / (2 N),   r the error, AUROC that of telling right rows from wrong ones.

    Parameters
    ----------
    confidence_N, wrong_N
        As in `answered_together`.

    Returns
    -------
    The area, in [0, 1]; at best r^2 / 2 + r / (2 N).
    """
    found = answered_together(confidence_N, wrong_N)
    return float(np.dot(np.diff(found.answered_G, prepend=0), found.wrong_G)) / len(wrong_N) ** 2


def coverage_at_risk(confidence_N: DoubleArray, wrong_N: BoolArray, risk: float) -> float:
    """The largest coverage whose selective risk is at most `risk`; 0 where there is none (torch-uncertainty: NaN).

    Not a promise for other rows: see `promise`.

    Parameters
    ----------
    confidence_N, wrong_N
        As in `answered_together`.
    risk
        Error among the rows answered, in [0, 1].
    """
    found = answered_together(confidence_N, wrong_N)
    enough = np.flatnonzero(found.wrong_G / found.answered_G <= risk)
    return float(found.answered_G[enough[-1]] / len(wrong_N)) if len(enough) else 0.0


def risk_at_coverage(confidence_N: DoubleArray, wrong_N: BoolArray, coverage: float) -> float:
    """Error among the fewest most certain rows that make up at least this share of all rows.

    Parameters
    ----------
    confidence_N, wrong_N
        As in `answered_together`.
    coverage
        In (0, 1].
    """
    assert 0 < coverage <= 1, f"coverage must lie in (0, 1], found {coverage:g}"
    found = answered_together(confidence_N, wrong_N)
    g = int(np.searchsorted(found.answered_G / len(wrong_N), coverage, side="left"))
    return float(found.wrong_G[g] / found.answered_G[g])


def risk_band(
    confidence_N: DoubleArray,
    wrong_N: BoolArray,
    coverages: Sequence[float],
    seed: int,
    confidence: float = 0.95,
    draws: int = BAND_DRAWS,
) -> RiskBand:
    """Pointwise bootstrap percentile band of `risk_at_coverage` (Efron and Tibshirani 1993, chapter 13), rows drawn with their errors.

    Parameters
    ----------
    confidence_N, wrong_N
        As in `answered_together`.
    coverages
        Where the band is wanted, each in (0, 1].
    seed
        Of the draws; the same seed gives the same band.
    confidence
        Coverage of the interval at each point, in (0, 1).
    draws
        Number of bootstrap draws, D below.
    """
    assert all(0 < coverage <= 1 for coverage in coverages), f"coverages must lie in (0, 1], found {coverages}"
    rows, coverage_C = len(wrong_N), np.asarray(coverages, np.float64)
    order_N, ends_G = _rank(confidence_N, wrong_N)
    wrong_W = np.flatnonzero(wrong_N[order_N])  # places of the wrong rows in the order
    before_G = np.searchsorted(wrong_W, ends_G, side="right")  # how many of them there are up to each end
    # The fewest rows that are a coverage, as a division of counts has it.
    enough_C = np.searchsorted(np.arange(rows + 1) / rows, coverage_C, side="left")
    drawn = list[DoubleArray]()
    for counts_TN in _drawn_counts(rows, seed, draws):
        for counts_N in np.atleast_2d(counts_TN):
            sorted_N = counts_N[order_N]
            answered_G = np.cumsum(sorted_N)[ends_G]
            wrong_upto_W = np.concatenate(([0], np.cumsum(sorted_N[wrong_W])))
            g_C = np.searchsorted(answered_G, enough_C, side="left")
            drawn.append(wrong_upto_W[before_G[g_C]] / answered_G[g_C])
    drawn_DC = np.array(drawn)
    tail = (1 - confidence) / 2
    lower_C, upper_C = np.quantile(drawn_DC, [tail, 1 - tail], axis=0)
    answered = ends_G + 1
    g_C = np.searchsorted(answered, enough_C, side="left")
    return RiskBand(coverage_C, before_G[g_C] / answered[g_C], lower_C, upper_C)


def paired_aurc_difference(
    confidence_a_N: DoubleArray,
    wrong_a_N: BoolArray,
    confidence_b_N: DoubleArray,
    wrong_b_N: BoolArray,
    seed: int,
    confidence: float = 0.95,
    draws: int = DIFFERENCE_DRAWS,
) -> PairedDifference:
    """Difference of two AURCs on the same rows (negative: a is better), its bootstrap interval and two-sided p-value.

    Each draw of rows serves both. With s draws of D on the other side of 0 or at it, p = 2 (s + 1) / (D + 1) (Davison and Hinkley
    1997, section 4.2), and the interval goes from the j-th smallest to the j-th largest draw, j the largest number with
    2 j / (D + 1) < 1 - confidence: so it leaves out 0 exactly when p < 1 - confidence.

    Parameters
    ----------
    confidence_a_N, wrong_a_N, confidence_b_N, wrong_b_N
        As in `answered_together`, row n the same image in all four.
    seed
        Of the draws; the same seed gives the same result.
    confidence
        Coverage of the interval, in (0, 1).
    draws
        Number of bootstrap draws.
    """
    rows = len(wrong_a_N)
    assert len(wrong_b_N) == rows, f"the same rows are needed for both, found {rows} and {len(wrong_b_N)}"
    a, b = _DrawnAurc(confidence_a_N, wrong_a_N), _DrawnAurc(confidence_b_N, wrong_b_N)
    drawn_D = np.hstack([a.of(counts_TN) - b.of(counts_TN) for counts_TN in _drawn_counts(rows, seed, draws)])
    difference = aurc(confidence_a_N, wrong_a_N) - aurc(confidence_b_N, wrong_b_N)
    return PairedDifference(difference, *percentile_interval(drawn_D, confidence), bootstrap_p(drawn_D))


def scod_risk_coverage(
    confidence_known_N: DoubleArray, wrong_known_N: BoolArray, confidence_unknown_U: DoubleArray
) -> RiskCurve:
    """Risk-coverage curve of known and unknown images mixed, where every unknown image that is answered is an error (SCOD).

    Selective classification in the presence of out-of-distribution data (Xia and Bouganis 2022): one risk for misclassified known
    images and for accepted unknown ones, each of cost 1; `area` is its AURC. torch-uncertainty 0.13's SCODAURC has cost 1/2 for both
    unless told otherwise, so its figures are half of these, apart from the trapezoid (see above). Both depend on the ratio of known
    to unknown images.

    Parameters
    ----------
    confidence_known_N, wrong_known_N
        As in `answered_together`, for the known images.
    confidence_unknown_U
        The same score of the unknown images, shape (U,).
    """
    wrong = np.concatenate([wrong_known_N, np.ones(len(confidence_unknown_U), np.bool_)])
    return risk_coverage(np.concatenate([confidence_known_N, confidence_unknown_U]), wrong)


def _rank(confidence_N: DoubleArray, wrong_N: BoolArray) -> _Ranked:
    assert confidence_N.shape == wrong_N.shape, f"{confidence_N.shape} confidences, but {wrong_N.shape} errors"
    assert len(wrong_N) > 0, "there are no rows"
    assert not np.isnan(confidence_N).any(), f"{int(np.isnan(confidence_N).sum())} confidences are NaN"
    order_N = np.argsort(-confidence_N, kind="stable")
    sorted_N = confidence_N[order_N]
    return _Ranked(order_N, np.flatnonzero(np.append(sorted_N[1:] != sorted_N[:-1], True)))


class _DrawnAurc:
    """AURCs of bootstrap draws of rows with these confidences and errors."""

    def __init__(self, confidence_N: DoubleArray, wrong_N: BoolArray) -> None:
        order_N, ends_G = _rank(confidence_N, wrong_N)
        wrong_sorted_N = wrong_N[order_N]
        # The risk is 0 as far as nothing is wrong.
        group = int(np.searchsorted(ends_G, wrong_sorted_N.argmax()))
        first = int(ends_G[group - 1]) + 1 if group else 0
        self._rows, self._order_M, self._wrong_M = len(wrong_N), order_N[first:], wrong_sorted_N[first:]
        self._ends_G = ends_G[group:] - first
        self._ties = len(self._ends_G) < len(self._order_M)

    def of(self, counts_TN: IntArray) -> DoubleArray:
        """Of T draws, shape (T,), where draw t holds row n counts_TN[t, n] times; of one draw's counts, shape (N,), a number."""
        sizes_TG = counts_TN.take(self._order_M, axis=-1)
        upto_TG, wrong_TG = np.cumsum(sizes_TG, axis=-1), np.cumsum(sizes_TG * self._wrong_M, axis=-1)
        before_T = self._rows - upto_TG[..., -1:]
        if self._ties:
            upto_TG, wrong_TG = upto_TG.take(self._ends_G, axis=-1), wrong_TG.take(self._ends_G, axis=-1)
            sizes_TG = np.diff(upto_TG, prepend=0, axis=-1)
        # Groups before the first row drawn have no rows and no weight.
        risk_TG = wrong_TG / np.maximum(upto_TG + before_T, 1)
        if risk_TG.ndim == 1:
            return np.dot(sizes_TG, risk_TG) / self._rows  # type: ignore[no-any-return]
        return np.einsum("tg,tg->t", sizes_TG, risk_TG) / self._rows  # type: ignore[no-any-return]


def _drawn_counts(rows: int, seed: int, draws: int) -> Iterator[IntArray]:
    """How often each row is in each bootstrap draw: of few rows [T, N] for T draws at a time, which saves most of the time, else [N]."""
    generator, together = np.random.default_rng(seed), TOGETHER // rows
    if together < 8:
        for _ in range(draws):
            yield np.bincount(generator.integers(rows, size=rows), minlength=rows)
        return
    for begun in range(0, draws, together):
        drawn_TN = generator.integers(rows, size=(min(together, draws - begun), rows))
        drawn_TN += rows * np.arange(len(drawn_TN))[:, None]
        yield np.bincount(drawn_TN.ravel(), minlength=drawn_TN.size).reshape(drawn_TN.shape)
