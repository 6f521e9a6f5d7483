"""What a cluster's own tools call a task: whose it is and what it does, instead of the name of a function."""

from __future__ import annotations

from collections.abc import Iterable

from ensemble.types import Task


def task_label(run: str, task: Task) -> str:
    """Such as "exp2 members 0-7", "exp2 baseline" or "exp2 votes on mnist_c part 3 by members 0-7".

    run: the run's name, which may be empty.
    """
    what = task.what or members_in_words(member.index for member in task.members)
    return f"{run} {what}".strip()


def members_in_words(indices: Iterable[int]) -> str:
    """Such as "member 4", "members 0-7" or "members 0-3, 6": neighbours as first-last."""
    wanted = sorted(set(indices))
    ranges: list[list[int]] = []
    for index in wanted:
        if ranges and index == ranges[-1][1] + 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    words = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
    return f"member {words}" if len(wanted) == 1 else f"members {words}"
