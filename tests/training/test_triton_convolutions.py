"""Our Triton kernels equal PyTorch's convolutions, and are not taken where they do not fit. No GPU is needed for any of it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ensemble.training.convolutions import ConvolutionShape
from ensemble.training.layers import StackedConv2d
from ensemble.training.triton_convolutions import misfit, obstacle, unsuited

ROOT = Path(__file__).resolve().parents[2]
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def run(script: str, *words: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, script, *words], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_triton
def test_equal_to_pytorch_in_the_interpreter() -> None:
    assert "all equal" in run("tests/training/triton_checks.py", TRITON_INTERPRET="1")


@needs_triton
def test_compiled_for_a_gpu_that_is_not_here() -> None:
    """LeNet-5's layers for compute capability 9.0, in the sizes that are launched: all sums stay in registers."""
    said = run("benchmarks/triton_registers.py", "--only", "float32", TRITON_INTERPRET="0")
    lines = [line for line in said.splitlines() if "float32" in line]
    assert len(lines) == 5, said
    assert all(" 0 bytes spilled" in line for line in lines), said


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"kernel_size": 3, "stride": 2}, "no stride or dilation"),
        ({"kernel_size": 3, "dilation": 2}, "no stride or dilation"),
        ({"kernel_size": 9}, "at most 7 pixels, and it has 9"),
        ({"kernel_size": 3, "padding": 3}, "smaller than the kernel"),
        ({"kernel_size": 3, "out_channels": 33}, "at most 32 channels, and it has 33"),
        ({"kernel_size": 3, "groups": 2}, "groups of channels"),
    ],
)
def test_layers_that_do_not_fit_say_why(options: dict[str, Any], reason: str) -> None:
    layer = StackedConv2d([nn.Conv2d(**{"in_channels": 4, "out_channels": 8, **options}) for _ in range(2)])
    assert reason in (layer.reason_against("triton") or "")


def test_a_batch_of_too_many_numbers_does_not_fit() -> None:
    x, weight = torch.zeros(()).expand(4096, 128, 28, 28), torch.zeros(128 * 6, 1, 5, 5)
    shape = ConvolutionShape(128, padding=(2, 2))
    assert unsuited(weight, shape) is None
    assert "32 bits" in (misfit(x, weight, shape) or "")
    assert misfit(x[:1024], weight, shape) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_the_kernels_are_not_offered() -> None:
    layer = StackedConv2d([nn.Conv2d(4, 8, 3) for _ in range(2)])
    assert "triton" not in layer.possible_ways()
    assert obstacle("cpu") in ("Triton's kernels need a GPU", "Triton is not installed")
