"""The few records that travel between the rooms. numpy only.

Shape legend, used as name suffixes everywhere: M members, N samples, K classes, R chosen training rows, B batch,
C channels, H height, W width. `probs_MNK` is always in that order, float32, and its last axis sums to 1.

"Row" means the position of an image in the data set's training (or test) array, so a row number says the same in
every room and survives every restart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
ByteArray = npt.NDArray[np.uint8]

Arrays = Mapping[str, npt.NDArray[np.generic]]  # tensors by name

# crash: the process died or hung; lost_node: its machine went away (often preemption); error: the code raised.
FailureKind = Literal["diverged", "crash", "hung", "lost_node", "error", "out_of_memory", "unplaceable"]


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """Deformed training images that earlier networks choose from an endless source (Drucker, Schapire, Simard 1993).

    rule: half_wrong takes as many images that the one judge gets wrong as right; disagree takes those on which the two
        judges name different classes.
    judges: the weights of the earlier networks, of the member's own architecture.
    count: images in the set; where the source runs dry, those found stand several times.
    passes: how often, at most, every row is deformed and looked at.
    """

    rule: Literal["half_wrong", "disagree"]
    judges: tuple[Arrays, ...]
    count: int
    passes: int


@dataclass(frozen=True, slots=True, eq=False)
class MemberSpec:
    """What a method wants trained: one member, its rows and their weights.

    rows: training rows the member is fitted to, in [0, training rows of the data set); a row drawn twice stands twice.
    weights: loss weight of each entry of `rows`, or None for all equal.
    resample: every epoch draws as many entries of `rows` anew, with replacement and with probabilities in proportion
        to `weights`, which then have no part in the loss. Needs weights.
    vote_rows: training rows, ascending and distinct, that the member votes on besides validation and test
        (out-of-bag rows, held-out folds).
    start: weights to begin with instead of random ones, named as in MemberResult.weights.
    targets_RK: what the network's outputs are fitted to, for each entry of `rows`, by squared error instead of
        cross-entropy with the labels.
    filter: train on a filtered set of deformed `rows` instead of on the rows themselves.
    own_validation: while it trains, `vote_rows` validate it instead of the run's validation part: its history, the epoch it
        keeps and what else goes by validation are of them. All members of a task, or none.
    """

    index: int
    recipe: str
    rows: IntArray
    weights: FloatArray | None = None
    vote_rows: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    round: int = 0
    resample: bool = False
    start: Arrays | None = None
    targets_RK: FloatArray | None = None
    filter: Filter | None = None
    own_validation: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """The unit of scheduling: members of one recipe, trained together as one wide network on one slot.

    checkpoint: the state to go on from, as `Checkpoint.content` had it; None for a fresh start.
    what: what it does, in words for people, where that is not to train members.
    """

    id: str
    recipe: str
    members: tuple[MemberSpec, ...]
    checkpoint: bytes | None = None
    what: str = ""


@dataclass(frozen=True, slots=True)
class Pulse:
    """A task's sign of life while it has nothing else to say."""

    task: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The last word of a task whose process was asked to stop: what it has done is in the Checkpoint before."""

    task: str


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The whole state of a stack in mid-training; whoever trains the task from it gets the same bits.

    epoch, step: where it stands (epochs from 0; steps of that epoch already done). content: safetensors.
    """

    task: str
    epoch: int
    step: int
    content: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Votes:
    """One member's class probabilities, one row per sample in data-set order.

    validation_NK and test_NK follow the split's row order; rows_RK belongs to the training rows in `rows`.
    """

    validation_NK: FloatArray
    test_NK: FloatArray
    rows: IntArray
    rows_RK: FloatArray


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """One line of a member's history. Losses are mean cross-entropy in nats, errors fractions in [0, 1].

    train_loss and train_error: over the epoch's own batches, while the weights moved; a member with targets has its
    mean squared error for a loss. test_loss and test_error: only where training.watch_test asks for the curve.
    """

    epoch: int
    train_loss: float
    validation_loss: float
    validation_error: float
    lr: float
    seconds: float
    train_error: float | None = None
    test_loss: float | None = None
    test_error: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MemberResult:
    """What a finished member leaves behind.

    weights: parameter and buffer name -> array, the names of the unstacked model's state_dict.
    train_seconds: this member's equal share of its stack's training time.
    kept_epoch: the epoch whose weights voted (the last one, or the best on validation).
    facts: further figures of this member, by name. device: where it was trained, by name; empty in older folders.
    shared_parameters: how many of the parameters all members of its group share.
    """

    index: int
    recipe: str
    votes: Votes
    weights: Arrays
    history: tuple[EpochRecord, ...]
    num_parameters: int
    train_seconds: float
    kept_epoch: int
    stack_size: int
    facts: Mapping[str, float] = field(default_factory=dict)
    device: str = ""
    shared_parameters: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class SetVotes:
    """What one member said about the images of one part of a named set: class probabilities, in their order.

    energy_N: log sum exp of its logits, where that was asked for and the network has such logits.
    """

    index: int
    probs_NK: FloatArray
    energy_N: FloatArray | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A member that did not finish: why, after how many tries, and what they cost together."""

    index: int
    kind: FailureKind
    reason: str
    details: str = ""
    tries: int = 1
    seconds_lost: float = 0.0
