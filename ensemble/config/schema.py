"""Every key a configuration may hold, its type, range and default.

Unknown keys, wrong types and values that could take no effect are errors; nothing is silently ignored. The models and
recipes have files of their own (`models.py`, `recipe.py`); this one holds the experiment around them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, field_validator, model_validator

from ensemble.config.base import Section
from ensemble.config.controls import Control, controls_problem
from ensemble.config.data import DataConfig
from ensemble.config.evaluation import EvaluationConfig, SetConfig
from ensemble.config.groups import NAME_PATTERN, GivenVotes, Group, GroupConfig
from ensemble.config.method import Aggregator, MethodSection
from ensemble.config.network import Network
from ensemble.config.recipe import TrainingConfig
from ensemble.config.tracker import TrackingConfig

__all__ = [
    "AGGREGATORS", "WEIGHING", "Aggregator", "ComputeConfig", "DataConfig", "EvaluationConfig",
    "Experiment", "FailureConfig", "Group", "GroupConfig", "SetConfig", "TrackingConfig", "aggregator_problem",
]  # fmt: skip

AGGREGATORS: tuple[Aggregator, ...] = ("soft", "hard", "weighted", "geometric", "additive")
WEIGHING: frozenset[Aggregator] = frozenset({"weighted", "additive"})  # votes in which members have weights


def aggregator_problem(aggregator: str, method: str) -> str:
    """Why members of this method cannot vote so; "" where they can. Whoever takes an aggregator from outside asks this."""
    if aggregator not in AGGREGATORS:
        return f"aggregator {aggregator!r}: there is no such vote; expected one of {', '.join(AGGREGATORS)}"
    section = MethodSection.registry.find(method)
    if aggregator == "additive" and section is not None and not section.additive:
        return f"aggregator additive belongs to gradient_boosting, whose members are parts of one sum; the method here is {method}"
    return ""


class ComputeConfig(Section):
    """Where and how tasks run.

    Only threads_per_task, stack_size, precision, device, kernels and cuda_graph can change the bits.
    """

    executor: Literal["auto", "inline", "processes", "ray", "accelerate"] = Field(
        "auto",
        description="inline: this process; processes: one for each slot, on the CPUs of this machine; ray: a Ray cluster, or one started here; accelerate: the processes of `accelerate launch -m ensemble.launch.accelerate_run` or torchrun; auto: the cluster that is named, else what pays",
    )
    parallel: Literal["members", "data"] = Field(
        "members", description="launched processes: share out the members, or train each one together"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")
    threads_per_task: int = Field(1, ge=1, le=256, description="threads of a CPU that each task computes with")
    gpus_per_task: float = Field(
        1.0,
        gt=0,
        le=64,
        description="share of a GPU a task reserves; above 1: GPUs that train each task together, on Ray",
    )
    gpu_type: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="on a Ray cluster with several kinds of GPU, the one that tasks train on, as Ray calls it, such as H100 (`ray status -v` and messages of a run tell them); without it any",
    )
    slots: int | None = Field(None, ge=1, description="tasks at a time; without it as many as fit")
    stack_size: int | None = Field(
        None, ge=1, le=1024, description="members trained as one network; without it by model"
    )
    precision: Literal["float32", "tf32", "bf16"] = Field(
        "float32", description="tf32: products in TensorFloat-32, on a GPU; bf16: mixed precision with bfloat16"
    )
    kernels: Literal["auto", "torch", "measured"] = Field(
        "auto",
        description="auto: narrow networks, and stacks of linear layers, train on a CPU by kernels compiled on the spot, where there is a C compiler; torch: PyTorch's; measured: for each layer the quickest, found by trying for some seconds when a run first starts, then remembered",
    )
    cuda_graph: bool = Field(
        True,
        description="on a GPU, launch each step as one CUDA graph instead of kernel by kernel; it is compared with a plain step before it is used",
    )
    deterministic: bool = Field(True, description="ask every kernel for its repeatable version")
    ray_address: str | None = Field(
        None,
        description="address of a running cluster, or auto for the one on this machine; without it and without RAY_ADDRESS a local one is started",
    )
    placement_timeout_s: float = Field(
        30.0, gt=0, description="how long a Ray cluster may take to find room for a first task before the run gives up"
    )
    hang_timeout_s: float = Field(600.0, gt=0, description="a worker that shows no sign of life for so long is killed")
    checkpoint_every_s: float = Field(
        120.0,
        ge=0,
        description="seconds of training a kill may cost: between states kept of unfinished members; 0: none",
    )

    @field_validator("precision", mode="before")
    @classmethod
    def _no_fp16(cls, value: object) -> object:
        if value == "fp16":
            raise ValueError(
                "fp16 would need loss scaling, which couples the members of a stack; expected float32, tf32 or bf16 (bf16 needs no scaling)"
            )
        return value

    @model_validator(mode="after")
    def _whole_gpus(self) -> Self:
        if self.gpus_per_task > 1 and self.gpus_per_task != int(self.gpus_per_task):
            raise ValueError(f"gpus_per_task is {self.gpus_per_task:g}; expected a share of one GPU or a whole number")
        return self


class FailureConfig(Section):
    """What to do about members that do not finish. A smaller ensemble than asked for always says so.

    Every task has a budget of tries for each kind of trouble; whatever would happen again (an error in the code, a
    loss that diverges) is never tried again. A stack that runs out of memory is halved until it fits.
    """

    policy: Literal["retry", "drop", "stop"] = Field(
        "retry", description="retry: within the budgets, then drop; drop, stop: at the first failure"
    )
    crash_retries: int = Field(3, ge=0, le=100, description="extra tries of a task whose process died or hung")
    lost_node_retries: int = Field(10, ge=0, le=1000, description="extra tries of a task whose machine went away")
    min_members: int = Field(1, ge=1, description="fewer finished members than this are not judged")

    def retries(self, kind: str) -> int:
        """Extra tries that a kind of failure gets; running out of memory is answered by smaller stacks instead."""
        if self.policy != "retry":
            return 0
        return {"crash": self.crash_retries, "hung": self.crash_retries, "lost_node": self.lost_node_retries}.get(
            kind, 0
        )


class Experiment(Section):
    """One run: one configuration, one folder."""

    name: str = Field(
        pattern=NAME_PATTERN, description="of the run, and of its folder in output_dir; without it the name of the file"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="of every random number: split, starts, orders, augmentation")
    output_dir: str = Field("runs", description="folder of the run folders, or an address such as s3://bucket/runs")
    num_members: int | None = Field(
        None, ge=1, le=10_000, description="how many members vote; needed unless there are groups under members"
    )
    method: MethodSection = Field(description="which members there are, on which rows, and how their votes are weighed")
    data: DataConfig = Field(
        default_factory=lambda: DataConfig.choose({}),
        description="which images, from where, and how they are divided; without a name digits",
    )
    model: Network | None = Field(
        None, description="the network of every member; needed unless there are groups under members"
    )
    training: TrainingConfig = TrainingConfig()
    members: tuple[GroupConfig, ...] = Field(
        (), description="groups of a mixed ensemble; instead of model and num_members"
    )
    aggregator: Aggregator = Field(
        "soft",
        description="the vote of the headline; the others are reported too. Without it weighted for adaboost, additive for gradient_boosting, else soft",
    )
    evaluation: EvaluationConfig = EvaluationConfig()
    compute: ComputeConfig = ComputeConfig()
    baseline: bool = Field(
        False,
        description="also train one network on all training rows by the same recipe; it does not vote, and the judgement compares the vote with it. Without it true for bagging and cross_validation of members of one kind, false in a sweep, and what a run was begun with",
    )
    controls: tuple[Control, ...] = Field(
        (),
        description="networks that do not vote, on all training rows, each with a line and a test of its own in the judgement: longer (the recipe of the members for as many epochs as all members have together) and wider (widened to about as many parameters as all members have together)",
    )
    repeats: int = Field(
        1,
        ge=1,
        le=1000,
        description="above 1, `ensemble train` makes so many runs, with the seeds seed, seed + 1 and so on, in a folder of this name, and a table over them that tells the seeds' doing from the images'",
    )
    failures: FailureConfig = FailureConfig()
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)

    @model_validator(mode="wrap")
    @classmethod
    def _defaults_by_method(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """What suits a method unless the user says otherwise: the headline vote, the schedule of its cycles, a baseline."""
        method = values.get("method") if isinstance(values, dict) else None
        name = method.get("name") if isinstance(method, dict) else None
        section = MethodSection.registry.find(name) if isinstance(name, str) else None
        if section is None:
            return handler(values)
        suits = {"aggregator": section.headline, "baseline": section.baseline_by_default and not values.get("members")}
        completed = {**suits, **values}
        training = values.get("training", {})
        if section.training_defaults and isinstance(training, dict):
            completed["training"] = {**section.training_defaults, **training}
        experiment = handler(completed)
        if "baseline" not in values:  # left open, see `left_open`
            experiment.model_fields_set.discard("baseline")
        return experiment

    @field_validator("output_dir")
    @classmethod
    def _at_home(cls, value: str) -> str:
        """`~` is the home folder, as at every door; runs that a folder named `~` holds are found as ./~."""
        if not value.strip():
            raise ValueError("must name a folder")
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", value) and not re.match(r"[A-Za-z0-9+.-]+://+[^/]", value):
            raise ValueError(
                "looks like an address, but is none: expected one such as s3://bucket/runs; a folder whose name has a colon is written ./NAME"
            )
        return str(Path(value).expanduser()) if value.startswith("~") else value

    @model_validator(mode="after")
    def _members_fit(self) -> Self:
        if self.members:
            if self.model is not None:
                raise ValueError("give either model (all members alike) or members (groups), not both")
            count = sum(group.count for group in self.members)
            if self.baseline:
                raise ValueError(
                    "baseline is one network by the recipe of all; with groups under members there is no such recipe"
                )
            if self.num_members not in (None, count):
                raise ValueError(f"num_members is {self.num_members}, but the groups under members hold {count}")
            names = [group.recipe for group in self.members]
            if len(set(names)) != len(names):
                raise ValueError(f"members: two groups have the same name ({', '.join(names)}); give each its own name")
        elif self.model is None or self.num_members is None:
            raise ValueError("model and num_members are needed (or groups under members)")
        if self.failures.min_members > self.total_members:
            raise ValueError(
                f"failures.min_members is {self.failures.min_members}, more than the {self.total_members} members"
            )
        return self

    @model_validator(mode="after")
    def _method_fits(self) -> Self:
        method = self.method
        if problem := aggregator_problem(self.aggregator, method.name):
            raise ValueError(problem)
        if self.members and not method.mixed:
            raise ValueError(f"{method.name} needs members of one kind: give model and num_members instead of members")
        if wrong := [group for group in self.members if group.count % method.together]:
            expected = f"expected a multiple of {method.together} in every group"
            found = (
                "a finished member, which was trained elsewhere" if wrong[0].elsewhere else f"count {wrong[0].count}"
            )
            raise ValueError(
                f"members: {wrong[0].recipe} has {found}, but {method.name} trains {method.in_words}: {expected}"
            )
        if self.total_members % method.together:
            raise ValueError(
                f"num_members is {self.total_members}, but {method.name} trains {method.in_words}: expected a multiple of {method.together}"
            )
        if self.evaluation.tta.active and method.additive:
            raise ValueError(
                f"evaluation.tta takes means of each member's probabilities over views, and the members of {method.name} are parts of one sum, which such means are not; leave it out"
            )
        if problem := method.problem(self.training):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _given_votes_fit(self) -> Self:
        """Of a member without a network only the votes in its file are known."""
        if not (given := self.given_votes):
            return self
        asked = {
            "evaluation.sets": bool(self.evaluation.sets), "data.calibration_fraction": self.data.calibration_fraction > 0,
        }  # fmt: skip
        if found := [key for key, used in asked.items() if used]:
            raise ValueError(
                f"{found[0]}: {given[0].name} has no network, only the probabilities in its file, so it cannot vote on further images; leave {found[0]} out, or give the member as a network: model with weights, and finished: true"
            )
        if self.evaluation.tta.active and not self.groups:
            raise ValueError("evaluation.tta has no effect on members whose votes come from files; leave it out")
        return self

    @model_validator(mode="after")
    def _controls_fit(self) -> Self:
        if problem := controls_problem(self):
            raise ValueError(problem)
        return self

    @property
    def groups(self) -> tuple[Group, ...]:
        """The members that have a network, in order, as groups of one model and recipe each."""
        if not self.members:
            assert self.model is not None
            assert self.num_members is not None
            alike = Group(
                name=self.model.label,
                count=self.num_members,
                model=self.model,
                training=self.training,
                margin=self.data.kept_margin,
            )
            return self.method.groups_of(alike)
        return tuple(
            Group(
                name=group.recipe,
                count=group.count,
                model=group.model,
                training=group.training or self.training,
                finished=group.finished,
                margin=self.data.kept_margin,
            )
            for group in self.members
            if group.model is not None
        )

    @property
    def given_votes(self) -> tuple[GivenVotes, ...]:
        """The members whose votes come from files, in order."""
        return tuple(
            GivenVotes(name=group.recipe, file=group.probabilities, sha256=group.probabilities_sha256)
            for group in self.members
            if group.probabilities is not None
        )

    @property
    def recipes(self) -> tuple[str, ...]:
        """The name of every member's group."""
        groups = self.members or self.groups
        return tuple(
            group.recipe if isinstance(group, GroupConfig) else group.name
            for group in groups
            for _ in range(group.count)
        )

    @property
    def left_open(self) -> tuple[str, ...]:
        """Keys that nobody gave and that a run which is taken up keeps as it was begun, whatever their default is by now."""
        return tuple(key for key in ("baseline", "controls") if key not in self.model_fields_set)

    @property
    def total_members(self) -> int:
        return sum(group.count for group in self.members or self.groups)

    def group(self, name: str) -> Group:
        """The group of that name."""
        return next(group for group in self.groups if group.name == name)
