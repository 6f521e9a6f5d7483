"""Every registered section worked out of a run's votes; a user's that fails is named, and costs nothing else."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ensemble.evaluation.records import plain_record, read_record
from ensemble.evaluation.section import EvaluationSection, JudgedVotes, sections_there
from ensemble.evaluation.splits import SplitVotes
from ensemble.outside.names import shown

LONGEST = 4096  # signs of a warning


class _Outcome(NamedTuple):
    """What came of a section: its record, and sentences that must be known before it is believed."""

    found: Any
    warnings: list[str]


class SectionsAtWork:
    """The sections of one judgement, of which the long ones are begun in the threads of a pool.

    validation, calibration: what sections may choose by. Errors of the package's own sections are raised by `results`.
    """

    def __init__(
        self, validation: SplitVotes, calibration: SplitVotes | None, votes: JudgedVotes, pool: ThreadPoolExecutor
    ) -> None:
        self._sections, self._problems = sections_there()
        choosing = {"validation": validation, "calibration": calibration or validation}
        self._ours = choosing, votes
        others = any(not EvaluationSection.registry.is_own(name) for name in self._sections)
        self._theirs = (
            ({name: _locked(part) for name, part in choosing.items()}, _locked(votes)) if others else self._ours
        )
        self._begun: dict[str, Future[_Outcome]] = {
            name: pool.submit(self._outcome, section) for name, section in self._sections.items() if section.beside
        }

    def results(self) -> tuple[dict[str, Any], list[str]]:
        """Records by name, None of a section that has nothing to say, and warnings of all."""
        found, warnings = {}, list(self._problems)
        for name, section in self._sections.items():
            outcome = self._begun[name].result() if name in self._begun else self._outcome(section)
            warnings += outcome.warnings
            if outcome.found is not None or EvaluationSection.registry.is_own(name):
                found[name] = outcome.found
        return found, warnings

    def _outcome(self, section: EvaluationSection[Any]) -> _Outcome:
        own = EvaluationSection.registry.is_own(section.name)
        choosing, votes = self._ours if own else self._theirs
        try:
            found = section.compute(votes, section.choose(choosing[section.chooses_on]))
            if found is None:
                return _Outcome(None, [])
            if not own:  # as it will be read, and so that nothing is kept that cannot be
                found = read_record(section.name, plain_record(section.name, found))
            return _Outcome(found, [shown(str(line), LONGEST) for line in section.cautions(found, votes)])
        except Exception as error:
            if own:
                raise
            why = shown(f"{type(error).__name__}: {error}", 300)
            return _Outcome(None, [f"section {section.name} failed and is left out: {why}"])


def _locked(value: Any) -> Any:
    """The same with arrays that cannot be written to, so that one section changes nothing for the others."""
    if isinstance(value, np.ndarray):
        view = value.view()
        view.flags.writeable = False
        return view
    if isinstance(value, list):
        return [_locked(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _locked(getattr(value, field.name)) for field in fields(value)})
    return value
