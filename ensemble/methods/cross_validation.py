"""A member for each fold of the training rows, trained on all others and judged by its own (Parmanto et al. 1996).

    method: {name: cross_validation, folds: 5}

Every training row is judged by exactly the members that did not train on it: the out-of-fold vote. In training a member is
validated on its fold, so that the epoch it keeps is chosen by rows it never saw. The run's validation part is in no fold: what
is chosen for all members together (weights of votes, temperatures, thresholds) needs rows on which all of them vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from ensemble.config.method import MethodJob, MethodSection, register_method
from ensemble.evaluation.written import plural
from ensemble.methods.folds import folds_of, folds_of_groups
from ensemble.methods.one_round import OneRound
from ensemble.seeding import Purpose, member_generator
from ensemble.types import IntArray, MemberSpec


@register_method
class CrossValidationConfig(MethodSection):
    """A member for each fold of the training rows, which is trained on all others (Parmanto et al. 1996)."""

    name: Literal["cross_validation"]
    in_short = "cross-validation ensemble: each member on all training images but its fold, which judges it (Parmanto et al. 1996)"
    mixed = True
    baseline_by_default = True
    folds_votes = True
    folds: int = Field(
        5,
        ge=2,
        le=1000,
        description="cross_validation: parts of the training rows, stratified by class, whole groups where data.group_column is given; num_members is so many, or a multiple: other folds for each repeat. adaboost: see there",
    )

    @property
    def together(self) -> int:
        return self.folds

    @property
    def in_words(self) -> str:
        return f"a member for each of {self.folds} folds (method.folds)"

    def side_by_side(self, members: int) -> int:
        return members

    def rows_problem(self, job: MethodJob) -> str:
        """Why the training rows cannot be cut so."""
        labels_N = job.labels_N[job.train_rows]
        units, what = _units(job), "rows" if job.groups_N is None else "groups (data.group_column)"
        if units < self.folds:
            return (
                f"found {units} {what} to train on; expected at least one for each fold: choose at most {units} folds"
            )
        for repeat in range(_repeats(job.recipes, self.folds)):
            fold_N = self._fold_of_rows(job, repeat)
            for fold in range(self.folds):
                left_K = np.bincount(labels_N[fold_N != fold], minlength=job.num_classes)
                if not left_K.all():
                    lost = int(np.argmin(left_K))
                    name = job.class_names[lost] if job.class_names else str(lost)
                    where = (
                        "one"
                        if job.groups_N is None
                        else "one group (data.group_column), or so few that one fold has them all"
                    )
                    return (
                        f"all training rows of class {name} are {where}, so the member of that fold would never see "
                        "the class; add images of it, leave the class out, or choose another number of folds"
                    )
        return ""

    def build(self, job: MethodJob) -> CrossValidation:
        """Member i of a group leaves out fold i modulo `folds` of repeat i // `folds`; groups have the same folds."""
        folds = {repeat: self._fold_of_rows(job, repeat) for repeat in range(_repeats(job.recipes, self.folds))}
        members, places, seen = [], [], dict.fromkeys(job.recipes, 0)
        for index, recipe in enumerate(job.recipes):
            repeat, fold = divmod(seen[recipe], self.folds)
            seen[recipe] += 1
            own_N = folds[repeat] == fold
            rows, vote_rows = job.train_rows[~own_N], job.train_rows[own_N]
            members.append(MemberSpec(index, recipe, rows, vote_rows=vote_rows, own_validation=True))
            places.append({"member": index, "repeat": repeat, "fold": fold, "rows": len(vote_rows)})
        return CrossValidation(members, places, self._said(job))

    def _fold_of_rows(self, job: MethodJob, repeat: int) -> IntArray:
        """The fold of each training row in a repeat; the same for whoever asks."""
        generator = member_generator(job.seed, repeat, Purpose.FOLDS)
        labels_N = job.labels_N[job.train_rows]
        if job.groups_N is None:
            return folds_of(labels_N, self.folds, generator)
        return folds_of_groups(labels_N, job.groups_N[job.train_rows], self.folds, generator)

    def _said(self, job: MethodJob) -> str:
        whole = "" if job.groups_N is None else f", in {_units(job):,} whole groups"
        return (
            f"cross_validation: {self.folds} folds of {plural(len(job.train_rows), 'training row')}{whole}; each member is validated in training "
            f"by the fold that it never sees. The validation part ({plural(len(job.validation_rows), 'row')}) is in no fold: by it votes are weighed and thresholds chosen"
        )


class CrossValidation(OneRound):
    """All members at once; the report says which fold each leaves out."""

    def __init__(self, members: Sequence[MemberSpec], places: Sequence[dict[str, int]], said: str) -> None:
        super().__init__(members)
        self._report = {"folds": list(places), "notices": [said]}

    def report(self) -> dict[str, Any]:
        """folds: by member its repeat, its fold (both from 0) and the rows of it, on which it votes."""
        return self._report


def _units(job: MethodJob) -> int:
    """What is dealt out to folds: rows, or groups."""
    return len(job.train_rows if job.groups_N is None else np.unique(job.groups_N[job.train_rows]))


def _repeats(recipes: Sequence[str], folds: int) -> int:
    """How often the rows are cut anew: for the largest group of members."""
    return max(recipes.count(recipe) for recipe in set(recipes)) // folds
