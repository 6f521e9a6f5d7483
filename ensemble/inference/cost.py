"""What a prediction takes on this machine: milliseconds and parameters of the whole vote, of the member that validation picks, and of
the one network on all rows.

    for one in measure(load_ensemble("runs/quickstart"), run.evaluation):
        print(one.name, one.one_ms, one.each_of_batch_ms)

From images as bytes to probabilities, as `TrainedEnsemble.predict_proba` does it, in this process with the threads it has.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

from ensemble.evaluation.record_base import parameters_of
from ensemble.evaluation.records import Evaluation
from ensemble.inference.stored import alone, beside
from ensemble.inference.trained import TrainedEnsemble
from ensemble.storage.cost_file import CostFile, CostKind, StoredCost

BATCH = 64
BESIDE: tuple[Literal["baseline", "longer", "wider"], ...] = ("baseline", "longer", "wider")


@dataclass(frozen=True)
class Patience:
    """How long to measure one thing: predictions that do not count, how many count at least, and for how long more follow.

    longest_s: what all predictions of a batch may be expected to take; a vote that needs longer is not measured on batches.
    """

    warm_ups: int
    least: int
    seconds: float
    longest_s: float = math.inf


PATIENT = Patience(3, 10, 1.0)


@dataclass(frozen=True)
class Cost:
    """Medians in milliseconds: of one image alone, and of each image in batches of `BATCH`, None where that was not measured.

    members: networks that are asked. parameters: all that are needed. indices: of the members; none of a network that does not vote.
    """

    name: str
    members: int
    parameters: int
    one_ms: float
    each_of_batch_ms: float | None
    kind: CostKind
    indices: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def measure(trained: TrainedEnsemble, evaluation: Evaluation, patience: Patience | None = None) -> list[Cost]:
    """The vote of all members, and where there are others, the member that validation picks alone and the networks that do not vote.

    patience: by default `PATIENT`.
    """
    patience = patience or PATIENT
    asked = _asked(trained, evaluation)
    channels, height, width = trained.image_shape
    images: np.ndarray[Any, Any] = (
        np.random.default_rng(0).integers(0, 256, (BATCH, channels, height, width)).astype(np.uint8)
    )
    if (rule := trained.vote.pixels) is not None and rule.value_range is not None:
        low, high = rule.value_range
        images = low + (high - low) * (images.astype(np.float32) / 255)
    ones_ms = _medians_ms([one.network for one in asked], images[:1], patience)
    # At most, since a batch shares work.
    expected_s = [ms / 1000 * BATCH * (patience.warm_ups + patience.least) for ms in ones_ms]
    quick = [place for place, seconds in enumerate(expected_s) if seconds <= patience.longest_s]
    batches_ms = dict(zip(quick, _medians_ms([asked[place].network for place in quick], images, patience), strict=True))
    return [
        Cost(
            one.name,
            len(one.network.vote.members),
            one.parameters,
            ones_ms[place],
            batches_ms[place] / BATCH if place in batches_ms else None,
            one.kind,
            one.indices,
        )
        for place, one in enumerate(asked)
    ]


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is measured: a whole vote, or one network as a vote of its own."""

    name: str
    kind: CostKind
    network: TrainedEnsemble
    indices: tuple[int, ...]
    parameters: int


def _asked(trained: TrainedEnsemble, evaluation: Evaluation) -> list[_Asked]:
    vote, count, reference = trained.vote, len(trained.vote.members), evaluation.verdict.member
    facts = {member.index: member for member in evaluation.members}
    name = f"{vote.aggregator} vote of {count} members" if count > 1 else "the one member"
    needed = parameters_of([facts[index] for index in trained.member_indices])
    found = [_Asked(name, "vote", trained, trained.member_indices, int(needed))]
    single = next((member for member in vote.members if member.index == reference), None)
    if count > 1 and single is not None:
        network = TrainedEnsemble(alone(vote, single), trained.device.type)
        found.append(
            _Asked(f"member {reference} alone", "member", network, (reference,), facts[reference].num_parameters)
        )
    for kind in BESIDE:
        other = beside(vote, kind)
        row = next((row for row in evaluation.leaderboard if row.kind == kind), None)
        if other is not None and row is not None:
            network = TrainedEnsemble(other, trained.device.type)
            found.append(_Asked(row.name, kind, network, (), int(row.num_parameters)))
    return found


def to_store(costs: list[Cost], trained: TrainedEnsemble) -> CostFile:
    """What the run keeps of it, see `storage.cost_file`."""
    kept = [
        StoredCost(
            kind=one.kind,
            members=list(one.indices),
            parameters=one.parameters,
            one_ms=one.one_ms,
            each_of_batch_ms=one.each_of_batch_ms,
        )
        for one in costs
    ]
    return CostFile(machine=machine(trained), batch=BATCH, aggregator=trained.vote.aggregator, costs=kept)


def _medians_ms(networks: Sequence[TrainedEnsemble], images: np.ndarray[Any, Any], patience: Patience) -> list[float]:
    """The median time of a prediction by each network. They take turns, so that a busy moment of the machine is nobody's alone."""
    for network in networks:
        for _ in range(patience.warm_ups):
            network.predict_proba(images)
    times: list[list[float]] = [[] for _ in networks]
    began, rounds = time.perf_counter(), 0
    while rounds < patience.least or time.perf_counter() - began < patience.seconds * len(networks):
        for network, own in zip(networks, times, strict=True):
            start = time.perf_counter()
            network.predict_proba(images)
            own.append(time.perf_counter() - start)
        rounds += 1
    return [1000 * statistics.median(own) for own in times]


def machine(trained: TrainedEnsemble) -> str:
    """On what it was measured, in a few words."""
    if trained.device.type == "cuda":
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def costs_text(costs: list[Cost]) -> str:
    """A table."""
    head = ("", "parameters", "one image, ms", f"each of {BATCH}, ms")
    rows = []
    for one in costs:
        of_batch = "-" if one.each_of_batch_ms is None else f"{one.each_of_batch_ms:.3g}"
        rows.append((one.name, f"{one.parameters:,}", f"{one.one_ms:.3g}", of_batch))
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(4)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))]).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join(lines)
