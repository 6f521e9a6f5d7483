"""What every section of the judgement has; the sections are in `ensemble/evaluation/sections`, a file each.

    @register_section
    class Margins(EvaluationSection[MarginRecord]):
        name, title, record = "margins", "Margins of the vote", MarginRecord

        def compute(self, votes, chosen): ...           # test votes in, a record out
        def lines(self, found, about): ...              # what the terminal says of it

A section is worked out in two steps. `choose` is handed validation votes alone, and `compute` what was chosen and the test
votes, which nothing of the package chooses by: `require_choosable` refuses them.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from typing import Any, ClassVar, Generic, Literal, TypeVar, get_origin

from ensemble.errors import ConfigError
from ensemble.evaluation.aggregation import Decision
from ensemble.evaluation.decomposition import UncertaintyTerms, uncertainty
from ensemble.evaluation.metrics import confusion_matrix
from ensemble.evaluation.out_of_bag import OutOfBag
from ensemble.evaluation.paper_table import PaperTable
from ensemble.evaluation.record_base import MemberFacts
from ensemble.evaluation.set_votes import HowToVote, wrong_of
from ensemble.evaluation.size_curve import Contested, contested_rows
from ensemble.evaluation.splits import SplitVotes
from ensemble.evaluation.views import Note, SectionFigure, SectionTable
from ensemble.outside.names import shown
from ensemble.registry import Registry
from ensemble.types import IntArray

_SECTIONS = "ensemble.evaluation.sections"
# What evaluation.json has besides sections (`records.Evaluation`): no section may be called so.
OTHER_PARTS = frozenset((
    "aggregator", "asked_members", "baseline", "choices", "class_names", "controls", "dataset", "degraded", "disputed", "excluded",
    "gain_per_second", "leaderboard", "members", "sections", "shifted", "test_rows", "unknown", "validation_rows", "verdict", "version", "warnings",
))  # fmt: skip


@dataclass(frozen=True, eq=False)
class JudgedVotes:
    """What a section describes. test: the members' votes on the test rows, and the labels; nothing may be chosen by them.

    vote: the headline vote on these rows. how: its rule, with what validation decided. members: facts in the order of the votes.
    seed: of random draws. out_of_bag: votes on training rows that the members were not fitted to, None where there are none.
    """

    test: SplitVotes
    vote: Decision
    how: HowToVote
    members: tuple[MemberFacts, ...]
    dataset: str
    class_names: tuple[str, ...]
    seed: int = 0
    out_of_bag: OutOfBag | None = None

    @cached_property
    def doubt(self) -> UncertaintyTerms:
        """Entropy of the mean of the members on each test row, and its parts."""
        return uncertainty(self.test.probs_MNK)

    @cached_property
    def contested(self) -> Contested:
        """The test rows on which the members differ, for votes of some of them."""
        return contested_rows(self.how.aggregator, self.test, self.how.weights_M)

    @cached_property
    def confusion_KK(self) -> IntArray:
        """Test rows by true class and headline vote."""
        return confusion_matrix(self.test.labels_N, self.vote.classes_N, self.test.num_classes)

    @property
    def wrong_N(self) -> Any:
        """Which test rows the headline vote gets wrong."""
        return wrong_of(self.vote, self.test.labels_N)


@dataclass(frozen=True)
class About:
    """What a section may know of the run when it speaks of its figures: how many members vote, on how many test images."""

    members: int
    test_rows: int
    class_names: tuple[str, ...]


Found = TypeVar("Found")


class EvaluationSection(ABC, Generic[Found]):
    """One part of a judgement. Only `compute` is needed; whatever else it gives is shown where it belongs.

    record: a frozen dataclass over `Record` (or a tuple of such), whose JSON form lies in evaluation.json.
    """

    registry: ClassVar[Registry[type[EvaluationSection[Any]]]] = Registry(
        "section", "ensemble.sections",
        {  # in the order in which they are shown
            "confusion": f"{_SECTIONS}.classes", "classes": f"{_SECTIONS}.classes", "balance": f"{_SECTIONS}.classes",
            "size_curve": f"{_SECTIONS}.size_curve", "contributions": f"{_SECTIONS}.size_curve",
            "conformal": f"{_SECTIONS}.conformal", "selective": f"{_SECTIONS}.selective",
            "calibration": f"{_SECTIONS}.calibration", "out_of_bag": f"{_SECTIONS}.out_of_bag",
            "out_of_fold": f"{_SECTIONS}.out_of_fold",
            "diversity": f"{_SECTIONS}.diversity", "cascade": f"{_SECTIONS}.cascade", "label_review": f"{_SECTIONS}.label_review",
            "ambiguity": f"{_SECTIONS}.ambiguity", "uncertainty": f"{_SECTIONS}.uncertainty",
            "risk_coverage": f"{_SECTIONS}.risk_coverage",
        },
    )  # fmt: skip
    name: ClassVar[str] = ""
    title: ClassVar[str] = ""  # its heading on the page; without it the name
    record: ClassVar[Any] = None
    beside: ClassVar[bool] = False  # it takes long in numpy, so that it is worked out in a thread of its own
    # calibration: `choose` is handed the votes on rows that nothing else is chosen by, where the run keeps such rows.
    chooses_on: ClassVar[Literal["validation", "calibration"]] = "validation"

    def choose(self, _validation: SplitVotes) -> Any:
        """Whatever is to be chosen (a threshold, a member), by validation votes alone."""
        return None

    @abstractmethod
    def compute(self, votes: JudgedVotes, chosen: Any) -> Found | None:
        """The record of these votes; None where there is nothing to say of them. chosen: what `choose` gave."""

    def cautions(self, _found: Found, _votes: JudgedVotes) -> Iterable[str]:
        """What must be known before the figures are believed; kept among the warnings of the judgement."""
        return ()

    def lines(self, _found: Found, _about: About) -> Iterable[str]:
        """Whole sentences for the full answer on the terminal, for the page and for a README."""
        return ()

    def short_lines(self, _found: Found, _about: About) -> Iterable[str]:
        """What even the shortest answer says, beside the verdict."""
        return ()

    def numbers(self, _found: Found) -> Mapping[str, float]:
        """Figures for the summary of dashboards, each told as NAME/key: rates as fractions."""
        return {}

    def note(self, _found: Found) -> Note:
        """What the page says of it, where that is more than the lines: words, and numbers of the record between them."""
        return ()

    def table(self, _found: Found) -> SectionTable | None:
        """A table on the page."""
        return None

    def paper_tables(self, _found: Found) -> Iterable[PaperTable]:
        """Tables for papers and spreadsheets, besides that of the page."""
        return ()

    def figure(self, _found: Found) -> SectionFigure | None:
        """A figure on the page."""
        return None

    def card_rows(self, _found: Found) -> Iterable[tuple[str, str]]:
        """Lines for the model card's table of figures: what it is, and its value as it is written."""
        return ()

    def limits(self, _found: Found) -> Iterable[str]:
        """Sentences for the model card on where not to trust the model."""
        return ()


_Class = TypeVar("_Class", bound=type[EvaluationSection[Any]])


def register_section(section: _Class) -> _Class:
    """Class decorator: judgements have this section from now on.

    Raises ConfigError where its name is taken, TypeError where it has no name, no record, or computes nothing.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,39}", section.name):
        raise TypeError(f'{section.__name__}: name is {section.name!r}; expected a name such as name = "margins"')
    if not (is_dataclass(section.record) or get_origin(section.record) is tuple):
        raise TypeError(
            f"{section.__name__}: needs a record, which is a frozen dataclass, or a tuple[One, ...] of such"
        )
    if not isinstance(section.title, str):
        raise TypeError(f"{section.__name__}: title is {section.title!r}; expected a text")
    if section.chooses_on not in ("validation", "calibration"):
        raise TypeError(
            f'{section.__name__}: chooses_on is {section.chooses_on!r}; expected "validation" or "calibration"'
        )
    if section.name in OTHER_PARTS:
        raise ConfigError(f"section {section.name!r}: a judgement has something of that name; choose another name")
    section.registry.register(section, section.name)
    return section


def sections_there() -> tuple[dict[str, EvaluationSection[Any]], list[str]]:
    """Every section that is registered, by name in the order of showing, and what is wrong with those that cannot be had."""
    found, problems = EvaluationSection.registry.all(), []
    for name in EvaluationSection.registry.installed():
        try:
            part = EvaluationSection.registry.find(name)
        except ConfigError as error:  # the package is not ours
            problems.append(f"{error}; its figures are left out")
            continue
        assert part is not None, f"section {name} has an entry point"
        found.setdefault(name, part)
    made = {}
    for name, part in found.items():
        try:
            made[name] = part()
        except Exception as error:
            if EvaluationSection.registry.is_own(name):
                raise
            why = shown(f"{type(error).__name__}: {error}", 300)
            problems.append(f"section {name} cannot be made and is left out: {why}")
    return made, problems


def section_named(name: str) -> EvaluationSection[Any] | None:
    """The section of that name; None where none is registered, or it cannot be had."""
    try:
        part = EvaluationSection.registry.find(name)
        return None if part is None else part()
    except ConfigError:
        return None
    except Exception:
        if EvaluationSection.registry.is_own(name):
            raise
        return None  # `sections_there` says why
