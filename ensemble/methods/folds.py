"""Training rows cut into folds: every row is in one, and classes are spread over them as evenly as whole groups allow.

fold_N = folds_of(labels_N, 5, generator)                  # numbers 0 to 4
fold_N = folds_of_groups(labels_N, groups_N, 5, generator)  # rows of one group have one number
"""

from __future__ import annotations

import numpy as np

from ensemble.types import IntArray


def folds_of(labels_N: IntArray, folds: int, generator: np.random.Generator) -> IntArray:
    """The fold of each row. Folds hold as many rows as each other, and of each class, but for one."""
    shuffled = generator.permutation(len(labels_N))
    by_class = shuffled[np.argsort(labels_N[shuffled], kind="stable")]
    fold_N = np.empty(len(labels_N), np.int64)
    fold_N[by_class] = np.arange(len(labels_N)) % folds
    return fold_N


def folds_of_groups(labels_N: IntArray, groups_N: IntArray, folds: int, generator: np.random.Generator) -> IntArray:
    """The fold of each row, where rows of a group stay together.

    Groups are placed one after the other, the largest first and those of one size in random order: each goes to the fold that
    has the smallest share of its classes so far, of such folds to the one with the fewest rows. As long as a fold is empty,
    the next group goes there.
    """
    names, group_N = np.unique(groups_N, return_inverse=True)
    by_group = np.argsort(group_N, kind="stable")
    ends_G = np.cumsum(np.bincount(group_N))
    sizes_G = np.diff(ends_G, prepend=0)
    shuffled_G = generator.permutation(len(names))
    order_G = shuffled_G[np.argsort(-sizes_G[shuffled_G], kind="stable")]
    counts_K = np.maximum(np.bincount(labels_N), 1)
    held_FK, rows_F, fold_G = (
        np.zeros((folds, len(counts_K))),
        np.zeros(folds, np.int64),
        np.empty(len(names), np.int64),
    )
    for group in order_G.tolist():
        classes, counts = np.unique(
            labels_N[by_group[ends_G[group] - sizes_G[group] : ends_G[group]]], return_counts=True
        )
        share_C = counts / counts_K[classes]
        overlap_F = held_FK[:, classes] @ share_C
        fold = int(np.lexsort((rows_F, overlap_F))[0])
        fold_G[group] = fold
        held_FK[fold, classes] += share_C
        rows_F[fold] += sizes_G[group]
    fold_N: IntArray = fold_G[group_N]
    return fold_N
