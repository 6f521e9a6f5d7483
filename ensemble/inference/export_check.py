"""Does an exported file answer as the run does? Asked about real test images and about hard ones, before it is kept.

    checked = check_export(load_ensemble("runs/quickstart"), ask_onnx(content), "vote.onnx")

An exporter may translate a layer wrongly without a word, and such a file still loads and still gives probabilities.
So every file is loaded by another program than the one that wrote it, and compared: batches of 1, 7 and more images,
black, white and noise, and the test images that the run kept because its members dispute them.
"""

from __future__ import annotations

import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ensemble.data import load_dataset
from ensemble.errors import ComputeError, DataError
from ensemble.evaluation.aggregation import Decision
from ensemble.inference.network import Members
from ensemble.inference.trained import TrainedEnsemble
from ensemble.results.run_data import disputed_images
from ensemble.storage import RunFolder
from ensemble.types import ByteArray, FloatArray, IntArray

TOLERANCE = 1e-5  # of a probability: float32 rounding over all layers stays below
MOST_REAL_ROWS = 64

Answers = tuple[FloatArray, IntArray]


@dataclass(frozen=True)
class Asker:
    """A loaded file. ask: uint8 images [N, C, H, W] -> probabilities [N, K], classes [N]; by: the program that runs it."""

    by: str
    ask: Callable[[ByteArray], Answers]


@dataclass(frozen=True)
class Checked:
    """What was compared: real test images, hard images, the largest difference of a probability, and by which program.

    rounding: the largest difference to the run's own bfloat16 arithmetic, None where the run votes in float32.
    """

    real_rows: int
    hard_rows: int
    largest_difference: float
    by: str
    rounding: float | None = None

    @property
    def sentence(self) -> str:
        """For people: what was compared and what came out."""
        real = f"{self.real_rows} test images" if self.real_rows else "no test images (the data are not here)"
        text = (
            f"compared with the run by {self.by}: {real}, {self.hard_rows} hard images (black, white, noise); largest "
            f"difference of a probability {self.largest_difference:.1g}"
        )
        if self.rounding is not None:
            text += (
                f". The run votes in bfloat16, the file computes in float32, which it was compared in; from the run's own "
                f"answers its probabilities differ by up to {self.rounding:.1g}"
            )
        return text


def check_export(trained: TrainedEnsemble, asker: Asker, name: str) -> Checked:
    """Compare a loaded file with the run. Raises ComputeError where a probability differs by more than TOLERANCE."""
    largest, rows, rounding = 0.0, {"real": 0, "hard": 0}, 0.0
    half = trained.vote.experiment.compute.precision == "bf16"
    members = Members(trained.vote).eval()
    for what, batch in _batches(trained):
        probs_NK, classes_N = _asked(asker, batch, name)
        with torch.inference_mode():
            probs_MNK: FloatArray = members(torch.from_numpy(batch)).numpy()
        expected = trained.decide_votes(probs_MNK)
        found, compared = _difference(expected, probs_MNK, trained.vote.aggregator == "hard", probs_NK, classes_N)
        if not found <= TOLERANCE:  # NaN is no agreement
            raise ComputeError(
                f"{name}: asked by {asker.by} about {what}, the exported file gives probabilities that differ from the "
                f"run's by up to {found:.2g}, expected at most {TOLERANCE:g}. Nothing was written: the exporter "
                "translated this network wrongly. Use another --format, or `ensemble predict`, which asks the run itself"
            )
        largest = max(largest, found)
        rows["real" if what == "test images" else "hard"] += compared
        if half:
            rounding = max(rounding, float(np.abs(trained.decide(batch).probs_NK - probs_NK).max()))
    if not sum(rows.values()):
        raise ComputeError(
            f"{name}: on every image some member's two favourites are equal but for rounding, so a hard vote cannot be "
            "compared with the run's. Nothing was written; use another --aggregator, such as soft"
        )
    return Checked(rows["real"], rows["hard"], largest, asker.by, rounding if half else None)


def _difference(
    expected: Decision, probs_MNK: FloatArray, hard: bool, probs_NK: FloatArray, classes_N: IntArray
) -> tuple[float, int]:
    """The largest difference of a probability and how many images were compared.

    The difference is at least 1 where a class differs that no rounding explains, NaN for answers of another shape. A hard
    vote jumps where a member's two favourites are equal but for rounding; such images say nothing and are left out.
    """
    if probs_NK.shape != expected.probs_NK.shape or classes_N.shape != expected.classes_N.shape:
        return float("nan"), 0
    clear_N = (_margins(probs_MNK) > 2 * TOLERANCE).all(axis=0) if hard else np.ones(len(classes_N), bool)
    if not clear_N.any():
        return 0.0, 0
    differences = np.abs(expected.probs_NK - probs_NK)[clear_N]
    decided_N = clear_N & ~expected.tied_N & (_margins(expected.probs_NK) > 2 * TOLERANCE)
    if (expected.classes_N != classes_N)[decided_N].any():
        return max(1.0, float(differences.max())), len(differences)
    return float(differences.max()), len(differences)


def _margins(probs: Any) -> Any:
    """By how much the first place leads the second, along the last axis."""
    ordered = np.sort(probs, axis=-1)
    return ordered[..., -1] - ordered[..., -2]


def _batches(trained: TrainedEnsemble) -> Iterator[tuple[str, ByteArray]]:
    """What the file is asked about, with a name for each batch."""
    shape = trained.image_shape
    draw = np.random.default_rng(0)
    yield "an all black image", np.zeros((1, *shape), np.uint8)
    yield "an all white image", np.full((1, *shape), 255, np.uint8)
    yield "an image of noise", draw.integers(0, 256, (1, *shape)).astype(np.uint8)
    yield "seven images of noise", draw.integers(0, 256, (7, *shape)).astype(np.uint8)
    mixed = draw.integers(0, 256, (7, *shape)).astype(np.uint8)
    mixed[0], mixed[1] = 0, 255
    mixed[2, :, ::2], mixed[3, :, :, ::2] = 0, 255  # stripes each way: a transposed image shows
    mixed[4] //= 16
    mixed[5] = np.linspace(0, 255, mixed[5].size).astype(np.uint8).reshape(shape)
    mixed[6, 1:] = 0  # the first channel alone
    yield "seven images, black, white, striped and of noise", mixed
    real = _test_images(trained)
    if len(real):
        yield "test images", real


def _test_images(trained: TrainedEnsemble) -> ByteArray:
    """The disputed test images that the run kept, or else the first of its data set, or none where neither is there."""
    kept = disputed_images(RunFolder.read(trained.vote.folder))
    if kept:
        return np.stack(list(kept.values())[:MOST_REAL_ROWS])
    data = trained.vote.experiment.data
    try:
        if data.stored_code:
            raise DataError("nothing is executed only to be compared with")
        # Nor is anything downloaded.
        dataset = load_dataset(data.model_copy(update={"download": False}))
    except DataError:
        return np.empty((0, *trained.image_shape), np.uint8)
    images = dataset.test_images_NCHW[:MOST_REAL_ROWS]
    fits = images.shape[1:] == trained.image_shape
    return np.array(images if fits else images[:0], copy=True)


def _asked(asker: Asker, batch: ByteArray, name: str) -> Answers:
    try:
        return asker.ask(batch)
    except Exception as error:  # a foreign runtime may raise anything, and then the file is no use
        raise ComputeError(
            f"{name}: {asker.by} cannot run the exported file on {len(batch)} images: "
            f"{_first_line(error)}. Nothing was written; use another --format"
        ) from error


def ask_torch_export(content: bytes) -> Asker:
    """The file as torch loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own deprecated internals
        program = torch.export.load(io.BytesIO(content)).module()

    def ask(images: ByteArray) -> Answers:
        with torch.inference_mode():
            probs, classes = program(torch.from_numpy(images))
        return probs.numpy(), classes.numpy()

    return Asker(f"torch {torch.__version__}", ask)


def ask_onnx(content: bytes) -> Asker:
    """The file as onnxruntime loads it, or, where that is not installed, onnx's own (much slower) reference evaluator."""
    names = ["probabilities", "classes"]
    if importlib.util.find_spec("onnxruntime") is None:
        import onnx
        from onnx.reference import ReferenceEvaluator

        evaluator: Any = ReferenceEvaluator(onnx.load_from_string(content))
        return Asker(f"onnx {onnx.__version__}", lambda images: _pair(evaluator.run(names, {"images": images})))
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # warnings about its own optimisations are nothing to the user
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its own exceptions have no common base
        raise ComputeError(
            f"--format onnx: onnxruntime {onnxruntime.__version__} cannot load the exported file: {_first_line(error)}. "
            "Nothing was written; use --format torch_export"
        ) from error
    return Asker(f"onnxruntime {onnxruntime.__version__}", lambda images: _pair(session.run(names, {"images": images})))


def _pair(answers: Any) -> Answers:
    probs_NK, classes_N = answers
    return np.asarray(probs_NK), np.asarray(classes_N)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
