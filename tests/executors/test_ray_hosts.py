"""A run's watch over the machines of its cluster: who falls silent is said soon and again, and who is back."""

from __future__ import annotations

import socket
import time
from typing import Any

import pytest

from ensemble.executors import ray_hosts
from ensemble.executors.ray_hosts import HostWatch


@pytest.fixture
def port() -> int:
    """A port of this machine at which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as place:
        return int(place.getsockname()[1])


def node(port: int, name: str = "one") -> dict[str, Any]:
    """What Ray says of a node, as far as it is read."""
    return {"NodeID": f"id of {name}", "NodeManagerHostname": name, "NodeManagerAddress": "127.0.0.1", "NodeManagerPort": port}  # fmt: skip


def test_a_machine_that_falls_silent_is_said_again_until_it_answers(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_hosts, "_SAY_AGAIN_S", -1.0)  # at once
    watch = HostWatch()
    with socket.create_server(("127.0.0.1", port)):
        watch._compare([node(port)], True)
        assert (watch.news(), watch.silent_s("one")) == ([], 0.0)
    watch._compare([node(port)], False)
    assert (watch.news(), watch.silent) == ([], set())  # one look may be bad luck
    watch._compare([node(port)], False)
    assert watch.silent == {"id of one"}
    first, *again = watch.news()
    assert first == "one does not answer; no further task is placed there until it does"
    assert again == ["one has not answered for 0 s; tasks that it has are tried elsewhere after 60 s"]
    assert watch.news() == again
    assert 0 < watch.silent_s("one") < 10
    assert watch.silent_s("two") == 0
    with socket.create_server(("127.0.0.1", port)):
        watch._compare([node(port)], False)
    assert watch.news() == ["one answers again"]
    assert (watch.silent_s("one"), watch.news()) == (0.0, [])
    for _look in range(2):
        watch._compare([node(port)], False)
    assert watch.news()[0] == "one does not answer; no further task is placed there until it does (time 2)"


def test_a_machine_that_leaves_while_silent_is_not_waited_for(port: int) -> None:
    watch = HostWatch()
    for first in (True, False):
        watch._compare([node(port)], first)
    watch.news()
    before = watch.changed
    watch._compare([], False)
    assert watch.news() == ["one has left the Ray cluster"]
    assert (watch.silent, watch.silent_s("one")) == (set(), 0.0)
    assert before < watch.changed <= time.monotonic()


def test_when_a_machine_was_last_silent_is_kept(port: int) -> None:
    """What it sent then may never arrive, though it answers again."""
    watch, began = HostWatch(), time.monotonic()
    watch._compare([node(port)], True)
    assert not watch.was_silent("one", began), "one look may be bad luck"
    assert watch.changed < began
    watch._compare([node(port)], False)
    fell = watch.changed
    assert began < fell
    with socket.create_server(("127.0.0.1", port)):
        watch._compare([node(port)], False)
    assert watch.changed > fell
    assert watch.was_silent("one", began)
    assert not watch.was_silent("one", time.monotonic())
    assert not watch.was_silent("two", began)


def test_a_machine_that_has_left_is_known_as_gone_until_one_of_its_name_joins(port: int) -> None:
    watch = HostWatch()
    with socket.create_server(("127.0.0.1", port)):
        watch._compare([node(port), node(port, "two")], True)
        assert (watch.gone_s("one"), watch.gone_s("never there")) == (0.0, 0.0)
        watch._compare([node(port, "two")], False)
        assert 0 < watch.gone_s("one") < 10
        assert watch.gone_s("two") == 0
        watch._compare([node(port, "two"), {**node(port), "NodeID": "another"}], False)
    assert watch.gone_s("one") == 0
    assert watch.news() == ["one has left the Ray cluster", "one has joined the Ray cluster"]


def test_a_task_of_a_machine_that_has_left_is_given_up_before_it_counts_as_hung(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seen on a real cluster: Ray never said of a task that had just begun that its node was gone."""
    from ensemble.config.schema import ComputeConfig
    from ensemble.events import TaskStarted
    from ensemble.executors.base import Collector
    from ensemble.executors.ray_late import UnderWay
    from ensemble.executors.ray_tasks import RayExecutor
    from ensemble.types import Task

    executor = RayExecutor.__new__(RayExecutor)
    executor._hang_timeout_s, executor._hosts = ComputeConfig().hang_timeout_s, HostWatch()
    collector = Collector(Task("task", "mlp", ()), lambda _item: None)
    collector.take(TaskStarted("task", (0,), "mlp", 1, "one", 1, "cpu", 1))
    work = UnderWay(collector, started=time.monotonic() - 60, heard=time.monotonic() - 30)
    assert not executor._is_given_up(work)
    executor._hosts._gone["one"] = time.monotonic() - 25
    assert executor._is_given_up(work)
    work.heard = time.monotonic()  # it speaks: another machine of that name, or a late word
    assert not executor._is_given_up(work)
