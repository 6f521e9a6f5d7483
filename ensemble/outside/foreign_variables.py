"""Environment variables of launchers and libraries: what a run does not read, and what it records of them.

A run follows its configuration. Accelerate, torchrun and others read variables of their own, which may have been left
by another program: a factor of four in the gradient, another precision, a world of processes that is not there. An
empty variable counts as one that is not set.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# By their beginnings, all that Accelerate reads; its launcher sets some of them itself.
ACCELERATE = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "FP8_", "DYNAMO_", "FORK_LAUNCHED", "XLA_")
# What a launcher tells its processes: torchrun, MPI in its kinds, and those that Accelerate asks as well.
LAUNCHER = (
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK", "ROLE_WORLD_SIZE", "NODE_RANK",
    "MASTER_ADDR", "MASTER_PORT", "CROSS_RANK", "CROSS_SIZE", "TORCHELASTIC_", "PMI_", "OMPI_COMM_WORLD_", "MV2_COMM_WORLD_",
    "CCL_WORKER_COUNT",
)  # fmt: skip
_RECORDED = (
    *ACCELERATE, *LAUNCHER, "OMP_", "MKL_", "KMP_", "GOMP_", "ATEN_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "CUBLAS_",
    "CUDA_", "CUDNN_", "NVIDIA_TF32_OVERRIDE", "NCCL_", "GLOO_", "DNNL_", "ONEDNN_", "TRITON_", "RAY_", "WANDB_",
    "ENSEMBLE_", "HIP_", "ROCR_",
)  # fmt: skip
# Where an empty value says something of its own: no GPU at all.
_EMPTY_MEANS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSW|CREDENTIAL|CONFIG_JSON|REDIS")


def _of(beginnings: tuple[str, ...], names: Mapping[str, str]) -> list[str]:
    """Those of the names that are, or begin as, one of these; what ends in _ is a beginning."""
    return sorted(
        name for name in names if any(name == b or (b.endswith("_") and name.startswith(b)) for b in beginnings)
    )


def settle_variables(alone: bool = False) -> list[str]:
    """Take out of this process's environment what would mislead libraries, before one reads it; returns what was taken.

    That is every empty variable, and with `alone`, for a command that is one process, those of launchers and of
    Accelerate. The empty ones are not among the names that are returned.
    """
    for name in _of(_RECORDED, os.environ):
        if not os.environ[name].strip() and name not in _EMPTY_MEANS:
            del os.environ[name]
    taken = _of((*ACCELERATE, *LAUNCHER), os.environ) if alone else []
    _taken.update({name: os.environ.pop(name) for name in taken})
    return taken


_taken: dict[str, str] = {}


def describe_variables() -> dict[str, str]:
    """All variables that the libraries may read, also those taken out, for the record; of secrets only that they are set."""
    found = {**os.environ, **_taken}
    return {name: "(set)" if _SECRET.search(name) else found[name] for name in _of(_RECORDED, found)}


def library_variables() -> list[str]:
    """Names of the variables of torch, Accelerate and the libraries below them that are set in this process; sorted."""
    return _of(tuple(b for b in _RECORDED if b not in ("RAY_", "WANDB_", "ENSEMBLE_")), os.environ)


def set_variables(*beginnings: str) -> list[str]:
    """Names of the variables of this process's environment that are, or begin as, one of these; sorted."""
    return _of(beginnings, os.environ)


@contextmanager
def without_variables(*beginnings: str) -> Iterator[None]:
    """Inside, this process's environment lacks these variables; afterwards it has them again.

    Where none is set, which is the rule, the environment is left untouched: other threads may be reading it.
    """
    taken = {name: os.environ.pop(name) for name in _of(beginnings, os.environ)}
    try:
        yield
    finally:
        os.environ.update(taken)
