"""The cases of `benchmarks.hosts` under torchrun: one process on each of three hosts, started by hand on every one."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.hosts_measured import (
    HANG_TIMEOUT_S,
    MEMBERS,
    NAME,
    Follower,
    Measured,
    NeverBegunError,
    Work,
    digests,
    events,
    measure,
    not_tried,
)
from benchmarks.namespaces import Host, Network

LIMIT_S = 400.0
SAID_S = 10.0  # for every rank to say that the keys are not the same, once the last one has arrived
END_S = 40.0  # for a launcher, once the run has ended: it waits five minutes for one that is gone
PORT = 29500
KEY = "the same long random text on every host"
VARIABLE = "ENSEMBLE_LAUNCH_SECRET"
# What every rank must say, in one of these ways.
ANSWERS = ("has another secret than rank 0", "has no secret that can be used", "ENSEMBLE_LAUNCH_SECRET has")
TRAINER = "ensemble.launch.accelerate_run"


class World:
    """Three hosts, on each of which torchrun starts one process. Only the first has an output folder to write to."""

    def __init__(self, network: Network, work: Work, parallel: str) -> None:
        self.network, self.work, self.parallel = network, work, parallel
        self.hosts = [network.host(name) for name in (f"{parallel}0", f"{parallel}1", f"{parallel}2")]
        for host in self.hosts:
            (host.folder / "here" / "hosts.yaml").write_text(work.config)
        self.number = 0

    @property
    def run(self) -> Path:
        """The run folder of this case, on the first host's disk."""
        return self.hosts[0].folder / f"runs{self.number}" / NAME

    def prepare(self) -> None:
        """All hosts well, nothing running on them, and a new run folder."""
        self.number += 1
        for host in self.hosts:
            host.kill()
            host.boot()

    def start(self, keys: dict[int, str | None] | None = None) -> list[Follower]:
        """The command on every host. keys: of the ranks that have another one, or none."""
        return [self._torchrun(rank, host, (keys or {}).get(rank, KEY)) for rank, host in enumerate(self.hosts)]

    def _torchrun(self, rank: int, host: Host, key: str | None) -> Follower:
        words = [
            "torchrun", "--nnodes", str(len(self.hosts)), "--nproc-per-node", "1", "--node-rank", str(rank),
            "--master-addr", self.hosts[0].address, "--master-port", str(PORT), "-m", TRAINER, "hosts.yaml",
            f"output_dir=/srv/runs{self.number}", f"compute.parallel={self.parallel}",
            f"compute.hang_timeout_s={HANG_TIMEOUT_S}",
        ]  # fmt: skip
        return Follower(host, words, **({} if key is None else {VARIABLE: key}))

    def mid_run(self, followers: list[Follower]) -> None:
        """Wait until a fifth of the epochs are done, and in `members` the last host has done one."""
        deadline, last = time.monotonic() + LIMIT_S, self.hosts[-1].name
        while time.monotonic() < deadline and followers[0].process.poll() is None:
            happened = events(self.run)
            begun = {event["member"] for event in happened if event["event"] == "EpochFinished"}
            theirs = [
                set(event["members"]) for event in happened if event["event"] == "TaskStarted" and event["host"] == last
            ]
            epochs = sum(event["event"] == "EpochFinished" for event in happened)
            if epochs > MEMBERS * self.work.epochs / 5 and (
                self.parallel == "data" or (theirs and theirs[-1] <= begun)
            ):
                return
            time.sleep(0.2)
        raise NeverBegunError(f"{last} does not train:\n{followers[0].text()}")

    def finish(self, first: Follower) -> int | None:
        """The exit code of the first host's launcher; 0 where the run has ended well, and only its launcher waits for another one."""
        deadline, ended = time.monotonic() + LIMIT_S, None
        while first.process.poll() is None and time.monotonic() < deadline:
            if ended is None and any(event["event"] == "RunFinished" for event in events(self.run)):
                ended = time.monotonic()
            if ended is not None and time.monotonic() - ended > END_S:
                break
            time.sleep(0.2)
        still = first.process.poll() is None
        code = first.end(1)
        if still and ended is not None:
            first.ended = ended
            return 0
        return code

    def leave(self, followers: list[Follower], politely_s: float = 60.0) -> None:
        """End what still runs, as a person would with Ctrl-C."""
        for follower in followers:
            if follower.process.poll() is None:
                for host in self.hosts:
                    for number in host.processes("bin/torchrun"):
                        os.kill(number, signal.SIGTERM)
                break
        for follower in followers:
            follower.end(politely_s)

    def kill_rank(self, rank: int) -> None:
        """SIGKILL to the process that trains, not to its launcher."""
        host = self.hosts[rank]
        launchers = set(host.processes("bin/torchrun"))
        for number in set(host.processes(TRAINER)) - launchers:
            os.kill(number, signal.SIGKILL)

    def measured(
        self, case: str, followers: list[Follower], codes: list[int | None], work: Work | None = None
    ) -> Measured:
        return measure(f"torchrun, {self.parallel}: {case}", self.run, followers, codes, work or self.work)


def none(world: World) -> Measured:
    followers = world.start()
    code = world.finish(followers[0])
    world.leave(followers[1:])
    if (
        world.parallel == "data"
    ):  # equal to one process within rounding only: the other cases are compared with this one
        world.work = Work(world.work.epochs, digests(world.run))
    return world.measured("none", followers[:1], [code])


def killed(world: World) -> Measured:
    """A rank is killed; whoever looks after the run ends the others and starts the same command again everywhere."""
    first = world.start()
    world.mid_run(first)
    world.kill_rank(2)
    if world.parallel == "data":
        first[0].end(LIMIT_S)  # it must end by itself
    else:
        first[2].end(30)
    world.leave(first)
    code = first[0].process.returncode
    second = world.start()
    last = world.finish(second[0])
    world.leave(second[1:])
    return world.measured("a rank killed, all started again", [first[0], second[0]], [code, last])


def cut(world: World) -> Measured:
    followers = world.start()
    world.mid_run(followers)
    world.hosts[2].unplug()
    if world.parallel == "data":  # ends, and is started again when the cable is back
        code = followers[0].end(LIMIT_S)
        world.leave(followers, 30)
        world.prepare()
        world.number -= 1
        second = world.start()
        last = world.finish(second[0])
        world.leave(second[1:])
        return world.measured("a host cut off, all started again", [followers[0], second[0]], [code, last])
    code = world.finish(followers[0])
    measured = world.measured("a host cut off for good", followers[:1], [code])
    world.leave(followers[1:], 30)
    return measured


def wrong_key(world: World) -> Measured:
    return _other_key(world, "a wrong key on one host", "another long text, not that of the others")


def no_key(world: World) -> Measured:
    return _other_key(world, "no key on one host", None)


def short_key(world: World) -> Measured:
    return _other_key(world, "a key that is too short on one host", "short")


def _other_key(world: World, case: str, key: str | None) -> Measured:
    """Every rank must say so within seconds of the last one's arrival, and all must end."""
    followers = world.start({1: key})
    codes = [follower.end(90) for follower in followers]
    measured = world.measured(case, followers, codes, Work())
    said = [next((at for words in ANSWERS if (at := follower.said(words)) is not None), None) for follower in followers]
    whole = [follower.started + when for follower, when in zip(followers, said, strict=True) if when is not None]
    apart = max(whole) - min(whole) if whole else 0.0
    everywhere = len(whole) == len(followers)
    measured.bits = "-"
    measured.remark = f"said on {len(whole)} of {len(followers)} ranks, within {apart:.1f} s of each other"
    measured.holds = everywhere and apart <= SAID_S and all(code not in (0, None) for code in codes)
    return measured


CASES: dict[str, tuple[str, Callable[[World], Measured]]] = {
    "members": ("members", none), "members-killed": ("members", killed), "members-cut": ("members", cut),
    "wrong-key": ("members", wrong_key), "no-key": ("members", no_key),
    "short-key": ("members", short_key),
    "data": ("data", none), "data-killed": ("data", killed), "data-cut": ("data", cut),
}  # fmt: skip


def measure_launched(names: list[str], network: Network, work: Work) -> Iterator[Measured]:
    """Each case on hosts that are whole before it."""
    for parallel in ("members", "data"):
        chosen = [CASES[name][1] for name in names if CASES[name][0] == parallel]
        if not chosen:
            continue
        if parallel == "data" and none not in chosen:
            chosen.insert(0, none)
        world = World(network, work, parallel)
        for case in chosen:
            world.prepare()
            try:
                yield case(world)
            except NeverBegunError as error:
                yield not_tried(f"torchrun, {parallel}: {case.__name__}", str(error))
        for host in world.hosts:
            host.kill()
