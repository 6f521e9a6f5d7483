"""Executors place tasks on slots and hand back what they leave. They know nothing of methods or networks.

    executor = build_executor(compute, device, tasks, work)
    for outcome in executor.run(tasks, train, arrays, emit): ...

Every task gives one Outcome, in the order in which tasks end. Members do not depend on which executor ran them.
"""

from ensemble.executors.base import Emit, Executor, Outcome, Train
from ensemble.executors.choose import build_executor, expected_slots
from ensemble.executors.inline import InlineExecutor

__all__ = ["Emit", "Executor", "InlineExecutor", "Outcome", "Train", "build_executor", "expected_slots"]
