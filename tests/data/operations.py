"""What torch is asked to do, by name."""

from __future__ import annotations

from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

# A CUDA graph refuses numbers read back, tensors made of Python's numbers, and shapes that depend on data.
ON_THE_HOST = frozenset({"_local_scalar_dense", "lift_fresh", "lift_fresh_copy", "copy_", "nonzero", "masked_select"})


class Operations(TorchDispatchMode):
    """Names of the operations that are done while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))
