import itertools
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn import metrics as library
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from medbook.evaluation import calibration as c
from medbook.evaluation.intervals import bootstrap, wilson
from medbook.evaluation.metrics import UndefinedMetric, auc

TOOLS = [c.TemperatureScaling, c.PlattScaling, c.IsotonicScaling]
STRATEGIES = {"width": "uniform", "count": "quantile"}
EXACT = {"rtol": 0, "atol": 1e-12}

# ties, exact 0 and 1, scores on the bins' edges, certainty, one class: all of them come up
scores = st.sampled_from([0, 1e-300, 1e-12, .1, .2, .3, .30000001, .5, .5, .7, .9, 1 - 1e-9, 1])
cases = st.integers(1, 40).flatmap(lambda n: st.tuples(
    arrays(np.int64, n, elements=st.integers(0, 1)), arrays(np.float64, n, elements=scores)))
bins_ = st.integers(1, 25)


def simulated(n=2000, seed=0, sharpness=2.0):
    """(truths, true probabilities, over-confident scores)."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-.5, 1.5, n)
    return (rng.random(n) < c.sigmoid(odds)).astype(int), c.sigmoid(odds), c.sigmoid(sharpness * odds)


def several(n=400, classes=4, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), n)
    sharp = p**sharpness
    return (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=classes - 1), p, sharp / sharp.sum(1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(cases)
def test_brier_and_log_loss_are_scikit_learns(case):
    y, s = case
    np.testing.assert_allclose(c.brier(y, s), np.mean((y - s)**2), **EXACT)
    np.testing.assert_allclose(c.log_loss(y, s), library.log_loss(y, s, labels=[0, 1]), **EXACT)
    if 0 < y.sum() < len(y):
        np.testing.assert_allclose(c.brier(y, s), library.brier_score_loss(y, s), **EXACT)
    two = np.column_stack([1 - s, s])
    for metric in (c.brier, c.log_loss, c.ece):
        np.testing.assert_allclose(metric(y, two), metric(y, s), **EXACT)


@settings(max_examples=60, deadline=None)
@given(cases, bins_, st.sampled_from(list(STRATEGIES)))
def test_reliability_curve_is_scikit_learns(case, bins, strategy):
    y, s = case
    curve = c.reliability_curve(y, s, bins=bins, strategy=strategy)
    observed, predicted = calibration_curve(y, s, n_bins=bins, strategy=STRATEGIES[strategy], pos_label=1)
    full = curve.counts > 0
    np.testing.assert_allclose(curve.observed[full], observed, **EXACT)
    np.testing.assert_allclose(curve.predicted[full], predicted, **EXACT)
    assert curve.counts.sum() == len(y) and len(curve.edges) == bins + 1 and np.isnan(curve.observed[~full]).all()
    low, high = c.reliability_intervals(y, s, bins=bins, strategy=strategy)
    assert (low[full] <= curve.observed[full]).all() and (curve.observed[full] <= high[full]).all() and (low[full] < high[full]).all()


@settings(max_examples=60, deadline=None)
@given(cases, bins_, st.sampled_from(list(STRATEGIES)))
def test_ece_is_its_definition_and_the_decomposition_is_exact(case, bins, strategy):
    y, s = case
    curve = c.reliability_curve(y, s, bins=bins, strategy=strategy)
    full = curve.counts > 0
    slow = np.sum(curve.counts[full] * np.abs(curve.observed - curve.predicted)[full]) / len(y)
    np.testing.assert_allclose(c.ece(y, s, bins=bins, strategy=strategy), slow, **EXACT)
    parts = c.brier_decomposition(y, s, bins=bins, strategy=strategy)
    total = parts.reliability - parts.resolution + parts.uncertainty + parts.within_variance - parts.within_covariance
    np.testing.assert_allclose(total, c.brier(y, s), **EXACT)
    assert min(parts[:4]) >= -1e-15 and parts.uncertainty == pytest.approx(y.mean() * (1 - y.mean()))


def test_many_classes_are_scikit_learns():
    y, _, s = several()
    assert abs(c.brier(y, s) - library.brier_score_loss(y, s)) < 1e-12 and abs(c.log_loss(y, s) - library.log_loss(y, s)) < 1e-12
    right, largest = s.argmax(1) == y, s.max(1)
    assert abs(c.ece(y, s, bins=7) - c.ece(right.astype(int), largest, bins=7)) < 1e-12
    zero = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    assert abs(c.log_loss([0, 1, 0], zero) - library.log_loss([0, 1, 0], zero, labels=[0, 1, 2])) < 1e-12
    assert c.brier([0, 1, 2], zero) == 0 and c.brier([1, 2, 0], zero) == 2


def test_many_labels_are_the_mean_over_labels():
    rng = np.random.default_rng(0)
    y, s = rng.integers(0, 2, (200, 3)), rng.random((200, 3))
    for metric in (c.brier, c.log_loss, c.ece):
        assert metric(y, s) == pytest.approx(np.mean([metric(y[:, k], s[:, k]) for k in range(3)]), abs=1e-12)


@pytest.mark.parametrize("y, s", [simulated(150)[::2], several(150)[::2]], ids=["two classes", "four classes"])
def test_weights_repeat_cases(y, s):
    w = np.random.default_rng(1).integers(0, 4, (5, len(y)))
    for metric in (c.brier, c.log_loss, c.calibration_scores, c.ece):
        repeated = [metric(np.repeat(y, row), np.repeat(s, row, axis=0)) for row in w]
        np.testing.assert_allclose(metric(y, s, weights=w), repeated, **EXACT)
        np.testing.assert_allclose(metric(y, s, weights=w[0]), repeated[0], **EXACT)
        np.testing.assert_allclose(metric(y, s, weights=np.ones(len(y))), metric(y, s), **EXACT)
    np.testing.assert_allclose(c.calibration_scores(y, s), [c.brier(y, s), c.log_loss(y, s), c.ece(y, s)], **EXACT)
    assert np.isnan(c.brier(y, s, weights=np.zeros(len(y)))) and np.isnan(c.ece(y, s, weights=np.zeros((2, len(y))))).all()


def test_weights_repeat_cases_in_the_decomposition_and_the_curve():
    y, _, s = simulated(200)
    w = np.random.default_rng(1).integers(0, 4, (3, 200))
    for strategy in STRATEGIES:
        parts = np.array(c.brier_decomposition(y, s, strategy=strategy, weights=w))
        np.testing.assert_allclose([1, -1, 1, 1, -1] @ parts, c.brier(y, s, weights=w), **EXACT)
    curve = c.reliability_curve(y, s, weights=w)
    repeated = [c.reliability_curve(np.repeat(y, row), np.repeat(s, row)) for row in w]
    np.testing.assert_allclose(curve.observed, [each.observed for each in repeated], **EXACT)
    np.testing.assert_allclose(curve.counts, [each.counts for each in repeated])


def test_the_bootstrap_takes_all_three_at_once():
    y, _, s = simulated(300)
    value, low, high = bootstrap(c.calibration_scores, y, s, resamples=200)
    assert (low < high).all() and (low[:2] < value[:2]).all() and (value[:2] < high[:2]).all()


def test_ece_of_a_perfect_model_is_not_zero_and_falls_with_the_root_of_n():
    mean = {n: c.ece_expected((np.arange(n) + .5) / n, resamples=400) for n in (100, 400, 1600)}
    assert mean[100] == pytest.approx(np.sqrt(2 / np.pi * 10 / 6) / 10, rel=.06)
    assert mean[100] / mean[400] == pytest.approx(2, rel=.08) and mean[400] / mean[1600] == pytest.approx(2, rel=.08)
    assert c.ece_expected(np.array([0, 0, 1, 1.0])) == 0                                # nothing is left to chance
    y, p, _ = simulated(500, seed=3)
    fresh = [c.ece(np.random.default_rng(seed).random(500) < p, p) for seed in range(300)]
    assert np.mean(fresh) == pytest.approx(c.ece_expected(p), rel=.06)


def test_the_test_of_ece_accuses_the_loud_and_not_the_honest():
    y, honest, loud = simulated(1000)
    assert c.ece_test(y, loud).p < .01 < .05 < c.ece_test(y, honest).p
    assert c.ece_test(y, 1 - loud, resamples=99).p == .01                                          # never 0
    test = c.ece_test(y, honest)
    assert test.value == c.ece(y, honest) and test.excess == pytest.approx(test.value - test.expected) and test.limit > test.expected
    many, p, sharp = several(1000)
    assert c.ece_test(many, sharp).p < .01 < .05 < c.ece_test(many, p).p
    rng, rejected = np.random.default_rng(5), 0
    for seed in range(300):
        p = rng.random(100)
        rejected += c.ece_test(rng.random(100) < p, p, resamples=99, seed=seed).p <= .05
    assert stats.binomtest(rejected, 300, .05).pvalue > .001


def test_the_band_holds_a_perfect_model():
    p = np.random.default_rng(0).random(400)
    low, high = c.reliability_band(p)
    inside = [((low <= (o := c.reliability_curve(np.random.default_rng(seed).random(400) < p, p).observed)) & (o <= high)).mean()
              for seed in range(200)]
    assert .94 < np.mean(inside) < .985
    assert np.isnan(c.reliability_band([.1, .15], bins=4)[0][1:]).all()


def test_line_is_logistic_regression():
    y, honest, loud = simulated(800)
    line, odds = c.calibration_line(y, loud), c.log_odds(loud)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(odds[:, None], y)
    assert line.slope.value == pytest.approx(reference.coef_.item(), abs=1e-5)
    assert line.intercept.value == pytest.approx(reference.intercept_.item(), abs=1e-5)
    mean, design = reference.predict_proba(odds[:, None])[:, 1], np.column_stack([np.ones(800), odds])
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ (design * (mean * (1 - mean))[:, None]))))
    for estimate, error in zip(line, errors, strict=True):
        assert (estimate.high - estimate.low) / 2 == pytest.approx(1.959964 * error, rel=1e-4)
    wide = c.calibration_line(y, loud, confidence=.99).slope
    assert wide.low < line.slope.low < line.slope.high < wide.high


def test_patients_with_copies_make_nobody_surer():
    y, _, loud = simulated(300)
    who = np.arange(300)
    once, copied = (c.calibration_line(np.repeat(y, k), np.repeat(loud, k), patients=np.repeat(who, k)) for k in (1, 5))
    np.testing.assert_allclose(once, copied)
    naive = c.calibration_line(np.repeat(y, 5), np.repeat(loud, 5)).slope
    assert naive.high - naive.low < .6 * (once.slope.high - once.slope.low)
    np.testing.assert_allclose(c.calibration_in_the_large(y, loud, patients=who),
                               c.calibration_in_the_large(np.repeat(y, 2), np.repeat(loud, 2), patients=np.repeat(who, 2)))


def test_the_sandwich_by_hand():
    y, _, loud = simulated(120)
    who, design = np.arange(120) // 4, np.column_stack([np.ones(120), c.log_odds(loud)])
    line = c.calibration_line(y, loud, patients=who)
    mean = c.sigmoid(design @ [line.intercept.value, line.slope.value])
    bread = np.linalg.inv(sum(m * (1 - m) * np.outer(x, x) for x, m in zip(design, mean, strict=True)))
    sums = [sum((y[i] - mean[i]) * design[i] for i in np.flatnonzero(who == g)) for g in range(30)]
    variance = bread @ sum(np.outer(each, each) for each in sums) @ bread * 30 / 29
    np.testing.assert_allclose([(e.high - e.low) / 2 for e in line], 1.959964 * np.sqrt(np.diag(variance)), rtol=1e-5)


def test_coverage_of_slope_and_in_the_large():
    held = np.zeros(3)
    for seed in range(400):
        y, honest, loud = simulated(150, seed)
        line, large = c.calibration_line(y, loud), c.calibration_in_the_large(y, honest)
        held += [line.slope.low <= .5 <= line.slope.high, line.intercept.low <= 0 <= line.intercept.high, large.low <= 0 <= large.high]
    for count in held:
        assert stats.binomtest(int(count), 400, .95).pvalue > .001


def test_in_the_large_makes_the_mean_right():
    y, _, loud = simulated(500)
    shift = c.calibration_in_the_large(y, loud).value
    assert np.mean(c.sigmoid(c.log_odds(loud) + shift)) == pytest.approx(y.mean(), abs=1e-9)


@settings(max_examples=80, deadline=None)
@given(cases)
@example((np.array([0, 1, 0, 0, 0]), np.array([.3, .30000001, .30000001, .30000001, .30000001])))
def test_no_data_break_line_or_calibrators(case):
    y, s = case
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        line, large = c.calibration_line(y, s), c.calibration_in_the_large(y, s)
        one_class = y.min() == y.max()
        assert np.isnan(large.value) == one_class
        if not one_class:
            assert np.mean(c.sigmoid(c.log_odds(s) + large.value)) == pytest.approx(y.mean(), abs=1e-6)
        if not np.isnan(line.slope.value):
            residual = y - c.sigmoid(line.intercept.value + line.slope.value * c.log_odds(s))
            assert abs(residual.sum()) < 1e-5 and abs(residual @ c.log_odds(s)) < 1e-3
        for tool in TOOLS:
            if one_class:
                with pytest.raises(ValueError, match="has no case among these"):
                    tool().fit(y, s)
                continue
            mended = tool().fit(y, s)(s)
            assert mended.shape == s.shape and (mended >= 0).all() and (mended <= 1).all()
            assert (np.diff(mended[np.argsort(s, kind="stable")]) >= -1e-12).all()                # never turns two scores round


@pytest.mark.parametrize("y, s, words", [
    ([1, 1], [.2, .9], "all cases are ill"), ([0, 0], [.2, .9], "all cases are healthy"), ([0, 1], [.4, .4], "all scores are equal"),
    ([0, 0, 1, 1], [.1, .2, .8, .9], "separates"), ([1, 0], [.1, .9], "separates"), ([1], [.5], "all cases are ill")])
def test_a_line_that_does_not_exist_says_why(y, s, words):
    with pytest.warns(c.CalibrationWarning, match=words) as said:
        assert np.isnan(c.calibration_line(y, s)).all()
    assert issubclass(said[0].category, UndefinedMetric)


def test_log_odds_of_certainty_are_finite_and_keep_the_order():
    s = np.array([0, 1e-300, 1e-30, 1e-9, .5, 1 - 1e-9, 1 - 1e-16, 1])
    odds = c.log_odds(s)
    assert np.isfinite(odds).all() and (np.diff(odds) >= 0).all() and (np.diff(odds[1:-1]) > 0).all()
    assert c.log_odds([0.0, 1.0]).tolist() == [-c.CERTAIN, c.CERTAIN]
    np.testing.assert_allclose(c.sigmoid(c.log_odds([.01, .2, .77])), [.01, .2, .77])
    assert c.sigmoid(-1e6) == 0 and c.sigmoid(1e6) == 1


@pytest.mark.parametrize("tool", [c.TemperatureScaling, c.PlattScaling])
def test_ranking_stays(tool):
    for seed in range(5):
        y, _, s = simulated(200, seed)
        s = s.round(2)                                                                            # ties, and exact 0 and 1
        assert auc(y, tool().fit(y, s)(s)) == auc(y, s)
    y, _, s = several()
    hot = c.TemperatureScaling().fit(y, s)(s)
    assert (hot.argmax(1) == s.argmax(1)).all() and np.allclose(hot.sum(1), 1)


@pytest.mark.parametrize("tool", TOOLS)
def test_calibration_helps_on_fresh_cases_and_keeps_the_shape(tool):
    (y, _, s), (fresh, _, loud) = simulated(3000, 1), simulated(3000, 2)
    fitted = tool().fit(y, s)
    assert c.brier(fresh, fitted(loud)) < c.brier(fresh, loud) - .005 and c.ece(fresh, fitted(loud)) < c.ece(fresh, loud) / 2
    np.testing.assert_allclose(fitted(np.column_stack([1 - loud, loud])), np.column_stack([1 - fitted(loud), fitted(loud)]), atol=1e-12)
    assert fitted(loud[:, None]).shape == (3000, 1) and fitted([.5]).shape == (1,)
    (y, _, s), (fresh, _, loud) = several(3000, seed=1), several(3000, seed=2)
    rows = tool().fit(y, s)(loud)
    assert rows.shape == loud.shape and np.allclose(rows.sum(1), 1) and c.ece(fresh, rows) < c.ece(fresh, loud) / 2


def test_temperature_is_the_best_there_is():
    y, _, s = several(500)
    best = c.TemperatureScaling().fit(y, s)
    powers = [s**(1 / t) for t in np.linspace(.5, 5, 200)]
    assert c.log_loss(y, best(s)) <= min(c.log_loss(y, power / power.sum(1, keepdims=True)) for power in powers) + 1e-12
    y, honest, loud = simulated(20_000)
    assert c.TemperatureScaling().fit(y, loud).temperature == pytest.approx(2, abs=.08)
    assert c.TemperatureScaling().fit(y, honest).temperature == pytest.approx(1, abs=.04)


def test_temperature_takes_certainty_back_to_where_32_bits_end():
    rng = np.random.default_rng(0)
    y, rows = np.repeat([0, 1, 2], 40), np.eye(3)[np.r_[np.repeat([0, 1, 2], 40)]]
    y[::10] = rng.integers(0, 3, 12)                                                             # some of the certain are wrong
    fitted = c.TemperatureScaling().fit(y, rows)
    wrong = np.mean(rows.argmax(1) != y)
    assert fitted(rows)[0, 0] == pytest.approx(1 - wrong, abs=1e-6)
    assert fitted.temperature == pytest.approx(c.CERTAIN / np.log(2 * (1 - wrong) / wrong), rel=1e-6)


def test_platt_is_logistic_regression_on_his_targets():
    y, _, s = simulated(300)
    odds, ill = c.log_odds(s), y.sum()
    high, low = (ill + 1) / (ill + 2), 1 / (300 - ill + 2)
    target = np.where(y == 1, high, low)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=2000).fit(
        np.tile(odds, 2)[:, None], np.repeat([1, 0], 300), sample_weight=np.r_[target, 1 - target])
    fitted = c.PlattScaling().fit(y, s)
    np.testing.assert_allclose([fitted.slope[0], fitted.intercept[0]], [reference.coef_.item(), reference.intercept_.item()], atol=1e-5)
    plain, line = c.PlattScaling(smooth=False).fit(y, s), c.calibration_line(y, s)
    np.testing.assert_allclose([plain.intercept[0], plain.slope[0]], [line.intercept.value, line.slope.value])
    targets = c.smoothed_targets(np.array([0, 0, 0, 1, 1, 2]), 3)
    np.testing.assert_allclose(targets.sum(1), 1)
    np.testing.assert_allclose(targets[[0, 3, 5], [0, 1, 2]], [4 / 5, 3 / 4, 2 / 3])


def test_isotonic_is_scikit_learns_with_ties():
    rng = np.random.default_rng(0)
    y, _, s = simulated(300)
    for score in (s, s.round(1), np.full(300, .3)):
        reference, fresh = IsotonicRegression(out_of_bounds="clip").fit(score, y), np.r_[0, 1, rng.random(500), score]
        np.testing.assert_allclose(c.IsotonicScaling().fit(y, score)(fresh), reference.predict(fresh), **EXACT)


@pytest.mark.parametrize("tool", TOOLS)
def test_separated_classes_have_an_answer(tool):
    y, s = np.repeat([0, 1], 10), np.linspace(.05, .95, 20)
    mended = tool().fit(y, s)(s)
    assert (np.diff(mended) >= 0).all() and (mended[10:] > .5).all() and (mended[:10] < .5).all()
    if tool is not c.IsotonicScaling:
        assert 0 < mended.min() and mended.max() < 1
        with pytest.raises(ValueError, match="smooth=True"):
            tool(smooth=False).fit(y, s)
        certain = tool().fit([0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0])
        assert certain([0.0])[0] < .5 < certain([1.0])[0] and .6 < certain([1.0])[0] < .9       # two cases a class: about 3/4
    y, rows = np.array([0, 1, 2, 0, 1, 2]), np.eye(3)[[0, 1, 2, 0, 1, 2]]
    assert (tool().fit(y, rows)(rows).argmax(1) == y).all()


@pytest.mark.parametrize("tool, answer", [(c.TemperatureScaling, .5), (c.PlattScaling, None)])
def test_scores_that_point_the_wrong_way_become_constant(tool, answer):
    y, _, s = simulated(200)
    with pytest.warns(c.CalibrationWarning, match="do not rise"):
        mended = tool().fit(1 - y, s)(s)
    expected = c.smoothed_targets(1 - y, 2)[:, 1].mean() if answer is None else answer
    np.testing.assert_allclose(mended, expected)
    with pytest.warns(c.CalibrationWarning, match="do not rise"):
        np.testing.assert_allclose(tool().fit([0, 1], [.5, .5])([.1, .9]), .5)


def test_calibrators_refuse():
    y, _, s = simulated(50)
    for tool in TOOLS:
        with pytest.raises(ValueError, match="has not been fitted"):
            tool()(s)
        with pytest.raises(ValueError, match="class 2 has no case"):
            tool().fit([0, 1, 0], np.full((3, 3), 1 / 3))
        with pytest.raises(ValueError, match="each label by itself"):
            tool().fit(np.eye(2, dtype=int), np.full((2, 2), .5))
        fitted = tool().fit(y, s)
        with pytest.raises(ValueError, match="3 classes"):
            fitted(np.full((2, 3), 1 / 3))
        for wrong in (1.2, -.1, np.nan):
            with pytest.raises(ValueError, match="give probabilities|NaN"):
                fitted([wrong, .5])
    assert tool().fit(y, s) is not None and tool().fit(y, s).fit(y, s)([.5]).shape == (1,)       # fitted anew


def test_prior_correction_carries_the_bayes_scorer_exactly():
    rng = np.random.default_rng(0)
    x, centres = rng.normal(.5, 2, 20_000), np.array([0, 1.5, -2])

    def bayes(priors):
        joint = np.asarray(priors) * stats.norm.pdf(x[:, None], centres[:len(priors)])
        return joint / joint.sum(1, keepdims=True)

    for trained, used in itertools.permutations(([.5, .5], [.98, .02], [.1, .9]), 2):
        expected = bayes(used)
        np.testing.assert_allclose(c.prior_correction(bayes(trained), trained_on=trained, used_on=used), expected, **EXACT)
        one_column = c.prior_correction(bayes(trained)[:, 1], trained_on=trained[1], used_on=used[1])
        np.testing.assert_allclose(one_column, expected[:, 1], **EXACT)
    corrected = c.prior_correction(bayes([1 / 3] * 3), trained_on=[1 / 3] * 3, used_on=[.9, .08, .02])
    np.testing.assert_allclose(corrected, bayes([.9, .08, .02]), **EXACT)


shares = st.lists(st.floats(.01, 1), min_size=3, max_size=3).map(lambda w: np.array(w) / sum(w))


@settings(max_examples=50, deadline=None)
@given(shares, shares, shares, st.integers(0, 1000))
def test_prior_corrections_compose_and_undo(first, second, third, seed):
    s = np.random.default_rng(seed).dirichlet([.3, .3, .3], 20)
    there = c.prior_correction(s, trained_on=first, used_on=second)
    np.testing.assert_allclose(c.prior_correction(there, trained_on=second, used_on=third),
                               c.prior_correction(s, trained_on=first, used_on=third), **EXACT)
    np.testing.assert_allclose(c.prior_correction(there, trained_on=second, used_on=first), s, **EXACT)
    np.testing.assert_allclose(c.prior_correction(s, trained_on=first, used_on=first), s, **EXACT)
    two = s[:, 0]
    moved = c.prior_correction(two, trained_on=first[0], used_on=second[0])
    assert (np.diff(moved[np.argsort(two)]) >= 0).all() and moved.shape == two.shape


def test_certainty_survives_prior_correction():
    assert c.prior_correction([0.0, 1.0], trained_on=.5, used_on=.01).tolist() == [0, 1]


@pytest.mark.parametrize("options, words", [
    ({"trained_on": 0, "used_on": .1}, "trained_on=.*above 0"), ({"trained_on": .5, "used_on": 0}, "used_on=.*above 0"),
    ({"trained_on": .5, "used_on": 1}, "used_on"), ({"trained_on": 1.5, "used_on": .5}, "trained_on"),
    ({"trained_on": [.5, .4], "used_on": .1}, "sum to 1"), ({"trained_on": [.3, .3, .4], "used_on": .1}, "shape"),
    ({"trained_on": np.nan, "used_on": .1}, "above 0")])
def test_priors_that_are_none_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        c.prior_correction([.2, .8], **options)
    with pytest.raises(ValueError, match="shape"):
        c.prior_correction(np.full((2, 3), 1 / 3), trained_on=.5, used_on=.5)


def test_weights_are_a_prior():
    assert c.weighted_prior(.05, [1, 19]) == pytest.approx(.5) and c.weighted_prior([.2, .8], [4, 1]).tolist() == pytest.approx([.5, .5])
    for wrong in ([1, 0], [1], [1, np.inf], 3):
        with pytest.raises(ValueError, match="weights"):
            c.weighted_prior(.5, wrong)
    rng = np.random.default_rng(0)
    y = (rng.random(60_000) < .05).astype(int)
    x = rng.normal(y * 1.5, 1)[:, None]
    plain, weighted = (LogisticRegression(C=np.inf, class_weight=weights, tol=1e-8).fit(x, y).predict_proba(x)[:, 1]
                       for weights in (None, {0: 1, 1: 19}))
    mended = c.prior_correction(weighted, trained_on=c.weighted_prior(y.mean(), [1, 19]), used_on=y.mean())
    assert c.ece(y, mended) < c.ece(y, weighted) / 20 and np.abs(mended - plain).max() < .03


def test_em_finds_the_prevalence():
    rng, truth = np.random.default_rng(0), np.array([.7, .2, .1])
    y = rng.choice(3, 20_000, p=truth)
    x = rng.normal(np.array([0, 2, 4])[y], 1)
    joint = stats.norm.pdf(x[:, None], [0, 2, 4]) / 3
    s = joint / joint.sum(1, keepdims=True)
    found = c.estimate_prior(s, trained_on=[1 / 3] * 3)
    np.testing.assert_allclose(found, truth, atol=.015)
    again = c.prior_correction(s, trained_on=[1 / 3] * 3, used_on=found)
    np.testing.assert_allclose(again.mean(0), found, atol=1e-8)                                    # the likelihood's summit
    assert isinstance(c.estimate_prior(s[:, 0], trained_on=.3), float)
    uneven = c.prior_correction(s, trained_on=[1 / 3] * 3, used_on=[.1, .3, .6])
    np.testing.assert_allclose(c.estimate_prior(uneven, trained_on=[.1, .3, .6]), found, atol=1e-6)
    with pytest.warns(c.CalibrationWarning, match="still moves"):
        c.estimate_prior(s, trained_on=[1 / 3] * 3, steps=2)


@pytest.mark.parametrize("function", [
    c.brier, c.log_loss, c.ece, c.ece_test, c.reliability_curve, c.brier_decomposition, c.calibration_line, c.calibration_in_the_large,
    c.plot_reliability], ids=lambda function: function.__name__)
def test_faulty_scores_are_refused(function):
    for s, words in (([.2, 1.2], "0.2 to 1.2"), ([-.1, .5], "-0.1 to 0.5"), ([.2, np.nan], "NaN"), ([.2, np.inf], "NaN or infinite"),
                     ([.2], "y_true has shape"), ([[.2, .2], [.5, .5]], "rows that sum to")):
        with pytest.raises(ValueError, match=words):
            function([0, 1], s)
    with pytest.raises(ValueError, match="y_true|y_score"):
        function([0, 3], [.2, .5])


def test_faulty_options_are_refused():
    for options, words in (({"bins": 0}, "bins=0"), ({"bins": 2.5}, "bins=2.5"), ({"strategy": "deciles"}, "strategy='deciles'")):
        for function in (c.ece, c.reliability_curve, c.brier_decomposition, c.reliability_intervals):
            with pytest.raises(ValueError, match=words):
                function([0, 1], [.2, .8], **options)
    with pytest.raises(ValueError, match="takes one class"):
        c.reliability_curve([0, 1, 2], np.full((3, 3), 1 / 3))
    with pytest.raises(ValueError, match="one label at a time"):
        c.ece_test(np.eye(2, dtype=int), np.full((2, 2), .5))
    with pytest.raises(ValueError, match="rows that sum to"):
        c.brier([0, 1, 2], np.full((3, 3), .5))
    with pytest.raises(ValueError, match="resamples=0"):
        c.perfect_ece([.5], resamples=0)
    with pytest.raises(ValueError, match="confidence"):
        c.reliability_band([.5], confidence=95)
    with pytest.raises(ValueError, match="weights"):
        c.ece([0, 1], [.2, .8], weights=[1, -1])


def test_wilson_in_every_bin():
    low, high = c.reliability_intervals([0, 0, 1, 0, 1, 1], [.1, .2, .3, .7, .8, .9], bins=3)
    np.testing.assert_allclose([low[0], high[0]], wilson(1, 3)[1:])
    assert np.isnan([low[1], high[1]]).all()


def test_intervals_by_patient_hold_what_they_promise():
    rng, y, s, codes = np.random.default_rng(3), *(np.repeat(each, 6) for each in (*simulated(400)[::2], np.arange(400)))
    once, cases, patients = (np.array(c.reliability_intervals(y[rows], s[rows], patients=who))
                             for rows, who in ((slice(None, None, 6), None), (slice(None), None), (slice(None), codes)))
    wide = [np.nanmean(high - low) for low, high in (once, cases, patients)]
    assert wide[1] < 0.6 * wide[0] and wide[2] == pytest.approx(wide[0], rel=0.1)
    np.testing.assert_allclose(c.reliability_intervals(y[::6], s[::6], patients=codes[::6]), once, rtol=0.1, atol=0.01)
    held = []
    owner = np.repeat(np.arange(60), 5)
    for _ in range(300):                                              # 60 patients of 5 images, whose own risk is 0 or 0.6, all told 0.3
        ill = rng.random((60, 5)) < 0.6 * rng.integers(0, 2, (60, 1))
        ends = [c.reliability_intervals(ill.ravel(), np.full(300, 0.3), bins=1, patients=who) for who in (owner, None)]
        held.append([low[0] <= 0.3 <= high[0] for low, high in ends])
    assert 0.92 <= np.mean(held, axis=0)[0] and np.mean(held, axis=0)[1] < 0.85
    with pytest.raises(ValueError, match="one patient a case"):
        c.reliability_intervals([0, 1], [0.2, 0.8], patients=["a"])


def test_a_diagram_is_drawn():
    import matplotlib.pyplot as plt

    y, _, s = simulated(100)
    ax = c.plot_reliability(y, s, strategy="count")
    curve = c.reliability_curve(y, s, strategy="count")
    np.testing.assert_allclose(np.array([line.get_xydata() for line in ax.lines if len(line.get_xydata()) == 10][0])[:, 1], curve.observed)
    assert c.plot_reliability(y, s, ax=ax) is ax
    by_patient = c.plot_reliability(y, s, patients=np.arange(len(y)) // 2)
    assert "perfect model" in ax.get_legend_handles_labels()[1]
    assert "perfect model" not in by_patient.get_legend_handles_labels()[1]       # the band holds for independent cases alone
    plt.close("all")


def test_a_constant_is_calibrated_and_useless():
    y = np.repeat([0, 1], [30, 10])
    parts = c.brier_decomposition(y, np.full(40, .25))
    assert c.ece(y, np.full(40, .25)) == 0 and parts.reliability == 0 and parts.resolution == 0 and parts.uncertainty == .1875


def test_real_radiographs_by_a_small_model(shared):
    with np.load(shared / "medmnist" / "pneumoniamnist.npz") as data:
        x = {part: data[f"{part}_images"].reshape(len(data[f"{part}_images"]), -1)[::3, ::29] / 255 for part in ("train", "val", "test")}
        y = {part: data[f"{part}_labels"].ravel()[::3].astype(int) for part in ("train", "val", "test")}
    model = LogisticRegression(class_weight={0: 20, 1: 1}, max_iter=300).fit(x["train"], y["train"])
    valid, test = (model.predict_proba(x[part])[:, 1] for part in ("val", "test"))
    prior = y["train"].mean()
    corrected = c.prior_correction(valid, trained_on=c.weighted_prior(prior, [20, 1]), used_on=prior)
    assert c.ece(y["val"], corrected) < c.ece(y["val"], valid) / 2
    for tool in TOOLS:
        fitted = tool().fit(y["val"], valid)
        assert c.log_loss(y["val"], fitted(valid)) < c.log_loss(y["val"], valid) and fitted(test).shape == test.shape


def test_import_is_light():
    heavy = "'keras', 'tensorflow', 'matplotlib', 'sklearn', 'pandas'"
    code = f"import sys, medbook.evaluation.calibration; print([name for name in ({heavy}) if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
