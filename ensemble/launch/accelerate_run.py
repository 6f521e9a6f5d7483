"""The door for `accelerate launch` and torchrun: several processes on one machine, or on several.

    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 -m ensemble.launch.accelerate_run CONFIG [key=value ...]
    torchrun --nproc-per-node 2 -m ensemble.launch.accelerate_run CONFIG [key=value ...]

compute.parallel says how the processes share the work: `members` (each trains its own) or `data` (all train each
together). Rank 0 alone writes and prints. What the launcher was asked for is compared with what came of it, since
`accelerate launch --cpu --num_processes 2` quietly starts one process.
"""

from __future__ import annotations

import fcntl
import ipaddress
import itertools
import os
import platform
import socket
import struct
import sys
from datetime import timedelta
from pathlib import Path

import yaml

from ensemble import signals
from ensemble.config import Experiment, load_config
from ensemble.errors import ComputeError, ConfigError, first_line
from ensemble.executors.native_calls import run_interruptibly
from ensemble.launch.training import guarded, train_and_print
from ensemble.outside import json_lines, launcher_variables
from ensemble.outside.foreign_variables import settle_variables
from ensemble.outside.long_work import heard, working
from ensemble.training import device_kind

_COUNT_FLAGS = ("--num_processes", "--num-processes", "--nproc-per-node", "--nproc_per_node")
_SIOCGIFADDR = 0x8915  # Linux: ask for the address of an interface
_FILE_FLAGS = ("--config_file", "--config-file")


def main() -> int:
    """Rank 0 drives, the others serve; returns the exit code."""
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        raise ConfigError("usage: accelerate launch ... -m ensemble.launch.accelerate_run CONFIG [key=value ...]")
    experiment = load_config(Path(sys.argv[1]), sys.argv[2:]).experiment
    if experiment.compute.executor not in ("auto", "accelerate"):
        raise ConfigError(
            f"compute.executor is {experiment.compute.executor}, but this door's executor is accelerate; remove the key, or use: ensemble train"
        )
    rank = join(experiment)
    from ensemble.executors.base import KeptOpen
    from ensemble.executors.inline import InlineExecutor
    from ensemble.executors.launched import LaunchedExecutor
    from ensemble.executors.serving import serve

    if rank > 0:
        serve()
        leave_world()
        return 0
    alone = launcher_variables.world_size() == 1  # a launcher was asked for one process
    compute = experiment.compute
    executor = InlineExecutor() if alone else LaunchedExecutor(compute.parallel == "data", compute.hang_timeout_s)
    try:
        code = train_and_print(experiment, lambda _run: lambda _device, _tasks, _images: KeptOpen(executor))
    finally:
        executor.close()
    leave_world()
    return code


def join(experiment: Experiment) -> int:
    """Enter the world of processes; returns this one's rank.

    Raises ComputeError where the world is not the one that was asked for.
    """
    settle_variables()
    launcher_variables.check_launcher()
    import torch
    from accelerate import PartialState

    world = launcher_variables.world_size()
    asked = asked_processes(_ancestors())
    if asked is not None and asked not in (launcher_variables.local_world_size(world), world):
        raise ComputeError(
            f"the launcher was asked for {asked} processes, but this is a world of {world}. With CPUs, start them by: ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes {asked} -m ensemble.launch.accelerate_run ...  or: torchrun --nproc-per-node {asked} -m ensemble.launch.accelerate_run ..."
        )
    device = device_kind(experiment.compute)
    if device == "cuda":
        here = launcher_variables.local_world_size(1)
        line = compare_with_gpus(here, torch.cuda.device_count(), experiment.compute.parallel)
        if line and launcher_variables.local_rank() == 0:
            json_lines.tell(line)
    choose_interface(world)
    # Without `cpu` two processes on a machine without GPUs would both believe to be alone. The time limit is that of
    # collectives, in which a rank that is gone would be waited for much longer.
    patience_s = max(30.0, experiment.compute.hang_timeout_s)
    try:
        with (
            heard(json_lines.tell if launcher_variables.local_rank() == 0 else None),
            working(f"waiting for all of the {world} processes, for {patience_s:g} s at most"),
        ):
            # In a thread of its own: native code waits for the others, and no signal would be answered meanwhile.
            run_interruptibly(lambda: PartialState(cpu=device == "cpu", timeout=timedelta(seconds=patience_s)))
            state = PartialState()
            if state.device.type == "cuda":
                torch.cuda.set_device(state.device)  # which holds for a thread
    except RuntimeError as error:
        raise ComputeError(
            f"the {world} processes could not join at {os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}: {first_line(error)[:300]}; all machines must reach each other: set GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME for GPUs) to the network interface between them, now {os.environ.get('GLOO_SOCKET_IFNAME', 'not set')}"
        ) from error
    if state.num_processes != world:
        raise ComputeError(
            f"{world} processes were started, but Accelerate sees {state.num_processes}; check ACCELERATE_USE_CPU and the distributed_type of the configuration file"
        )
    if world == 1 and asked is None:
        raise ComputeError(
            "this is a single process; expected a world that a launcher started. Use: ensemble train CONFIG, or: torchrun --nproc-per-node 2 -m ensemble.launch.accelerate_run CONFIG"
        )
    return int(state.process_index)


def leave_world() -> None:
    """Take down the group of processes, and end this one without Python's own end.

    DistributedDataParallel keeps Gloo's threads alive, and one that lets go of its last sum of gradients while Python
    ends aborts the process (exit code -6) after all is done.
    """
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()
    signals.never_wait()


def choose_interface(world: int) -> None:
    """Have Gloo use the interface by which the master is reached: it would take the loopback where a host's name does not resolve.

    Raises ComputeError where the master's address means this machine alone, though there are several.
    """
    master = os.environ.get("MASTER_ADDR", "")
    if not master or world == launcher_variables.local_world_size(world) or os.environ.get("GLOO_SOCKET_IFNAME"):
        return
    try:
        family, _, _, _, place = socket.getaddrinfo(master, 1, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # sends nothing: the system only chooses the way
            probe.connect(place)
            own = str(probe.getsockname()[0])
    except OSError as error:
        raise ComputeError(
            f"the master's address {master} (MASTER_ADDR) leads nowhere from {platform.node()}: {error.strerror or error}; use an address that all machines reach"
        ) from error
    if ipaddress.ip_address(own.partition("%")[0]).is_loopback:
        raise ComputeError(
            f"the master's address {master} (MASTER_ADDR) is {place[0]} on {platform.node()}, which no other machine reaches, but there are several (WORLD_SIZE is {world}); use the master's address in the network between them, or set GLOO_SOCKET_IFNAME"
        )
    name = next((name for _, name in socket.if_nameindex() if _address_of(name) == own), None)
    if name is not None:
        os.environ["GLOO_SOCKET_IFNAME"] = name


def _address_of(interface: str) -> str | None:
    """The IPv4 address of an interface; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            found = fcntl.ioctl(any_socket, _SIOCGIFADDR, struct.pack("256s", interface.encode()[:15]))
        except OSError:
            return None
    return socket.inet_ntoa(found[20:24])


def compare_with_gpus(processes: int, gpus: int, parallel: str) -> str | None:
    """What is worth saying about this machine's processes and visible GPUs; None where each has one.

    Raises ComputeError where processes that train each member together would share a GPU, which NCCL refuses.
    """
    host, remedy = platform.node(), f"start {gpus} per machine (torchrun --nproc-per-node; accelerate: num_processes)"
    if processes > gpus and parallel == "data":
        raise ComputeError(
            f"compute.parallel is data with {processes} processes on {host}, which has {gpus} visible GPUs; NCCL needs one for each process: {remedy}, or use compute.parallel=members, where processes can share a GPU"
        )
    if processes > gpus:
        return f"{host}: {processes} processes share {gpus} visible GPUs and their memory; to give each its own, {remedy}. A larger compute.stack_size uses a GPU better than several processes"
    if processes < gpus:
        return f"{host}: {gpus - processes} of {gpus} visible GPUs stay idle, since {processes} processes were started; to use all, {remedy}"
    return None


def asked_processes(command_lines: list[list[str]]) -> int | None:
    """How many processes per machine the launcher above was asked for; None where nothing says so.

    A count on the command line wins over that of a configuration file, as it does in Accelerate.
    """
    for words in command_lines:
        counts = [int(value) for value in _values(words, _COUNT_FLAGS) if value.isdigit()]
        if counts:
            return counts[0]
        for value in _values(words, _FILE_FLAGS):
            if Path(value).is_file():
                count = (yaml.safe_load(Path(value).read_text()) or {}).get("num_processes")
                return int(count) if count else None
    return None


def _values(words: list[str], flags: tuple[str, ...]) -> list[str]:
    """What follows any of these flags, after a space or an equals sign."""
    found = []
    for word, following in itertools.pairwise([*words, ""]):
        flag, equals, value = word.partition("=")
        if flag in flags:
            found.append(value if equals else following)
    return found


def _ancestors() -> list[list[str]]:
    """Command lines of the parent and grandparent processes; empty where the system does not tell."""
    found, number = [], os.getppid()
    for _ in range(2):
        try:
            found.append(Path(f"/proc/{number}/cmdline").read_bytes().decode(errors="replace").split("\0"))
            number = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
    return found


def start() -> None:
    """Run this door and leave with its exit code."""
    guarded(main, "the same command")


if __name__ == "__main__":
    start()
