import itertools
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from medbook.evaluation import calibration, recalibration
from medbook.evaluation import calibration_slope as slope
from medbook.evaluation.ranking import auc
from tests.calibration_samples import EXACT, TOOLS, cases, several, simulated


shares = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda w: np.array(w) / sum(w))


@settings(max_examples=80, deadline=None)
@given(cases)
@example(
    (np.array([0, 1, 0, 0, 0]), np.array([0.3, 0.30000001, 0.30000001, 0.30000001, 0.30000001]))
)
def test_no_data_break_line_or_calibrators(case):
    y, s = case
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        warnings.simplefilter("ignore", UserWarning)
        line = slope.calibration_line(y, s)
        large = slope.calibration_in_the_large(y, s)
        one_class = y.min() == y.max()
        assert np.isnan(large.value) == one_class
        if not one_class:
            assert np.mean(slope.sigmoid(slope.log_odds(s) + large.value)) == pytest.approx(
                y.mean(), abs=1e-6
            )
        if not np.isnan(line.slope.value):
            residual = y - slope.sigmoid(
                line.intercept.value + line.slope.value * slope.log_odds(s)
            )
            assert abs(residual.sum()) < 1e-5 and abs(residual @ slope.log_odds(s)) < 1e-3
        for tool in TOOLS:
            if one_class:
                with pytest.raises(ValueError, match="has no case among these"):
                    tool().fit(y, s)
                continue
            mended = tool().fit(y, s)(s)
            assert mended.shape == s.shape and (mended >= 0).all() and (mended <= 1).all()
            assert (
                np.diff(mended[np.argsort(s, kind="stable")]) >= -1e-12
            ).all()  # never turns two scores round


@pytest.mark.parametrize("tool", [recalibration.TemperatureScaling, recalibration.PlattScaling])
def test_ranking_stays(tool):
    for seed in range(5):
        y, _, s = simulated(200, seed)
        s = s.round(2)  # ties, and exact 0 and 1
        assert auc(y, tool().fit(y, s)(s)) == auc(y, s)
    y, _, s = several()
    hot = recalibration.TemperatureScaling().fit(y, s)(s)
    assert (hot.argmax(1) == s.argmax(1)).all() and np.allclose(hot.sum(1), 1)


@pytest.mark.parametrize("tool", TOOLS)
def test_calibration_helps_on_fresh_cases_and_keeps_the_shape(tool):
    (y, _, s) = simulated(3000, 1)
    (fresh, _, loud) = simulated(3000, 2)
    fitted = tool().fit(y, s)
    assert (
        calibration.brier(fresh, fitted(loud)) < calibration.brier(fresh, loud) - 0.005
        and calibration.ece(fresh, fitted(loud)) < calibration.ece(fresh, loud) / 2
    )
    np.testing.assert_allclose(
        fitted(np.column_stack([1 - loud, loud])),
        np.column_stack([1 - fitted(loud), fitted(loud)]),
        atol=1e-12,
    )
    assert fitted(loud[:, None]).shape == (3000, 1) and fitted([0.5]).shape == (1,)
    (y, _, s) = several(3000, seed=1)
    (fresh, _, loud) = several(3000, seed=2)
    rows = tool().fit(y, s)(loud)
    assert (
        rows.shape == loud.shape
        and np.allclose(rows.sum(1), 1)
        and calibration.ece(fresh, rows) < calibration.ece(fresh, loud) / 2
    )


def test_temperature_is_the_best_there_is():
    y, _, s = several(500)
    best = recalibration.TemperatureScaling().fit(y, s)
    powers = [s ** (1 / t) for t in np.linspace(0.5, 5, 200)]
    assert (
        calibration.log_loss(y, best(s))
        <= min(calibration.log_loss(y, power / power.sum(1, keepdims=True)) for power in powers)
        + 1e-12
    )
    y, honest, loud = simulated(20_000)
    assert recalibration.TemperatureScaling().fit(y, loud).temperature == pytest.approx(2, abs=0.08)
    assert recalibration.TemperatureScaling().fit(y, honest).temperature == pytest.approx(
        1, abs=0.04
    )


def test_temperature_takes_certainty_back_to_where_32_bits_end():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, 2], 40)
    rows = np.eye(3)[np.r_[np.repeat([0, 1, 2], 40)]]
    y[::10] = rng.integers(0, 3, 12)  # some of the certain are wrong
    fitted = recalibration.TemperatureScaling().fit(y, rows)
    wrong = np.mean(rows.argmax(1) != y)
    assert fitted(rows)[0, 0] == pytest.approx(1 - wrong, abs=1e-6)
    assert fitted.temperature == pytest.approx(
        slope.CERTAIN / np.log(2 * (1 - wrong) / wrong), rel=1e-6
    )


def test_platt_is_logistic_regression_on_his_targets():
    y, _, s = simulated(300)
    odds = slope.log_odds(s)
    ill = y.sum()
    high = (ill + 1) / (ill + 2)
    low = 1 / (300 - ill + 2)
    target = np.where(y == 1, high, low)
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=2000).fit(
        np.tile(odds, 2)[:, None], np.repeat([1, 0], 300), sample_weight=np.r_[target, 1 - target]
    )
    fitted = recalibration.PlattScaling().fit(y, s)
    np.testing.assert_allclose(
        [fitted.slope[0], fitted.intercept[0]],
        [reference.coef_.item(), reference.intercept_.item()],
        atol=1e-5,
    )
    plain = recalibration.PlattScaling(smooth=False).fit(y, s)
    line = slope.calibration_line(y, s)
    np.testing.assert_allclose(
        [plain.intercept[0], plain.slope[0]], [line.intercept.value, line.slope.value]
    )
    targets = recalibration.smoothed_targets(np.array([0, 0, 0, 1, 1, 2]), 3)
    np.testing.assert_allclose(targets.sum(1), 1)
    np.testing.assert_allclose(targets[[0, 3, 5], [0, 1, 2]], [4 / 5, 3 / 4, 2 / 3])


def test_isotonic_is_scikit_learns_with_ties():
    rng = np.random.default_rng(0)
    y, _, s = simulated(300)
    for score in (s, s.round(1), np.full(300, 0.3)):
        reference = IsotonicRegression(out_of_bounds="clip").fit(score, y)
        fresh = np.r_[0, 1, rng.random(500), score]
        np.testing.assert_allclose(
            recalibration.IsotonicScaling().fit(y, score)(fresh), reference.predict(fresh), **EXACT
        )


@pytest.mark.parametrize("tool", TOOLS)
def test_separated_classes_have_an_answer(tool):
    y = np.repeat([0, 1], 10)
    s = np.linspace(0.05, 0.95, 20)
    mended = tool().fit(y, s)(s)
    assert (np.diff(mended) >= 0).all() and (mended[10:] > 0.5).all() and (mended[:10] < 0.5).all()
    if tool is not recalibration.IsotonicScaling:
        assert 0 < mended.min() and mended.max() < 1
        with pytest.raises(ValueError, match="smooth=True"):
            tool(smooth=False).fit(y, s)
        certain = tool().fit([0, 0, 1, 1], [0.0, 0.0, 1.0, 1.0])
        assert (
            certain([0.0])[0] < 0.5 < certain([1.0])[0] and 0.6 < certain([1.0])[0] < 0.9
        )  # two cases a class: about 3/4
    y = np.array([0, 1, 2, 0, 1, 2])
    rows = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    assert (tool().fit(y, rows)(rows).argmax(1) == y).all()


@pytest.mark.parametrize(
    "tool, answer", [(recalibration.TemperatureScaling, 0.5), (recalibration.PlattScaling, None)]
)
def test_scores_that_point_the_wrong_way_become_constant(tool, answer):
    y, _, s = simulated(200)
    with pytest.warns(slope.CalibrationWarning, match="do not rise"):
        mended = tool().fit(1 - y, s)(s)
    expected = recalibration.smoothed_targets(1 - y, 2)[:, 1].mean() if answer is None else answer
    np.testing.assert_allclose(mended, expected)
    with pytest.warns(slope.CalibrationWarning, match="do not rise"):
        np.testing.assert_allclose(tool().fit([0, 1], [0.5, 0.5])([0.1, 0.9]), 0.5)


def test_calibrators_refuse():
    y, _, s = simulated(50)
    for tool in TOOLS:
        with pytest.raises(ValueError, match="has not been fitted"):
            tool()(s)
        with pytest.raises(ValueError, match="class 2 has no case"):
            tool().fit([0, 1, 0], np.full((3, 3), 1 / 3))
        with pytest.raises(ValueError, match="each label by itself"):
            tool().fit(np.eye(2, dtype=int), np.full((2, 2), 0.5))
        fitted = tool().fit(y, s)
        with pytest.raises(ValueError, match="3 classes"):
            fitted(np.full((2, 3), 1 / 3))
        for wrong in (1.2, -0.1, np.nan):
            with pytest.raises(ValueError, match="give probabilities|NaN"):
                fitted([wrong, 0.5])
    assert tool().fit(y, s) is not None and tool().fit(y, s).fit(y, s)([0.5]).shape == (
        1,
    )  # fitted anew


def test_prior_correction_carries_the_bayes_scorer_exactly():
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 2, 20_000)
    centres = np.array([0, 1.5, -2])

    def bayes(priors):
        joint = np.asarray(priors) * stats.norm.pdf(x[:, None], centres[: len(priors)])
        return joint / joint.sum(1, keepdims=True)

    for trained, used in itertools.permutations(([0.5, 0.5], [0.98, 0.02], [0.1, 0.9]), 2):
        expected = bayes(used)
        np.testing.assert_allclose(
            recalibration.prior_correction(bayes(trained), trained_on=trained, used_on=used),
            expected,
            **EXACT,
        )
        one_column = recalibration.prior_correction(
            bayes(trained)[:, 1], trained_on=trained[1], used_on=used[1]
        )
        np.testing.assert_allclose(one_column, expected[:, 1], **EXACT)
    corrected = recalibration.prior_correction(
        bayes([1 / 3] * 3), trained_on=[1 / 3] * 3, used_on=[0.9, 0.08, 0.02]
    )
    np.testing.assert_allclose(corrected, bayes([0.9, 0.08, 0.02]), **EXACT)


@settings(max_examples=50, deadline=None)
@given(shares, shares, shares, st.integers(0, 1000))
def test_prior_corrections_compose_and_undo(first, second, third, seed):
    s = np.random.default_rng(seed).dirichlet([0.3, 0.3, 0.3], 20)
    there = recalibration.prior_correction(s, trained_on=first, used_on=second)
    np.testing.assert_allclose(
        recalibration.prior_correction(there, trained_on=second, used_on=third),
        recalibration.prior_correction(s, trained_on=first, used_on=third),
        **EXACT,
    )
    np.testing.assert_allclose(
        recalibration.prior_correction(there, trained_on=second, used_on=first), s, **EXACT
    )
    np.testing.assert_allclose(
        recalibration.prior_correction(s, trained_on=first, used_on=first), s, **EXACT
    )
    two = s[:, 0]
    moved = recalibration.prior_correction(two, trained_on=first[0], used_on=second[0])
    assert (np.diff(moved[np.argsort(two)]) >= 0).all() and moved.shape == two.shape


def test_certainty_survives_prior_correction():
    assert recalibration.prior_correction([0.0, 1.0], trained_on=0.5, used_on=0.01).tolist() == [
        0,
        1,
    ]


@pytest.mark.parametrize(
    "options, words",
    [
        ({"trained_on": 0, "used_on": 0.1}, "trained_on=.*above 0"),
        ({"trained_on": 0.5, "used_on": 0}, "used_on=.*above 0"),
        ({"trained_on": 0.5, "used_on": 1}, "used_on"),
        ({"trained_on": 1.5, "used_on": 0.5}, "trained_on"),
        ({"trained_on": [0.5, 0.4], "used_on": 0.1}, "sum to 1"),
        ({"trained_on": [0.3, 0.3, 0.4], "used_on": 0.1}, "shape"),
        ({"trained_on": np.nan, "used_on": 0.1}, "above 0"),
    ],
)
def test_priors_that_are_none_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        recalibration.prior_correction([0.2, 0.8], **options)
    with pytest.raises(ValueError, match="shape"):
        recalibration.prior_correction(np.full((2, 3), 1 / 3), trained_on=0.5, used_on=0.5)


def test_weights_are_a_prior():
    assert recalibration.weighted_prior(0.05, [1, 19]) == pytest.approx(
        0.5
    ) and recalibration.weighted_prior([0.2, 0.8], [4, 1]).tolist() == pytest.approx([0.5, 0.5])
    for wrong in ([1, 0], [1], [1, np.inf], 3):
        with pytest.raises(ValueError, match="weights"):
            recalibration.weighted_prior(0.5, wrong)
    rng = np.random.default_rng(0)
    y = (rng.random(60_000) < 0.05).astype(int)
    x = rng.normal(y * 1.5, 1)[:, None]
    plain, weighted = (
        LogisticRegression(C=np.inf, class_weight=weights, tol=1e-8)
        .fit(x, y)
        .predict_proba(x)[:, 1]
        for weights in (None, {0: 1, 1: 19})
    )
    mended = recalibration.prior_correction(
        weighted, trained_on=recalibration.weighted_prior(y.mean(), [1, 19]), used_on=y.mean()
    )
    assert (
        calibration.ece(y, mended) < calibration.ece(y, weighted) / 20
        and np.abs(mended - plain).max() < 0.03
    )


def test_em_finds_the_prevalence():
    rng = np.random.default_rng(0)
    truth = np.array([0.7, 0.2, 0.1])
    y = rng.choice(3, 20_000, p=truth)
    x = rng.normal(np.array([0, 2, 4])[y], 1)
    joint = stats.norm.pdf(x[:, None], [0, 2, 4]) / 3
    s = joint / joint.sum(1, keepdims=True)
    found = recalibration.estimate_prior(s, trained_on=[1 / 3] * 3)
    np.testing.assert_allclose(found, truth, atol=0.015)
    again = recalibration.prior_correction(s, trained_on=[1 / 3] * 3, used_on=found)
    np.testing.assert_allclose(again.mean(0), found, atol=1e-8)  # the likelihood's summit
    assert isinstance(recalibration.estimate_prior(s[:, 0], trained_on=0.3), float)
    uneven = recalibration.prior_correction(s, trained_on=[1 / 3] * 3, used_on=[0.1, 0.3, 0.6])
    np.testing.assert_allclose(
        recalibration.estimate_prior(uneven, trained_on=[0.1, 0.3, 0.6]), found, atol=1e-6
    )
    with pytest.warns(slope.CalibrationWarning, match="still moves"):
        recalibration.estimate_prior(s, trained_on=[1 / 3] * 3, steps=2)


def test_real_radiographs_by_a_small_model(shared):
    with np.load(shared / "medmnist" / "pneumoniamnist.npz") as data:
        x = {
            part: data[f"{part}_images"].reshape(len(data[f"{part}_images"]), -1)[::3, ::29] / 255
            for part in ("train", "val", "test")
        }
        y = {
            part: data[f"{part}_labels"].ravel()[::3].astype(int)
            for part in ("train", "val", "test")
        }
    model = LogisticRegression(class_weight={0: 20, 1: 1}, max_iter=300).fit(x["train"], y["train"])
    valid, test = (model.predict_proba(x[part])[:, 1] for part in ("val", "test"))
    prior = y["train"].mean()
    corrected = recalibration.prior_correction(
        valid, trained_on=recalibration.weighted_prior(prior, [20, 1]), used_on=prior
    )
    assert calibration.ece(y["val"], corrected) < calibration.ece(y["val"], valid) / 2
    for tool in TOOLS:
        fitted = tool().fit(y["val"], valid)
        assert (
            calibration.log_loss(y["val"], fitted(valid)) < calibration.log_loss(y["val"], valid)
            and fitted(test).shape == test.shape
        )
