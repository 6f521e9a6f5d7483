"""Which of several steps is the fastest on this device.

    name = fastest({"usual": step, "other": other}, device)

On a CPU the steps take turns, since its speed changes with what else runs. On a GPU each is timed as replays of a CUDA graph
of it, because training replays graphs too: timed eagerly, the step with the fewest kernels would win, not the one with the
fastest. Where a step cannot be captured it is timed eagerly.

A step that raises, because memory runs out or no kernel fits, counts as infinitely slow, and its memory is freed.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping

import torch

from ensemble.training.cuda_graph import capture_on_gpu

Step = Callable[[], None]
_CLEARLY = 0.97  # another step than the first is taken where it needs at most this share of its time
_HOPELESS = 1.5  # not timed again after so many times the time of the fastest
_ROUNDS = 3  # after a first one, in which libraries choose kernels
_REPLAYS = 5  # of a graph between two events


def fastest(steps: Mapping[str, Step], device: torch.device) -> str | None:
    """The name of the step that takes the least time; the first one unless another is clearly faster.

    None where every step raises.
    """
    seconds = _each_by_itself(steps) if device.type == "cuda" else _in_turns(steps)
    best = min(seconds, key=lambda name: seconds[name])
    if math.isinf(seconds[best]):
        return None
    default = next(iter(steps))
    return best if seconds[best] < _CLEARLY * seconds[default] else default


def seconds_on_gpu(step: Step, rounds: int = _ROUNDS) -> float:
    """Median seconds of a step on the current GPU, by replays of a CUDA graph of it, or eager where it has none."""
    for_warm_up = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    for_warm_up.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(for_warm_up):
        for _ in range(3):  # libraries choose kernels, compilers compile them
            step()
    torch.cuda.current_stream().wait_stream(for_warm_up)
    try:
        run, repeats = capture_on_gpu(step), _REPLAYS
    except torch.OutOfMemoryError:
        raise  # a graph holds all memory of a step at once, and training would need it too
    except RuntimeError:
        torch.cuda.synchronize()
        run, repeats = step, 1
    return statistics.median([_between_events(run, repeats) for _ in range(1 + rounds)][1:])


def free_gpu_memory() -> None:
    """Give back what this process holds on the GPU without using it: cached blocks, and workspaces of cuBLAS."""
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # one of up to 32 MiB for every stream that multiplied matrices
    torch.cuda.empty_cache()


def _between_events(run: Step, repeats: int) -> float:
    """Seconds of one of several runs in a row, by the GPU's own clock."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1000 / repeats


def _each_by_itself(steps: Mapping[str, Step]) -> dict[str, float]:
    seconds = {}
    for name, step in steps.items():
        seconds[name] = _or_infinity(lambda step=step: seconds_on_gpu(step))  # type: ignore[misc]
        free_gpu_memory()  # of its graph, before the next one needs as much
    return seconds


def _in_turns(steps: Mapping[str, Step]) -> dict[str, float]:
    spent: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(1 + _ROUNDS):
        for name, step in steps.items():
            best = min((min(times) for times in spent.values() if times), default=math.inf)
            if not spent[name] or min(spent[name]) <= _HOPELESS * best < math.inf:
                spent[name].append(_or_infinity(lambda step=step: _by_clock(step)))  # type: ignore[misc]
    return {name: statistics.median(times[1:] or times) for name, times in spent.items()}


def _by_clock(step: Step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _or_infinity(timed: Callable[[], float]) -> float:
    """What is measured, or infinity where that raises."""
    try:
        return timed()
    except Exception:  # memory, cuDNN's "unable to find an engine", a compiler: whatever it is, the step is of no use
        return math.inf
