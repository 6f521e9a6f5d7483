"""cost.json: what predictions took on the machine where the run was judged, or where `ensemble cost` measured them later.

A file of its own, since a measured time differs from run to run and the judgement of the same members does not.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ensemble.config.schema import Aggregator
from ensemble.storage.atomic import json_bytes
from ensemble.storage.descriptions import Index, Positive
from ensemble.storage.names import COST
from ensemble.storage.parsing import Stored, json_model
from ensemble.storage.run_folder import RunFolder

CostKind = Literal["vote", "member", "baseline", "longer", "wider"]
Milliseconds = Annotated[float, Field(gt=0)]


class StoredCost(Stored):
    """Who predicts, and medians per image: of one alone, and of each in batches, null where a batch would have taken too long.

    members: that are asked; none for networks that do not vote.
    """

    kind: CostKind
    members: list[Index]
    parameters: Positive
    one_ms: Milliseconds
    each_of_batch_ms: Milliseconds | None


class CostFile(Stored):
    """machine: where it was measured, in words. batch: images in a batch. aggregator: of the vote."""

    machine: str
    batch: Positive
    aggregator: Aggregator
    costs: list[StoredCost]


def save_costs(folder: RunFolder, costs: CostFile) -> None:
    """Keep them in a run that is open for writing, instead of what was measured before."""
    folder.write(COST, json_bytes(costs.model_dump(mode="json")))


def load_costs(folder: RunFolder) -> CostFile | None:
    """What was measured last; None where nobody did. Raises StorageError for a damaged file."""
    return json_model(folder.read_bytes(COST), folder.path / COST, CostFile) if folder.has(COST) else None
