"""How often DeLong's intervals hold the truth, in normal scores (the binormal model), beside the interval without the logit.

All draws of a case are worked out at once, by a second computation of ours that is held against `delong_interval` and `paired_delong` first. Seeds are
fixed, so the shares are the same at every run; `error` is their Monte-Carlo standard error, which a change of numpy's generators could move them by.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from ensemble.evaluation.delong import delong_interval, paired_delong

Z = float(special.ndtri(0.975))
PROMISED = (0.94, 0.96)
TRIES, ELEMENTS = 8000, 1_600_000  # at most so many draws, and so many scores of a kind, in a case


def tries_of(images: int) -> int:
    return min(TRIES, ELEMENTS // images)


def error(tries: int) -> float:
    """The standard error of a share of 95 % among so many draws: 0.24 points of 8,000, 0.55 of 1,600."""
    return math.sqrt(0.95 * 0.05 / tries)


def placements(known_DN: np.ndarray, unknown_DU: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By draw, for every image the share of the other kind's that it is ordered rightly with; scores have no ties."""
    known, images = known_DN.shape[1], known_DN.shape[1] + unknown_DU.shape[1]
    ranks = ranks_of(np.concatenate([known_DN, unknown_DU], axis=1))
    below_DN = (ranks[:, :known] - ranks_of(known_DN)) / (images - known)
    return below_DN, 1 - (ranks[:, known:] - ranks_of(unknown_DU)) / known


def ranks_of(scores_DN: np.ndarray) -> np.ndarray:
    ranks_DN = np.empty(scores_DN.shape, np.int64)
    np.put_along_axis(ranks_DN, np.argsort(scores_DN, axis=1), np.arange(scores_DN.shape[1])[None], axis=1)
    return ranks_DN


def areas_and_errors(known_DN: np.ndarray, unknown_DU: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    variance_D = known_DN.var(1, ddof=1) / known_DN.shape[1] + unknown_DU.var(1, ddof=1) / unknown_DU.shape[1]
    return known_DN.mean(1), np.sqrt(variance_D)


def plain(area_D: np.ndarray, error_D: np.ndarray) -> np.ndarray:
    return np.stack([area_D - Z * error_D, area_D + Z * error_D])


def on_the_logit(area_D: np.ndarray, error_D: np.ndarray, images: int) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        half_D, centre_D = Z * error_D / (area_D * (1 - area_D)), special.logit(area_D)
        ends = special.expit(np.stack([centre_D - half_D, centre_D + half_D]))
    apart = np.stack([np.full_like(area_D, 0.025 ** (1 / images)), np.ones_like(area_D)])  # all pairs in order
    return np.where((error_D == 0) & (area_D == 1), apart, ends)


def held(ends_2D: np.ndarray, truth: float) -> float:
    return float(((ends_2D[0] <= truth) & (truth <= ends_2D[1])).mean())


def normal_scores(area: float, images: int, tries: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw, apart = np.random.default_rng(seed), float(special.ndtri(area)) * math.sqrt(2)
    return draw.normal(apart, 1, (tries, images)), draw.normal(0, 1, (tries, images))


def test_all_draws_at_once_are_each_by_itself() -> None:
    for area, images in ((0.7, 20), (0.97, 50), (0.999, 8)):
        known_DN, unknown_DU = normal_scores(area, images, 40, 1)
        ends = on_the_logit(*areas_and_errors(*placements(known_DN, unknown_DU)), images)
        for d in range(40):
            assert delong_interval(known_DN[d], unknown_DU[d]) == pytest.approx(tuple(ends[:, d]), abs=1e-12)


# Where the two kinds hardly overlap the few errors come from a few images: of 20 from 0.97 on, of 50 from 0.99 on.
@pytest.mark.parametrize(
    ("images", "area"),
    [(20, 0.6), (20, 0.7), (20, 0.9), (50, 0.7), (50, 0.9), (50, 0.97), (200, 0.7), (200, 0.9), (200, 0.97), (200, 0.99), (1000, 0.7), (1000, 0.99)],
)  # fmt: skip
def test_the_interval_holds_the_true_area_in_94_to_96_of_100_draws(images: int, area: float) -> None:
    tries = tries_of(images)
    found = areas_and_errors(*placements(*normal_scores(area, images, tries, images)))
    share = held(on_the_logit(*found, images), area)
    assert PROMISED[0] - 2 * error(tries) < share < PROMISED[1] + 2 * error(tries)


@pytest.mark.parametrize(("images", "area", "at_most"), [(20, 0.9, 0.91), (50, 0.97, 0.90), (200, 0.99, 0.92)])
def test_without_the_logit_it_would_hold_it_less_often(images: int, area: float, at_most: float) -> None:
    found = areas_and_errors(*placements(*normal_scores(area, images, TRIES, images)))
    assert held(plain(*found), area) < at_most < held(on_the_logit(*found, images), area)


def test_a_few_images_that_hardly_overlap_are_held_too_often_rather_than_too_seldom() -> None:
    found = areas_and_errors(*placements(*normal_scores(0.97, 20, TRIES, 5)))
    assert 0.96 < held(on_the_logit(*found, 20), 0.97) < 0.985
    assert held(plain(*found), 0.97) < 0.8


def two_readings(
    images: int, tries: int, noise: tuple[float, float], apart: float, seed: int
) -> tuple[np.ndarray, ...]:
    """Two scores of the same images, each one quantity with noise of its own, [2, D, N] of either kind, and their true areas."""
    draw = np.random.default_rng(seed)
    kinds = [
        np.stack([truth + draw.normal(0, size, truth.shape) for size in noise])
        for truth in (draw.normal(apart, 1, (tries, images)), draw.normal(0, 1, (tries, images)))
    ]
    return (*kinds, special.ndtr([apart / math.sqrt(2 * (1 + size**2)) for size in noise]))


def differences(known_SDN: np.ndarray, unknown_SDU: np.ndarray) -> np.ndarray:
    first, second = (placements(known_SDN[s], unknown_SDU[s]) for s in range(2))
    found = areas_and_errors(first[0] - second[0], first[1] - second[1])
    return plain(*found)


def test_all_differences_at_once_are_each_by_itself() -> None:
    known_SDN, unknown_SDU, _ = two_readings(30, 40, (0.5, 1.0), 1.5, 1)
    ends = differences(known_SDN, unknown_SDU)
    for d in range(40):
        found = paired_delong(known_SDN[:, d], unknown_SDU[:, d])
        assert (found.lower, found.upper) == pytest.approx(tuple(ends[:, d]), abs=1e-12)


# Areas 0.88 and 0.80, 0.88 twice, 0.97 and 0.93.
@pytest.mark.parametrize(
    ("images", "noise", "apart"),
    [(50, (0.8, 1.5), 2.1), (50, (0.8, 0.8), 2.1), (200, (0.8, 1.5), 2.1), (200, (0.8, 0.8), 2.1), (200, (0.5, 1.0), 2.97)],
)  # fmt: skip
def test_the_interval_of_a_difference_holds_the_true_one(images: int, noise: tuple[float, float], apart: float) -> None:
    tries = tries_of(images) // 2
    known_SDN, unknown_SDU, areas = two_readings(images, tries, noise, apart, images)
    share = held(differences(known_SDN, unknown_SDU), float(areas[0] - areas[1]))
    assert PROMISED[0] - 2 * error(tries) < share < PROMISED[1] + 2 * error(tries)


def test_a_difference_near_the_top_of_few_images_is_held_a_little_less_often() -> None:
    """Of 50 images and areas of 0.97 and 0.93, as the docstring says; the difference has no logit."""
    known_SDN, unknown_SDU, areas = two_readings(50, TRIES, (0.5, 1.0), 2.97, 6)
    assert 0.915 < held(differences(known_SDN, unknown_SDU), float(areas[0] - areas[1])) < 0.94


def test_that_is_what_normal_scores_of_a_known_area_are() -> None:
    known_DN, unknown_DU = normal_scores(0.9, 2000, 20, 3)
    assert areas_and_errors(*placements(known_DN, unknown_DU))[0].mean() == pytest.approx(0.9, abs=0.005)
    assert stats.norm.cdf(float(special.ndtri(0.9))) == pytest.approx(0.9)
