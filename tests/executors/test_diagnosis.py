"""What exceptions say: the words of torch and of the libraries below it, and words that only look like them."""

from __future__ import annotations

import errno
import sys

import numpy as np
import pytest
import torch

from ensemble.errors import ComputeError
from ensemble.executors.base import Collector
from ensemble.executors.diagnosis import (
    GpuUnusableError,
    breaks_process,
    explain,
    failure_kind,
    finds_no_gpu,
    is_out_of_memory,
)
from ensemble.executors.inline import train_here
from ensemble.training.job import NO_GPU
from ensemble.types import MemberSpec, Task

NO_ROOM = [
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB",
    "HIP out of memory. Tried to allocate 2.50 GiB",
    "MPS backend out of memory (MPS allocated: 8.00 GB, other allocations: 1.00 GB, max allowed: 9.07 GB)",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
    "CUDA driver error: out of memory",
    "HIP error: out of memory",
    "HIP error: hipErrorOutOfMemory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
    "CUDA error: HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
    "NCCL error in: ProcessGroupNCCL.cpp:3356, unhandled cuda error\nLast error:\nCuda failure 'out of memory'",
    "Last error:\nCuda failure 2 'out of memory'",
    "[enforce fail at alloc_cpu.cpp:121] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes",
    "std::bad_alloc",
    "libtorch_python.so: failed to map segment from shared object",
    "/lib/libgomp.so.1: cannot allocate memory in static TLS block",
]
OTHER = [
    "out of memory",  # of what?
    "the layer ran out of memory cells: out_of_memory must be in 0..3",
    "unsupported memory format option Contiguous",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`",
    "CUDA error: CUBLAS_STATUS_NOT_SUPPORTED",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
    "cuDNN error: CUDNN_STATUS_MAPPING_ERROR",
    "CUDNN_STATUS_NOT_INITIALIZED",  # most often a version that does not match
    "unable to find an engine room",
    "mat1 and mat2 shapes cannot be multiplied (4x8 and 9x2)",
    "bad_alloc is no member of std",
]
STICKY = [
    "CUDA error: device-side assert triggered",
    "CUDA error: an illegal memory access was encountered",
    "CUDA error: an illegal instruction was encountered",
    "CUDA error: uncorrectable ECC error encountered",
    "CUDA error: unspecified launch failure",
    "CUDA error: misaligned address",
    "HIP error: unspecified launch failure",
    "Last error:\nCuda failure 700 'an illegal memory access was encountered'",
]
NO_DEVICE = [
    NO_GPU,
    "No CUDA GPUs are available",
    "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU",
    "CUDA unknown error - this may be due to an incorrectly set up environment, e.g. changing env variable",
    "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before calling NumCudaDevices()",
    "CUDA driver initialization failed, you might not have a CUDA gpu.",
    "CUDA error: initialization error",
    "CUDA error: all CUDA-capable devices are busy or unavailable",
    "CUDA error: no CUDA-capable device is detected",
    "CUDA error: invalid device ordinal",
]


@pytest.mark.parametrize("words", NO_ROOM)
def test_no_room(words: str) -> None:
    error = RuntimeError(words)
    assert is_out_of_memory(error)
    assert failure_kind(error, gave_gpu=True) == failure_kind(error, gave_gpu=False) == "out_of_memory"
    assert not breaks_process(error)


@pytest.mark.parametrize("words", OTHER)
def test_words_that_only_look_like_it(words: str) -> None:
    assert not is_out_of_memory(RuntimeError(words))


@pytest.mark.parametrize("words", STICKY)
def test_errors_after_which_a_process_cannot_go_on(words: str) -> None:
    error = RuntimeError(words)
    assert breaks_process(error)
    assert failure_kind(error, gave_gpu=True) == "crash"


@pytest.mark.parametrize("words", ["AssertionError: device-side assert", "an illegal memory access by me", *NO_ROOM])
def test_errors_after_which_it_can(words: str) -> None:
    assert not breaks_process(RuntimeError(words))


@pytest.mark.parametrize("words", NO_DEVICE)
def test_a_gpu_that_is_not_there_is_the_nodes_fault_where_it_was_given(words: str) -> None:
    error = RuntimeError(words)
    assert finds_no_gpu(error)
    assert failure_kind(error, gave_gpu=True) == "lost_node"
    assert failure_kind(error, gave_gpu=False) == "error"
    assert failure_kind(GpuUnusableError("Ray gave GPU 1, but torch sees 1 GPUs"), gave_gpu=True) == "lost_node"


def test_the_real_errors() -> None:
    with pytest.raises(RuntimeError) as torchs:
        torch.empty(1 << 60, dtype=torch.uint8)
    with pytest.raises(MemoryError) as numpys:
        np.empty(1 << 60, np.uint8)
    for error in (
        torchs.value, numpys.value, MemoryError(), torch.OutOfMemoryError("no words"), OSError(errno.ENOMEM, "mmap")
    ):  # fmt: skip
        assert is_out_of_memory(error), error
    assert not is_out_of_memory(OSError(errno.ENOSPC, "no space left"))


def chained(first: Exception, second: Exception, **how: bool) -> Exception:
    """The second error, raised from the first one or while it is handled."""
    try:
        try:
            raise first
        except Exception as error:
            if how.get("cause"):
                raise second from error
            if how.get("hidden"):
                raise second from None
            raise second  # noqa: B904 - without a cause, which is the point
    except Exception as error:
        return error


def test_causes_and_contexts_count_and_hidden_ones_do_not() -> None:
    def pair() -> tuple[Exception, Exception]:
        return torch.OutOfMemoryError("CUDA out of memory."), ValueError("no step")

    assert is_out_of_memory(chained(*pair(), cause=True))
    assert is_out_of_memory(chained(*pair()))
    assert is_out_of_memory(chained(chained(*pair()), KeyError("and a third")))
    assert not is_out_of_memory(chained(*pair(), hidden=True))
    circle = ValueError("its own cause")
    circle.__cause__ = circle
    assert not is_out_of_memory(circle)


def test_rays_wrapper_is_looked_into_and_its_text_is_not() -> None:
    """Its text is a traceback with lines of code, which may hold any words."""
    from ray.exceptions import RayTaskError

    code = 'File "x.py", line 1\n    raise ValueError("CUDA out of memory")'
    assert is_out_of_memory(RayTaskError("train", code, torch.OutOfMemoryError("CUDA out of memory.")))
    assert not is_out_of_memory(RayTaskError("train", code, ValueError("no room for an argument")))


def test_a_reason_is_one_line() -> None:
    assert explain(ValueError("first\nlast " + "x" * 600)) == "ValueError: last " + "x" * 495
    assert explain(KeyboardInterrupt()) == "KeyboardInterrupt: KeyboardInterrupt"
    task = Task("t0", "r", (MemberSpec(0, "r", np.arange(2)), MemberSpec(1, "r", np.arange(2))))
    collector = Collector(task, lambda _: None)
    collector.fail("crash", ValueError("first\nlast"), 3.0)
    assert [(f.reason, f.seconds_lost) for f in collector.outcome().failures] == [("ValueError: last", 1.5)] * 2


def test_a_process_of_its_own_that_cannot_go_on_ends_the_run() -> None:
    """Training in the driver's process, every further task would fail."""

    def broken(task: Task, _arrays: object):  # type: ignore[no-untyped-def]
        raise RuntimeError("CUDA error: device-side assert triggered")
        yield

    task = Task("t0", "r", (MemberSpec(0, "r", np.arange(2)),))
    with pytest.raises(
        ComputeError, match=r"t0: the GPU does not work for this process any more: .*device-side assert"
    ):
        train_here(task, broken, {}, lambda _: None)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ("libtorch.so: failed to map segment from shared object", "ulimit -v"),
        ("No module named 'torch'", "install it anew"),
    ],
)
def test_torch_that_cannot_be_loaded_ends_the_run(words: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second try would only be told that torch can be initialised once per process."""

    def broken(task: Task, _arrays: object):  # type: ignore[no-untyped-def]
        raise ImportError(words)
        yield

    monkeypatch.delitem(sys.modules, "torch", raising=False)
    task = Task("t0", "r", (MemberSpec(0, "r", np.arange(2)),))
    with pytest.raises(ComputeError, match=f"torch cannot be loaded: ImportError: {words}; .*{remedy}"):
        train_here(task, broken, {}, lambda _: None)
