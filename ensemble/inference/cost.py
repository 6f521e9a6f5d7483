"""What a prediction takes on this machine: milliseconds and parameters of the whole vote, and of the member that validation picks.

    for one in measure(load_ensemble("runs/quickstart"), run.evaluation):
        print(one.name, one.one_ms, one.each_of_batch_ms)

From images as bytes to probabilities, as `TrainedEnsemble.predict_proba` does it, in this process with the threads it has.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from ensemble.evaluation.records import Evaluation
from ensemble.inference.trained import TrainedEnsemble

BATCH = 64
_WARM_UPS, _LEAST, _PATIENCE_S = 3, 10, 1.0


@dataclass(frozen=True)
class Cost:
    """Medians in milliseconds: of one image alone, and of each image in batches of `BATCH`. parameters: all that are needed."""

    name: str
    members: int
    parameters: int
    one_ms: float
    each_of_batch_ms: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def measure(trained: TrainedEnsemble, evaluation: Evaluation) -> list[Cost]:
    """The vote of all members, and the member that validation picks alone (where there are others)."""
    vote, count, reference = trained.vote, len(trained.vote.members), evaluation.verdict.member
    parameters = {member.index: int(member.num_parameters) for member in evaluation.members}
    found = [
        _cost(f"{vote.aggregator} vote of {count} members" if count > 1 else "the one member", trained, parameters)
    ]
    alone = tuple(member for member in vote.members if member.index == reference)
    if count > 1 and alone:
        single = TrainedEnsemble(replace(vote, members=alone, weights_M=None, aggregator="soft"), trained.device.type)
        found.append(_cost(f"member {reference} alone", single, parameters))
    return found


def _cost(name: str, trained: TrainedEnsemble, parameters: dict[int, int]) -> Cost:
    images = np.random.default_rng(0).integers(0, 256, (BATCH, *trained.image_shape)).astype(np.uint8)
    needed = sum(parameters[index] for index in trained.member_indices)
    return Cost(name, len(trained.vote.members), needed, _ms(trained, images[:1]), _ms(trained, images) / BATCH)


def _ms(trained: TrainedEnsemble, images: np.ndarray[Any, np.dtype[np.uint8]]) -> float:
    """The median of at least ten predictions, and of as many as fit into a second."""
    for _ in range(_WARM_UPS):
        trained.predict_proba(images)
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < _LEAST or time.perf_counter() - began < _PATIENCE_S:
        start = time.perf_counter()
        trained.predict_proba(images)
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def machine() -> str:
    """On what it was measured, in a few words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def costs_text(costs: list[Cost]) -> str:
    """A table."""
    head = ("", "parameters", "one image, ms", f"each of {BATCH}, ms")
    rows = [(one.name, f"{one.parameters:,}", f"{one.one_ms:.3g}", f"{one.each_of_batch_ms:.3g}") for one in costs]
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(4)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in (1, 2, 3))]).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join(lines)
