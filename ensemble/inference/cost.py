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
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch

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
    vote, count, reference = trained.vote, len(trained.vote.members), evaluation.verdict.member
    parameters = {member.index: int(member.num_parameters) for member in evaluation.members}
    name = f"{vote.aggregator} vote of {count} members" if count > 1 else "the one member"
    found = [_cost(name, "vote", trained, trained.member_indices, parameters, patience)]
    single = next((member for member in vote.members if member.index == reference), None)
    if count > 1 and single is not None:
        network = TrainedEnsemble(alone(vote, single), trained.device.type)
        found.append(_cost(f"member {reference} alone", "member", network, (reference,), parameters, patience))
    for kind in BESIDE:
        other = beside(vote, kind)
        row = next((row for row in evaluation.leaderboard if row.kind == kind), None)
        if other is not None and row is not None:
            network = TrainedEnsemble(other, trained.device.type)
            counted = {other.members[0].index: int(row.num_parameters)}
            found.append(_cost(row.name, kind, network, (), counted, patience))
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


def _cost(
    name: str,
    kind: CostKind,
    trained: TrainedEnsemble,
    indices: tuple[int, ...],
    parameters: Mapping[int, int],
    patience: Patience,
) -> Cost:
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *trained.image_shape)).astype(np.uint8)
    needed = sum(parameters[index] for index in trained.member_indices)
    one_ms = _ms(trained, images[:1], patience)
    expected_s = one_ms / 1000 * BATCH * (patience.warm_ups + patience.least)  # at most: a batch shares work
    of_batch_ms = None if expected_s > patience.longest_s else _ms(trained, images, patience) / BATCH
    return Cost(name, len(trained.vote.members), needed, one_ms, of_batch_ms, kind, indices)


def _ms(trained: TrainedEnsemble, images: np.ndarray[Any, np.dtype[np.uint8]], patience: Patience) -> float:
    """The median of as many predictions as patience lasts."""
    for _ in range(patience.warm_ups):
        trained.predict_proba(images)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < patience.least or time.perf_counter() - began < patience.seconds:
        start = time.perf_counter()
        trained.predict_proba(images)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


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
