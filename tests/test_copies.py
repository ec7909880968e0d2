"""Copies: views that are odd, at a stated share of false alarms."""

import numpy as np
from scipy import ndimage

from medbook.images import copies


def test_suspected_views_keep_to_the_stated_share():
    rng = np.random.default_rng(0)
    base = ndimage.gaussian_filter(rng.normal(size=(28, 28)), 3)
    noisy = base / base.std() + 10 * ndimage.gaussian_filter(
        rng.normal(size=(2000, 28, 28)), (0, 1, 1)
    )
    small = copies.thumbnails(noisy[..., None])
    assert (
        len(copies.odd_views(small)) <= 0.02 * 2000
        and len(copies.odd_views(small, false_alarms=0.005)) <= 0.008 * 2000
    )
    turned = small.copy()
    turned[:20] = small[:20, ::-1]
    assert np.isin(np.arange(20), copies.odd_views(turned).row).mean() > 0.5


def test_a_copy_is_found_in_every_position_and_named():
    rng = np.random.default_rng(0)
    images = ndimage.gaussian_filter(rng.normal(size=(80, 32, 32)), (0, 2, 2))
    small = copies.thumbnails(images[..., np.newaxis])
    assert copies.close_pairs(small).empty and copies.close_pairs(small[:2]).empty
    for row, (turn, change) in enumerate(copies.TURNS.items()):
        copied = small.copy()
        copied[-1] = 0.7 * change(small[row]) + 0.1
        found = copies.close_pairs(copied)
        assert found[["first", "second", "turn"]].values.tolist() == [[row, 79, turn]]
