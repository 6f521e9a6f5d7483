"""The training function of a run: which job trains which group's tasks. Importing it loads no torch; the first training does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from ensemble.config.schema import Experiment, Group
from ensemble.errors import ComputeError
from ensemble.events import Event
from ensemble.outside.foreign_variables import library_variables
from ensemble.training.job import Arrays, Job, Ways
from ensemble.types import Checkpoint, Failure, MemberResult, Pulse, Stopped, Task


@dataclass(frozen=True)
class Trainer:
    """The training function of a run, in a form that can be sent to other processes.

    jobs: by recipe. own: of tasks that are trained otherwise than their recipe says, by the task's id.
    """

    jobs: Mapping[str, Job]
    own: Mapping[str, Job] = field(default_factory=dict)

    @classmethod
    def create(
        cls, experiment: Experiment, device: str, num_classes: int, ways: Mapping[str, Ways] | None = None
    ) -> Trainer:
        """A trainer for every group of the experiment, on the planned kind of device and in the planned ways."""
        compute, ways = experiment.compute.model_copy(update={"device": device}), ways or {}
        jobs = {
            group.name: Job(
                experiment.seed, group, compute, num_classes, ways.get(group.name), experiment.evaluation.tta
            )
            for group in experiment.groups
        }
        return cls(jobs)

    def with_own(self, groups: Mapping[str, Group]) -> Trainer:
        """The same, with a network and a recipe of its own for each of these tasks, by their ids."""
        jobs = {}
        for task, group in groups.items():
            job = self.jobs[group.name]
            ways = job.ways if group.model == job.group.model else None  # kernels are of one network's layers
            jobs[task] = replace(job, group=group, ways=ways)
        return replace(self, own=jobs)

    def __call__(
        self, task: Task, arrays: Arrays
    ) -> Iterator[Event | Pulse | Checkpoint | Stopped | MemberResult | Failure]:
        """See `loop.train_task`."""
        try:
            from ensemble.training.loop import train_task  # imports torch: in the worker, not in the driver
        except ValueError as error:  # what torch and Accelerate raise at their import for a variable they cannot read
            raise cannot_start(error) from error

        return train_task(task, self.own.get(task.id) or self.jobs[task.recipe], arrays)


def cannot_start(error: Exception) -> ComputeError:
    """What torch or Accelerate said of a variable that they cannot read, as an error for the user."""
    return ComputeError(
        f"PyTorch cannot start: {error}; of the environment variables that it reads, these are set: {', '.join(library_variables())}; unset those that are not meant"
    )
