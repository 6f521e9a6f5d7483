"""The sets that a run's members voted on, in its folder: see `set_files` for what lies where."""

from __future__ import annotations

from collections.abc import Mapping

from ensemble.storage.member_files import WEIGHTS
from ensemble.storage.names import SET_VOTES, member_folder
from ensemble.storage.parsing import json_model
from ensemble.storage.run_folder import RunFolder
from ensemble.storage.set_files import (
    CastVote,
    SetFacts,
    labels_content,
    labels_file,
    parse_part,
    parse_set_labels,
    part_bytes,
    part_file,
    set_file,
)
from ensemble.types import IntArray

CastVotes = Mapping[int, CastVote]  # by member


class SetStore:
    """Reads and writes the votes on further sets of one run."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """The sets that members have voted on, or begun to."""
        return sorted({name.split("/")[1] for name in self._folder.files() if name.startswith(SET_VOTES)})

    def facts(self, name: str) -> SetFacts:
        """What a set is. Raises StorageError where the run has none of that name, or a damaged file."""
        return json_model(self._folder.read_bytes(set_file(name)), self._folder.path / set_file(name), SetFacts)

    def labels(self, facts: SetFacts) -> IntArray:
        """The class of each image of a set [N], UNKNOWN for none of the run's."""
        name, classes = labels_file(facts.name), len(self._folder.dataset().class_names)
        return parse_set_labels(self._folder.read_bytes(name), self._folder.path / name, facts, classes)

    def begin(self, facts: SetFacts, labels_N: IntArray) -> None:
        """Store what a set is, in place of whatever stood under its name."""
        self.forget(facts.name)
        self._folder.write_all({
            set_file(facts.name): facts.content(),
            labels_file(facts.name): labels_content(labels_N),
        })  # fmt: skip

    def describe(self, facts: SetFacts) -> None:
        """Store other facts of a set whose votes stay what they are."""
        self._folder.write(set_file(facts.name), facts.content())

    def forget(self, name: str) -> None:
        """Remove all votes on a set."""
        self._folder.forget([file for file in self._folder.files() if file.startswith(f"{SET_VOTES}{name}/")])

    def votes(self, facts: SetFacts, part: int) -> CastVotes:
        """What is known of a part; empty where nobody has voted on it."""
        name = part_file(facts.name, part)
        if not self._folder.has(name):
            return {}
        classes = len(self._folder.dataset().class_names)
        return parse_part(self._folder.read_bytes(name), self._folder.path / name, facts.images, classes)

    def save(self, facts: SetFacts, part: int, votes: CastVotes) -> None:
        """Store the votes on a part, all that there are."""
        self._folder.write(part_file(facts.name, part), part_bytes(votes))


def casts(folder: RunFolder, votes: CastVotes, index: int) -> bool:
    """Whether these are votes of the weights that a member has now."""
    return index in votes and votes[index].digest == folder.digest(f"{member_folder(index)}/{WEIGHTS}")
