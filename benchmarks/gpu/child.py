"""The process of one part: python -m benchmarks.gpu.child NAME OPTIONS CASES

Exit codes: 0 all cases passed, 1 some failed, 4 torch sees no GPU; anything else is a crash.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import signal
import sys
from pathlib import Path

from benchmarks.gpu.cases import Cases
from benchmarks.gpu.runner import NO_GPU

_PR_SET_PDEATHSIG = 1


def main(name: str, options: str, file: str) -> int:
    """Run the function `run` of the part's module."""
    with contextlib.suppress(AttributeError, OSError):  # on Linux: do not outlive the runner
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    import torch

    from benchmarks.gpu.bench import Bench

    chosen = json.loads(options)
    if chosen["device"] == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU here; --dry-run shows on the CPU that everything works")
        return NO_GPU
    cases = Cases(Path(file))
    importlib.import_module(f"benchmarks.gpu.{name}").run(Bench(**chosen), cases)
    return 1 if cases.failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
