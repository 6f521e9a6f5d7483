"""What the compiler makes of our Triton kernels for LeNet-5's layers, with their max-pooling, on an NVIDIA GPU; no GPU is needed.

    python -m benchmarks.triton_registers [--capability 90] [--only float32|tf32|bfloat16]

For each kernel, in the sizes in which it is launched: registers per thread, bytes spilled to memory, shared memory, machine
instructions, and how many of them are multiply-adds (FFMA, or HMMA of tensor cores). The share of multiply-adds bounds what
a kernel can reach; how fast it is, only a card can say.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ensemble.training import triton_kernels
from ensemble.training.triton_convolutions import COMPILER, PIXELS, launch_sizes, power_of_two, taps_per_program

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
# Name, input channels, output channels, padding, whether the input needs a gradient.
_LAYERS = (("first", 1, 6, 2, False), ("second", 6, 16, 0, True))
_PRECISIONS = {"float32": ("fp32", "ieee"), "tf32": ("fp32", "tf32"), "bfloat16": ("bf16", "ieee")}


@dataclass(frozen=True)
class Compiled:
    """Of one kernel: registers per thread, bytes spilled, bytes of shared memory, instructions by name."""

    registers: int
    spilled: int
    shared: int
    instructions: list[str]

    def __str__(self) -> str:
        products = {name: self.instructions.count(name) for name in ("FFMA", "HMMA")}
        counted = ", ".join(f"{number} {name}" for name, number in products.items() if number)
        return f"{self.registers} registers, {self.spilled} bytes spilled, {self.shared} bytes shared, {len(self.instructions)} instructions, {counted}"


def compiled(kernel: Any, element: str, constants: dict[str, Any], warps: int, capability: int) -> Compiled:
    """A kernel compiled for a compute capability such as 90. element: Triton's name of the tensors' type, such as "fp32"."""
    sums = ("dweight", "dbias")
    tensors = ("x", "y", "dy", "weight", "bias")
    signature = {
        name: "constexpr" if name in constants else "*i8" if name == "won" else "*fp32" if name in sums else f"*{element}" if name in tensors else "i32"
        for name in kernel.arg_names
    }  # fmt: skip
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps, **COMPILER})
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, code = (_dumped(option, file.name) for option in ("-res-usage", "-sass"))
    facts = {name: int(number) for name, number in re.findall(r"(REG|STACK):(\d+)", usage)}
    instructions = re.findall(r"^\s+/\*[0-9a-f]{4}\*/\s+(?:@!?\w+\s+)?([A-Z0-9]+)", code, re.MULTILINE)
    return Compiled(facts["REG"], facts["STACK"], binary.metadata.shared, instructions)


def _dumped(option: str, path: str) -> str:
    return subprocess.run([_TOOLS / "cuobjdump", option, path], capture_output=True, text=True, check=True).stdout


def kernels(precision: str, capability: int) -> Iterator[tuple[str, Compiled]]:
    """All kernels of LeNet-5's convolutions in one precision."""
    element, products = _PRECISIONS[precision]
    for layer, channels, maps, padding, inputs in _LAYERS:
        size = {"R": 5, "C": 5, "DOWN": padding, "ACROSS": padding}
        passes = {"forward": (channels, maps, size)}
        if inputs:
            passes["input gradient"] = (maps, channels, {**size, "DOWN": 4 - padding, "ACROSS": 4 - padding})
        for name, (incoming, outgoing, where) in passes.items():
            filled = power_of_two(outgoing)
            block, warps = launch_sizes(filled)
            constants = {
                "IN": incoming,
                "OUT": outgoing,
                "OUT2": filled,
                **where,
                "BIAS": name == "forward",
                "POOL": name == "forward",
                "UNPOOL": name != "forward",
                "BLOCK": block,
            }
            yield f"{layer} {name}", compiled(triton_kernels.convolve, element, constants, warps, capability)
        constants = {
            "IN": channels, "OUT": maps, "OUT2": max(16, power_of_two(maps)), **size,
            "UNPOOL": True, "TAPS": taps_per_program(25 * channels), "BLOCK": PIXELS, "PRECISION": products,
        }  # fmt: skip
        yield f"{layer} weight gradient", compiled(triton_kernels.weight_gradient, element, constants, 4, capability)


def main() -> None:
    """Print a line per kernel and precision."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--capability", type=int, default=90)
    parser.add_argument("--only", choices=_PRECISIONS)
    options = parser.parse_args()
    for precision in [options.only] if options.only else _PRECISIONS:
        for name, found in kernels(precision, options.capability):
            print(f"{name}, {precision}: {found}", flush=True)


if __name__ == "__main__":
    main()
