"""Measuring on a cluster what depends on the machine that trains: the quickest kernels of each group's stacks."""

from __future__ import annotations

from collections.abc import Mapping

import ray
from ray.exceptions import RayError, RayTaskError

from ensemble import signals
from ensemble.config.schema import ComputeConfig
from ensemble.errors import ComputeError, EnsembleError
from ensemble.executors.ray_cluster import wait_for_slots, wanted_type
from ensemble.executors.ray_tasks import task_options
from ensemble.executors.ray_worker import take_gpu
from ensemble.training import Job
from ensemble.training.job import Ways


def ways_on_cluster(
    compute: ComputeConfig,
    jobs: Mapping[str, Job],
    image_shape: tuple[int, int, int],
    counts: Mapping[str, int],
    run: str = "",
) -> dict[str, Ways]:
    """See `choose.measure_ways`: in one Ray task with the CPUs and the GPU of a training task, in a process of its own.

    Needs a connection to the cluster. Raises ComputeError where no node can hold such a task, and where it fails.
    """
    device = next(iter(jobs.values())).compute.device
    wait_for_slots(compute, device)
    gpus = min(1.0, compute.gpus_per_task) if device == "cuda" else 0.0
    kind = wanted_type(compute, device)
    options = {**task_options(compute.threads_per_task, gpus, keeps_process=False, gpu_type=kind), "max_calls": 1}
    measuring = ray.remote(max_retries=3, name=f"{run} kernels of {', '.join(jobs)}".strip(), **options)(_measure)
    with signals.deferred():
        found = measuring.remote(dict(jobs), image_shape, dict(counts), gpus)
        while not ray.wait([found], timeout=0.5)[0]:
            signals.check()
    try:
        ways: dict[str, Ways] = ray.get(found)
    except RayError as error:
        cause = error.cause if isinstance(error, RayTaskError) else error
        if isinstance(cause, EnsembleError):
            raise cause from None
        raise ComputeError(
            f"compute.kernels is measured, but the measurement failed on the cluster: {type(cause).__name__}: {cause}; use compute.kernels=auto"
        ) from error
    return ways


def _measure(
    jobs: Mapping[str, Job], image_shape: tuple[int, int, int], counts: Mapping[str, int], share: float
) -> dict[str, Ways]:
    from ensemble.training.ways import find_ways  # imports torch: in the worker, not in the driver

    take_gpu(share)
    return {name: find_ways(job, image_shape, counts[name]) for name, job in jobs.items()}
