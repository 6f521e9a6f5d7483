"""What becomes of a cluster's machines while a run uses them, looked at from the driver every few seconds.

Ray gives up a machine whose cable is pulled after minutes only. Here its port is knocked at: a line comes within half a
minute, and no further task is placed there until it answers again.
"""

from __future__ import annotations

import math
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import ray
from ray.exceptions import RayError

from ensemble import signals

_LOOK_EVERY_S = 5.0
_CONNECT_S = 2.0
_MISSES = 2  # looks in a row
_HEAD_SILENT_S = 20.0
GIVEN_UP_S = (
    60.0  # after which the tasks of a machine that does not answer are tried elsewhere; Ray itself may take minutes
)
GONE_S = 20.0  # for Ray to say of a task that its node has left; seen not to for tasks that had just begun
_SAY_AGAIN_S = 25.0  # of a machine that still does not answer


@dataclass(slots=True)
class _Machine:
    name: str
    misses: int = 0
    since: float = 0.0  # when the first of these misses was
    said: float = 0.0  # when that was last said


@dataclass(slots=True)
class HostWatch:
    """Watches in a thread of its own, since a head that hangs answers no question in time.

    silent: identifiers of the nodes that do not answer now. changed: when one last fell silent, answered again or left; what
    Ray was doing with that machine at the time may be lost, or waited for by Ray for minutes.
    """

    silent: set[str] = field(default_factory=set)
    changed: float = -math.inf
    _trouble: dict[str, float] = field(default_factory=dict)  # when a machine of this name was last seen not to answer
    _gone: dict[str, float] = field(default_factory=dict)  # when a machine of this name left the cluster
    _known: dict[str, _Machine] = field(default_factory=dict)
    _told: Counter[str] = field(default_factory=Counter)
    _news: SimpleQueue[str] = field(default_factory=SimpleQueue)
    _ended: threading.Event = field(default_factory=threading.Event)
    _answered: float = field(default_factory=time.monotonic)
    _head_silent: bool = False

    def start(self) -> None:
        """Begin to watch."""
        signals.start_deaf(threading.Thread(target=self._watch, daemon=True))

    def stop(self) -> None:
        """End with the next look."""
        self._ended.set()

    def news(self) -> list[str]:
        """What has happened since the last time, in words."""
        found = []
        while True:
            try:
                found.append(self._news.get_nowait())
            except Empty:
                break
        now = time.monotonic()
        for machine in self._silent_machines():
            if now - machine.said > _SAY_AGAIN_S:
                machine.said = now
                then = f"; tasks that it has are tried elsewhere after {GIVEN_UP_S:g} s"
                silent = now - machine.since
                found.append(f"{machine.name} has not answered for {silent:.0f} s{then if silent < GIVEN_UP_S else ''}")
        silent_s = now - self._answered
        if silent_s > _HEAD_SILENT_S and not self._head_silent:
            self._head_silent = True
            found.append(
                f"the head of the Ray cluster has not answered for {silent_s:.0f} s; tasks that are under way go on"
            )
        return found

    def silent_s(self, host: str) -> float:
        """Seconds for which a machine has not answered; 0 where it does, or is none of the cluster's."""
        since = [machine.since for machine in self._silent_machines() if machine.name == host]
        return time.monotonic() - min(since) if since else 0.0

    def gone_s(self, host: str) -> float:
        """Seconds since a machine left the cluster; 0 where it is part of it, or never was."""
        left = self._gone.get(host)
        return 0.0 if left is None else time.monotonic() - left

    def was_silent(self, host: str, since: float) -> bool:
        """Whether a machine has not answered for a while since that moment."""
        return self._trouble.get(host, -math.inf) > since

    def _tell(self, text: str) -> None:
        """News, numbered where it came before: a run passes the same line on once."""
        self._told[text] += 1
        times = self._told[text]
        self._news.put(text if times == 1 else f"{text} (time {times})")

    def _silent_machines(self) -> list[_Machine]:
        known = dict(self._known)  # the other thread changes it
        return [known[number] for number in set(self.silent) if number in known]

    def _watch(self) -> None:
        first = True
        while not self._ended.wait(0 if first else _LOOK_EVERY_S):
            try:
                nodes = ray.nodes()
            except (RayError, RuntimeError):  # the head is away, or Ray is being left
                continue
            self._answered = time.monotonic()
            if self._head_silent:
                self._head_silent = False
                self._tell("the head of the Ray cluster answers again")
            self._compare([node for node in nodes if node["Alive"]], first)
            first = False

    def _compare(self, alive: list[dict[str, Any]], first: bool) -> None:
        there = {node["NodeID"]: node for node in alive}
        for number in [number for number in self._known if number not in there]:
            self.silent.discard(number)
            name = self._known.pop(number).name
            self._gone[name] = self.changed = time.monotonic()
            self._tell(f"{name} has left the Ray cluster")
        for node in there.values():
            self._gone.pop(node["NodeManagerHostname"], None)
        for number, node in there.items():
            if number not in self._known:
                self._known[number] = _Machine(node["NodeManagerHostname"])
                if not first:
                    self._tell(f"{node['NodeManagerHostname']} has joined the Ray cluster")
            self._knock(number, node)

    def _knock(self, number: str, node: dict[str, Any]) -> None:
        machine = self._known[number]
        if _answers(node["NodeManagerAddress"], node["NodeManagerPort"]):
            machine.misses = 0
            if number in self.silent:
                self.silent.discard(number)
                self.changed = time.monotonic()
                self._tell(f"{machine.name} answers again")
            return
        machine.misses += 1
        if machine.misses == 1:
            machine.since = time.monotonic()
        if machine.misses >= _MISSES:
            self._trouble[machine.name] = time.monotonic()
        if machine.misses == _MISSES:
            machine.said = self.changed = time.monotonic()
            self.silent.add(number)
            self._tell(f"{machine.name} does not answer; no further task is placed there until it does")


def _answers(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), _CONNECT_S):
            return True
    except OSError:
        return False
