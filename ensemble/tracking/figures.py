"""Every figure that a dashboard is given: its one name, unit, goal, and what its summary is.

Names of further sets stand in the tables as `*`. docs/wandb.md shows both tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Goal = Literal["minimize", "maximize", ""]
# Of a curve: what of its rows stands in the summary. last: of the last row, or what is told of the run as a whole.
InSummary = Literal["last", "min", "max", "mean"]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. unit: `fraction` in [0, 1], `nats`, `s`, a count of something, or "" for words; axis: the figure on the x
    axis of its curve, "" where it has none."""

    name: str
    unit: str
    goal: Goal
    meaning: str
    axis: str = ""
    summary: InSummary = "last"


MEMBER: tuple[Figure, ...] = (
    Figure("epoch", "epochs", "", "epochs trained"),
    Figure("train/loss", "nats", "minimize", "training loss of the epoch", "epoch", "min"),
    Figure("train/lr", "", "", "learning rate of the epoch", "epoch"),
    Figure("train/epoch_seconds", "s", "minimize", "the member's share of its stack's time", "epoch", "mean"),
    Figure("validation/loss", "nats", "minimize", "validation loss of the epoch", "epoch", "min"),
    Figure("validation/error", "fraction", "minimize", "validation error of the epoch", "epoch", "min"),
    Figure(
        "worker/cpu_cores",
        "cores",
        "",
        "cores that the process which trains it kept busy in the epoch",
        "epoch",
        "mean",
    ),
    Figure("worker/memory_bytes", "bytes", "", "resident memory of that process", "epoch", "max"),
    Figure("worker/gpu_memory_bytes", "bytes", "", "memory that it holds of its GPU", "epoch", "max"),
    Figure(
        "worker/gpu_percent",
        "percent",
        "",
        "of the time in which its GPU computed, where nvidia-ml-py is installed there",
        "epoch",
        "mean",
    ),
    Figure("kept/epoch", "epochs", "", "the epoch whose weights vote"),
    Figure("kept/validation_error", "fraction", "minimize", "validation error of that epoch"),
    Figure("kept/validation_loss", "nats", "minimize", "validation loss of that epoch"),
    Figure("kept/train_loss", "nats", "minimize", "training loss of that epoch"),
    Figure("num_parameters", "parameters", "minimize", "parameters of the member"),
    Figure("train_seconds", "s", "minimize", "training time of the member"),
    Figure("status", "", "", "finished, failed or unfinished"),
    Figure("place", "", "", "host and device where it was trained last"),
    Figure("failure/kind", "", "", "crash, out_of_memory, diverged, ..."),
    Figure("failure/reason", "", "", "in words"),
    Figure("failure/tries", "tries", "", "how often it was tried"),
    Figure("failure/seconds_lost", "s", "minimize", "training time that was lost"),
    Figure("failure/decision", "", "", "what the failure policy made of it"),
)

_ONE_NETWORK = {
    "baseline": "one network on all training rows", "longer": "the control network that is trained longer", "wider": "the wide control network",
}  # fmt: skip
_BESIDE: tuple[tuple[str, str, str, Goal, str], ...] = (
    ("shifted", "error", "fraction", "minimize", "error there of "),
    ("shifted", "difference", "fraction", "minimize", "error of the vote minus that of "),
    ("shifted", "p_value", "", "", "of the vote there against "),
    ("unknown", "auroc", "", "maximize", "unknown images told from known ones by "),
    ("unknown", "difference", "", "maximize", "AUROC of the vote minus that of "),
    ("unknown", "p_value", "", "", "of the vote there against "),
)
ENSEMBLE: tuple[Figure, ...] = (
    Figure("members/finished", "members", "maximize", "members whose votes are stored"),
    Figure("members/failed", "members", "minimize", "members that were given up"),
    Figure("members/mean_validation_error", "fraction", "minimize", "mean of the kept epochs", "members/finished"),
    Figure("member/index", "", "", "the member that ended last", "members/finished"),
    Figure("member/validation_error", "fraction", "minimize", "its kept epoch", "members/finished"),
    Figure("member/train_seconds", "s", "minimize", "its training time", "members/finished"),
    Figure("vote/validation_error", "fraction", "minimize", "soft vote of the members finished so far", "members/finished"),
    Figure("live/member_epochs", "epochs", "", "epochs that members have reached, summed over members"),
    Figure("live/members", "members", "", "members that have begun", "live/member_epochs"),
    Figure("live/validation_error_mean", "fraction", "minimize", "mean over them, each at its newest epoch", "live/member_epochs"),
    Figure("live/validation_error_best", "fraction", "minimize", "the best of them", "live/member_epochs"),
    Figure("live/validation_error_worst", "fraction", "minimize", "the worst of them", "live/member_epochs"),
    Figure("epoch", "epochs", "", "an epoch that no member can reach any more, or all have"),
    Figure("epoch/members", "members", "", "members that reached it", "epoch"),
    Figure("epoch/validation_error_mean", "fraction", "minimize", "mean over them at that epoch", "epoch", "min"),
    Figure("epoch/validation_error_best", "fraction", "minimize", "the best of them", "epoch", "min"),
    Figure("epoch/validation_error_worst", "fraction", "minimize", "the worst of them", "epoch", "min"),
    Figure("size/members", "members", "", "number of members that vote"),
    Figure("size/error", "fraction", "minimize", "mean test error over random orders of the members", "size/members"),
    Figure("size/error_lower", "fraction", "minimize", "5th percentile over them", "size/members"),
    Figure("size/error_upper", "fraction", "minimize", "95th percentile", "size/members"),
    Figure("size/error_best", "fraction", "minimize", "the best of them", "size/members"),
    Figure("size/error_worst", "fraction", "minimize", "the worst", "size/members"),
    Figure("error/test", "fraction", "minimize", "test error of the headline vote"),
    Figure("error/test_lower", "fraction", "minimize", "lower end of its 95 % interval"),
    Figure("error/test_upper", "fraction", "minimize", "upper end"),
    Figure("error/validation", "fraction", "minimize", "validation error of the headline vote; what a sweep minimises"),
    Figure("error/best_member", "fraction", "minimize", "test error of the member that validation picks"),
    Figure("error/mean_member", "fraction", "minimize", "mean test error of the members"),
    Figure("error/baseline", "fraction", "minimize", "test error of one network on all training rows"),
    Figure("error/longer", "fraction", "minimize", "test error of the control network that is trained longer"),
    Figure("error/wider", "fraction", "minimize", "test error of the wide control network"),
    Figure("nll/test", "nats", "minimize", "negative log likelihood of the vote"),
    Figure("brier/test", "", "minimize", "Brier score of the vote"),
    Figure("ece/test", "fraction", "minimize", "expected calibration error of the vote"),
    Figure("smooth_ece/test", "fraction", "minimize", "the same, without bins"),
    Figure("num_parameters", "parameters", "minimize", "parameters of all that vote"),
    Figure("train_seconds", "s", "minimize", "training time of all that vote"),
    Figure("prediction/one_image_ms", "ms", "minimize", "the vote on one image alone, where the run was judged"),
    Figure("prediction/image_of_batch_ms", "ms", "minimize", "the vote on each image of a batch of 64"),
    Figure("run_seconds", "s", "minimize", "from the last start of the run to its judgement"),
    Figure("verdict/outcome", "", "", "better, worse or not distinguishable"),
    Figure("verdict/p_value", "", "", "McNemar's test of the vote against the single member"),
    Figure("verdict/difference", "fraction", "minimize", "error of the vote minus that of the single member"),
    Figure("verdict/sentence", "", "", "the verdict in words"),
    Figure("degraded", "", "", "true for fewer members than asked for"),
    Figure("shifted/*/vote_error", "fraction", "minimize", "error of the vote on a shifted set"),
    Figure("shifted/*/member_error", "fraction", "minimize", "error of the single member that validation picks there"),
    Figure("shifted/*/difference", "fraction", "minimize", "the one minus the other"),
    Figure("shifted/*/p_value", "", "", "of that difference"),
    Figure("shifted/*/relative_gain", "fraction", "maximize", "share of the members' error that the vote saves"),
    Figure("shifted/*/vote_nll", "nats", "minimize", "negative log likelihood there"),
    Figure("shifted/*/vote_ece", "fraction", "minimize", "expected calibration error there"),
    Figure("unknown/*/auroc", "", "maximize", "unknown images told from known ones by the vote"),
    Figure("unknown/*/member_auroc", "", "maximize", "by a single member"),
    Figure("unknown/*/fpr95", "fraction", "minimize", "false alarms where 95 % are found"),
    Figure("unknown/*/p_value", "", "", "of the difference to a single member"),
    *(
        Figure(f"{place}/*/{which}_{figure}", unit, goal, f"{meaning}{network}")
        for which, network in _ONE_NETWORK.items()
        for place, figure, unit, goal, meaning in _BESIDE
    ),
    Figure("selective/aurc", "", "minimize", "area under the curve of error by coverage"),
    Figure("selective/augrc", "", "minimize", "the generalised form of it"),
    Figure("selective/coverage_at_1", "fraction", "maximize", "share of images answered with 1 % error"),
    Figure("selective/member_aurc", "", "minimize", "aurc of a single member"),
)  # fmt: skip


def curves_of(figures: tuple[Figure, ...]) -> tuple[Figure, ...]:
    """Those that must be made known before they are told: with an axis, or with another summary than the last value.

    Axes come first. Of the others there is nothing to say.
    """
    axes = {figure.axis for figure in figures if figure.axis}
    curves = [figure for figure in figures if figure.axis or figure.summary != "last" or figure.name in axes]
    return tuple(sorted(curves, key=lambda figure: figure.name not in axes))


# What the figures of RunFinished were called in event logs of earlier versions.
EARLIER_NAMES = {
    "test_error": "error/test", "test_error_lower": "error/test_lower", "test_error_upper": "error/test_upper",
    "validation_error": "error/validation", "test_nll": "nll/test", "best_member_test_error": "error/best_member",
    "mean_member_test_error": "error/mean_member", "baseline_test_error": "error/baseline", "p_value": "verdict/p_value",
}  # fmt: skip
