"""The cases of benchmarks/hosts.py that must not break again: hosts of their own, a real Ray or torchrun, a real fault."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from benchmarks import hosts_launched, hosts_ray, namespaces
from benchmarks.hosts_measured import Work, undisturbed
from benchmarks.namespaces import Network, NoHostsError

EPOCHS = 8


@pytest.fixture
def network() -> Iterator[Network]:
    with ExitStack() as leaving:
        try:
            made = leaving.enter_context(Network())
            made.host("probe").kill()
        except NoHostsError as error:
            pytest.skip(f"two hosts on one machine need the right to make network namespaces: {error}")
        yield made


@pytest.fixture
def work(network: Network) -> Work:
    return undisturbed(network.folder, EPOCHS)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("case", ["cut-for-good", "idle", "head"])
def test_a_fault_of_a_ray_cluster_costs_no_member_and_no_bit(case: str, network: Network, work: Work) -> None:
    (measured,) = hosts_ray.measure_ray([case], network, work)
    assert measured.holds, f"{measured.row()}\n{measured.log}"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("case", ["wrong-key", "no-key", "short-key"])
def test_a_rank_without_the_key_of_the_others_is_said_on_every_host(case: str, network: Network) -> None:
    (measured,) = hosts_launched.measure_launched([case], network, Work(EPOCHS))
    assert measured.holds, f"{measured.row()}\n{measured.log}"


def test_who_cannot_make_hosts_is_told_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NoHostsError, match="need iproute2 and util-linux: install them"), Network():
        pass
    monkeypatch.undo()
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(namespaces, "NEEDED", {"sh": "a shell"})
    with pytest.raises(NoHostsError, match="need root, and this is user 1000"), Network():
        pass


def test_hosts_have_their_own_disks_and_names_and_can_be_cut_off(network: Network) -> None:
    one, two = network.host("one"), network.host("two")
    made, look = (
        "touch /tmp/mine /srv/here/kept; hostname; pwd",
        ["sh", "-c", "ls /tmp/mine /srv/here/kept 2>/dev/null"],
    )
    assert one.run(["sh", "-c", made], 20) == (0, "one\n/srv/here\n")
    assert one.run(look, 20)[1].split() == ["/srv/here/kept", "/tmp/mine"]
    assert two.run(look, 20)[1] == ""
    reach = ["python", "-c", f"import socket; socket.create_connection(('{two.address}', 9), 2)"]
    assert "Connection refused" in one.run(reach, 20)[1]
    two.unplug()
    assert "Error" in (said := one.run(reach, 20)[1])
    assert "Connection refused" not in said
    two.plug_in()
    assert "Connection refused" in one.run(reach, 20)[1]
    sleeping = one.start(["sleep", "1000"])
    one.kill()
    sleeping.communicate(timeout=10)
    assert sleeping.returncode != 0
    one.boot()
    assert one.run(look, 20)[1].split() == ["/srv/here/kept"]  # /srv is the disk that outlives a crash
