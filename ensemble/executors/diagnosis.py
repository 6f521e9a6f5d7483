"""What an exception says about memory, the process it was raised in, and its GPU; recognised without importing torch.

torch's libraries report a full or broken GPU in many ways, most of them a RuntimeError with the library's own words.
The exception may also have been raised while another one was handled, so its causes and contexts are looked at as well.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator

from ensemble.types import FailureKind

_MEMORY = re.compile(
    r"""
    (CUDA|HIP|MPS\ backend|XPU)\ out\ of\ memory          # torch's caching allocators
    | (CUDA|HIP)\ (driver\ )?error:\ out\ of\ memory      # a context, a stream or a kernel found no room
    | (Cuda|Hip)\ failure\ [^\n]*'out\ of\ memory'        # NCCL and RCCL
    | cudaErrorMemoryAllocation | hipErrorOutOfMemory | CUDA_ERROR_OUT_OF_MEMORY
    | (CU|HIP|ROC)(BLAS|SOLVER|SPARSE)_STATUS_ALLOC_FAILED
    | (CU|HIP)BLAS_STATUS_NOT_INITIALIZED                 # what a handle that found no room says
    | CUDNN_STATUS_ALLOC_FAILED | CUDNN_STATUS_INTERNAL_ERROR_\w+_ALLOCATION_FAILED
    | unable\ to\ find\ an\ engine\ to\ execute\ this\ computation
    | DefaultCPUAllocator:\ (can't\ allocate|not\ enough)\ memory
    | std::bad_alloc
    | failed\ to\ map\ segment\ from\ shared\ object      # a library, under a limit of address space
    | cannot\ allocate\ memory\ in\ static\ TLS\ block
    """,
    re.VERBOSE,
)
# After these errors every call of the process to its GPU fails ("sticky" errors in NVIDIA's manual).
_BROKEN = re.compile(
    r"""
    \b(CUDA|HIP|Cuda|Hip|NCCL)\b [^\n]* (
      device-side\ assert | illegal\ memory\ access | illegal\ instruction | misaligned\ address | invalid\ program\ counter
      | hardware\ stack\ error | unspecified\ launch\ failure | launch\ timed\ out | uncorrectable\ ECC | [Ii]nvalid\ address\ space
    )
    """,
    re.VERBOSE,
)
_NO_GPU = re.compile(
    r"""
    torch\ sees\ no\ GPU
    | Found\ no\ NVIDIA\ driver | No\ (CUDA|HIP)\ GPUs\ are\ available | NVIDIA\ driver\ on\ your\ system\ is\ too\ old
    | CUDA\ driver\ initialization\ failed | CUDA\ unknown\ error | Unexpected\ error\ from\ cudaGetDeviceCount
    | (CUDA|HIP)\ (driver\ )?error:\ (initialization\ error | unknown\ error | system\ not\ yet\ initialized | invalid\ device\ ordinal
      | no\ (CUDA|ROCm)-capable\ device | [^\n]*busy\ or\ unavailable | CUDA\ driver\ version\ is\ insufficient)
    """,
    re.VERBOSE,
)


class GpuUnusableError(RuntimeError):
    """A process was given a GPU that it cannot use. No EnsembleError: the same task may succeed on another node."""


def is_out_of_memory(error: BaseException) -> bool:
    """True where a GPU or the machine had no room: then fewer networks at a time may fit."""
    return any(
        isinstance(each, MemoryError)  # numpy's is one
        or type(each).__name__ == "OutOfMemoryError"  # torch's and Ray's
        or (isinstance(each, OSError) and each.errno == errno.ENOMEM)
        or _MEMORY.search(str(each))
        for each in _chain(error)
    )


def breaks_process(error: BaseException) -> bool:
    """True where the process that raised it can no longer use its GPU."""
    return any(_BROKEN.search(str(each)) for each in _chain(error))


def finds_no_gpu(error: BaseException) -> bool:
    """True where a process cannot begin to use the GPU it was given."""
    return any(isinstance(each, GpuUnusableError) or _NO_GPU.search(str(each)) for each in _chain(error))


def failure_kind(error: BaseException, gave_gpu: bool) -> FailureKind:
    """What an exception inside a task means for it.

    gave_gpu: the task's process was given a GPU by its scheduler, so that one which is missing is the node's fault.
    """
    if gave_gpu and finds_no_gpu(error):
        return "lost_node"
    if breaks_process(error):
        return "crash"
    return "out_of_memory" if is_out_of_memory(error) else "error"


def explain(error: BaseException) -> str:
    """Type and last line of an exception, shortened: the reason of a failure."""
    text = (str(error).strip() or type(error).__name__).splitlines()[-1][:500]
    return f"{type(error).__name__}: {text}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception, what caused it and what was handled when it was raised. Ray's wrappers, whose text holds lines of code, are left out."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        wrapped = getattr(each, "cause", None)
        if isinstance(wrapped, BaseException):
            waiting.append(wrapped)
            continue
        yield each
        waiting += [each.__cause__, None if each.__suppress_context__ else each.__context__]
