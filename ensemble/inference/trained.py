"""A trained ensemble in memory.

trained = load_ensemble("runs/quickstart")
trained.predict_proba(images)      # [N, K], the run's own vote
trained.predict_proba("a.jpg")     # [1, K], as `ensemble predict` reads it
trained.member_probs(images)       # [M, N, K], what each member says
"""

from __future__ import annotations

import os
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ensemble.config.schema import Aggregator
from ensemble.errors import ComputeError
from ensemble.evaluation.aggregation import Decision, decide
from ensemble.inference.abstaining import UNKNOWN_SHARE, reject_rule, sets_rule, unknown_rule
from ensemble.inference.given_pictures import pictures_of, read
from ensemble.inference.images import as_batch
from ensemble.inference.network import Members, VoteNetwork
from ensemble.inference.prepare import Preparation
from ensemble.inference.stored import StoredVote, read_vote
from ensemble.outside.names import shown
from ensemble.outside.object_storage import is_address
from ensemble.outside.paths import given_path
from ensemble.storage.fetched_run import fetched_run
from ensemble.training.prediction import in_batches
from ensemble.types import DoubleArray, FloatArray, IntArray

_ROUNDING = 1e-6  # of probabilities, between a stored vote and the same one now
_NAMED = 20  # classes that a notebook shows
# As at training: large enough to keep the device busy, small enough for a CPU's cache.
_BATCH = {"cpu": 256, "cuda": 4096}


def load_ensemble(
    path: str | os.PathLike[str],
    *,
    aggregator: Aggregator | None = None,
    device: str = "auto",
    trust_code: bool = False,
) -> TrainedEnsemble:
    """The trained members of a run and their vote.

    path: the run's folder, or its address such as s3://bucket/runs/NAME. aggregator: another vote than the configured one. device: "auto" (a GPU where there is
    one), "cpu" or "cuda". trust_code: execute the code that the folder holds where the network is made by some
    (`model.name: python`); without it such a run is a ConfigError. Raises StorageError where there is no run or a file is damaged, QuorumError when too few
    members finished, ComputeError when the device is not there.
    """
    folder = fetched_run(os.fspath(path)) if is_address(os.fspath(path)) else given_path(path, "path")
    return TrainedEnsemble(read_vote(folder, aggregator, trust_code), device)


class TrainedEnsemble:
    """Members and vote of one run. Images: see `predict_proba`."""

    def __init__(self, vote: StoredVote, device: str = "auto") -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise ComputeError(f"device: found {device!r}; expected auto, cpu or cuda")
        if device == "cuda" and not torch.cuda.is_available():
            raise ComputeError("device is cuda, but torch sees no GPU here; use device='cpu'")
        self.vote = vote
        self.device = torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")
        self._members = Members(vote).eval().to(self.device)

    def __repr__(self) -> str:
        recipes = ", ".join(dict.fromkeys(member.recipe for member in self.vote.members))
        return (
            f"TrainedEnsemble({len(self.vote.members)} members ({recipes}), {self.vote.aggregator} vote, "
            f"{len(self.class_names)} classes, images {list(self.image_shape)})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: who votes on what."""
        facts = {
            "run": str(self.vote.folder), "vote": self.vote.aggregator, "members": ", ".join(map(str, self.member_indices)),
            "networks": ", ".join(dict.fromkeys(member.recipe for member in self.vote.members)),
            "images": f"{' x '.join(map(str, self.image_shape))} of {self.vote.dataset}",
            "classes": ", ".join(shown(name) for name in self.class_names[:_NAMED]) + (", ..." if len(self.class_names) > _NAMED else ""),
        }  # fmt: skip
        rows = (
            f'<tr><th style="text-align: left">{name}</th><td>{escape(text)}</td></tr>' for name, text in facts.items()
        )
        return f"<table>{''.join(rows)}</table>"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, by class number."""
        return self.vote.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images it was trained on."""
        return self.vote.image_shape

    @property
    def member_indices(self) -> tuple[int, ...]:
        """The members that vote, ascending: the order of `member_probs`."""
        return tuple(member.index for member in self.vote.members)

    def predict_proba(self, images: Any) -> FloatArray:
        """Class probabilities [N, K] of the vote, float32.

        images: [N, H, W] (grey), [N, H, W, C] or [N, C, H, W], of the size the run was trained on; uint8, other
        whole numbers in 0..255 (or in the range that the run was trained on), or floats in [0, 1]. Or pictures of any size, read
        and brought to size as `ensemble predict` does: the path of a file, the bytes of one, a Pillow picture, or a list of these.
        Raises DataError for anything else, and for pictures that cannot be used, each by its name.
        """
        return self.decide(images).probs_NK.astype(np.float32)

    def predict(self, images: Any) -> IntArray:
        """Class numbers [N]; `class_names` has their names. Ties go to the highest mean probability, then the lowest."""
        return self.decide(images).classes_N

    def answers(self, images: Any, risk: float) -> npt.NDArray[np.bool_]:
        """Which images to answer, [N], so that at most a share `risk` of the answers is wrong.

        As promised, with probability 95 %, by the run's calibration rows, or validation rows where it has none, for images like those.
        Raises ConfigError where they cannot promise it.
        """
        return reject_rule(self.vote, risk).answers(self.decide(images))

    def predict_sets(self, images: Any, alpha: float) -> npt.NDArray[np.bool_]:
        """Which classes each image may be of, [N, K]: sets that miss the true one in at most a share `alpha` of cases.

        By split conformal prediction (LAC), for images like the run's calibration rows; never empty. Raises ConfigError for a run
        without such rows (data.calibration_fraction).
        """
        return sets_rule(self.vote, alpha).shown(self.decide(images))

    def is_unknown(self, images: Any, share: float = UNKNOWN_SHARE) -> npt.NDArray[np.bool_]:
        """Which images to call images of none of the classes, [N]; `ensemble predict --unknown` says the same.

        Those with a lower score than all but a share of the rows that no member was trained on (calibration, or else validation), so that
        about that share of images of the classes is called so too. The score is the largest probability of the vote, or the one that
        the run has chosen (evaluation.sets: chooses_score).
        """
        return unknown_rule(self.vote, share).unknown(self.member_probs(images))

    def decide(self, images: Any) -> Decision:
        """Probabilities in float64, classes and ties of the vote."""
        return self.decide_votes(self.member_probs(images))

    def surer_than(self, decision: Decision) -> DoubleArray:
        """For every image, the share of the validation images of which the vote was no surer: [N], in [0, 1].

        Of a new image like those, every share is as likely as any other; one below 0.05 is among the least sure twentieth. Where many
        validation images have the same probability, such as 1 of a hard vote, an image with that one counts as sure as all of them.
        Rounding of the probabilities, which differs between stacks, counts for nothing. Without validation images all are 1.
        """
        known_N = self.vote.confidences_N
        if not len(known_N):
            return np.ones_like(decision.confidences_N)
        places_N = np.searchsorted(known_N, decision.confidences_N + _ROUNDING, side="right")
        shares_N: DoubleArray = places_N / len(known_N)
        return shares_N

    def decide_votes(self, probs_MNK: FloatArray) -> Decision:
        """The vote over `member_probs` of earlier."""
        return decide(self.vote.aggregator, probs_MNK, self.vote.weights_M)

    @torch.inference_mode()
    def member_probs(self, images: Any) -> FloatArray:
        """Class probabilities of each member, [M, N, K], float32; images as in `predict_proba`."""
        batch = torch.from_numpy(np.array(self._batch(images), copy=True))
        half = self.vote.experiment.compute.precision == "bf16"  # as the stored votes were made

        def votes(start: int, end: int) -> torch.Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                probs_MBK: torch.Tensor = self._members(batch[start:end].to(self.device))
            return probs_MBK.cpu()

        parts = list(in_batches(votes, len(batch), _BATCH[self.device.type]))
        probs_MNK: FloatArray = torch.cat(parts, dim=1).numpy()
        return probs_MNK

    def _batch(self, images: Any) -> npt.NDArray[np.generic]:
        pictures = pictures_of(images)
        if pictures is None:
            return as_batch(images, self.image_shape, self.vote.pixels)
        return read(pictures, Preparation(self.vote.dataset, self.image_shape, self.vote.pixels))

    def network(self) -> VoteNetwork:
        """Standardising, members and vote as one torch module on the CPU, for export."""
        return VoteNetwork(Members(self.vote), self.vote).eval()
