"""Why members of a run are missing, and what helps: another start does not help against every cause.

why_missing(folder)   # "3 failed, diverged: the loss became infinite; lower training.lr ..."
"""

from __future__ import annotations

from collections import Counter

from ensemble.errors import StorageError
from ensemble.events import MemberFailed
from ensemble.storage import RunFolder

AGAIN = "start the same `ensemble train` again, which trains the missing ones"
# Deterministic failures come back under the same configuration, and members of one run share one.
WHAT_HELPS: dict[str, str] = {
    "diverged": "they would diverge again: lower training.lr or set training.gradient_clip_norm, and give that run another name=...",
    "out_of_memory": "they need a device with more memory, or a smaller training.batch_size under another name=...",
    "unplaceable": f"no slot of the cluster can hold them: add a machine that can, and {AGAIN}",
    "error": f"the code raised: mend the cause (the whole trace is in the run's failures/), then {AGAIN}",
    "crash": AGAIN,
    "hung": f"raise compute.hang_timeout_s if they were only slow, and {AGAIN}",
    "lost_node": AGAIN,
}


def why_missing(folder: RunFolder) -> str:
    """The causes by number of members, the commonest first, and what to do about it."""
    try:
        last = {event.member: event for _, event in folder.events() if isinstance(event, MemberFailed)}
    except StorageError as error:
        return f"why is not known, since the event log cannot be read ({error}); {AGAIN}"
    failed = [event for member, event in sorted(last.items()) if member not in folder.finished()]
    if not failed:
        return AGAIN
    reasons = list(dict.fromkeys(f"{event.kind}: {event.reason}" for event in failed))
    more = f"; and {len(reasons) - 3} more reasons" if len(reasons) > 3 else ""
    kinds = [kind for kind, _ in Counter(event.kind for event in failed).most_common()]
    helps = dict.fromkeys(WHAT_HELPS.get(kind, AGAIN) for kind in kinds)
    return f"the missing ones failed: {'; '.join(reasons[:3])}{more}. What helps: {'; '.join(helps)}"
