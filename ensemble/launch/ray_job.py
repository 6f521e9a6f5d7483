"""The door for a Ray cluster: what `ray job submit` starts.

    ray job submit --address URL --working-dir . -- python -m ensemble.launch.ray_job CONFIG [key=value ...]

The driver runs in the cluster; tasks go to whatever slots there are, and results come back through Ray, so workers
need no path in common with it. The job's own folder is a copy that vanishes: output_dir must be absolute, on a disk
that outlives the job; where it is not given, runs go to ~/ensemble_runs on the machine of the driver, the cluster's head.
Submitting the same command again goes on where the last job stopped.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from ensemble.config import load_config
from ensemble.errors import ConfigError
from ensemble.executors import build_executor
from ensemble.launch.training import guarded, train_and_print
from ensemble.launch.upload import DEFAULT_OUTPUT
from ensemble.launch.versions import differences, submitted_from
from ensemble.outside import json_lines
from ensemble.outside.paths import given_path
from ensemble.storage.remote import is_address


def main() -> int:
    """Train on the cluster this job runs in; returns the exit code."""
    if len(sys.argv) < 2 or "=" in sys.argv[1]:
        raise ConfigError("usage: ray job submit ... -- python -m ensemble.launch.ray_job CONFIG [key=value ...]")
    for line in differences(submitted_from()):
        json_lines.tell(f"note: {line}")
    loaded = load_config(Path(sys.argv[1]), sys.argv[2:])
    experiment = loaded.experiment
    if experiment.compute.executor not in ("auto", "ray"):
        raise ConfigError(
            f"compute.executor is {experiment.compute.executor}, but this door's executor is ray; remove the key, or use: ensemble train"
        )
    output_dir = where_runs_go(experiment.output_dir, given=loaded.origins["output_dir"] != "default")
    compute = experiment.compute.model_copy(update={"executor": "ray"})
    experiment = experiment.model_copy(update={"compute": compute, "output_dir": output_dir})
    return train_and_print(
        experiment,
        lambda run: lambda device, tasks, work: build_executor(compute, device, tasks, work, run.name),
    )


def where_runs_go(output_dir: str, given: bool) -> str:
    """The folder or address of runs on a disk that outlives the job. given: somebody chose it. Raises ConfigError for one that does not."""
    if is_address(output_dir):
        return output_dir
    path = given_path(output_dir if given else DEFAULT_OUTPUT, "output_dir")
    if not path.is_absolute():
        raise ConfigError(
            f"output_dir: {output_dir!r} would lie in the job's own folder, which vanishes with it; expected an absolute path on a disk that stays, such as output_dir=/shared/runs, or an address such as s3://bucket/runs"
        )
    if not given:
        json_lines.tell(f"output_dir is not given: runs go to {path} on {platform.node()}")
    return str(path)


def start() -> None:
    """Run this door and leave with its exit code."""
    guarded(main, "the same submission")


if __name__ == "__main__":
    start()
