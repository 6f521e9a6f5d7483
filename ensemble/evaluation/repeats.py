"""Differences between two systems that were each trained several times: how much is the seeds' doing, how much the images'?

two_way_difference(wrong_a_RN, wrong_b_RN, seed=0)      # R repeats, N images: both noises at once
seed_difference(wrong_a_RN, wrong_b_RN)                 # the repeats' noise alone
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from ensemble.evaluation.bootstrap import bootstrap_p, percentile_interval
from ensemble.evaluation.splits import AnyFloatArray
from ensemble.evaluation.statistics import PairedDifference

DRAWS = 4000
_AT_ONCE = 200  # draws whose counts of images are in memory together


def two_way_difference(
    a_RN: AnyFloatArray | npt.NDArray[np.bool_],
    b_RN: AnyFloatArray | npt.NDArray[np.bool_],
    seed: int,
    draws: int = DRAWS,
) -> PairedDifference:
    """Mean of a - b over repeats and images, with the interval of the pigeonhole bootstrap (Owen 2007).

    Every draw takes repeats and images again, each with replacement, so the interval holds for further trainings judged on further
    images. It is a little too wide rather than too short (Owen 2007, theorem 3); with few repeats it knows only these few.

    Parameters
    ----------
    a_RN, b_RN
        What each system loses on each image in each repeat, such as 0 and 1 for right and wrong; repeat r of both has the same seed.
    seed
        Of the draws.

    Returns
    -------
    Difference, both ends of its 95 % interval, and the p-value that belongs to it.
    """
    assert a_RN.shape == b_RN.shape, f"the same repeats and images are needed, found {a_RN.shape} and {b_RN.shape}"
    difference_RN = a_RN.astype(np.float64) - b_RN.astype(np.float64)
    repeats, images = difference_RN.shape
    generator, found = np.random.default_rng(seed), []
    for start in range(0, draws, _AT_ONCE):
        count = min(_AT_ONCE, draws - start)
        by_repeat_DR = generator.multinomial(repeats, np.full(repeats, 1 / repeats), count) / repeats
        by_image_DN = generator.multinomial(images, np.full(images, 1 / images), count) / images
        found.append(((by_repeat_DR @ difference_RN) * by_image_DN).sum(1))
    drawn_D = np.concatenate(found)
    return PairedDifference(float(difference_RN.mean()), *percentile_interval(drawn_D), bootstrap_p(drawn_D))


def seed_difference(
    a_RN: AnyFloatArray | npt.NDArray[np.bool_],
    b_RN: AnyFloatArray | npt.NDArray[np.bool_],
) -> PairedDifference:
    """The same mean on these very images, with Student's paired t interval over the repeats; no interval of fewer than three.

    What it leaves out are other images: a difference that it shows may still be these images' doing.
    """
    means_R = (a_RN.astype(np.float64) - b_RN.astype(np.float64)).mean(1)
    repeats, mean = len(means_R), float(means_R.mean())
    error = float(means_R.std(ddof=1)) / repeats**0.5 if repeats > 2 else 0.0
    if error == 0.0:
        return PairedDifference(mean, float("nan"), float("nan"), float("nan"))
    half = float(special.stdtrit(repeats - 1, 0.975)) * error
    p = float(2 * special.stdtr(repeats - 1, -abs(mean) / error))
    return PairedDifference(mean, mean - half, mean + half, p)
