"""The cases of `benchmarks.hosts` on a Ray cluster: submitted from a host of its own, with one fault each."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.hosts_measured import (
    MEMBERS,
    NAME,
    Follower,
    Measured,
    NeverBegunError,
    Work,
    events,
    measure,
    not_tried,
)
from benchmarks.namespaces import Host, Network

LIMIT_S = 400.0  # of one submission
PORT, DASHBOARD = 6379, 8265
CUT_S, DRAIN_S = 20.0, 15
# Given, so that no process waits for another one's choice: on a busy machine the raylet gives up after 15 s.
PORTS = "--dashboard-agent-listen-port=52365 --dashboard-agent-grpc-port=52366 --runtime-env-agent-port=52367 --metrics-export-port=52368"
QUIET = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
# Ends as soon as the cluster at argv[1] has the nodes with the addresses argv[2:], no other, and takes jobs; prints their identifiers.
WAIT = f"""
import sys, time, urllib.request
from ray._raylet import GcsClient
wanted, deadline = sorted(sys.argv[2:]), time.monotonic() + 240
gcs = GcsClient(address=sys.argv[1])
while time.monotonic() < deadline:
    try:
        nodes = {{n.node_manager_address: key.hex() for key, n in gcs.get_all_node_info(timeout=5).items() if n.state == 0}}
        urllib.request.urlopen("http://127.0.0.1:{DASHBOARD}/api/jobs/", timeout=5).read()
        if sorted(nodes) == wanted:
            print(*(nodes[address] for address in sys.argv[2:]))
            sys.exit(0)
    except Exception as error:
        print(error, file=sys.stderr)
    time.sleep(0.5)
sys.exit("the cluster has not come up: " + str(nodes))
"""


class Cluster:
    """A head and two workers with one CPU each, and a desk that is no part of the cluster, from which jobs are submitted."""

    def __init__(self, network: Network, work: Work) -> None:
        self.network, self.work = network, work
        self.hosts = {name: network.host(name) for name in ("head", "one", "two", "desk")}
        self.head, self.desk = self.hosts["head"], self.hosts["desk"]
        (self.desk.folder / "here" / "hosts.yaml").write_text(work.config)
        self._whole: set[str] = set()  # of the nodes, those that need not be started
        self._ids: dict[str, str] = {}
        self.number = 0

    @property
    def run(self) -> Path:
        """The run folder of this case, on the head's disk."""
        return self.head.folder / f"runs{self.number}" / NAME

    def prepare(self) -> None:
        """A cluster of head, one and two, all well, and a new run folder."""
        self.number += 1
        if "head" not in self._whole:
            self._whole.clear()  # workers do not survive their head
        anew = [self.hosts[name] for name in ("head", "one", "two") if name not in self._whole]
        for host in anew:
            host.kill()
        for host in anew:
            host.boot()
            self.start(host)
            if host is self.head:
                self.wait("head")  # on a busy machine three starts at a time may all take too long
        self._whole = {"head", "one", "two"}
        self.wait("head", "one", "two")

    def start(self, host: Host) -> None:
        """Start Ray on a host, and again whenever it ends, as a supervisor does."""
        common = f"--node-ip-address={host.address} --num-cpus=1 --object-store-memory=150000000 --disable-usage-stats --block {PORTS}"
        role = f"--address={self.head.address}:{PORT}"
        if host is self.head:
            role = f"--head --port={PORT} --dashboard-host=0.0.0.0 --dashboard-port={DASHBOARD}"
        words = ["sh", "-c", f"while :; do ray start {role} {common}; sleep 1; done"]
        host.start(words, self.network.folder / f"{host.name}.ray", **QUIET)

    def wait(self, *names: str) -> None:
        """Wait until exactly these hosts are the cluster's. Raises NeverBegunError where that takes longer than 240 s."""
        addresses = [self.hosts[name].address for name in names]
        code, said = self.head.run(["python", "-c", WAIT, f"{self.head.address}:{PORT}", *addresses], 270, **QUIET)
        if code:
            raise NeverBegunError(said[-1500:])
        self._ids = dict(zip(names, said.split()[-len(names) :], strict=True))

    def submit(self) -> Follower:
        """The command a person would type at the desk."""
        words = [
            "python", "-m", "ensemble.launch.submit", "hosts.yaml", "--address", f"http://{self.head.address}:{DASHBOARD}",
            "--insecure", f"output_dir=/srv/runs{self.number}",
        ]  # fmt: skip
        return Follower(self.desk, words, **QUIET)

    def broken(self, *names: str) -> None:
        """These hosts are not what they were."""
        self._whole -= set(names)

    def mid_run(self, follower: Follower, victim: str) -> None:
        """Wait until a fifth of the epochs are done and the victim trains. Raises NeverBegunError where that never is."""
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline and follower.process.poll() is None:
            happened = events(self.run)
            epochs = sum(event["event"] == "EpochFinished" for event in happened)
            if epochs > MEMBERS * self.work.epochs / 5 and trains(happened, victim):
                return
            time.sleep(0.2)
        follower.process.kill()
        raise NeverBegunError(f"{victim} does not train:\n{follower.text()}")

    def drain(self, name: str) -> None:
        """Tell Ray that a node will be taken away, as an autoscaler or a cloud does."""
        words = [
            "ray", "drain-node", f"--address={self.head.address}:{PORT}", f"--node-id={self._ids[name]}",
            "--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=maintenance",
            f"--deadline-remaining-seconds={DRAIN_S}",
        ]  # fmt: skip
        code, said = self.head.run(words, 60, **QUIET)
        if code:
            raise NeverBegunError(f"ray drain-node: {said[-1500:]}")

    def measured(self, case: str, *followers: Follower, remark: str = "") -> Measured:
        """Wait for the ends and measure."""
        codes = [
            follower.process.poll() if hasattr(follower, "ended") else follower.end(LIMIT_S) for follower in followers
        ]
        return measure(case, self.run, list(followers), codes, self.work, remark)


def trains(happened: list[dict[str, object]], host: str) -> bool:
    """Whether a host has a task whose members have not ended, and has done an epoch of it."""
    members: set[int] = set()
    for event in happened:
        if event["event"] == "TaskStarted" and event["host"] == host:
            members = set(event["members"])  # type: ignore[call-overload]
    ended = {event["member"] for event in happened if event["event"] == "MemberFinished"}
    begun = {event["member"] for event in happened if event["event"] == "EpochFinished"}
    return bool(members) and members <= begun and not members & ended


def none(cluster: Cluster) -> Measured:
    return cluster.measured("none", cluster.submit())


def _with_fault(cluster: Cluster, title: str, fault: Callable[[Host], None]) -> Measured:
    """A job whose second host meets the fault while members train there."""
    follower = cluster.submit()
    cluster.mid_run(follower, "two")
    fault(cluster.hosts["two"])
    cluster.broken("two")
    return cluster.measured(title, follower)


def killed(cluster: Cluster) -> Measured:
    return _with_fault(cluster, "a worker host killed in mid-run", lambda host: host.kill())


def cut(cluster: Cluster) -> Measured:
    def for_a_while(host: Host) -> None:
        host.unplug()
        time.sleep(CUT_S)
        host.plug_in()

    return _with_fault(cluster, f"cut off for {CUT_S:g} s and back", for_a_while)


def cut_for_good(cluster: Cluster) -> Measured:
    return _with_fault(cluster, "cut off for good", lambda host: host.unplug())


def added(cluster: Cluster) -> Measured:
    follower = cluster.submit()
    cluster.mid_run(follower, "two")
    if "three" not in cluster.hosts:
        cluster.hosts["three"] = cluster.network.host("three")
    cluster.start(cluster.hosts["three"])
    measured = cluster.measured("a host added in mid-run", follower)
    measured.holds = measured.holds and "three" in measured.hosts
    cluster.hosts["three"].kill()
    del cluster.hosts["three"]
    return measured


def drained(cluster: Cluster) -> Measured:
    follower = cluster.submit()
    cluster.mid_run(follower, "two")
    cluster.drain("two")
    time.sleep(DRAIN_S)
    cluster.hosts["two"].kill()
    cluster.broken("two")
    return cluster.measured(f"drained (ray drain-node), off {DRAIN_S} s later", follower)


def driver(cluster: Cluster) -> Measured:
    first = cluster.submit()
    cluster.mid_run(first, "two")
    for number in cluster.head.processes("-m ensemble.launch.ray_job"):
        os.kill(number, signal.SIGKILL)
    first.end(LIMIT_S)
    second = cluster.submit()
    return cluster.measured("the driver killed, submitted again", first, second)


def head(cluster: Cluster) -> Measured:
    first = cluster.submit()
    cluster.mid_run(first, "two")
    cluster.head.kill()
    first.end(LIMIT_S)
    cluster.head.boot()
    cluster.start(cluster.head)
    cluster.wait("head", "one", "two")
    second = cluster.submit()
    measured = cluster.measured("the head killed and started again, submitted again", first, second)
    traceback = "Traceback" in first.text()
    measured.remark = "a traceback" if traceback else f"said: {last_words(first)}"
    measured.holds = measured.holds and not traceback
    return measured


def idle(cluster: Cluster) -> Measured:
    cluster.hosts["two"].vanish()
    cluster.broken("two")
    return cluster.measured("a worker host gone without a word just before", cluster.submit())


def last_words(follower: Follower) -> str:
    """The end of a log, shortened."""
    lines = [line for _, line in follower.lines if line.startswith("error:")]
    return (lines[-1][:90] + " ...").replace("|", "/") if lines else "nothing"


CASES: dict[str, Callable[[Cluster], Measured]] = {
    "none": none, "killed": killed, "cut": cut, "cut-for-good": cut_for_good, "added": added, "drained": drained,
    "driver": driver, "head": head, "idle": idle,
}  # fmt: skip


def measure_ray(names: list[str], network: Network, work: Work) -> Iterator[Measured]:
    """Each case on a cluster that is whole before it."""
    if not names:
        return
    cluster = Cluster(network, work)
    for name in names:
        try:
            cluster.prepare()
            yield CASES[name](cluster)
        except NeverBegunError as error:
            cluster.broken("head")  # all are started anew
            yield not_tried(name, str(error))
    for host in cluster.hosts.values():
        host.kill()
