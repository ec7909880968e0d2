import numpy as np
import pytest
from scipy import stats
from sklearn.linear_model import LogisticRegression

from medbook.evaluation import calibration_slope as slope
from medbook.evaluation.cases import UndefinedMetric
from tests.calibration_samples import simulated


def test_line_is_logistic_regression():
    y, honest, loud = simulated(800)
    line = slope.calibration_line(y, loud)
    odds = slope.log_odds(loud)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=1000).fit(odds[:, None], y)
    assert line.slope.value == pytest.approx(reference.coef_.item(), abs=1e-5)
    assert line.intercept.value == pytest.approx(reference.intercept_.item(), abs=1e-5)
    mean = reference.predict_proba(odds[:, None])[:, 1]
    design = np.column_stack([np.ones(800), odds])
    errors = np.sqrt(np.diag(np.linalg.inv(design.T @ (design * (mean * (1 - mean))[:, None]))))
    for estimate, error in zip(line, errors, strict=True):
        assert (estimate.high - estimate.low) / 2 == pytest.approx(1.959964 * error, rel=1e-4)
    wide = slope.calibration_line(y, loud, confidence=0.99).slope
    assert wide.low < line.slope.low < line.slope.high < wide.high


def test_patients_with_copies_make_nobody_surer():
    y, _, loud = simulated(300)
    who = np.arange(300)
    once, copied = (
        slope.calibration_line(np.repeat(y, k), np.repeat(loud, k), patients=np.repeat(who, k))
        for k in (1, 5)
    )
    np.testing.assert_allclose(once, copied)
    naive = slope.calibration_line(np.repeat(y, 5), np.repeat(loud, 5)).slope
    assert naive.high - naive.low < 0.6 * (once.slope.high - once.slope.low)
    np.testing.assert_allclose(
        slope.calibration_in_the_large(y, loud, patients=who),
        slope.calibration_in_the_large(
            np.repeat(y, 2), np.repeat(loud, 2), patients=np.repeat(who, 2)
        ),
    )


def test_the_sandwich_by_hand():
    y, _, loud = simulated(120)
    who = np.arange(120) // 4
    design = np.column_stack([np.ones(120), slope.log_odds(loud)])
    line = slope.calibration_line(y, loud, patients=who)
    mean = slope.sigmoid(design @ [line.intercept.value, line.slope.value])
    bread = np.linalg.inv(
        sum(m * (1 - m) * np.outer(x, x) for x, m in zip(design, mean, strict=True))
    )
    sums = [sum((y[i] - mean[i]) * design[i] for i in np.flatnonzero(who == g)) for g in range(30)]
    variance = bread @ sum(np.outer(each, each) for each in sums) @ bread * 30 / 29
    np.testing.assert_allclose(
        [(e.high - e.low) / 2 for e in line], 1.959964 * np.sqrt(np.diag(variance)), rtol=1e-5
    )


def test_coverage_of_slope_and_in_the_large():
    held = np.zeros(3)
    for seed in range(400):
        y, honest, loud = simulated(150, seed)
        line = slope.calibration_line(y, loud)
        large = slope.calibration_in_the_large(y, honest)
        held += [
            line.slope.low <= 0.5 <= line.slope.high,
            line.intercept.low <= 0 <= line.intercept.high,
            large.low <= 0 <= large.high,
        ]
    for count in held:
        assert stats.binomtest(int(count), 400, 0.95).pvalue > 0.001


def test_in_the_large_makes_the_mean_right():
    y, _, loud = simulated(500)
    shift = slope.calibration_in_the_large(y, loud).value
    assert np.mean(slope.sigmoid(slope.log_odds(loud) + shift)) == pytest.approx(y.mean(), abs=1e-9)


@pytest.mark.parametrize(
    "y, s, words",
    [
        ([1, 1], [0.2, 0.9], "all cases are ill"),
        ([0, 0], [0.2, 0.9], "all cases are healthy"),
        ([0, 1], [0.4, 0.4], "all scores are equal"),
        ([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9], "separates"),
        ([1, 0], [0.1, 0.9], "separates"),
        ([1], [0.5], "all cases are ill"),
    ],
)
def test_a_line_that_does_not_exist_says_why(y, s, words):
    with pytest.warns(slope.CalibrationWarning, match=words) as said:
        assert np.isnan(slope.calibration_line(y, s)).all()
    assert issubclass(said[0].category, UndefinedMetric)


def test_log_odds_of_certainty_are_finite_and_keep_the_order():
    s = np.array([0, 1e-300, 1e-30, 1e-9, 0.5, 1 - 1e-9, 1 - 1e-16, 1])
    odds = slope.log_odds(s)
    assert (
        np.isfinite(odds).all() and (np.diff(odds) >= 0).all() and (np.diff(odds[1:-1]) > 0).all()
    )
    assert slope.log_odds([0.0, 1.0]).tolist() == [-slope.CERTAIN, slope.CERTAIN]
    np.testing.assert_allclose(slope.sigmoid(slope.log_odds([0.01, 0.2, 0.77])), [0.01, 0.2, 0.77])
    assert slope.sigmoid(-1e6) == 0 and slope.sigmoid(1e6) == 1
