"""What `ensemble compare` reads: run folders, single members of them, and files of foreign probabilities.

    compare_items(["runs/bagging", "runs/bagging:3", "theirs.npz"])

An item is a run (its folder, or its name under runs/), RUN:INDEX for one member, RUN:members for each of them, or a file:

npz   test_probs [N, K] or [M, N, K] (M networks, joined by their mean); test_labels [N], if wanted; read without pickle
npy   the array test_probs alone
csv   a header line and N lines: K columns p0 ... p(K-1), and a column label, if wanted

Rows are the test images in the data set's own order. At least one item must know the labels.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ensemble.config.schema import AGGREGATORS, WEIGHING, Aggregator
from ensemble.data.given_probabilities import remedy_of
from ensemble.data.numpy_file import load_numpy, reason_of
from ensemble.data.regular_files import open_regular
from ensemble.errors import ConfigError, DataError
from ensemble.evaluation.aggregation import decide
from ensemble.evaluation.comparing import Comparison, System, compare, single_system
from ensemble.evaluation.equivalent_size import calibrated_log_likelihood
from ensemble.evaluation.metrics import error_rate
from ensemble.outside.object_storage import is_address
from ensemble.outside.paths import given_path
from ensemble.results.foreign_csv import read_probabilities
from ensemble.results.further_sets import votes_on
from ensemble.results.judging import find_run
from ensemble.results.voters import load_voters
from ensemble.storage import RunFolder
from ensemble.storage.listed_folder import is_file
from ensemble.storage.manifest import MANIFEST
from ensemble.storage.no_run import instead_of
from ensemble.types import IntArray

SUFFIXES = (".npz", ".npy", ".csv")
SUM_TOLERANCE = 1e-3
JOINT_VOTES = tuple(name for name in AGGREGATORS if name not in WEIGHING)
_OF_ADDRESS = re.compile(r":(\d+|members)\Z")  # which members of a run at an address


@dataclass(frozen=True, eq=False)
class _Source:
    """The systems of one item, and the test labels and data set's name where it knows them."""

    item: str
    systems: tuple[System, ...]
    labels_N: IntArray | None
    dataset: str | None
    definition: str = ""  # of the further set that it was judged on


def compare_items(
    items: Sequence[str],
    aggregator: Aggregator = "soft",
    reference: str | None = None,
    labels: Path | None = None,
    root: Path = Path("runs"),
    margin: float = float("nan"),
    on: str | None = None,
) -> Comparison:
    """Judge the items on the same test rows, or on those of a further set.

    aggregator: rule of the joint votes. reference: name of the line all others are tested against, by default the
    first. labels: file of the true classes ([N], .npy, or .npz with test_labels), for files without. root: where run
    names are looked up. margin: within which two errors count as equal, a fraction. on: the name of a further set that all runs have
    voted on, with a part of it behind a colon where it has several; files then hold probabilities of its images. Raises ConfigError for items that mean nothing, DataError for files that cannot be used or do
    not belong together, StorageError for damaged runs.
    """
    if aggregator not in JOINT_VOTES:
        raise ConfigError(
            f"aggregator {aggregator!r}: a joint vote has no weights; expected one of {', '.join(JOINT_VOTES)}"
        )
    sources = [_source(item, root, on) for item in items]
    if labels is not None:
        sources.insert(0, _Source(str(labels), (), _labels_file(labels), None))
    systems = _named([system for source in sources for system in source.systems])
    if len(systems) < 2:
        raise ConfigError(f"compare: {' '.join(items)} is one system; name another run, RUN:members, or a file")
    labels_N = _common_labels(sources)
    _same_shape(sources, labels_N)
    names = [system.name for system in systems]
    if reference is not None and reference not in names:
        raise ConfigError(f"--reference {reference}: no such line; expected one of {', '.join(names)}")
    dataset = next((source.dataset for source in sources if source.dataset), "")
    if len({source.definition for source in sources if source.definition}) > 1:
        raise DataError(
            f"compare: the runs voted on different images under the name {on}; vote on the same set first (ensemble evaluate RUN --on {(on or '').partition(':')[0]})"
        )
    place = names.index(reference) if reference else 0
    return compare(systems, labels_N, "" if on else dataset, aggregator, place, margin, on or "")


def _source(item: str, root: Path, on: str | None) -> _Source:
    if is_address(item):
        run, _, which = item.rpartition(":") if _OF_ADDRESS.search(item) else (item, "", "")
        return _run(item, RunFolder.read(find_run(run, root)), which, on)
    path = given_path(item, "ITEM")
    if path.suffix.lower() in SUFFIXES and not is_file(path / MANIFEST):
        return _file(path)
    run, _, which = (item, "", "") if find_run(item, root).is_dir() else item.rpartition(":")
    if (not run and not which) or not find_run(run or item, root).is_dir():
        raise ConfigError(
            f"compare: {item} is neither a run, RUN:INDEX, RUN:members nor a file of probabilities ({', '.join(SUFFIXES)}); {instead_of(find_run(run or item, root))}"
        )
    return _run(item, RunFolder.read(find_run(run, root)), which, on)


def _run(item: str, folder: RunFolder, which: str, on: str | None) -> _Source:
    """The vote of a run, one of its members, or each of them."""
    voters = load_voters(folder, at_least=1 if which else None)
    if on:
        voters = voters.finite()
    members, validation = voters.members, voters.validation
    test, definition = (voters.test, "") if on is None else votes_on(folder, voters, on)
    if which:
        indices = [member.index for member in members]
        if which != "members" and (not which.isdigit() or int(which) not in indices):
            raise ConfigError(
                f"compare: {item}: no member {which}; expected members or one of {', '.join(map(str, indices))}"
            )
        positions = range(len(members)) if which == "members" else [indices.index(int(which))]
        systems = tuple(
            single_system(
                f"{folder.path.name}:{members[m].index}",
                "member",
                test.probs_MNK[m],
                validation_error=error_rate(validation.favourites_MN[m], validation.labels_N),
                train_seconds=members[m].train_seconds,
                likelihood=calibrated_log_likelihood(validation.members([m]), test.members([m])),
            )
            for m in positions
        )
    else:
        finite, aggregator = voters.finite(), voters.config.aggregator
        validation, weights_M = finite.validation, finite.vote_weights(aggregator)
        test = finite.test if on is None else test
        before, after = (decide(aggregator, votes.probs_MNK, weights_M) for votes in (validation, test))
        error = error_rate(before.classes_N, validation.labels_N)
        seconds = float(sum(member.train_seconds for member in members))
        independent = validation if voters.config.method.name == "deep_ensemble" else None
        likelihood = calibrated_log_likelihood(validation, test, aggregator, weights_M)
        systems = (System(folder.path.name, "run", after, test.probs_MNK, error, seconds, likelihood, independent),)
    return _Source(item, systems, test.labels_N, voters.dataset.name, definition)


def _file(path: Path) -> _Source:
    """A file of probabilities. Raises DataError naming the file, what was found and what was expected."""
    try:
        with open_regular(path, f"probabilities as {path.suffix}") as file:
            probs, labels = {".npz": _npz, ".npy": _npy, ".csv": _csv}[path.suffix.lower()](path, file)
    except FileNotFoundError as error:
        raise DataError(
            f"compare: no file {path}; expected a run, a run and its member (RUN:3), or a file of probabilities (.npz, .npy, .csv)"
        ) from error
    except DataError:
        raise
    except Exception as error:  # damaged files make numpy raise nearly anything, MemoryError among it
        raise DataError(
            f"{path}: cannot be read: {reason_of(error)}; expected probabilities as {path.suffix}, see ensemble compare --help"
        ) from error
    probs_MNK = probs[None] if probs.ndim == 2 else probs
    _check_probabilities(path, probs_MNK)
    labels_N = None if labels is None else _check_labels(path, labels, probs_MNK.shape[2])
    if len(probs_MNK) == 1:
        system = single_system(path.name, "file", probs_MNK[0])
    else:
        system = System(path.name, "file", decide("soft", probs_MNK), probs_MNK)
    return _Source(str(path), (system,), labels_N, None)


def _npz(path: Path, file: BinaryIO) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    loaded = load_numpy(file)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise DataError(f"{path}: found a single array; expected an .npz file with test_probs")
    with loaded as archive:
        if "test_probs" not in archive.files:
            raise DataError(f"{path}: test_probs missing; found {', '.join(sorted(archive.files)) or 'nothing'}")
        return archive["test_probs"], archive["test_labels"] if "test_labels" in archive.files else None


def _npy(path: Path, file: BinaryIO) -> tuple[npt.NDArray[Any], None]:
    loaded = load_numpy(file)
    if isinstance(loaded, np.lib.npyio.NpzFile):
        raise DataError(f"{path}: found an archive of arrays; expected a single array, or the name ending in .npz")
    return loaded, None


def _csv(path: Path, file: BinaryIO) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    return read_probabilities(path, file.read())


def _check_probabilities(path: Path, probs_MNK: npt.NDArray[Any]) -> None:
    if probs_MNK.ndim != 3 or probs_MNK.shape[2] < 2 or 0 in probs_MNK.shape or probs_MNK.dtype.kind != "f":
        shape = "x".join(map(str, probs_MNK.shape))
        raise DataError(
            f"{path}: found {probs_MNK.dtype} of shape {shape}; expected floats [rows, classes] or [networks, rows, classes]"
        )
    finite = np.isfinite(probs_MNK).all(axis=2)
    unit = np.abs(probs_MNK.sum(axis=2, dtype=np.float64) - 1.0) <= SUM_TOLERANCE
    bad = np.argwhere(~(finite & unit & (probs_MNK >= 0).all(axis=2)))
    if len(bad):
        m, n = bad[0]
        row = ", ".join(f"{value:.4g}" for value in probs_MNK[m, n][:10])
        raise DataError(
            f"{path}: {len(bad):,} rows are no probabilities, the first is row {n}: {row} (sum {probs_MNK[m, n].sum():.4g}); expected numbers of at least 0 that sum to 1: {_remedy(probs_MNK)}"
        )


def _remedy(values_MNK: npt.NDArray[Any]) -> str:
    """What makes probabilities of such values."""
    if not np.isfinite(values_MNK).all():
        return "NaN and infinity come from a network that diverged, or from rows without an answer; leave those out"
    return remedy_of(values_MNK)


def _check_labels(path: Path, labels: npt.NDArray[Any], classes: int | None) -> IntArray:
    if (
        labels.ndim != 1
        or labels.dtype.kind not in "iuf"
        or not np.isfinite(labels).all()
        or (labels % 1 != 0).any()
        or (labels < 0).any()
    ):
        raise DataError(f"{path}: labels are {labels.dtype} {list(labels.shape)}; expected [N] whole numbers from 0")
    if classes is not None and labels.max(initial=0) >= classes:
        raise DataError(
            f"{path}: label {int(labels.max())}, but there are probabilities of {classes} classes; expected 0 to {classes - 1}"
        )
    return labels.astype(np.int64)


def _labels_file(path: Path) -> IntArray:
    try:
        with open_regular(path, "the true classes as .npy or .npz") as file:
            loaded = load_numpy(file)
            labels = loaded["test_labels"] if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except FileNotFoundError as error:
        raise DataError(f"--labels: no file {path}; expected the true classes of the images as .npy or .npz") from error
    except DataError:
        raise
    except Exception as error:  # as above
        raise DataError(
            f"--labels {path}: cannot be read: {reason_of(error)}; expected .npy, or .npz with the array test_labels"
        ) from error
    return _check_labels(path, labels, None)


def _named(systems: Sequence[System]) -> list[System]:
    """The same systems under names of their own: equal ones are numbered."""
    seen: dict[str, int] = {}
    named = []
    for system in systems:
        seen[system.name] = seen.get(system.name, 0) + 1
        again = seen[system.name]
        named.append(system if again == 1 else System(**{**vars(system), "name": f"{system.name} ({again})"}))
    return named


def _common_labels(sources: Sequence[_Source]) -> IntArray:
    """The labels that all sources agree on. Raises DataError where they differ or nobody knows them."""
    known = [(source.item, source.labels_N) for source in sources if source.labels_N is not None]
    if not known:
        raise DataError(
            "compare: nobody knows the true classes: add a run, test_labels in an .npz, a label column in a .csv, or --labels FILE"
        )
    (first, labels_N), others = known[0], known[1:]
    for item, other_N in others:
        if len(other_N) != len(labels_N):
            raise DataError(
                f"compare: {first} was tested on {len(labels_N):,} images, {item} on {len(other_N):,}; expected the same test set"
            )
        differing = np.flatnonzero(other_N != labels_N)
        if len(differing):
            n = int(differing[0])
            raise DataError(
                f"compare: {first} and {item} have different labels on {len(differing):,} test images, first image {n}: {labels_N[n]} and {other_N[n]}; expected the same test set in the same order"
            )
    return labels_N


def _same_shape(sources: Sequence[_Source], labels_N: IntArray) -> None:
    classes = {source.item: source.systems[0].voters_MNK.shape[2] for source in sources if source.systems}
    for source in sources:
        for system in source.systems[:1]:
            rows = system.voters_MNK.shape[1]
            if rows != len(labels_N):
                raise DataError(
                    f"compare: {source.item} has probabilities of {rows:,} images, but there are {len(labels_N):,} labels; expected one row per test image"
                )
    if len(set(classes.values())) > 1:
        found = ", ".join(f"{item}: {count}" for item, count in classes.items())
        raise DataError(f"compare: the items know different numbers of classes ({found}); expected the same")
    if labels_N.max() >= next(iter(classes.values())):
        raise DataError(
            f"compare: label {labels_N.max()}, but only {next(iter(classes.values()))} classes have a probability"
        )
