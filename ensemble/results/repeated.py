"""Several runs of one configuration with different seeds, as one result: what is the seeds' doing, what the images'?

    found = judge_repeats([Path("runs/x/x_seed0"), Path("runs/x/x_seed1"), Path("runs/x/x_seed2")])
    found.verdict

Read from the votes of the runs' folders, as every judgement. The statistics are those of `evaluation.repeats`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ensemble.config.schema import WEIGHING
from ensemble.errors import DataError
from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.choosing import choose_all
from ensemble.evaluation.record_base import NAN, Number, Record
from ensemble.evaluation.repeats import seed_difference, two_way_difference
from ensemble.evaluation.statistics import mean_interval
from ensemble.evaluation.written import ALPHA, p_equation, percent, points
from ensemble.results.voters import Voters, load_voters
from ensemble.storage import RunFolder
from ensemble.types import DoubleArray, MemberResult

What = Literal["vote", "best_member", "mean_member", "baseline", "longer", "wider"]
NAMES: dict[What, str] = {
    "vote": "vote", "best_member": "best by validation", "baseline": "one network, all rows",
    "longer": "one network, longer", "wider": "one network, wider", "mean_member": "mean member",
}  # fmt: skip
_IN_A_SENTENCE: dict[What, str] = {
    "best_member": "the single model that validation picks", "baseline": "one network on all training rows",
    "longer": "one network trained for as many epochs as all members together",
    "wider": "one network of about as many parameters as all members together",
}  # fmt: skip
FEW = 5  # repeats, below which an interval over them is little to go by


@dataclass(frozen=True)
class RepeatedLine(Record):
    """One of what the runs are compared by, over all of them. Rates are fractions; NaN stands for what does not exist.

    errors: test error of each run. error: their mean; lower, upper: Student's t interval over the runs.
    difference: error of the vote minus that of the line; negative is better. difference_lower, difference_upper, p_value: for further
        seeds judged on further images (`two_way_difference`).
    seeds_lower, seeds_upper, seeds_p: for further seeds on these very images (`seed_difference`).
    from_seeds, from_images: standard error of the difference that the seeds, and the images, would have by themselves.
    outcome: of the vote against the line, by p_value; "" for the vote itself.
    """

    what: What
    errors: tuple[float, ...]
    error: Number
    lower: Number
    upper: Number
    difference: Number = NAN
    difference_lower: Number = NAN
    difference_upper: Number = NAN
    p_value: Number = NAN
    seeds_lower: Number = NAN
    seeds_upper: Number = NAN
    seeds_p: Number = NAN
    from_seeds: Number = NAN
    from_images: Number = NAN
    outcome: str = ""

    @property
    def name(self) -> str:
        """In a table."""
        return NAMES[self.what]


@dataclass(frozen=True)
class Repeated(Record):
    """runs: names of the folders. members: that vote, in each run. sentences: the verdict first. cautions: what must be known first."""

    name: str
    dataset: str
    aggregator: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    members: tuple[int, ...]
    test_rows: int
    lines: tuple[RepeatedLine, ...]
    sentences: tuple[str, ...]
    cautions: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The vote against the single model that validation picks, in words."""
        return self.sentences[0]


def judge_repeats(paths: Sequence[Path], name: str = "") -> Repeated:
    """Judge at least two runs of one configuration on the same test images.

    Raises DataError where the test images differ, QuorumError where too few members of a run finished, StorageError for a damaged one.
    """
    assert len(paths) > 1, "one run has no repeats"
    folders = [RunFolder.read(path) for path in paths]
    voters = [load_voters(folder, calibration=False).finite() for folder in folders]
    _require_same_images(folders, voters)
    lost = [_losses(one) for one in voters]
    kinds: list[What] = [what for what in NAMES if all(what in one for one in lost)]
    by_kind = {what: np.stack([one[what] for one in lost]) for what in kinds}
    if all(len(one.members) == 1 for one in voters):
        by_kind = {what: lost_RN for what, lost_RN in by_kind.items() if what not in ("best_member", "mean_member")}
    lines = tuple(_line(what, by_kind["vote"], lost_RN) for what, lost_RN in by_kind.items())
    asked = [one.config.asked_members for one in voters]
    some = [what for what in NAMES if any(what in one for one in lost) and what not in kinds]
    cautions = [
        f"{path.name}: {len(one.members)} of {count} members vote"
        for path, one, count in zip(paths, voters, asked, strict=True)
        if len(one.members) < count
    ] + [f"{NAMES[what]}: not in every run, so it is left out" for what in some]
    if len(paths) < FEW:
        cautions.append(
            f"{len(paths)} repeats say little of further seeds: the interval of a difference knows these few alone; repeats={FEW} or more"
        )
    found = Repeated(
        name or paths[0].parent.name, voters[0].dataset.name, voters[0].config.aggregator,
        tuple(path.name for path in paths), tuple(int(folder.config()["seed"]) for folder in folders),
        tuple(len(one.members) for one in voters), len(voters[0].labels.test_labels_N), lines, (), tuple(cautions),
    )  # fmt: skip
    return replace(found, sentences=tuple(_sentences(found)))


def _require_same_images(folders: Sequence[RunFolder], voters: Sequence[Voters]) -> None:
    first = voters[0]
    for folder, one in zip(folders[1:], voters[1:], strict=True):
        same = np.array_equal(one.labels.test_labels_N, first.labels.test_labels_N)
        if not same or one.dataset.images_sha256 != first.dataset.images_sha256:
            raise DataError(
                f"{folder.path}: was judged on other test images than {folders[0].path}, so the two are no repeats; give the runs the same data"
            )


def _losses(voters: Voters) -> Mapping[What, DoubleArray]:
    """By what is compared: of each test image whether it is wrong, 0 or 1; of the mean member the share of members."""
    labels_N, aggregator = voters.labels.test_labels_N, voters.config.aggregator
    choices = choose_all(voters.validation, aggregator, voters.weights_M, choose=False, seed=0)
    probs_MNK = voters.test.probs_MNK
    vote = decide(aggregator, probs_MNK, choices.weights_M if aggregator in WEIGHING else None)
    wrong_MN = np.stack([decide("soft", probs_NK[None]).classes_N != labels_N for probs_NK in probs_MNK])
    found: dict[What, DoubleArray] = {
        "vote": (vote.classes_N != labels_N).astype(np.float64),
        "best_member": wrong_MN[choices.reference].astype(np.float64),
        "mean_member": wrong_MN.mean(0),
    }
    others: list[tuple[What, MemberResult | None]] = [("baseline", voters.baseline), *voters.controls.items()]
    for what, result in others:
        if result is not None:
            found[what] = (decide("soft", result.votes.test_NK[None]).classes_N != labels_N).astype(np.float64)
    return found


def _line(what: What, vote_RN: DoubleArray, lost_RN: DoubleArray) -> RepeatedLine:
    errors = tuple(lost_RN.mean(1).tolist())
    interval = mean_interval(errors)
    alone = RepeatedLine(what, errors, float(np.mean(errors)), *interval)
    if what == "vote":
        return alone
    both, seeds = two_way_difference(vote_RN, lost_RN, seed=0), seed_difference(vote_RN, lost_RN)
    difference_RN = vote_RN - lost_RN
    repeats, images = difference_RN.shape
    outcome = "not distinguishable"
    if both.p_value < ALPHA:
        outcome = "better" if both.difference < 0 else "worse"
    return RepeatedLine(
        what, errors, alone.error, *interval, both.difference, both.lower, both.upper, both.p_value,
        seeds.lower, seeds.upper, seeds.p_value,
        float(difference_RN.mean(1).std(ddof=1)) / repeats**0.5, float(difference_RN.mean(0).std(ddof=1)) / images**0.5,
        outcome,
    )  # fmt: skip


def _sentences(found: Repeated) -> list[str]:
    """The vote against each line that somebody could have had instead; without one, what it comes to."""
    vote, fewest, most = found.lines[0], min(found.members), max(found.members)
    members = f"{fewest} member{'s' * (fewest > 1)}" if fewest == most else f"{fewest} to {most} members"
    over = f"Over {len(found.runs)} repeats (seeds {', '.join(map(str, found.seeds))}) the {found.aggregator} vote of {members}"
    said: list[str] = []
    for line in found.lines[1:]:
        if line.what in _IN_A_SENTENCE:
            said.append(_sentence("It" if said else over, vote, line))
    return said or [f"{over} has a mean test error of {percent(vote.error)} %; there is nothing to compare it with."]


def _sentence(who: str, vote: RepeatedLine, line: RepeatedLine) -> str:
    claim = {"better": "is better than", "worse": "is worse than"}.get(line.outcome, "is not distinguishable from")
    said = (
        f"{who} {claim} {_IN_A_SENTENCE[line.what]}: mean test error {percent(vote.error)} % against {percent(line.error)} %, a difference of "
        f"{points(line.difference)} points (95 % interval {points(line.difference_lower)} to {points(line.difference_upper)} for further seeds and further "
        f"images, {p_equation(line.p_value)})."
    )
    if line.p_value >= ALPHA > line.seeds_p:
        said += f" On these very images the difference is steady over the seeds ({p_equation(line.seeds_p)}); on others it might be another."
    if line.p_value < ALPHA <= line.seeds_p:
        said += f" The means of the repeats alone, with Student's t test, do not show it ({p_equation(line.seeds_p)}): more repeats would tell."
    return said
