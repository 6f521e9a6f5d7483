"""Milliseconds of a piece of work on the GPU, as replays of a CUDA graph, so that launching costs nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

Work = Callable[[], object]


def graphed(work: Work) -> Work:
    """The work as a CUDA graph, after three runs in which libraries choose kernels.

    Raises RuntimeError where something in it cannot be captured.
    """
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    replay: Work = graph.replay
    return replay


def milliseconds(work: Work, on_gpu: bool, repeats: int = 10) -> float:
    """The median over the repeats, after two more that do not count."""
    spent = []
    for _ in range(2 + repeats):
        if on_gpu:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            work()
            end.record()
            end.synchronize()
            spent.append(begin.elapsed_time(end))
        else:
            started = time.perf_counter()
            work()
            spent.append(1000 * (time.perf_counter() - started))
    return statistics.median(spent[2:])
