"""What Ray is late with is said, and after trouble with a machine asked for again."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from ensemble.events import TaskStarted
from ensemble.executors.base import Collector
from ensemble.executors.ray_hosts import HostWatch, _Machine
from ensemble.executors.ray_late import UnderWay, allow_for_pause, not_arrived, not_begun, not_heard, overdue
from ensemble.executors.ray_tasks import RayExecutor
from ensemble.executors.ray_waiting import Slots
from ensemble.executors.said_again import SaidAgain
from tests.contracts.executor_contract import tasks

FREE, FULL = Slots(3, 2, True, ("aa", "bb")), Slots(3, 0, True)


def under_way(started_s: float = 0.0, **more: Any) -> UnderWay:
    """A task on the machine two that was handed over so many seconds ago."""
    (task,) = tasks(2)
    collector = Collector(task, lambda _item: None)
    collector.take(TaskStarted(task.id, (0, 1), "mlp", 1, "two", 1, "cpu", 1))
    return UnderWay(collector, started=time.monotonic() - started_s, **more)


def test_a_task_that_has_not_begun_though_there_is_room_is_said_now_and_then() -> None:
    work, said = under_way(40), SaidAgain()
    assert list(not_begun("r", [work], FREE, said)) == [
        "r members 0-1: not begun 0:40 after it was asked for, though 2 slots are free"
    ]
    assert list(not_begun("r", [work], FREE, said)) == [], "not at every look"
    said._last[work.collector.task.id] -= 31
    assert len(list(not_begun("r", [work], FREE, said))) == 1


@pytest.mark.parametrize(
    ("started_s", "begun", "slots"),
    [(40, False, FULL), (20, False, FREE), (40, True, FREE)],
    ids=["no room", "not long", "has begun"],
)
def test_what_is_as_it_should_be_is_neither_said_nor_asked_for_again(
    started_s: float, begun: bool, slots: Slots
) -> None:
    hosts, work = HostWatch(), under_way(started_s, heard=time.monotonic() if begun else None)
    hosts.changed = time.monotonic()
    assert list(not_begun("r", [work], slots, SaidAgain())) == []
    assert overdue({"stream": work}, slots, hosts) == []


@pytest.mark.parametrize(("changed_s", "again"), [(10, True), (400, False), (math.inf, False)])
def test_it_is_asked_for_again_after_trouble_with_a_machine_only(changed_s: float, again: bool) -> None:
    """A process may start slowly, and its packages be installed for minutes."""
    hosts, work = HostWatch(), under_way(40)
    hosts.changed = time.monotonic() - changed_s
    assert overdue({"stream": work}, FREE, hosts) == (["stream"] if again else [])


def test_what_was_sent_and_does_not_arrive_is_said_now_and_then() -> None:
    work = under_way(90, heard=time.monotonic() - 40, sent=time.monotonic() - 40)
    said = SaidAgain()
    assert list(not_arrived("r", [work], said)) == ["what r members 0-1 sent from two has not arrived for 0:40"]
    assert list(not_arrived("r", [work], said)) == []
    assert list(not_arrived("r", [under_way(90, heard=0.0, sent=time.monotonic() - 10)], said)) == []


def test_a_task_whose_words_do_not_arrive_is_given_up_only_where_its_machine_was_silent() -> None:
    """A large result over a slow line has the time of a task that hangs."""
    executor = RayExecutor.__new__(RayExecutor)
    executor._hang_timeout_s, executor._hosts = 600.0, HostWatch()
    work = under_way(300, heard=time.monotonic() - 70, sent=time.monotonic() - 70)
    assert not executor._is_given_up(work)
    executor._hosts._trouble["two"] = time.monotonic() - 400
    assert not executor._is_given_up(work), "before the task began"
    executor._hosts._trouble["two"] = time.monotonic() - 90
    assert executor._is_given_up(work)
    work.heard, work.sent = time.monotonic(), None  # it has arrived
    assert not executor._is_given_up(work)


def test_a_task_of_which_nothing_is_heard_after_its_machine_was_silent_is_said_and_tried_elsewhere() -> None:
    """Ray may not even know that something was sent; tasks that train give a sign of life every few seconds."""
    executor, hosts, said = RayExecutor.__new__(RayExecutor), HostWatch(), SaidAgain()
    executor._hang_timeout_s, executor._hosts = 600.0, hosts
    work = under_way(300, heard=time.monotonic() - 40)
    assert list(not_heard("r", [work], hosts, said)) == [], "its machine was always there"
    hosts._trouble["two"] = time.monotonic() - 35
    line = "r members 0-1: nothing heard from two for 0:40, which had not answered for a while"
    assert list(not_heard("r", [work], hosts, said)) == [line]
    assert list(not_heard("r", [work], hosts, said)) == [], "not at every look"
    assert not executor._is_given_up(work)
    work.heard = time.monotonic() - 61
    assert executor._is_given_up(work)
    hosts._trouble["two"] = time.monotonic() - 95
    assert not executor._is_given_up(work), "it has spoken since, long after"
    assert list(not_heard("r", [work], hosts, SaidAgain())) == []
    hosts._trouble["two"] = time.monotonic() - 65
    assert executor._is_given_up(work), "its last words came with those that had waited"
    hosts._trouble["two"] = time.monotonic() - 400
    assert not executor._is_given_up(work), "before the task began"
    assert list(not_heard("r", [work], hosts, SaidAgain())) == []


def test_a_driver_that_did_not_listen_does_not_count_that_against_tasks() -> None:
    work, waits = under_way(300, heard=time.monotonic() - 90), under_way(300)
    allow_for_pause([work, waits], 4.0)
    assert work.silent_s > 89
    allow_for_pause([work, waits], 80.0)
    assert 9 < work.silent_s < 12
    assert waits.heard is None


def test_what_is_said_elsewhere_is_not_said_twice() -> None:
    hosts = HostWatch()
    hosts._trouble["two"] = time.monotonic() - 10
    late = under_way(300, heard=time.monotonic() - 40, sent=time.monotonic() - 30)
    assert list(not_heard("r", [late], hosts, SaidAgain())) == []
    hosts._known["2"], hosts.silent = _Machine("two", 2, time.monotonic() - 20), {"2"}
    assert list(not_heard("r", [under_way(300, heard=time.monotonic() - 40)], hosts, SaidAgain())) == []
    assert list(not_heard("r", [under_way(300)], HostWatch(), SaidAgain())) == []
