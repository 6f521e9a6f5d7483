"""The cases of benchmarks/hosts.py that must not break again: hosts of their own, a real Ray or torchrun, a real fault."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks import hosts_launched, hosts_ray
from benchmarks.hosts_measured import Work, undisturbed
from benchmarks.namespaces import Network, NoHostsError

EPOCHS = 8


@pytest.fixture
def network() -> Iterator[Network]:
    try:
        with Network() as made:
            yield made
    except NoHostsError as error:
        pytest.skip(f"two hosts on one machine need the right to make network namespaces: {error}")


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
