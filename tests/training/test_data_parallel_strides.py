"""Data-parallel training of networks whose first layer has one channel starts without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ensemble.config import parse_experiment
from ensemble.training.stack import Stack

RANK = """
import sys, warnings
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from ensemble.config import parse_experiment
from ensemble.launch.accelerate_run import leave_world
from ensemble.signals import ending_process
from ensemble.training.stack import Stack

warnings.simplefilter("error")
rank, path = int(sys.argv[1]), sys.argv[2]
with ending_process():
    dist.init_process_group("gloo", init_method="file://" + path, rank=rank, world_size=2)
    values = {"name": "t", "num_members": 2, "method": {"name": "deep_ensemble"}, "model": {"name": "cnn", "widths": (8, 16)}}
    stack = Stack.build(parse_experiment(values).groups[0].model, (1, 12, 12), 10, [0, 1])
    model = DistributedDataParallel(stack)
    for step in range(2):
        model(torch.randn(6, 1, 12, 12)).square().sum().backward()
    print("done", [tuple(p.grad.stride()) == tuple(p.stride()) for p in stack.parameters()])
    leave_world()  # Python's own end would abort in one of ten processes
"""


def test_two_ranks_do_not_warn_of_strides(tmp_path: Path) -> None:
    words = [sys.executable, "-c", RANK]
    ranks = [
        subprocess.Popen(
            [*words, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for rank in (0, 1)
    ]
    said = [rank.communicate(timeout=120)[0] for rank in ranks]
    for rank, words in zip(ranks, said, strict=True):
        assert rank.returncode == 0, words
        assert "do not match bucket view strides" not in words
        assert "done [True" in words


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
def test_weights_have_explicit_channels_last_strides(channels: int, kernel: int) -> None:
    """Also those of one channel or one pixel, whose axes of length 1 could have any stride."""
    values = {"name": "t", "num_members": 2, "method": {"name": "deep_ensemble"}}
    model = {"name": "cnn", "widths": (4,), "kernel_size": kernel, "padding": 0}
    stack = Stack.build(parse_experiment({**values, "model": model}).groups[0].model, (channels, 8, 8), 10, [0, 1])
    weight = dict(stack.named_parameters())["network.0.weight"]
    assert weight.stride() == (channels * kernel * kernel, 1, kernel * channels, channels)
    assert stack.to(torch.float64).network[0].weight.stride() == weight.stride()  # type: ignore[index]
