"""Doubtful labels: the stated share of false alarms is kept, and copies share a fold."""

import numpy as np
import pytest

from medbook.images import findings, label_check
from tests.image_sets import bars


@pytest.fixture
def easy():
    return bars()


def test_doubts_stay_below_the_stated_rate(easy):
    _, small = findings.look_through(easy)
    rng = np.random.default_rng(3)
    labels = easy.labels.copy()
    wrong = rng.random(len(easy)) < 0.05
    labels[wrong] = 1 - labels[wrong]
    scores = label_check.out_of_fold(small, labels)
    assert np.allclose(scores.sum(1), 1)
    for stated in (0.02, 0.1):
        doubted = np.isin(
            np.arange(len(easy)), label_check.doubtful_labels(scores, labels, stated).row
        )
        assert doubted[~wrong].mean() <= stated
    assert doubted[wrong].mean() > 0.5
    assert len(label_check.doubtful_labels(scores, labels, 0)) <= (scores == 0).any(1).sum()


def test_threshold_keeps_its_promise():
    rng = np.random.default_rng(0)
    scores = rng.dirichlet([0.5, 0.3, 0.2], 20_000)
    labels = (rng.random(20_000)[:, None] > scores.cumsum(1)).sum(
        1
    )  # drawn from the scores: all rightly labelled
    for stated in (0.005, 0.02, 0.1):
        tau = label_check.doubt_threshold(scores, stated)
        assert abs((scores[np.arange(20_000), labels] <= tau).mean() - stated) < 4 * np.sqrt(
            stated / 20_000
        )
    assert label_check.doubt_threshold(np.full((4, 2), 0.5), 0.01) == -1


def test_copies_do_not_vouch_for_each_other(easy):
    fold = label_check.deal_folds(easy.labels, np.arange(len(easy)) // 3)
    assert all(len(set(fold[i : i + 3])) == 1 for i in range(0, 300, 3)) and set(fold) == set(
        range(5)
    )
    shares = [easy.labels[fold == k].mean() for k in range(5)]
    assert np.ptp(shares) < 0.1
