"""Mixed and covered images: the papers' rules, the same for a member alone and in a stack, in either layout."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import beta
from torch import Tensor

from ensemble.config.recipe import AugmentationConfig
from ensemble.data.mixing import Blend, blended, draw_blend
from tests.data.operations import ON_THE_HOST, Operations

SHAPE = (3, 12, 10)
KEYS = torch.tensor([11, -5, 2**62])


def drawn(count: int = 64, keys: Tensor = KEYS, first: int = 0, **options: float) -> Blend:
    return draw_blend(AugmentationConfig(**options), count, SHAPE, keys, first)


def images(members: int = 3, rows: int = 64) -> Tensor:
    return torch.rand(members, rows, *SHAPE, generator=torch.Generator().manual_seed(1)) + 1  # never zero


@pytest.mark.parametrize("alpha", [0.1, 0.2, 1.0, 5.0])
def test_shares_have_the_published_distribution(alpha: float) -> None:
    share = drawn(20_000, KEYS[:1], mixup_alpha=alpha).share_KB
    assert share is not None
    places = np.linspace(0.001, 0.999, 50)  # nearer to 1 float32 is coarser than the distribution
    found = np.searchsorted(np.sort(share[0].numpy()), places) / 20_000
    assert np.abs(found - beta(alpha, alpha).cdf(places)).max() < 1.63 / np.sqrt(20_000), "Kolmogorov's limit of 1 %"


def test_mixup_takes_the_rest_from_the_mirror_image_of_the_batch() -> None:
    blend, given = drawn(mixup_alpha=1.0), images()
    assert blend.share_KB is not None
    share = blend.share_KB[:, :, None, None, None]
    expected = share * given + (1 - share) * given.flip(1)
    torch.testing.assert_close(blended(given.clone(), blend), expected, rtol=0, atol=1e-6)


def test_cutmix_s_share_is_that_of_its_own_pixels() -> None:
    blend, given = drawn(cutmix_alpha=1.0), images()
    assert blend.share_KB is not None
    result, other = blended(given.clone(), blend), given.flip(1)
    own = (result == given).all(2)
    assert bool((own | (result == other).all(2)).all())
    torch.testing.assert_close(own.float().mean((2, 3)), blend.share_KB)
    for k, b in np.argwhere((~own).flatten(2).any(2).numpy())[:40]:
        rows, columns = np.nonzero(~own[k, b].numpy())
        assert (~own[k, b, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]).all(), "a rectangle"


def test_the_uncut_share_of_cutmix_is_a_beta_s() -> None:
    """Boxes are cut off at the image's sides, so a box may be smaller than drawn and never larger; about half of them are whole."""
    large = draw_blend(AugmentationConfig(cutmix_alpha=1.0), 20_000, (1, 400, 400), KEYS[:1], 0)
    assert large.box is not None
    top, bottom, left, right = (edge[0].double() for edge in large.box)
    inside = (top > 0) & (bottom < 400) & (left > 0) & (right < 400)
    square = (bottom - top) - (right - left)
    assert square[inside].abs().max() <= 2
    # A box of side s lies inside with probability (1 - s)^2, and s^2 is uniform: E[(1 - s)^2] = 1 - 4/3 + 1/2.
    assert inside.double().mean() == pytest.approx(1 / 6, abs=0.02)


def test_with_both_each_image_takes_one_of_them_half_of_the_time() -> None:
    blend = drawn(4000, mixup_alpha=0.2, cutmix_alpha=1.0)
    assert blend.cut_KB is not None
    assert blend.cut_KB.double().mean() == pytest.approx(0.5, abs=0.02)
    given = images()
    result = blended(given.clone(), drawn(mixup_alpha=0.2, cutmix_alpha=1.0))
    cut = drawn(mixup_alpha=0.2, cutmix_alpha=1.0).cut_KB
    assert cut is not None
    taken = ((result == given) | (result == given.flip(1))).flatten(2).all(2)
    assert bool(taken[cut].all())
    assert not bool(taken[~cut].all())


def test_erasing_covers_a_rectangle_with_the_mean() -> None:
    result = blended(images(), drawn(erasing_probability=0.5))
    covered = (result == 0).all(2)
    assert bool(((result == 0).any(2) == covered).all()), "all channels or none"
    share = covered.double().mean((2, 3))
    assert (share > 0).double().mean() == pytest.approx(0.5, abs=0.12)
    assert share.max() <= 0.42  # 33 percent and what rounding to pixels adds
    for k, b in np.argwhere((share > 0).numpy()):
        rows, columns = np.nonzero(covered[k, b].numpy())
        assert covered[k, b, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].all()
    large = draw_blend(AugmentationConfig(erasing_probability=1.0), 5000, (1, 500, 500), KEYS, 0)
    assert large.covered is not None
    top, bottom, left, right = large.covered
    areas, ratios = (bottom - top) * (right - left) / 250_000, (bottom - top) / (right - left)
    assert 0.0195 < areas.min() < 0.021
    assert 0.32 < areas.max() < 0.331
    assert ratios.log().mean().abs() < 0.02
    assert ratios.max() < 3.4


ALL = {"mixup_alpha": 0.4, "cutmix_alpha": 1.0, "erasing_probability": 0.5}


@pytest.mark.parametrize("rows", [64, 61, 1])
def test_a_member_gets_alone_what_it_gets_in_a_stack_in_either_layout(rows: int) -> None:
    given = images(3, rows)
    together = blended(given.clone(), drawn(rows, first=640, **ALL))
    filled = -(-rows // 16) * 16
    last = torch.full((3, *SHAPE, filled), 7.0)
    last[..., :rows] = given.movedim(1, -1)
    other_layout = blended(last, drawn(rows, first=640, **ALL), rows)
    assert torch.equal(other_layout[..., :rows].movedim(-1, 1), together)
    assert bool((other_layout[..., rows:] == 7).all()), "what fills a batch up stays as it is"
    for k in range(3):
        alone = blended(given[k : k + 1].clone(), drawn(rows, KEYS[k : k + 1], first=640, **ALL))
        assert torch.equal(alone[0], together[k])


def test_what_is_drawn_belongs_to_the_position_in_the_epoch() -> None:
    whole, part = drawn(64, **ALL), drawn(16, first=48, **ALL)
    assert whole.share_KB is not None
    assert part.share_KB is not None
    assert torch.equal(whole.share_KB[:, 48:], part.share_KB)
    assert whole.covered is not None
    assert part.covered is not None
    assert torch.equal(whole.covered[0][:, 48:], part.covered[0])


def test_nothing_touches_the_host() -> None:
    given = images()
    arguments = AugmentationConfig(**ALL), 64, SHAPE, KEYS, torch.tensor([128])
    draw_blend(*arguments)  # puts its constants on the device
    with Operations() as done:
        blended(given, draw_blend(*arguments))
    assert "lerp" in done.names
    assert not done.names & ON_THE_HOST
