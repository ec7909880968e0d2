import tracemalloc
import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from medbook.evaluation import cases as checks, metrics, ranking
from medbook.evaluation.intervals import (
    auc_interval,
    delong,
    hanley_mcneil_variance,
    midranks,
    placements,
    share_interval,
    wilson,
)
from medbook.evaluation.resampling import bootstrap, IntervalWarning, redraw

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


def test_bootstrap_by_patient_covers_where_by_image_it_does_not():
    """Five images a patient, half of the variance shared; four standard errors of slack."""
    held = np.zeros(2)
    for seed in range(400):
        rng = np.random.default_rng(seed)
        who = np.repeat(np.arange(80), 5)
        ill = np.repeat((np.arange(80) < 32).astype(int), 5)
        score = (
            np.sqrt(0.5) * (rng.normal(size=80)[who] + rng.normal(size=400))
            + 1.2 * np.sqrt(2) * ill
        )
        truth = stats.norm.cdf(1.2)
        for place, patients in enumerate((who, None)):
            _, low, high = bootstrap(ranking.auc, ill, score, patients=patients, resamples=400)
            held[place] += low <= truth <= high
    by_patient, by_image = held / 400
    assert 0.95 - 4 * 0.011 < by_patient <= 0.99 and by_image < 0.86


# patients


def test_copies_of_images_tell_nothing_new():
    y, s = simulated()
    copies = np.repeat(np.arange(len(y)), 4)
    names = np.array([f"P{k:03}" for k in copies])
    assert delong(y[copies], s[copies], patients=names) == pytest.approx(delong(y, s))
    assert delong(y[copies], s[copies])[1] < 0.3 * delong(y, s)[1]
    np.testing.assert_allclose(
        auc_interval(y[copies], s[copies], patients=names), auc_interval(y, s)
    )
    for metric in (ranking.auc, metrics.mcc, metrics.ppv):
        np.testing.assert_allclose(
            bootstrap(metric, y[copies], s[copies], patients=names), bootstrap(metric, y, s)
        )


def test_order_and_names_of_patients_do_not_matter():
    y, s = simulated()
    who = np.arange(80) // 2
    order = np.random.default_rng(0).permutation(80)
    known = auc_interval(y, s, patients=who)
    np.testing.assert_allclose(auc_interval(y[order], s[order], patients=who[order]), known)
    np.testing.assert_allclose(auc_interval(y, s, patients=[f"name {k}" for k in who]), known)
    np.testing.assert_allclose(auc_interval(y, s, patients=np.arange(80)), auc_interval(y, s))


def test_whole_patients_are_drawn():
    y = np.tile([0, 1], 20)
    who = np.repeat(np.arange(20), 2)
    seen = []

    def count(y_true, y_score):
        seen.append(np.bincount(y_score.astype(int), minlength=20))
        return float(len(y_true))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", IntervalWarning)
        assert bootstrap(count, y, who, patients=who, resamples=20) == (40, 40, 40)
    assert (
        len(seen) == 21
        and all((counts % 2 == 0).all() for counts in seen)
        and any((counts == 0).any() for counts in seen[1:])
    )


def test_a_patient_belongs_to_his_rarest_class():
    """Ten of forty patients have one ill image of three: ten ill ones are in every resample."""
    y = np.zeros((40, 3), int)
    y[:10, 0] = 1
    with pytest.warns(IntervalWarning, match="zero width"):
        found = bootstrap(
            lambda labels, _: labels.sum(),
            y.ravel(),
            np.zeros(120),
            patients=np.repeat(range(40), 3),
            resamples=50,
        )
    assert found == (10, 10, 10)


# the bootstrap


@pytest.mark.parametrize(
    "metric",
    [ranking.auc, ranking.average_precision, metrics.f1, metrics.mcc, metrics.balanced_accuracy],
)
def test_all_resamples_at_once_equal_one_after_the_other(metric):
    y, s = simulated()
    np.testing.assert_allclose(
        bootstrap(metric, y, s, resamples=200),
        bootstrap(lambda *pair: metric(*pair), y, s, resamples=200),
    )


def test_seed_resamples_and_confidence():
    y, s = simulated()
    known = bootstrap(metrics.f1, y, s)
    assert known == bootstrap(metrics.f1, y, s, seed=0) != bootstrap(metrics.f1, y, s, seed=1)
    narrow = bootstrap(metrics.f1, y, s, confidence=0.5)
    assert known[1] < narrow[1] < narrow[2] < known[2]
    np.testing.assert_allclose(bootstrap(metrics.f1, y, s, seed=1), known, atol=0.03)


def test_classes_keep_their_numbers_unless_told_otherwise():
    y, s = simulated()
    share = lambda labels, scores, weights=None: metrics.prevalence(labels, weights=weights)  # noqa: E731
    with pytest.warns(IntervalWarning, match="zero width"):
        assert bootstrap(share, y, s) == (0.25, 0.25, 0.25)
    _, low, high = bootstrap(share, y, s, stratify=False)
    assert 0.13 < low < 0.2 and 0.3 < high < 0.37


def test_metrics_with_options_and_with_several_values():
    y, s = simulated()
    assert bootstrap(partial(metrics.sensitivity, threshold=0.3), y, s)[0] == metrics.sensitivity(
        y, s, threshold=0.3
    )
    rng = np.random.default_rng(0)
    kinds = np.arange(90) % 3
    scores = rng.random((90, 3)) + 0.5 * np.eye(3)[kinds]
    value, low, high = bootstrap(metrics.recall_per_class, kinds, scores)
    assert (
        value.shape == low.shape == high.shape == (3,)
        and (low < value).all()
        and (value < high).all()
    )
    for k in range(3):
        np.testing.assert_allclose(
            bootstrap(
                lambda a, b, k=k: metrics.recall_per_class(a, b)[k], kinds, scores, resamples=300
            ),
            [value[k], low[k], high[k]],
            atol=0.04,
        )


def test_undefined_resamples_are_told_and_left_out():
    y = np.repeat([1, 0], [2, 98])
    s = np.random.default_rng(0).random(100)
    with pytest.warns(IntervalWarning, match=r"\d+ of 500 resamples have no value"):
        value, low, high = bootstrap(ranking.average_precision, y, s, resamples=500, stratify=False)
    assert low <= value <= high
    with pytest.warns(IntervalWarning, match="no interval: a class with one case or patient"):
        assert np.isnan(
            bootstrap(ranking.auc, np.repeat([1, 0], [1, 99]), s, resamples=50)[1:]
        ).all()
    with pytest.warns(IntervalWarning, match="zero width"):
        assert bootstrap(ranking.auc, np.repeat([1, 0], [10, 90]), np.linspace(1, 0, 100)) == (
            1,
            1,
            1,
        )
    with pytest.warns(checks.UndefinedMetric, match="no case is healthy"):
        assert np.isnan(bootstrap(ranking.auc, np.ones(5, int), s[:5])).all()


def test_memory_is_bounded():
    y, s = simulated(ill=1000, healthy=9000)
    tracemalloc.start()
    bootstrap(
        ranking.auc, y, s, resamples=400
    )  # all at once: 400 x 10,000 counts of 8 bytes, several times, 32 MB each
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6


def test_chunks_do_not_change_what_is_drawn():
    y = simulated()[0]
    who = np.arange(80) // 2
    whole = np.concatenate(list(redraw(y, resamples=30, patients=who, cells=10**6)))
    for cells in (1, 200, 1000):
        np.testing.assert_array_equal(
            np.concatenate(list(redraw(y, resamples=30, patients=who, cells=cells))), whole
        )
    assert whole.shape == (30, 80) and (whole[:, ::2] == whole[:, 1::2]).all()
    assert (whole[:, :20].sum(1) == 20).all() and (whole.sum(1) == 80).all()


def test_expanded_is_wider_where_patients_are_few_and_the_same_where_they_are_many():
    y, s = simulated(ill=8, healthy=60)
    value, low, high = bootstrap(ranking.auc, y, s)
    plain = bootstrap(ranking.auc, y, s, method="percentile")
    assert value == plain[0] and low < plain[1] and high >= plain[2]
    y, s = simulated(ill=2000, healthy=2000)
    np.testing.assert_allclose(
        bootstrap(ranking.auc, y, s), bootstrap(ranking.auc, y, s, method="percentile"), atol=2e-4
    )


def test_bca_agrees_with_scipy():
    """One stratum and a mean, where SciPy's BCa does the same."""
    x = np.random.default_rng(1).exponential(size=60)

    def mean(labels, values, weights=None):
        return np.average(values) if weights is None else weights @ values / weights.sum(axis=-1)

    ours = bootstrap(mean, np.zeros(60, int), x, method="bca", resamples=20000)
    theirs = stats.bootstrap(
        (x,), np.mean, method="BCa", n_resamples=20000, rng=2
    ).confidence_interval
    np.testing.assert_allclose(ours[1:], theirs, atol=0.025)
    plain = bootstrap(mean, np.zeros(60, int), x, method="percentile", resamples=20000)
    assert (
        ours[2] - plain[2] > 0.025 and ours[1] > plain[1]
    )  # skewed to the right, so both ends move there
    twice = lambda y, s, weights=None: np.stack([mean(y, s, weights), 2 * mean(y, s, weights)], -1)  # noqa: E731
    several = bootstrap(twice, np.zeros(60, int), x, method="bca")
    np.testing.assert_allclose(np.array(several)[:, 1], 2 * np.array(several)[:, 0])


@pytest.mark.parametrize(
    "options, words",
    [
        ({"patients": ["a", "b"]}, r"patients has shape \(2,\) for 80 cases"),
        ({"patients": np.full(80, np.nan)}, "missing values"),
        ({"patients": [None] + ["a"] * 79}, "missing values"),
        ({"confidence": 95}, "confidence=95"),
    ],
)
def test_faulty_options_get_one_line(options, words):
    y, s = simulated()
    for call in (partial(bootstrap, ranking.auc), auc_interval):
        with pytest.raises(ValueError, match=words) as error:
            call(y, s, **options)
        assert "\n" not in str(error.value)


def test_other_faulty_arguments():
    y, s = simulated()
    with pytest.raises(ValueError, match="resamples=0"):
        bootstrap(ranking.auc, y, s, resamples=0)
    for call in (auc_interval, partial(bootstrap, ranking.auc)):
        with pytest.raises(ValueError, match="method='exact'"):
            call(y, s, method="exact")
    with pytest.raises(ValueError, match=r"y_true has shape \(80,\), y_score \(79,\)"):
        auc_interval(y, s[1:])


def test_real_images_of_cells_by_smear(shared):
    """BCCD: white cells told from red by colour; smears as the unit give another interval."""
    with np.load(shared / "bccd" / "bccd_crops32.npz", allow_pickle=False) as data:
        white = (data["labels"] == 1).astype(int)
        colour = data["images"].astype(float).mean((1, 2))
        smear = data["image_id"]
    score = colour[:, 2] - colour[:, 1]  # more blue than green: the stained nucleus
    by_cell = auc_interval(white, score)
    by_smear = auc_interval(white, score, patients=smear)
    np.testing.assert_allclose(
        by_smear, bootstrap(ranking.auc, white, score, patients=smear, resamples=500), atol=0.01
    )
    np.testing.assert_allclose(
        by_cell, bootstrap(ranking.auc, white, score, resamples=500), atol=0.01
    )
    assert by_smear[2] - by_smear[1] != pytest.approx(by_cell[2] - by_cell[1], rel=0.01)


def test_a_share_by_patient_counts_patients():
    hit = np.random.default_rng(0).integers(0, 2, 40)
    assert share_interval(hit) == wilson(hit.sum(), 40)
    copies = share_interval(np.repeat(hit, 3), patients=np.repeat(np.arange(40), 3))
    np.testing.assert_allclose(copies, share_interval(hit), atol=0.02)
    assert np.isnan(share_interval([])).all()
