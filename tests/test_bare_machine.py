"""A machine without ray and wandb: training, judging and the report still work, inline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

CONFIG = """
num_members: 2
method: {name: bagging}
baseline: false
model: {name: mlp, widths: [8]}
training: {epochs: 1}
compute: {device: cpu}
"""


def test_without_ray_and_wandb(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = sys.modules['wandb'] = None\n")
    (tmp_path / "c.yaml").write_text(CONFIG)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "ensemble", "train", "c.yaml", "--json"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["asked_members"] == 2
    assert "W&B" in done.stderr
    assert "Traceback" not in done.stderr
    ray = subprocess.run(
        [*command, "compute.executor=ray", "name=r"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert ray.returncode == 7
    assert "ray is not installed" in ray.stderr
