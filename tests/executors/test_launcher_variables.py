"""What a launcher or Ray has left in the environment: empty is unset, nonsense is named, an address that is dead is found out soon."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from ensemble.commands.main import main
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError
from ensemble.executors import build_executor, knocking
from ensemble.executors.choose import expected_slots, planned_device, stays_here, uses_cluster
from ensemble.outside import launcher_variables

NAMES = (launcher_variables.RAY_ADDRESS, *launcher_variables.LAUNCHER)
CONFIG = """\
name: d
num_members: 1
method: {name: bagging}
baseline: false
data: {name: digits}
model: {name: mlp, widths: [4]}
training: {epochs: 1}
compute: {executor: auto}
tracking: {wandb: {mode: disabled}}
"""


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_empty_variables_are_unset_ones(monkeypatch: pytest.MonkeyPatch, value: str, tmp_path: Path) -> None:
    """All of them together: a small run trains inline, as it does without them."""
    for name in NAMES:
        monkeypatch.setenv(name, value)
    (tmp_path / "d.yaml").write_text(CONFIG)
    done = CliRunner().invoke(main, ["train", str(tmp_path / "d.yaml"), "-q", f"output_dir={tmp_path}"])
    assert done.exit_code == 0, done.output
    assert launcher_variables.world_size() == 1
    assert launcher_variables.ray_address() is None
    assert not uses_cluster(ComputeConfig(executor="ray"))


NO_NUMBERS = ["two", "-1", "1.5", "0x2", "1e3", "1_000", "\u0662", "99999999999999999999", "$SLURM_NTASKS"]


@pytest.mark.parametrize("value", [*NO_NUMBERS, "0"])
def test_a_world_size_that_is_none_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", value)
    for ask in (
        lambda: planned_device(ComputeConfig()),
        lambda: expected_slots(ComputeConfig(), "cpu", 1e9),
        lambda: uses_cluster(ComputeConfig(ray_address="10.0.0.1:6379")),
        launcher_variables.check_launcher,
    ):
        with pytest.raises(ComputeError, match=r"WORLD_SIZE is .*expected a whole number from 1"):
            ask()


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"])
@pytest.mark.parametrize("value", NO_NUMBERS)
def test_what_a_launcher_never_sets_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv(name, value)
    with pytest.raises(ComputeError, match=f"{name} is .*expected a whole number"):
        launcher_variables.check_launcher()


@pytest.mark.parametrize(
    "world",
    [{"RANK": "2"}, {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "1"}, {"LOCAL_WORLD_SIZE": "3"}, {"MASTER_PORT": "65536"}],
)
def test_worlds_that_cannot_be(monkeypatch: pytest.MonkeyPatch, world: dict[str, str]) -> None:
    for name, value in {"WORLD_SIZE": "2", **world}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ComputeError, match=next(iter(world))):
        launcher_variables.check_launcher()


@given(st.text(max_size=40))
def test_an_address_is_read_or_refused_by_name(text: str) -> None:
    refused = ""
    try:
        place = knocking.host_and_port(text, "RAY_ADDRESS")
    except ComputeError as error:
        place, refused = None, str(error)
    assert place is None or (place[0] and 0 < place[1] < 65536)
    assert not refused or refused.startswith("RAY_ADDRESS is ")


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("10.0.0.1:6379", ("10.0.0.1", 6379)),
        ("[::1]:6379", ("::1", 6379)),
        ("ray://head:10001", ("head", 10001)),
        ("ray://head", ("head", 10001)),
        ("auto", None),
    ],
)
def test_addresses_that_ray_takes(address: str, place: tuple[str, int] | None) -> None:
    assert knocking.host_and_port(address, "x") == place


@pytest.mark.parametrize("address", ["6379", "head", "head:port", ":6379", "user:secret@head:6379", "head:6379/x"])
def test_addresses_that_ray_would_puzzle_over(address: str) -> None:
    with pytest.raises(ComputeError, match=r"compute\.ray_address is .*expected HOST:PORT"):
        build_executor(ComputeConfig(executor="ray", ray_address=address), "cpu", [], 0)


@pytest.fixture(params=["refuses", "drops packets", "accepts and is silent", "speaks HTTP/1", "hangs up"])
def dead_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a port where no Ray is."""
    monkeypatch.setattr(knocking, "ANSWER_S", 1.0)
    monkeypatch.setattr(knocking, "CONNECT_S", 1.0)
    with closing(socket.socket()) as door:
        door.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{door.getsockname()[1]}"
        waiting = []
        if (
            request.param == "drops packets"
        ):  # the queue of connections is full, so Linux drops what asks for another one
            door.listen(0)
            for _ in range(4):
                waiting.append(line := socket.socket())
                line.setblocking(False)
                line.connect_ex(door.getsockname())
        elif request.param != "refuses":
            door.listen()
        if request.param in ("speaks HTTP/1", "hangs up"):
            word = b"HTTP/1.1 400 Bad Request\r\n\r\n" if request.param == "speaks HTTP/1" else b""

            def answer() -> None:
                line, _ = door.accept()
                with line:
                    line.recv(100)
                    line.sendall(word)

            threading.Thread(target=answer, daemon=True).start()
        yield address
        for line in waiting:
            line.close()


def test_a_dead_address_is_named_within_seconds(dead_end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", dead_end)
    started = time.monotonic()
    with pytest.raises(ComputeError, match=f"{dead_end}.*RAY_ADDRESS"):
        build_executor(ComputeConfig(executor="ray"), "cpu", [], 0)
    assert time.monotonic() - started < 10


def test_a_small_run_that_leaves_its_place_open_asks_no_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")  # nobody is there, and nobody is asked
    (tmp_path / "d.yaml").write_text(CONFIG)
    done = CliRunner().invoke(main, ["train", str(tmp_path / "d.yaml"), "-q", f"output_dir={tmp_path}"])
    assert done.exit_code == 0, done.output
    assert stays_here(ComputeConfig(), 1000)
    assert not stays_here(ComputeConfig(), 10**9)
    assert not stays_here(ComputeConfig(executor="ray"), 1000)
    assert not stays_here(ComputeConfig(ray_address="127.0.0.1:9"), 1000)
    assert not stays_here(ComputeConfig(device="cuda"), 1000)
