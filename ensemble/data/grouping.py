"""Rows that stay together, such as all pictures of one patient: whole groups go to a part, never some of their rows.

taken_N = whole_groups(labels_N, groups_N, order_G, wanted_K)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ensemble.config.data import DataConfig
from ensemble.types import IntArray


def whole_groups(
    labels_N: IntArray, groups_N: IntArray, order_G: IntArray, wanted_K: IntArray
) -> npt.NDArray[np.bool_]:
    """Which rows are taken, when groups are looked at in this order and taken where that brings the rows of the classes nearer to
    the wanted numbers (in the sum of absolute differences).

    groups_N: numbers of groups, from 0. order_G: those that may be taken, each once. wanted_K: rows wanted of each class.
    """
    by_group = np.argsort(groups_N, kind="stable")
    ends_G = np.cumsum(np.bincount(groups_N))
    missing_K = wanted_K.astype(np.int64).copy()
    taken_G = np.zeros(len(ends_G), bool)
    for group in order_G.tolist():
        rows = by_group[ends_G[group - 1] if group else 0 : ends_G[group]]
        classes, counts = np.unique(labels_N[rows], return_counts=True)
        if np.abs(missing_K[classes] - counts).sum() < np.abs(missing_K[classes]).sum():
            taken_G[group] = True
            missing_K[classes] -= counts
    taken_N: npt.NDArray[np.bool_] = taken_G[groups_N]
    return taken_N


def lacking(labels_N: IntArray, taken_N: npt.NDArray[np.bool_], classes: int) -> list[int]:
    """The classes that have no row among those that were taken, or none among the others."""
    inside, outside = (np.bincount(labels_N[own_N], minlength=classes) for own_N in (taken_N, ~taken_N))
    return [k for k in range(classes) if not inside[k] or not outside[k]]


def grouped(config: DataConfig) -> bool:
    """True where the configuration names groups; else rows are kept together because they are of one file."""
    return getattr(config, "group_column", None) is not None
