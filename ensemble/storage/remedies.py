"""What a person can do about a file of a run that cannot be read or believed: one place says it for every reader.

raise unfit(path, "no JSON")                # ...: damaged: no JSON; restore it from a copy, or ...
raise unreadable(path, error) from error    # ...: cannot be read: Permission denied; make it readable ...
"""

from __future__ import annotations

import errno
from pathlib import Path

from ensemble.errors import StorageError
from ensemble.storage.names import BESIDE, COST, DERIVED, EVENTS, SET_VOTES, SHARED, beside_of, is_of_the_run, member_of

# Kept for a while or for people: a run is whole without them.
PASSING = ("checkpoints/", "failures/", COST)
# The folders of a run that a reader meets, by how deep their files lie.
_FOLDERS = {
    3: ("members/", SET_VOTES, BESIDE["longer"], BESIDE["wider"]),
    2: (BESIDE["baseline"], SHARED, *PASSING[:2]),
}


def what_to_do(name: str, remove: bool = False) -> str:
    """How a run comes by an undamaged file of that name. remove: first take it away, since only its content shows the damage."""
    again = f"{'remove it and ' if remove else ''}start the run's `ensemble train` again"
    member = member_of(name)
    if member is not None:
        return f"restore it from a copy, or {again}, which trains member {member} again"
    if (which := beside_of(name)) is not None:
        who = "the baseline" if which == "baseline" else f"the control {which}"
        return f"restore it from a copy, or {again}, which trains {who} again"
    if name.startswith(SET_VOTES):
        return f"restore it from a copy, or {again}, which votes anew on the sets of its configuration (of others: `ensemble evaluate RUN --on SET`, or --forget SET)"
    if name == COST:
        return "restore it from a copy, or measure again: `ensemble cost RUN`"
    if name in DERIVED or name.startswith((*PASSING, SHARED)):
        return f"restore it from a copy, or {again}, which writes it anew"
    if name == EVENTS:
        return "restore it from a copy, or remove it and start the run's `ensemble train` again: only the history of what happened is lost"
    if name.startswith("manifest.") and name.endswith(".log"):
        return "restore it from a copy, or start the run's `ensemble train` again, which goes on from what was listed before and trains again what was listed there"
    return "restore it from a copy; without one the run must be trained anew under another name=..."


def unfit(where: Path, what: str) -> StorageError:
    """The error of a file of a run that holds something else than its kind does. what: what was found, and what was expected."""
    return StorageError(f"{where}: damaged: {what}; {what_to_do(name_in_run(where), remove=True)}")


def unreadable(path: Path, error: OSError, verb: str = "read") -> StorageError:
    """The error of a file that the system does not hand out, or take. verb: what was tried."""
    return StorageError(
        f"{path}: cannot be {verb}: {error.strerror or error}; {_BY_CAUSE.get(error.errno or 0, _ELSE)}"
    )


def name_in_run(path: Path) -> str:
    """What a run's manifest calls a file: its name, below the folder of the run that it lies in."""
    for depth in (3, 2):
        name = "/".join(path.parts[-depth:])
        if (
            name.count("/") == depth - 1
            and name.startswith(_FOLDERS[depth])
            and (depth == 3 or not is_of_the_run(path.name))
        ):
            return name
    return path.name


_ELSE = "try again; if it stays so, restore the file or folder from a copy"
_PERMISSIONS = "check its permissions, and those of the folders above it, or ask as the user it belongs to"
_BY_CAUSE = {
    errno.EACCES: _PERMISSIONS,
    errno.EPERM: _PERMISSIONS,
    errno.ENOENT: "restore it from a copy, or put the run folder back where it was",
    errno.ESTALE: "the folder was mounted anew: start again once it is there",
    errno.EISDIR: "a folder lies where a file should: move it away, then restore the file from a copy",
    errno.ENOTDIR: "a file lies where a folder should: move it away, then restore the folder from a copy",
    errno.ELOOP: "links lead in a circle: remove them",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EMFILE: "this process may open too few files: raise the limit with `ulimit -n 4096`",
    errno.ENFILE: "too many files are open on this machine: try again when there are fewer",
    errno.ENOSPC: "free space, then start again",
    errno.EDQUOT: "the quota is used up: free space, then start again",
    errno.EFBIG: "files may not grow that large here: raise the limit with `ulimit -f unlimited`, then start again",
    errno.EROFS: "the disk is mounted for reading only: use another folder, or mount it for writing",
}
