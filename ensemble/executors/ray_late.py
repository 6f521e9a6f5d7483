"""Tasks that Ray is late with: those that have not begun though there is room, and those whose words do not arrive.

    r members 10-11: not begun 0:30 after it was asked for, though 2 slots are free
    what r members 2-3 sent from two has not arrived for 0:30
    r members 2-3: nothing heard from two for 0:30, which had not answered for a while

All may be as it should be: a process starts slowly, a result is large, votes take their time. After a machine fell silent they were
seen to last for minutes (docs/results/hosts.md): then the first are handed over again, to a node that has room, and the others are
tried again elsewhere. Of what was sent Ray may know, or not even that.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from ensemble.executors.base import Collector
from ensemble.executors.labels import task_label
from ensemble.executors.ray_hosts import HostWatch
from ensemble.executors.ray_waiting import Slots
from ensemble.executors.said_again import SaidAgain
from ensemble.tracking.progress import duration

BEGINS_S = 30.0  # for a task to begin where there is room, until that is said
ARRIVES_S = 60.0  # for what a task has sent to arrive from a machine that was silent meanwhile
_SAY_AFTER_S = 25.0  # of what does not arrive
_AFTER_TROUBLE_S = 300.0  # for which tasks that do not begin are put down to a machine that fell silent
_RECOVERS_S = 30.0  # after trouble: words that come later show that the way from that machine is whole
PAUSE_S = (
    5.0  # between two looks, of a driver that did something else; what tasks said meanwhile has not been looked at
)


@dataclass(slots=True, eq=False)
class UnderWay:
    """A task that Ray has been given. refused: its process could not train it, and it must be started again."""

    collector: Collector
    started: float = field(default_factory=time.monotonic)
    heard: float | None = None  # when it last said anything; none before its first word
    sent: float | None = None  # since when it has sent something that is not here
    refused: bool = False

    @property
    def silent_s(self) -> float:
        """Seconds since its last word; 0 before the first, since it may be waiting for a slot."""
        return 0.0 if self.heard is None else time.monotonic() - self.heard

    @property
    def sent_s(self) -> float:
        """Seconds since it has sent something that is not here; 0 where all has arrived."""
        return 0.0 if self.sent is None else time.monotonic() - self.sent


def note_what_is_sent(running: Mapping[Any, UnderWay]) -> None:
    """Find the tasks that have sent something which Ray has not brought here yet."""
    streams = list(running)
    if not streams:
        return
    sent, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
    here, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=True)
    late = set(sent) - set(here)
    for stream, work in running.items():
        work.sent = (work.sent or time.monotonic()) if stream in late else None


def not_arrived(run: str, running: Iterable[UnderWay], said: SaidAgain) -> Iterator[str]:
    """Now and then, a line for every task whose words have been under way for long."""
    for work in running:
        if work.sent_s > _SAY_AFTER_S and said.due(work.collector.task.id, _SAY_AFTER_S):
            place = work.collector.place
            host = f" from {place.host}" if place else ""
            yield f"what {task_label(run, work.collector.task)} sent{host} has not arrived for {duration(work.sent_s)}"


def not_heard(run: str, running: Iterable[UnderWay], hosts: HostWatch, said: SaidAgain) -> Iterator[str]:
    """Now and then, a line for every task that has said nothing for long on a machine that fell silent since it began and answers again."""
    for work in running:
        host = "" if work.collector.place is None else work.collector.place.host
        if not cut_off(work, hosts) or work.sent is not None or hosts.silent_s(host):
            continue
        if work.silent_s > _SAY_AFTER_S and said.due(work.collector.task.id, _SAY_AFTER_S):
            label = task_label(run, work.collector.task)
            yield f"{label}: nothing heard from {host} for {duration(work.silent_s)}, which had not answered for a while"


def cut_off(work: UnderWay, hosts: HostWatch) -> bool:
    """Whether the machine of a task fell silent since the task began, and the last word of it came before that or soon after."""
    since = work.started if work.heard is None else max(work.started, work.heard - _RECOVERS_S)
    return work.collector.place is not None and hosts.was_silent(work.collector.place.host, since)


def allow_for_pause(running: Iterable[UnderWay], paused_s: float) -> None:
    """Do not count against tasks for how long nobody listened to them."""
    for work in running:
        if work.heard is not None and paused_s > PAUSE_S:
            work.heard += paused_s


def not_begun(run: str, running: Iterable[UnderWay], slots: Slots, said: SaidAgain) -> Iterator[str]:
    """Now and then, a line for every task that has not begun though there is room."""
    for work in running:
        waited_s = time.monotonic() - work.started
        if work.heard is None and slots.free > 0 and waited_s > BEGINS_S and said.due(work.collector.task.id, BEGINS_S):
            free = f"{slots.free} {'slot is' if slots.free == 1 else 'slots are'} free"
            yield f"{task_label(run, work.collector.task)}: not begun {duration(waited_s)} after it was asked for, though {free}"


def overdue(running: Mapping[Any, UnderWay], slots: Slots, hosts: HostWatch) -> list[Any]:
    """Streams of tasks that have not begun though there is room, after a machine has fallen silent or left."""
    now = time.monotonic()
    if not slots.free_nodes or now - hosts.changed > _AFTER_TROUBLE_S:
        return []
    return [s for s, work in running.items() if work.heard is None and now - work.started > BEGINS_S]
