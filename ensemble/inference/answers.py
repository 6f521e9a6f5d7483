"""What the ensemble says about each picture: as records, as JSON and as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ensemble.evaluation import written
from ensemble.evaluation.splits import favourites
from ensemble.inference.prepare import Preparation, Prepared
from ensemble.outside.long_work import working
from ensemble.outside.names import LONGEST_PATH, shown
from ensemble.types import DoubleArray

if TYPE_CHECKING:
    from ensemble.inference.abstaining import Rules
    from ensemble.inference.trained import TrainedEnsemble

DOUBT = 0.05  # of the validation images count as doubtful, and so do pictures of which the vote is no surer
SILENT, UNKNOWN = "no answer", "unknown"
VOTES_SHOWN = 12  # up to so many members are listed one by one, more are counted


@dataclass(frozen=True)
class MemberVote:
    """One member's own favourite and how probable it finds it."""

    member: int
    recipe: str
    class_name: str
    probability: float


@dataclass(frozen=True, eq=False)
class Answer:
    """The vote on one picture.

    agreeing: members whose own favourite is the answer. surer_than: share of the validation images of which the vote was no
    surer. picture: kept for figures only. answered: False where a rule says to be silent. unknown: a rule takes it
    for an image of none of the classes. classes: the prediction set, the most
    probable first; empty where none was asked for.
    """

    name: str
    inverted: bool
    cut_out: bool
    class_name: str
    class_number: int
    probs_K: DoubleArray
    agreeing: int
    votes: tuple[MemberVote, ...]
    surer_than: float
    picture: Prepared | None
    answered: bool = True
    unknown: bool = False
    classes: tuple[str, ...] = ()

    def doubtful(self, doubt: float) -> bool:
        """Whether it is among the least sure, as far as that share of the validation images goes."""
        return self.surer_than < doubt

    @property
    def probability(self) -> float:
        return float(self.probs_K[self.class_number])


BATCH = 64  # pictures that are read, and kept in memory, at a time


def ask_all(
    trained: TrainedEnsemble,
    preparation: Preparation,
    pictures: Sequence[tuple[str, Path | bytes]],
    rules: Rules | None = None,
) -> tuple[list[Answer], list[str], list[str]]:
    """The answers to all pictures that can be used, in their order, what is wrong with the others, and notes."""
    answers: list[Answer] = []
    faults: list[str] = []
    notes: list[str] = []
    with working("answering", len(pictures)) as done:
        for start in range(0, len(pictures), BATCH):
            read = preparation.read_all(pictures[start : start + BATCH])
            faults += [fault for fault in read if isinstance(fault, str)]
            if prepared := [picture for picture in read if isinstance(picture, Prepared)]:
                answers += ask(trained, prepared, rules)
                notes += [picture.note for picture in prepared if picture.note is not None]
            for _ in read:
                done()
    return answers, faults, notes


def ask(trained: TrainedEnsemble, pictures: Sequence[Prepared], rules: Rules | None = None) -> list[Answer]:
    """The ensemble's answers, in the order of the pictures. rules: when to be silent, and which classes may be."""
    probs_MNK = trained.member_probs(np.stack([picture.image_CHW for picture in pictures]))
    decision = trained.decide_votes(probs_MNK)
    favourites_MN, surer_N = favourites(probs_MNK), trained.surer_than(decision)
    names = trained.class_names
    answered_N = (
        np.ones(len(pictures), bool) if rules is None or rules.reject is None else rules.reject.answers(decision)
    )
    unknown_N = np.zeros(len(pictures), bool)
    if rules is not None and rules.unknown is not None:
        unknown_N = rules.unknown.unknown(probs_MNK)
    sets_NK = None if rules is None or rules.sets is None else rules.sets.shown(decision)
    answers = []
    for n, picture in enumerate(pictures):
        number = int(decision.classes_N[n])
        votes = tuple(
            MemberVote(member.index, member.recipe, names[favourite], float(probs_MNK[m, n, favourite]))
            for m, (member, favourite) in enumerate(zip(trained.vote.members, favourites_MN[:, n], strict=True))
        )
        agreeing = int((favourites_MN[:, n] == number).sum())
        kept = picture if picture.shown is not None else None
        answers.append(
            Answer(
                picture.name,
                picture.inverted,
                picture.cut_out,
                names[number],
                number,
                decision.probs_NK[n].copy(),
                agreeing,
                votes,
                float(surer_N[n]),
                kept,
                bool(answered_N[n]),
                bool(unknown_N[n]),
                () if sets_NK is None else _classes(sets_NK[n], decision.probs_NK[n], names),
            )
        )
    return answers


def _classes(inside_K: npt.NDArray[np.bool_], probs_K: DoubleArray, names: Sequence[str]) -> tuple[str, ...]:
    """The names of a set's classes, the most probable first."""
    return tuple(names[k] for k in np.argsort(-probs_K, kind="stable") if inside_K[k])


def answers_json(answers: Sequence[Answer], class_names: Sequence[str], doubt: float = DOUBT) -> list[dict[str, Any]]:
    """Plain JSON values, probabilities as fractions with all digits."""
    return [
        {
            "image": answer.name,
            "class": answer.class_name,
            "class_number": answer.class_number,
            "probability": answer.probability,
            "surer_than": answer.surer_than,
            "doubtful": answer.doubtful(doubt),
            "agreement": answer.agreeing / len(answer.votes),
            "probabilities": dict(zip(class_names, answer.probs_K.tolist(), strict=True)),
            "votes": [
                {"member": v.member, "recipe": v.recipe, "class": v.class_name, "probability": v.probability}
                for v in answer.votes
            ],
            "answered": answer.answered,
            "unknown": answer.unknown,
            "prediction_set": list(answer.classes),
            "inverted": answer.inverted,
            "cut_out": answer.cut_out,
        }
        for answer in answers
    ]


def doubt_note(answers: Sequence[Answer], doubt: float) -> str | None:
    """What "doubtful" means, where anything is."""
    count = sum(answer.doubtful(doubt) for answer in answers)
    if not count:
        return None
    which = f"{count} of {len(answers)} answers are" if len(answers) > 1 else "the answer is"
    if doubt == 1:
        return f"{which} doubtful, as all are called that are less sure than the surest of its validation images (--doubt 1)"
    them = "them" if count > 1 else "it"
    return f"{which} doubtful: the vote is less sure of {them} than of {percent(1 - doubt)} of its validation images (--doubt {doubt:g})"


def answers_text(answers: Sequence[Answer], doubt: float = DOUBT) -> str:
    """One line per picture: name, class, probability, whether it is doubtful, how many members agree, what each member says."""
    sets = any(answer.classes for answer in answers)
    head = ("image", "class", "probability", "doubt", "agree", "set" if sets else "members say")
    rows = [
        (
            shown(answer.name, LONGEST_PATH),
            UNKNOWN if answer.unknown else shown(answer.class_name) if answer.answered else SILENT,
            percent(answer.probability),
            "doubtful" if answer.doubtful(doubt) else "",
            f"{answer.agreeing} of {len(answer.votes)}",
            ", ".join(map(shown, answer.classes)) if sets else _votes_text(answer.votes),
        )
        for answer in answers
    ]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(5)]
    lines = []
    for row in (head, *rows):
        left = [row[column].ljust(widths[column]) for column in (0, 1)]
        right = [row[2].rjust(widths[2]), row[3].ljust(widths[3]), row[4].rjust(widths[4])]
        lines.append("  ".join([*left, *right, row[5]]).rstrip())
    return "\n".join(lines)


def percent(probability: float) -> str:
    """One digit; what is not certain is not written as 100 %."""
    return f"{written.percent(probability, 1).replace('>', '> ').replace('<', '< ')} %"


def _votes_text(votes: Sequence[MemberVote]) -> str:
    """Short class names of few members one after the other, else the classes with their counts, most first."""
    if len(votes) <= VOTES_SHOWN and all(len(vote.class_name) <= 2 for vote in votes):
        return " ".join(shown(vote.class_name) for vote in votes)
    counts = Counter(vote.class_name for vote in votes)
    return ", ".join(f"{shown(name)}: {count}" for name, count in counts.most_common())
