"""What is said while a run's tasks wait for a slot of a Ray cluster that other jobs hold.

    exp2: members 0-7 wait for 1 CPU and 1 GPU; the cluster has 2 slots, 0 free; asked 0:30 ago
    exp2: members 0-7 have a slot, asked 1:12 ago

Whether a task waits is asked of the cluster's head, since a task whose process is still starting has said nothing
either. Nothing is said of tasks that wait behind others of the same run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import ray
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # of the compiled module
from ray.autoscaler.v2.sdk import get_cluster_resource_state

from ensemble.executors.labels import members_in_words
from ensemble.executors.ray_cluster import fitting_on
from ensemble.tracking.progress import duration
from ensemble.types import Task

FIRST_S = 10.0  # after it has been asked for, until it is said that a task waits
LOOK_EVERY_S = 5.0  # between two questions to the cluster
EVERY_S = 30.0  # between two lines, until ...
OFTEN_S = 600.0  # ... a task has waited so long
RARELY_EVERY_S = 600.0  # then this long lies between two


@dataclass(frozen=True, slots=True)
class Need:
    """What each task takes: `workers` times so many CPUs and GPUs, of a type where that is named, each lot on one node."""

    cpus: float
    gpus: float
    workers: int = 1
    gpu_type: str | None = None

    def __str__(self) -> str:
        words = _count(self.cpus, "CPU")
        if self.gpus:
            words += f" and {_count(self.gpus, 'GPU')}" + (f" of type {self.gpu_type}" if self.gpu_type else "")
        return words if self.workers == 1 else f"{self.workers} times {words}"


@dataclass(frozen=True, slots=True)
class Slots:
    """What the head says: tasks that the nodes can hold, those they could hold now, and whether any such request waits.

    free_nodes: identifiers of the nodes that could hold one now.
    """

    total: int
    free: int
    waits: bool
    free_nodes: tuple[str, ...] = ()


@dataclass(slots=True)
class WaitingLines:
    """Says which tasks wait, after a while and then again and again, and once when it is over.

    run: the name to say. Times are seconds of one clock.
    """

    run: str
    need: Need
    _looked: float = 0.0  # when the cluster was last asked
    _told: float | None = None  # when the last line was given
    _waited: dict[str, Task] = field(default_factory=dict)  # that wait as far as has been said, by identifier
    _began: dict[str, Task] = field(default_factory=dict)  # those of them that have begun
    _asked: float = 0.0  # when the first of them was handed over

    def due(self, asked: Sequence[float], now: float) -> bool:
        """Whether the cluster is to be asked now, and not again for a while. asked: when each task that has not begun was handed over."""
        if not asked or now - min(asked) < FIRST_S or now - self._looked < LOOK_EVERY_S:
            return False
        self._looked = now
        return True

    def wait(self, tasks: Sequence[tuple[Task, float]], under_way: int, slots: Slots, now: float) -> str | None:
        """What is to be said of tasks that have not begun, each with the time when it was handed over.

        under_way: how many of the run's tasks have begun and not ended.
        """
        if not slots.waits:  # their processes are starting
            self._began |= self._waited
            self._waited = {}
            return self._end(now) if self._began else None
        if slots.free > 0 or under_way >= max(1, slots.total):
            return None
        asked = min(moment for _, moment in tasks)
        pause = EVERY_S if now - asked < OFTEN_S else RARELY_EVERY_S
        if self._told is not None and now - self._told < pause:
            return None
        self._told, self._asked = now, asked
        waiting = [task for task, _ in tasks]
        self._waited = {task.id: task for task in waiting}
        held = f", {under_way} of them held by this run" if under_way else ""
        return (
            f"{self.run}: {_whose(waiting)} {'wait' if _many(waiting) else 'waits'} for {self.need}{' per task' if len(waiting) > 1 else ''}; "
            f"the cluster has {_count(slots.total, 'slot')}, {slots.free} free{held}; asked {duration(now - self._asked)} ago"
        )

    def begin(self, task: Task, now: float) -> str | None:
        """What is to be said when a task has begun: something where it is the last of those that were said to wait."""
        if self._waited.pop(task.id, None) is None:
            return None
        self._began[task.id] = task
        if self._waited:
            return None
        return self._end(now)

    def _end(self, now: float) -> str:
        begun, self._began, self._told = list(self._began.values()), {}, None
        have = "have their slots" if len(begun) > 1 else "have a slot" if _many(begun) else "has a slot"
        return f"{self.run}: {_whose(begun)} {have}, asked {duration(now - self._asked)} ago"

    def drop(self, task: Task) -> None:
        """A task is not waited for any longer."""
        self._waited.pop(task.id, None)


def slots_now(need: Need, avoided: Collection[str] = ()) -> Slots:
    """Ask the head of the cluster to which this process is connected. Raises RuntimeError or what gRPC raises."""
    state = get_cluster_resource_state(GcsClient(address=ray.get_runtime_context().gcs_address))
    nodes = [node for node in state.node_states if node.node_id.hex() not in avoided]
    each = need.cpus, need.gpus, need.gpu_type
    total = sum(fitting_on(dict(node.total_resources), *each) for node in nodes)
    room = {n.node_id.hex(): fitting_on(dict(n.available_resources), *each) for n in nodes}
    asked = [one.request for one in state.pending_resource_requests]
    if need.workers > 1:
        asked = [part for gang in state.pending_gang_resource_requests for part in gang.requests]
    waits = any(_same(dict(one.resources_bundle), need) for one in asked)
    free_nodes = tuple(sorted(node for node, fits in room.items() if fits > 0))
    return Slots(total // need.workers, sum(room.values()) // need.workers, waits, free_nodes)


def _same(bundle: Mapping[str, float], need: Need) -> bool:
    found = bundle.get("CPU", 0.0), bundle.get("GPU", 0.0)
    return all(abs(one - other) < 1e-3 for one, other in zip(found, (need.cpus, need.gpus), strict=True))


def _many(tasks: Collection[Task]) -> bool:
    """Whether what `_whose` says is more than one."""
    return len(tasks) > 1 or sum(len(task.members) for task in tasks if not task.what) > 1


def _whose(tasks: Collection[Task]) -> str:
    trained = [member.index for task in tasks if not task.what for member in task.members]
    words = [members_in_words(trained)] if trained else []
    words += [task.what for task in tasks if task.what]
    return ", ".join(words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}" if number == 1 else f"{number:g} {what}s"
