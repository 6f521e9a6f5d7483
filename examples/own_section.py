"""A section of one's own: `python examples/own_section.py [FOLDER]`, in some seconds on a CPU.

A section is a further figure of every judgement: a frozen record that is worked out of the stored votes, and what terminal, page,
model card and dashboards are to show of it. This one, margins, asks by how much the vote prefers its class to the next one
(Schapire et al. 1998), and how well a margin that is chosen on validation tells right answers from wrong ones on test.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

import ensemble

EDGES = np.linspace(0, 1, 11)


@dataclass(frozen=True)
class Margins(ensemble.Record):
    """Means over test images of the largest probability minus the second largest, of all, right and wrong answers.

    A mean of no images is NaN here and null in evaluation.json, which is what `Number` is for. threshold: chosen on validation;
    told_apart: mean of the share of right answers above it and of wrong ones below it. shares: of the margins, by tenths.
    """

    mean: float
    right: ensemble.Number
    wrong: ensemble.Number
    threshold: float
    told_apart: float
    shares: tuple[float, ...]


@ensemble.register_section
class MarginsSection(ensemble.EvaluationSection[Margins]):
    name, title, record = "margins", "Margins of the vote", Margins

    def choose(self, validation: Any) -> float:
        """The margin that tells right from wrong best on validation, the only votes that are handed over here."""
        mean_NK = validation.probs_MNK.mean(axis=0)
        right_N, margin_N = mean_NK.argmax(axis=1) == validation.labels_N, margins(mean_NK)
        return float(max(EDGES, key=lambda edge: told_apart(margin_N >= edge, right_N)))

    def compute(self, votes: ensemble.JudgedVotes, chosen: float) -> Margins:
        """Of the test votes, which nothing is chosen by."""
        margin_N, right_N = margins(votes.vote.probs_NK), ~votes.wrong_N
        return Margins(
            mean=float(margin_N.mean()),
            right=float(margin_N[right_N].mean()) if right_N.any() else float("nan"),
            wrong=float(margin_N[~right_N].mean()) if not right_N.all() else float("nan"),
            threshold=chosen,
            told_apart=told_apart(margin_N >= chosen, right_N),
            shares=tuple((np.histogram(margin_N, EDGES)[0] / len(margin_N)).tolist()),
        )

    def lines(self, found: Margins, about: ensemble.About) -> Iterable[str]:
        yield (
            f"Margins: {found.mean:.3f} on average over {about.test_rows:,} test images; a margin of {found.threshold:.1f}, "
            f"chosen on validation, tells right from wrong answers in {found.told_apart:.1%} of cases (both kinds counted alike)."
        )

    def numbers(self, found: Margins) -> dict[str, float]:
        """W&B, TensorBoard and MLflow get them as margins/mean and margins/told_apart."""
        return {"mean": found.mean, "told_apart": found.told_apart}

    def table(self, _found: Margins) -> ensemble.SectionTable:
        rows = tuple((name, ensemble.Cell(name)) for name in ("mean", "right", "wrong"))
        return ensemble.SectionTable(
            ("test images", "margin"), rows, note="Largest probability minus the second largest."
        )

    def figure(self, found: Margins) -> ensemble.SectionFigure:
        middles = tuple(((EDGES[:-1] + EDGES[1:]) / 2).tolist())
        shares = ensemble.Curve(middles, tuple(100 * share for share in found.shares), "vote", "bars")
        chosen = ensemble.Curve((found.threshold,) * 2, (0, 100 * max(found.shares)), "chosen on validation", "guide")
        return ensemble.SectionFigure("How clear the vote is", "margin", "share of test images, %", (shares, chosen))

    def card_rows(self, found: Margins) -> Iterable[tuple[str, str]]:
        yield "mean margin", f"{found.mean:.4f}"


def margins(probs_NK: Any) -> Any:
    """Largest probability of each row minus the second largest."""
    two_N2 = np.sort(np.asarray(probs_NK, np.float64), axis=1)[:, -2:]
    return two_N2[:, 1] - two_N2[:, 0]


def told_apart(sure_N: Any, right_N: Any) -> float:
    """Mean of the shares of right answers that are sure and of wrong ones that are not; of one of them where the other has no rows."""
    shares = [sure_N[right_N], ~sure_N[~right_N]]
    return float(np.mean([share.mean() for share in shares if len(share)]))


if __name__ == "__main__":
    run = ensemble.train(
        name="with_margins",
        output_dir=sys.argv[1] if len(sys.argv) > 1 else "runs",
        model="mlp",
        data="digits",
        method="bagging",
        num_members=4,
        training={"epochs": 3},
    )
    print(run.evaluation.verdict.sentence)
    print(run.evaluation.sections["margins"])
