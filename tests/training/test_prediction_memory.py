"""The memory that votes on many large images take."""

from __future__ import annotations

import subprocess
import sys

LARGE_IMAGES = """
import numpy as np, torch
from ensemble.training import Trainer
from ensemble.training.memory import keep_freed_memory
from ensemble.training.placement import Placement
from ensemble.training.prediction import predict
from ensemble.training.stack_run import StackRun
from ensemble.types import MemberSpec, Task
from tests.training.helpers import experiment

def own():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1e3

keep_freed_memory()
torch.set_num_threads(1)
some = np.zeros((40, 3, 96, 96), np.uint8)
arrays = {
    "train_images": some, "train_labels": np.arange(40) % 10, "validation_rows": np.arange(30, 40), "test_images": some,
    "mean": np.zeros(3, np.float32), "std": np.ones(3, np.float32),
}
job = Trainer.create(experiment({"name": "mlp", "widths": (16,)}, "torch"), "cpu", 10).jobs["mlp"]
run = StackRun(Task("t", "mlp", (MemberSpec(0, "mlp", np.arange(30)),)), job, arrays, Placement.create(job.compute))
many = torch.zeros((1, 3, 96, 96), dtype=torch.uint8).expand(5000, -1, -1, -1)  # of one image's memory
grown = []
for seed in range(6):  # memory as a process may have it
    kept = [torch.empty(int(n)) for n in np.random.default_rng(seed).integers(10, 7_000_000, 40)][::2]
    before = own()
    predict(run.stack, run.data, many, None, run.placement)
    grown.append(own() - before)
print(max(grown))
"""


def test_votes_on_many_large_images_take_the_memory_of_a_few_batches() -> None:
    """20 batches of 28 MB each as float32, in a process that keeps what it frees."""
    done = subprocess.run(
        [sys.executable, "-c", LARGE_IMAGES], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 400
