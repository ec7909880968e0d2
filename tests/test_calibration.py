import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as library
from sklearn.calibration import calibration_curve

from medbook.evaluation import calibration
from medbook.evaluation import calibration_slope as slope
from medbook.evaluation.intervals import wilson
from medbook.evaluation.resampling import bootstrap
from tests.calibration_samples import EXACT, STRATEGIES, bins_, cases, several, simulated


@settings(max_examples=60, deadline=None)
@given(cases)
def test_brier_and_log_loss_are_scikit_learns(case):
    y, s = case
    np.testing.assert_allclose(calibration.brier(y, s), np.mean((y - s) ** 2), **EXACT)
    np.testing.assert_allclose(
        calibration.log_loss(y, s), library.log_loss(y, s, labels=[0, 1]), **EXACT
    )
    if 0 < y.sum() < len(y):
        np.testing.assert_allclose(calibration.brier(y, s), library.brier_score_loss(y, s), **EXACT)
    two = np.column_stack([1 - s, s])
    for metric in (calibration.brier, calibration.log_loss, calibration.ece):
        np.testing.assert_allclose(metric(y, two), metric(y, s), **EXACT)


@settings(max_examples=60, deadline=None)
@given(cases, bins_, st.sampled_from(list(STRATEGIES)))
def test_reliability_curve_is_scikit_learns(case, bins, strategy):
    y, s = case
    curve = calibration.reliability_curve(y, s, bins=bins, strategy=strategy)
    observed, predicted = calibration_curve(
        y, s, n_bins=bins, strategy=STRATEGIES[strategy], pos_label=1
    )
    full = curve.counts > 0
    np.testing.assert_allclose(curve.observed[full], observed, **EXACT)
    np.testing.assert_allclose(curve.predicted[full], predicted, **EXACT)
    assert (
        curve.counts.sum() == len(y)
        and len(curve.edges) == bins + 1
        and np.isnan(curve.observed[~full]).all()
    )
    low, high = calibration.reliability_intervals(y, s, bins=bins, strategy=strategy)
    assert (
        (low[full] <= curve.observed[full]).all()
        and (curve.observed[full] <= high[full]).all()
        and (low[full] < high[full]).all()
    )


@settings(max_examples=60, deadline=None)
@given(cases, bins_, st.sampled_from(list(STRATEGIES)))
def test_ece_is_its_definition_and_the_decomposition_is_exact(case, bins, strategy):
    y, s = case
    curve = calibration.reliability_curve(y, s, bins=bins, strategy=strategy)
    full = curve.counts > 0
    slow = np.sum(curve.counts[full] * np.abs(curve.observed - curve.predicted)[full]) / len(y)
    np.testing.assert_allclose(calibration.ece(y, s, bins=bins, strategy=strategy), slow, **EXACT)
    parts = calibration.brier_decomposition(y, s, bins=bins, strategy=strategy)
    total = (
        parts.reliability
        - parts.resolution
        + parts.uncertainty
        + parts.within_variance
        - parts.within_covariance
    )
    np.testing.assert_allclose(total, calibration.brier(y, s), **EXACT)
    assert min(parts[:4]) >= -1e-15 and parts.uncertainty == pytest.approx(
        y.mean() * (1 - y.mean())
    )


def test_many_classes_are_scikit_learns():
    y, _, s = several()
    assert (
        abs(calibration.brier(y, s) - library.brier_score_loss(y, s)) < 1e-12
        and abs(calibration.log_loss(y, s) - library.log_loss(y, s)) < 1e-12
    )
    right = s.argmax(1) == y
    largest = s.max(1)
    assert (
        abs(calibration.ece(y, s, bins=7) - calibration.ece(right.astype(int), largest, bins=7))
        < 1e-12
    )
    zero = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1.0]])
    assert (
        abs(
            calibration.log_loss([0, 1, 0], zero)
            - library.log_loss([0, 1, 0], zero, labels=[0, 1, 2])
        )
        < 1e-12
    )
    assert calibration.brier([0, 1, 2], zero) == 0 and calibration.brier([1, 2, 0], zero) == 2


def test_many_labels_are_the_mean_over_labels():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, (200, 3))
    s = rng.random((200, 3))
    for metric in (calibration.brier, calibration.log_loss, calibration.ece):
        assert metric(y, s) == pytest.approx(
            np.mean([metric(y[:, k], s[:, k]) for k in range(3)]), abs=1e-12
        )


@pytest.mark.parametrize(
    "y, s", [simulated(150)[::2], several(150)[::2]], ids=["two classes", "four classes"]
)
def test_weights_repeat_cases(y, s):
    w = np.random.default_rng(1).integers(0, 4, (5, len(y)))
    for metric in (
        calibration.brier,
        calibration.log_loss,
        calibration.calibration_scores,
        calibration.ece,
    ):
        repeated = [metric(np.repeat(y, row), np.repeat(s, row, axis=0)) for row in w]
        np.testing.assert_allclose(metric(y, s, weights=w), repeated, **EXACT)
        np.testing.assert_allclose(metric(y, s, weights=w[0]), repeated[0], **EXACT)
        np.testing.assert_allclose(metric(y, s, weights=np.ones(len(y))), metric(y, s), **EXACT)
    np.testing.assert_allclose(
        calibration.calibration_scores(y, s),
        [calibration.brier(y, s), calibration.log_loss(y, s), calibration.ece(y, s)],
        **EXACT,
    )
    assert (
        np.isnan(calibration.brier(y, s, weights=np.zeros(len(y))))
        and np.isnan(calibration.ece(y, s, weights=np.zeros((2, len(y))))).all()
    )


def test_weights_repeat_cases_in_the_decomposition_and_the_curve():
    y, _, s = simulated(200)
    w = np.random.default_rng(1).integers(0, 4, (3, 200))
    for strategy in STRATEGIES:
        parts = np.array(calibration.brier_decomposition(y, s, strategy=strategy, weights=w))
        np.testing.assert_allclose(
            [1, -1, 1, 1, -1] @ parts, calibration.brier(y, s, weights=w), **EXACT
        )
    curve = calibration.reliability_curve(y, s, weights=w)
    repeated = [calibration.reliability_curve(np.repeat(y, row), np.repeat(s, row)) for row in w]
    np.testing.assert_allclose(curve.observed, [each.observed for each in repeated], **EXACT)
    np.testing.assert_allclose(curve.counts, [each.counts for each in repeated])


def test_the_bootstrap_takes_all_three_at_once():
    y, _, s = simulated(300)
    value, low, high = bootstrap(calibration.calibration_scores, y, s, resamples=200)
    assert (low < high).all() and (low[:2] < value[:2]).all() and (value[:2] < high[:2]).all()


def test_ece_of_a_perfect_model_is_not_zero_and_falls_with_the_root_of_n():
    mean = {
        n: calibration.ece_expected((np.arange(n) + 0.5) / n, resamples=400)
        for n in (100, 400, 1600)
    }
    assert mean[100] == pytest.approx(np.sqrt(2 / np.pi * 10 / 6) / 10, rel=0.06)
    assert mean[100] / mean[400] == pytest.approx(2, rel=0.08) and mean[400] / mean[
        1600
    ] == pytest.approx(2, rel=0.08)
    assert calibration.ece_expected(np.array([0, 0, 1, 1.0])) == 0  # nothing is left to chance
    y, p, _ = simulated(500, seed=3)
    fresh = [calibration.ece(np.random.default_rng(seed).random(500) < p, p) for seed in range(300)]
    assert np.mean(fresh) == pytest.approx(calibration.ece_expected(p), rel=0.06)


def test_the_test_of_ece_accuses_the_loud_and_not_the_honest():
    y, honest, loud = simulated(1000)
    assert calibration.ece_test(y, loud).p < 0.01 < 0.05 < calibration.ece_test(y, honest).p
    assert calibration.ece_test(y, 1 - loud, resamples=99).p == 0.01  # never 0
    test = calibration.ece_test(y, honest)
    assert (
        test.value == calibration.ece(y, honest)
        and test.excess == pytest.approx(test.value - test.expected)
        and test.limit > test.expected
    )
    many, p, sharp = several(1000)
    assert calibration.ece_test(many, sharp).p < 0.01 < 0.05 < calibration.ece_test(many, p).p
    rng = np.random.default_rng(5)
    rejected = 0
    for seed in range(300):
        p = rng.random(100)
        rejected += calibration.ece_test(rng.random(100) < p, p, resamples=99, seed=seed).p <= 0.05
    assert stats.binomtest(rejected, 300, 0.05).pvalue > 0.001


def test_the_band_holds_a_perfect_model():
    p = np.random.default_rng(0).random(400)
    low, high = calibration.reliability_band(p)
    inside = [
        (
            (
                low
                <= (
                    o := calibration.reliability_curve(
                        np.random.default_rng(seed).random(400) < p, p
                    ).observed
                )
            )
            & (o <= high)
        ).mean()
        for seed in range(200)
    ]
    assert 0.94 < np.mean(inside) < 0.985
    assert np.isnan(calibration.reliability_band([0.1, 0.15], bins=4)[0][1:]).all()


@pytest.mark.parametrize(
    "function",
    [
        calibration.brier,
        calibration.log_loss,
        calibration.ece,
        calibration.ece_test,
        calibration.reliability_curve,
        calibration.brier_decomposition,
        slope.calibration_line,
        slope.calibration_in_the_large,
        calibration.plot_reliability,
    ],
    ids=lambda function: function.__name__,
)
def test_faulty_scores_are_refused(function):
    for s, words in (
        ([0.2, 1.2], "0.2 to 1.2"),
        ([-0.1, 0.5], "-0.1 to 0.5"),
        ([0.2, np.nan], "NaN"),
        ([0.2, np.inf], "NaN or infinite"),
        ([0.2], "y_true has shape"),
        ([[0.2, 0.2], [0.5, 0.5]], "rows that sum to"),
    ):
        with pytest.raises(ValueError, match=words):
            function([0, 1], s)
    with pytest.raises(ValueError, match="y_true|y_score"):
        function([0, 3], [0.2, 0.5])


def test_faulty_options_are_refused():
    for options, words in (
        ({"bins": 0}, "bins=0"),
        ({"bins": 2.5}, "bins=2.5"),
        ({"strategy": "deciles"}, "strategy='deciles'"),
    ):
        for function in (
            calibration.ece,
            calibration.reliability_curve,
            calibration.brier_decomposition,
            calibration.reliability_intervals,
        ):
            with pytest.raises(ValueError, match=words):
                function([0, 1], [0.2, 0.8], **options)
    with pytest.raises(ValueError, match="takes one class"):
        calibration.reliability_curve([0, 1, 2], np.full((3, 3), 1 / 3))
    with pytest.raises(ValueError, match="one label at a time"):
        calibration.ece_test(np.eye(2, dtype=int), np.full((2, 2), 0.5))
    with pytest.raises(ValueError, match="rows that sum to"):
        calibration.brier([0, 1, 2], np.full((3, 3), 0.5))
    with pytest.raises(ValueError, match="resamples=0"):
        calibration.perfect_ece([0.5], resamples=0)
    with pytest.raises(ValueError, match="confidence"):
        calibration.reliability_band([0.5], confidence=95)
    with pytest.raises(ValueError, match="weights"):
        calibration.ece([0, 1], [0.2, 0.8], weights=[1, -1])


def test_wilson_in_every_bin():
    low, high = calibration.reliability_intervals(
        [0, 0, 1, 0, 1, 1], [0.1, 0.2, 0.3, 0.7, 0.8, 0.9], bins=3
    )
    np.testing.assert_allclose([low[0], high[0]], wilson(1, 3)[1:])
    assert np.isnan([low[1], high[1]]).all()


def test_intervals_by_patient_hold_what_they_promise():
    rng, y, s, codes = (
        np.random.default_rng(3),
        *(np.repeat(each, 6) for each in (*simulated(400)[::2], np.arange(400))),
    )
    once, cases, patients = (
        np.array(calibration.reliability_intervals(y[rows], s[rows], patients=who))
        for rows, who in ((slice(None, None, 6), None), (slice(None), None), (slice(None), codes))
    )
    wide = [np.nanmean(high - low) for low, high in (once, cases, patients)]
    assert wide[1] < 0.6 * wide[0] and wide[2] == pytest.approx(wide[0], rel=0.1)
    np.testing.assert_allclose(
        calibration.reliability_intervals(y[::6], s[::6], patients=codes[::6]),
        once,
        rtol=0.1,
        atol=0.01,
    )
    held = []
    owner = np.repeat(np.arange(60), 5)
    for _ in range(300):  # 60 patients of 5 images, whose own risk is 0 or 0.6, all told 0.3
        ill = rng.random((60, 5)) < 0.6 * rng.integers(0, 2, (60, 1))
        ends = [
            calibration.reliability_intervals(ill.ravel(), np.full(300, 0.3), bins=1, patients=who)
            for who in (owner, None)
        ]
        held.append([low[0] <= 0.3 <= high[0] for low, high in ends])
    assert 0.92 <= np.mean(held, axis=0)[0] and np.mean(held, axis=0)[1] < 0.85
    with pytest.raises(ValueError, match="one patient a case"):
        calibration.reliability_intervals([0, 1], [0.2, 0.8], patients=["a"])


def test_a_diagram_is_drawn():
    import matplotlib.pyplot as plt

    y, _, s = simulated(100)
    ax = calibration.plot_reliability(y, s, strategy="count")
    curve = calibration.reliability_curve(y, s, strategy="count")
    np.testing.assert_allclose(
        np.array([line.get_xydata() for line in ax.lines if len(line.get_xydata()) == 10][0])[:, 1],
        curve.observed,
    )
    assert calibration.plot_reliability(y, s, ax=ax) is ax
    by_patient = calibration.plot_reliability(y, s, patients=np.arange(len(y)) // 2)
    assert "perfect model" in ax.get_legend_handles_labels()[1]
    assert (
        "perfect model" not in by_patient.get_legend_handles_labels()[1]
    )  # the band holds for independent cases alone
    plt.close("all")


def test_a_constant_is_calibrated_and_useless():
    y = np.repeat([0, 1], [30, 10])
    parts = calibration.brier_decomposition(y, np.full(40, 0.25))
    assert (
        calibration.ece(y, np.full(40, 0.25)) == 0
        and parts.reliability == 0
        and parts.resolution == 0
        and parts.uncertainty == 0.1875
    )


def test_import_is_light():
    heavy = "'keras', 'tensorflow', 'matplotlib', 'sklearn', 'pandas'"
    code = (
        f"import sys, medbook.evaluation.recalibration; "
        f"print([name for name in ({heavy}) if name in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
