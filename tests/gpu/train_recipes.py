"""Train recipes on a pretended device, each with CUDA graphs (true), without (false) or as is the default (null).

python tests/gpu/run.py python tests/gpu/train_recipes.py '[["dropout", true], ["dropout", false]]'
"""

from __future__ import annotations

import itertools
import statistics
import traceback
import warnings
from typing import Any

from cases import answer
from gpu_log import LAUNCHES, WAITS, Record, count, faults, not_modelled, position, recorded
from recipes import RECIPES
from small_training import train

from ensemble.events import EpochFinished, Notice
from ensemble.types import Failure, MemberResult


def look_at(name: str, graph: bool | None) -> dict[str, Any]:
    """Train it once; all that a test wants to know of it."""
    recipe, compute = RECIPES[name], {} if graph is None else {"cuda_graph": graph}
    trained, failures, notices, ends, error = 0, [], [], {}, ""
    with recorded() as records, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            for item in train(recipe, **compute):
                trained += isinstance(item, MemberResult)
                if isinstance(item, Failure):
                    failures.append(item.reason)
                elif isinstance(item, Notice):
                    notices.append(item.message)
                elif isinstance(item, EpochFinished):
                    ends.setdefault(item.epoch, position())
        except Exception:
            error = traceback.format_exc(limit=-6)
    last = sorted(ends)[-1:]
    return {
        "trained": trained, "failures": failures, "notices": notices, "error": error,
        "warnings": sorted({str(found.message) for found in warned}), "faults": faults(records),
        "not_modelled": not_modelled(records),
        "graph_launches": sum(record.kind == "graph launch" for record in records),
        "step": steady_step(records[ends[last[0] - 1] : ends[last[0]]]) if last and last[0] > 1 else None,
    }  # fmt: skip


def steady_step(epoch: list[Record]) -> dict[str, Any] | None:
    """What the steps of an epoch put into streams, and how often they waited; None where fewer than two graphs ran.

    launches: of the usual step, from behind its predecessor's graph to its own. waits: of all of them together. kinds:
    of the launches of one step.
    """
    at = [i for i, record in enumerate(epoch) if record.kind == "graph launch"]
    if len(at) < 2:
        return None
    steps = [epoch[one + 1 : other + 1] for one, other in itertools.pairwise(at)]
    launches = [sum(record.kind in LAUNCHES for record in step) for step in steps]
    usual = statistics.median_low(launches)
    waits = sum(record.kind in WAITS for step in steps for record in step)
    return {"launches": usual, "waits": waits, "kinds": count(steps[launches.index(usual)])}


if __name__ == "__main__":
    answer(look_at)
