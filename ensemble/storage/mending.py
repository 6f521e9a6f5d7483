"""Before a run goes on: every listed file is read, and what another training can make again is made again.

A start that ends without an error has therefore read every file of the run and found it sound.
"""

from __future__ import annotations

from ensemble.storage.names import BESIDE, DERIVED, EVENTS, SET_VOTES, SHARED, beside_of, member_of
from ensemble.storage.remedies import PASSING
from ensemble.storage.run_folder import RunFolder


def mend(folder: RunFolder) -> list[str]:
    """Take damaged members off the list, so that they are trained again to the same bits; returns what was done, a line each.

    Files that training writes anew at its end stay until then. Raises StorageError for a file that nothing but a copy can
    restore, and the log of events, which is not made up again.
    """
    damaged = folder.damaged_files()
    for error in damaged:
        if not _can_be_mended(folder, error.name):
            raise error
    lines = []
    for index in sorted({index for error in damaged if (index := member_of(error.name)) is not None}):
        files = ", ".join(error.name.rpartition("/")[2] for error in damaged if member_of(error.name) == index)
        lines.append(f"member {index}: {files} is damaged or missing; it is trained again")
        folder.drop_member(index)
    for which, place in BESIDE.items():
        if own := [error.name.removeprefix(place) for error in damaged if error.name.startswith(place)]:
            lines.append(f"{which}: {', '.join(own)} is damaged or missing; it is trained again")
            folder.drop_beside(which)
    shared = [error.name for error in damaged if error.name.startswith(SHARED)]
    folder.forget(shared)
    lines += [f"{name} is damaged or missing; it is written anew" for name in shared]
    for name in sorted({error.name.split("/")[1] for error in damaged if error.name.startswith(SET_VOTES)}):
        lines.append(
            f"the votes on the set {name} are damaged or missing; {name} is voted on again where the configuration has it"
        )
        folder.forget([file for file in folder.files() if file.startswith(f"{SET_VOTES}{name}/")])
    passing = [error.name for error in damaged if error.name.startswith(PASSING) or error.name == EVENTS]
    folder.forget(passing)
    lines += [f"{name} is damaged or missing, and left out" for name in passing]
    lines += [f"{error.name} is damaged or missing; it is written anew" for error in damaged if error.name in DERIVED]
    return lines


def _can_be_mended(folder: RunFolder, name: str) -> bool:
    if name == EVENTS:  # somebody took it away, as the advice about a damaged one says
        return not (folder.path / EVENTS).exists()
    again = member_of(name) is not None or beside_of(name) is not None or name in DERIVED
    return again or name.startswith((*PASSING, SHARED, SET_VOTES))
