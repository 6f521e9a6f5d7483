"""The plan of a new run: where its tasks go, how its members are packed there, and by which kernels (`planning`).

plan = first_plan(experiment, dataset, rows=54_000)     # asks the cluster, the card, what was measured before
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ensemble.config import Experiment
from ensemble.data import Dataset
from ensemble.executors.choose import connected, expected_slots, measure_ways, planned_card, planned_device, stays_here
from ensemble.run.planning import Plan, make_plan, stored_kernels, training_work
from ensemble.training import (
    Trainer,
    check_batches,
    check_precision,
    check_views_of_features,
    largest_stack,
    shares_features,
)


def first_plan(experiment: Experiment, dataset: Dataset, rows: int) -> Plan:
    """The plan of a new run, for the device and the slots of wherever its tasks go. rows: training rows of a member.

    Raises ComputeError when a GPU is asked for and none can be had, or a cluster that is named cannot be reached.
    """
    shape = dataset.image_shape
    images = {group.name: rows * group.count * group.epochs for group in experiment.groups}
    if stays_here(experiment.compute, training_work(images, experiment, "cpu", shape, dataset.num_classes)):
        here = experiment.compute.model_copy(update={"executor": "inline"})
        experiment = experiment.model_copy(update={"compute": here})
    compute = experiment.compute
    with connected(compute):
        device = planned_device(compute)
        check_precision(compute, device)
        work = training_work(images, experiment, device, shape, dataset.num_classes)
        return complete_plan(experiment, dataset, device, expected_slots(compute, device, work))


def complete_plan(experiment: Experiment, dataset: Dataset, device: str, slots: int = 1) -> Plan:
    """The plan of a new run, with the quickest kernels for its stacks where compute.kernels asks to find them.

    Where it does not, and the card of this run has been measured before, its plan has the kernels that were fastest then.
    Raises ConfigError for batches that the network cannot be trained on.
    """
    shape, classes = dataset.image_shape, dataset.num_classes
    check_batches(experiment, shape, classes)
    check_views_of_features(experiment, shape, classes)
    card = planned_card(experiment.compute, device)
    plan = make_plan(experiment, device, slots, card)
    sizes = dict(plan.stack_sizes)
    for group in experiment.groups if experiment.compute.stack_size is None else ():
        if shares_features(group, shape, classes):
            sizes[group.name] = group.count
        elif group.model.foreign:
            sizes[group.name] = largest_stack(group.model, shape, classes, sizes[group.name], device)
    plan = replace(plan, stack_sizes=sizes)
    if experiment.compute.kernels == "auto" and card is not None:
        return replace(plan, ways=stored_kernels(plan, experiment, card, shape, classes))
    if experiment.compute.kernels != "measured":
        return plan
    jobs = Trainer.create(experiment, device, classes).jobs
    return replace(plan, ways=measure_ways(experiment.compute, jobs, shape, plan.stack_sizes, experiment.name))


def kernels_in_words(plan: Plan) -> Iterator[str]:
    """What was found out about kernels, in words."""
    for recipe, ways in plan.ways.items():
        others = ", ".join(f"{layer} {way}" for layer, way in ways.convolutions.items())
        kernels = "the kernels for narrow networks" if ways.batch_last else "PyTorch's kernels"
        yield f"{recipe}: {kernels} are quickest here" + (f", with {others}" if others else "")
