import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from medbook.evaluation import ranking
from medbook.evaluation.intervals import (
    auc_interval,
    delong,
    hanley_mcneil_variance,
    midranks,
    placements,
    share_interval,
    wilson,
)
from medbook.evaluation.resampling import bootstrap

# at least two cases of each class, few distinct scores
cases = st.tuples(st.integers(2, 15), st.integers(2, 15)).flatmap(
    lambda sizes: st.tuples(
        st.just(np.repeat([1, 0], sizes)),
        arrays(np.float64, sum(sizes), elements=st.sampled_from([0, 0.1, 0.4, 0.5, 0.6, 0.9, 1])),
    )
)


def simulated(seed=0, ill=20, healthy=60, shift=1.2):
    y = np.repeat([1, 0], [ill, healthy])
    return y, stats.norm.cdf(np.random.default_rng(seed).normal(shift * y - 0.5))


def brute_force_variance(y, s):
    difference = s[y == 1][:, None] - s[y == 0][None, :]
    wins = (difference > 0) + 0.5 * (difference == 0)
    return wins.mean(1).var(ddof=1) / wins.shape[0] + wins.mean(0).var(ddof=1) / wins.shape[1]


# Wilson


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.sampled_from([0.5, 0.9, 0.95, 0.999]),
)
def test_wilson_agrees_with_scipy(counts, confidence):
    value, low, high = wilson(*counts, confidence)
    theirs = stats.binomtest(*counts).proportion_ci(confidence, method="wilson")
    np.testing.assert_allclose([low, high], theirs, atol=1e-12)
    assert 0 <= low <= value <= high <= 1 and low < high


def test_wilson_at_the_edges_and_over_arrays():
    assert (
        wilson(20, 20)[2] == 1
        and wilson(20, 20)[1] == pytest.approx(0.8389, abs=1e-4)
        and wilson(0, 20)[1] == 0
    )
    assert np.isnan(wilson(0, 0)).all() and all(
        isinstance(edge, float) for edge in (*wilson(1, 2), *wilson(0, 0))
    )
    several = wilson([20, 0, 3], [20, 0, 8])
    np.testing.assert_array_equal(
        np.transpose(several), [wilson(20, 20), wilson(0, 0), wilson(3, 8)]
    )


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((5, 4), "successes=5"),
        ((-1, 4), "successes=-1"),
        ((np.nan, 4), "successes=nan"),
        ((1, 4, 95), "confidence=95"),
        ((1, 4, 1), "confidence=1"),
    ],
)
def test_wilson_refuses(arguments, words):
    with pytest.raises(ValueError, match=words):
        wilson(*arguments)


# DeLong and the score interval


@settings(max_examples=30, deadline=None)
@given(cases)
def test_delong_agrees_with_brute_force(sample):
    y, s = sample
    share = placements(y == 1, s)
    area = ranking.auc(y, s)
    np.testing.assert_allclose([share[y == 1].mean(), share[y == 0].mean()], area)
    for same_order in (s, s - 0.5, 3 * s):  # in [0, 1], with negative and with large scores
        np.testing.assert_allclose(
            delong(y, same_order), (area, brute_force_variance(y, s)), atol=1e-14
        )
    np.testing.assert_allclose(delong(y, s, patients=np.arange(len(y))), delong(y, s), atol=1e-14)
    np.testing.assert_allclose(midranks(s), stats.rankdata(s))


@settings(max_examples=30, deadline=None)
@given(cases, st.sampled_from(["auto", "newcombe"]), st.sampled_from([0.5, 0.95, 0.999]))
def test_auc_interval_has_width_holds_the_value_and_stays_in_bounds(sample, method, confidence):
    value, low, high = auc_interval(*sample, method=method, confidence=confidence)
    assert (
        value == pytest.approx(ranking.auc(*sample))
        and 0 <= low <= value <= high <= 1
        and high - low > 0.01
    )
    wider = auc_interval(*sample, method=method, confidence=0.9999)
    assert wider[1] <= low and high <= wider[2]


@settings(max_examples=30, deadline=None)
@given(cases)
def test_score_interval_is_just_what_the_data_do_not_contradict(sample):
    y, s = sample
    value, low, high = auc_interval(y, s, method="newcombe")
    grid = np.linspace(0, 1, 2001)
    allowed = np.abs(value - grid) <= stats.norm.ppf(0.975) * np.sqrt(
        hanley_mcneil_variance(grid, y.sum(), (1 - y).sum())
    )
    np.testing.assert_array_equal(
        allowed[np.abs(grid - low) > 1e-6],
        ((grid >= low) & (grid <= high))[np.abs(grid - low) > 1e-6],
    )


@settings(max_examples=20, deadline=None)
@given(cases)
def test_turning_the_scores_round_turns_the_interval_round(sample):
    y, s = sample
    value, low, high = auc_interval(y, s)
    np.testing.assert_allclose(auc_interval(y, -s), (1 - value, 1 - high, 1 - low), atol=1e-12)


def test_perfect_separation():
    y = np.repeat([0, 1], 10)
    s = np.arange(20)
    value, low, high = auc_interval(y, s)
    assert (value, high) == (1, 1) and low == pytest.approx(0.800, abs=2e-3)
    assert auc_interval(1 - y, s)[:2] == (0, 0) and auc_interval(1 - y, s)[2] == pytest.approx(
        1 - low
    )
    assert np.isnan(auc_interval(y, s, method="logit")[1:]).all()
    lows = [auc_interval(np.repeat([0, 1], n), np.arange(2 * n))[1] for n in (1, 3, 10, 100, 1000)]
    assert lows == sorted(lows) and lows[0] < 0.25 and lows[-1] > 0.99


def test_methods_and_their_limits():
    y, s = simulated()
    assert auc_interval(y, s) == auc_interval(y, s, method="score")
    area, variance = delong(y, s)
    textbook = auc_interval(y, s, method="delong")
    np.testing.assert_allclose(
        textbook,
        (area, area - 1.959964 * variance**0.5, area + 1.959964 * variance**0.5),
        atol=1e-7,
    )
    many = simulated(
        ill=3000, healthy=3000
    )  # where much is known, the methods that use DeLong's variance agree
    np.testing.assert_allclose(auc_interval(*many), auc_interval(*many, method="logit"), atol=5e-4)
    tied = auc_interval(y, np.ones(80))  # DeLong's variance is 0, and nothing is known
    assert tied[0] == 0.5 and tied[2] - tied[1] > 0.2


def test_undefined_auc_is_nan():
    assert np.isnan(auc_interval([1, 1], [0.1, 0.2])).all()
    assert np.isnan(auc_interval([0, 1, 0], np.eye(3)[[0, 1, 1]])).all()


def test_auc_interval_agrees_with_a_large_bootstrap():
    y, s = simulated(ill=150, healthy=300)
    np.testing.assert_allclose(auc_interval(y, s), bootstrap(ranking.auc, y, s), atol=0.012)
    assert auc_interval(y, s, method="bootstrap") == bootstrap(ranking.auc, y, s)


def test_auc_interval_of_many_classes_and_labels():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 300)
    s = rng.normal(size=(300, 4)) + 1.2 * np.eye(4)[y]
    np.testing.assert_allclose(auc_interval(y, s), bootstrap(ranking.auc, y, s), atol=0.012)
    labels = (rng.random((300, 3)) < 0.3).astype(int)
    scores = rng.normal(size=(300, 3)) + labels
    np.testing.assert_allclose(
        auc_interval(labels, scores),
        bootstrap(ranking.auc, labels, scores, stratify=False),
        atol=0.015,
    )
    assert auc_interval(y, np.eye(4)[y])[2] == 1 and auc_interval(y, np.eye(4)[y])[1] < 0.99
    same = (
        np.c_[labels[:, 0], labels[:, 0]],
        np.c_[scores[:, 0], scores[:, 0]],
    )  # a label told twice is told once
    assert delong(*same) == pytest.approx(delong(labels[:, 0], scores[:, 0]))


@pytest.mark.parametrize(
    "ill, healthy, truth", [(10, 40, 0.9), (10, 40, 0.95), (20, 60, 0.98), (39, 117, 0.9)]
)
def test_auc_interval_covers(ill, healthy, truth):
    """4,000 studies; the textbook's interval holds .85, .81, .80 and .93 of them."""
    y = np.repeat([1, 0], [ill, healthy])
    rng = np.random.default_rng(ill)
    centre = np.sqrt(2) * stats.norm.ppf(truth)
    studies = np.array([auc_interval(y, rng.normal(centre * y)) for _ in range(4000)])
    held = (studies[:, 1] <= truth) & (truth <= studies[:, 2])
    assert 0.93 < held.mean() < 0.97
    assert studies[:, 2].max() <= 1 and (studies[:, 2] > studies[:, 1]).all()


# patients


# the bootstrap


def test_a_share_by_patient_counts_patients():
    hit = np.random.default_rng(0).integers(0, 2, 40)
    assert share_interval(hit) == wilson(hit.sum(), 40)
    copies = share_interval(np.repeat(hit, 3), patients=np.repeat(np.arange(40), 3))
    np.testing.assert_allclose(copies, share_interval(hit), atol=0.02)
    assert np.isnan(share_interval([])).all()
