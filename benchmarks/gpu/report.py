"""Goals and tables in Markdown, from the JSON that the benchmark writes.

python -m benchmarks.gpu.report FIRST.json [SECOND.json ...]      # one table; later files win, part by part
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def figure(record: Record, part: str, case: str, key: str) -> float | None:
    """One measured number; None where it was not measured, or where its case failed: then it may be wrong."""
    values = record.get("parts", {}).get(part, {}).get("cases", {}).get(case, {})
    value = None if "error" in values else values.get(key)
    return float(value) if isinstance(value, int | float) else None


def least(record: Record, part: str, start: str, key: str) -> float | None:
    """The smallest of a key's numbers over the cases whose names begin so."""
    cases = record.get("parts", {}).get(part, {}).get("cases", {})
    found = [figure(record, part, case, key) for case in cases if case.startswith(start)]
    return min((value for value in found if value is not None), default=None)


def _over(one: float | None, other: float | None) -> float | None:
    return one / other if one is not None and other else None


_MS, _EPOCH = "ms_per_member_epoch", "s_per_epoch"


@dataclass(frozen=True)
class Goal:
    """title; how the value comes from a record; bound: ">= 20", "<= 15" or "-" where none is set."""

    title: str
    value: Callable[[Record], float | None]
    bound: str

    def reached(self, value: float) -> str:
        """ "yes", "no", or "-" without a bound."""
        if self.bound == "-":
            return "-"
        kind, number = self.bound.split()
        return "yes" if (value >= float(number) if kind == ">=" else value <= float(number)) else "no"


# Every ratio is of two numbers that were measured in the same part, so on the same card within a minute or two.
GOALS: tuple[Goal, ...] = (
    Goal("64 LeNet-5, batch 128, float32: ms per member-epoch of 54,000 images",
         lambda r: figure(r, "steps", "K=64 graph", _MS), "<= 15"),
    Goal("the same by the quickest convolution variant in float32",
         lambda r: least(r, "steps", "K=64 graph", _MS), "<= 6"),
    Goal("the same stack, times as fast as its members one by one",
         lambda r: _over(figure(r, "steps", "K=1 graph", _MS), figure(r, "steps", "K=64 graph", _MS)), ">= 12"),
    Goal("64 LeNet-5, times as fast as Ensemble-PyTorch with torchvision's images",
         lambda r: _over(figure(r, "ensemble_pytorch", "theirs, torchvision", _MS), figure(r, "ensemble_pytorch", "ours K=64", _MS)), ">= 20"),
    Goal("the same, Ensemble-PyTorch with images resident on the GPU",
         lambda r: _over(figure(r, "ensemble_pytorch", "theirs, resident", _MS), figure(r, "ensemble_pytorch", "ours K=64", _MS)), "-"),
    Goal("64 LeNet-5, times as fast as torch.func.vmap at its quickest",
         lambda r: _over(least(r, "vmap", "vmap", _MS), figure(r, "vmap", "ours", _MS)), ">= 2"),
    Goal("8 ShuffleNets (0.5x) on 3x32x32 as one by torch.func, times as fast as one by one",
         lambda r: _over(figure(r, "mapped", "K=1", _MS), figure(r, "mapped", "K=8", _MS)), ">= 2"),
    Goal("ResNet-18, small stem, bf16: seconds per epoch of 50,000 images",
         lambda r: least(r, "resnet18", "ours K=1", _EPOCH), "<= 0.75"),
    Goal("the same, times as fast as the plain loop at its quickest",
         lambda r: _over(least(r, "resnet18", "plain", _EPOCH), least(r, "resnet18", "ours K=1", _EPOCH)), ">= 1"),
    Goal("8 bagged LeNet-5, 10 epochs, whole process: times as fast as Ensemble-PyTorch",
         lambda r: _over(figure(r, "whole_process", "theirs", "seconds_10_epochs"), figure(r, "whole_process", "ours, 10 epochs", "seconds")), ">= 20"),
    Goal("16 LeNet-5: one stack, times as fast as 16 processes on one GPU",
         lambda r: _over(figure(r, "many", "16 processes", _EPOCH), figure(r, "many", "one stack of 16", _EPOCH)), ">= 3"),
    Goal("100 LeNet-5 of 99 %, votes on test included: seconds",
         lambda r: figure(r, "many", "100 members", "seconds"), "<= 4"),
    Goal("configs/record_mnist.yaml, hours for all of it, from its time per member-epoch",
         lambda r: figure(r, "record", "all of it, float32", "hours"), "-"),
)  # fmt: skip


def table(record: Record | None) -> str:
    """The goals and what was measured, in Markdown; empty cells for what was not, and for everything of a dry run."""
    measured = record if record is not None and not record.get("dry_run") else {}
    card = measured.get("parts", {}).get("facts", {}).get("cases", {}).get("card")
    where = "Not measured yet: no GPU was at hand." if not measured else f"{_setup(card or {})}."
    lines = ["## One GPU", "", f"`python -m benchmarks.gpu`, see docs/gpu.md. {where}", ""]
    lines += ["| what | goal | measured | reached |", "|---|---:|---:|---|"]
    for goal in GOALS:
        value = goal.value(measured)
        cells = " | |" if value is None else f"{value:.3g} | {goal.reached(value)} |"
        lines.append(f"| {goal.title} | {goal.bound} | {cells}")
    return "\n".join([*lines, ""])


def markdown(record: Record) -> str:
    """Everything: what it ran on, goals, how each part ended, and all cases."""
    card = record.get("parts", {}).get("facts", {}).get("cases", {}).get("card", {})
    lines = ["# GPU benchmark", ""]
    if record.get("dry_run"):
        lines += ["**A dry run with tiny sizes: its figures mean nothing.**", ""]
    lines += [f"{_setup(card)}; commit {record.get('commit')}; {record.get('started')}.", "", table(record)]
    lines += ["## Parts", "", "| part | state | seconds | cases failed | remark |", "|---|---|---:|---:|---|"]
    for name, part in record.get("parts", {}).items():
        failed = sum("error" in values for values in part["cases"].values())
        lines.append(
            f"| {name} | {part.get('state')} | {part.get('seconds', '')} | {failed} | {part.get('reason', '')} |"
        )
    for name, part in record.get("parts", {}).items():
        lines += ["", f"### {name}", "", *_cases(part)]
    return "\n".join([*lines, ""])


def merged(records: list[Record]) -> Record:
    """One record of several: the parts of later ones take the place of earlier ones' where they ran.

    Raises ValueError when they were measured on different cards or with different versions of anything.
    """
    together: Record = {"parts": {}}
    setups: dict[str, None] = {}
    for record in records:
        card = record["parts"].get("facts", {}).get("cases", {}).get("card")
        if card:
            setups[_setup(card)] = None
        ran = {name: part for name, part in record["parts"].items() if part.get("state") != "not run"}
        together = {**record, "parts": {**together["parts"], **ran}}
        together["dry_run"] = any(one.get("dry_run") for one in records)
    if len(setups) > 1:
        raise ValueError(
            f"measured on different machines: {'; '.join(setups)}; expected one card and one set of versions"
        )
    together["commit"] = ", ".join(dict.fromkeys(str(record.get("commit")) for record in records))
    return together


def _setup(card: Record) -> str:
    """The card and the versions in one line."""
    if not card:
        return "On an unknown card (the part `facts` did not run)"
    versions = ", ".join(
        f"{name} {card.get(name)}" for name in ("driver", "python", "torch", "cuda", "cudnn", "triton")
    )
    return f"On one {card.get('name')}, {versions}"


def _cases(part: Record) -> Iterator[str]:
    """A list of the part's cases; tables inside a case as indented lines."""
    if part.get("about"):
        yield f"{part['about'][0].upper()}{part['about'][1:]}."
        yield ""
    for name, values in part["cases"].items():
        yield f"- **{name}**: {in_short(values)}"
        for key, value in values.items():
            if isinstance(value, dict):
                yield f"    - {key}: " + ", ".join(f"{inner} {_number(one)}" for inner, one in value.items())
            elif isinstance(value, list) and key != "notes":
                yield from (f"    - {key}: {_number(one)}" for one in value)
    if part.get("state") not in ("passed", "not run", None) and part.get("printed"):
        yield from ("", "It printed at its end:", "")
        yield from (f"    {line}" for line in part["printed"].splitlines()[-12:])


def in_short(values: Record) -> str:
    """The plain values of a case and its notes (a refused CUDA graph, say) in one line."""
    plain = [f"{key} {_number(value)}" for key, value in values.items() if not isinstance(value, list | dict)]
    return ", ".join([*plain, *(f"note: {note}" for note in values.get("notes", ()))])


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    print(markdown(merged([json.loads(Path(name).read_text()) for name in sys.argv[1:]])))
