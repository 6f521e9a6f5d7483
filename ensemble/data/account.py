"""What was read of a person's data set and what was not, part by part and class by class.

    account.remarks()        # sentences for the start of a run; those about losses are warnings
    account.to_json()        # kept in the run's dataset.json

Whatever lies in the data set's folders is either used or counted here under its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ensemble.data.picture_tree import LeftOut, few, reasons_text

CLASSES_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Remark:
    """A sentence about the data. warning: something is not as one would expect it. of_division: it is about which pictures are in
    which part, which is nothing to who takes all of them.
    """

    text: str
    warning: bool = False
    of_division: bool = False


@dataclass(frozen=True)
class PartAccount:
    """One part. used: pictures by class. left_out: by class, "" for what lies beside the class folders."""

    name: str
    used: dict[str, int]
    left_out: dict[str, tuple[LeftOut, ...]] = field(default_factory=dict)

    def remarks(self) -> list[Remark]:
        """What was used, and where something was left out what and why."""
        total = sum(self.used.values())
        counts = [f"{name} {count:,}" for name, count in self.used.items()]
        shown = ", ".join(counts[:CLASSES_SHOWN])
        if len(counts) > CLASSES_SHOWN:
            fewest, most = min(self.used.values()), max(self.used.values())
            shown += f" ... ({len(counts):,} classes of {fewest:,} to {most:,})"
        said = [Remark(f"{self.name}: {total:,} pictures of {len(self.used):,} classes: {shown}")]
        lost = {name: left for name, left in self.left_out.items() if left}
        if lost:
            by_class = [f"{len(left):,} in {name or 'no class'} ({reasons_text(left)})" for name, left in lost.items()]
            count = sum(map(len, lost.values()))
            why = f": {few(by_class, CLASSES_SHOWN)}"
            if list(self.used) == [""]:  # pictures without classes
                why = f" ({reasons_text(left for several in lost.values() for left in several)})"
            said.append(Remark(f"{self.name}: left out {count:,} files{why}", warning=True))
        return said

    def to_json(self) -> dict[str, Any]:
        """Counts by class, and by reason of what was left out."""
        return {
            "used": self.used,
            "left_out": {
                name: dict(Counter(one.reason for one in left)) for name, left in self.left_out.items() if left
            },
        }


@dataclass(frozen=True)
class Account:
    """All parts, and further remarks on how they were read. duplicates: by part the images left out because members train on them."""

    parts: tuple[PartAccount, ...] = ()
    others: tuple[Remark, ...] = ()
    duplicates: Mapping[str, int] = field(default_factory=dict)

    def remarks(self) -> list[Remark]:
        """In the order of the parts, then the others."""
        return [*(remark for part in self.parts for remark in part.remarks()), *self.others]

    def to_json(self) -> dict[str, Any]:
        """As the run keeps it."""
        kept: dict[str, Any] = {
            "parts": {part.name: part.to_json() for part in self.parts},
            "remarks": [remark.text for remark in self.remarks() if remark.warning],
        }
        return {**kept, "duplicates": dict(self.duplicates)} if self.duplicates else kept


def used_by_class(labels: Sequence[int], class_names: Sequence[str]) -> dict[str, int]:
    """How many rows each class has."""
    counts = Counter(int(label) for label in labels)
    return {name: counts[k] for k, name in enumerate(class_names)}
