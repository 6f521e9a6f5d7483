"""All of configs/record_mnist.yaml, added by --full-record FOLDER: hours. Killed or out of time, it resumes there."""

from __future__ import annotations

import json
import subprocess
import sys
import time

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.cases import Cases
from benchmarks.gpu.record import CONFIG


def run(bench: Bench, cases: Cases) -> None:
    """`ensemble train` to its end, its progress in the log; the vote's test error with its 95 % interval."""
    command = [
        sys.executable, "-m", "ensemble", "train", str(CONFIG), "--json", f"output_dir={bench.full_record}",
        f"compute.device={bench.device}", f"compute.cuda_graph={str(bench.on_gpu).lower()}",
        "compute.executor=inline", "tracking.wandb.mode=disabled",
    ]  # fmt: skip
    started = time.perf_counter()
    with cases.case("30 members") as values:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        values.update(seconds_of_this_start=time.perf_counter() - started, exit_code=done.returncode)
        if done.returncode:
            raise RuntimeError("the run did not finish; see the log, and start it again to go on")
        vote = json.loads(done.stdout)["leaderboard"][0]
        values.update({key: vote[key] for key in ("test_error", "lower", "upper", "validation_error", "train_seconds")})
