"""What follows from wide stacks: 100 seeds in seconds, and one stack against as many processes on the same GPU.

python -m benchmarks.gpu.many DEVICE SMALL      # a process with one member: gets ready, waits for a line, trains
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import LENET5, Bench
from benchmarks.gpu.cases import Cases

ROOT = Path(__file__).resolve().parents[2]
_READY = "ready\n"


def run(bench: Bench, cases: Cases) -> None:
    """100 LeNet-5 that reach 99 %; then 16 members both ways."""
    with cases.case("100 members") as values:
        training = {"epochs": 4, "lr": 4e-3, "schedule": {"name": "one_cycle"}}
        trained = bench.train(bench.size(100, 3), LENET5, training)
        values.update(
            seconds=trained.total_s, worst_test_error=max(trained.errors), best_test_error=min(trained.errors),
            **trained.values(),
        )  # fmt: skip
        bench.learned(trained)
    count = bench.size(16, 2)
    with cases.case(f"one stack of {count}") as values:
        values["s_per_epoch"] = bench.train(count, LENET5).epoch_s
    with cases.case(f"{count} processes") as values:
        values["s_per_epoch"] = max(_at_a_time(bench, count))


def _at_a_time(bench: Bench, count: int) -> list[float]:
    """Seconds per epoch of so many processes that train one member each at the same time, as Ray's fractions of a GPU do."""
    command = [sys.executable, "-m", "benchmarks.gpu.many", bench.device, str(int(bench.small))]
    sides = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        for _ in range(count)
    ]
    try:
        for side in sides:
            if side.stdout is None or side.stdout.readline() != _READY:
                raise RuntimeError("a process that was to train one member did not get ready")
        for side in sides:
            assert side.stdin is not None
            side.stdin.write("\n")
            side.stdin.flush()
        return [float(side.communicate()[0]) for side in sides]
    finally:
        for side in sides:
            side.kill()
            side.wait()


def one_side(bench: Bench) -> None:
    """Train one member when a line comes, and print its seconds per epoch."""
    training: dict[str, Any] = {"epochs": 1}
    bench.train(1, LENET5, training)
    print(_READY, end="", flush=True)
    sys.stdin.readline()
    print(bench.train(1, LENET5).epoch_s)


if __name__ == "__main__":
    one_side(Bench(sys.argv[1], bool(int(sys.argv[2]))))
