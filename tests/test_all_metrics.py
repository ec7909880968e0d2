import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as library

from medbook.evaluation import cases, metrics, ranking
from medbook.evaluation.all_metrics import METRICS
from tests.metric_samples import (
    AVERAGES,
    EVERY,
    binary,
    by_name,
    expected,
    named,
    several,
    weights_of,
)

pytestmark = pytest.mark.filterwarnings("ignore::medbook.evaluation.cases.UndefinedMetric")


@settings(max_examples=40, deadline=None)
@given(several, st.integers(0, 99))
def test_many_labels_agree_with_scikit_learn(cases, seed):
    _, s = cases
    y = (s[:, ::-1] > 0.2).astype(int)
    called = (s >= 0.5).astype(int)
    w = weights_of(seed, len(s))
    each = np.ones(len(y)) if w is None else w
    np.testing.assert_allclose(
        metrics.confusion_matrix(y, s, weights=w),
        library.multilabel_confusion_matrix(y, called, sample_weight=w),
        atol=1e-12,
    )
    if each.any():
        np.testing.assert_allclose(
            metrics.exact_match(y, s, weights=w),
            library.accuracy_score(y, called, sample_weight=w),
            atol=1e-12,
        )
    ill = each @ y
    healthy = each @ (1 - y)
    for average in AVERAGES:
        for ours, theirs, guess in [
            (metrics.sensitivity, library.recall_score, called),
            (metrics.f1, library.f1_score, called),
            (ranking.auc, library.roc_auc_score, s),
            (ranking.average_precision, library.average_precision_score, s),
        ]:
            if (ill > 0).all() and (healthy > 0).all():
                np.testing.assert_allclose(
                    ours(y, s, average=average, weights=w),
                    theirs(y, guess, average=average, sample_weight=w),
                    atol=1e-12,
                    err_msg=f"{ours.__name__} {average}",
                )
            elif average is None:
                assert (
                    np.isnan(ours(y, s, average=None, weights=w))[ill == 0].all()
                    or ours is metrics.f1
                )


@settings(max_examples=20, deadline=None)
@given(several)
def test_many_labels_are_means_of_two_class_metrics(cases):
    _, s = cases
    y = (s[:, ::-1] > 0.2).astype(int)
    for metric in EVERY:
        if metric is not metrics.exact_match:
            each = [metric(y[:, k], s[:, k]) for k in range(4)]
            np.testing.assert_allclose(metric(y, s), np.mean(each), err_msg=metric.__name__)
            np.testing.assert_allclose(metric(y, s, average=None), each, err_msg=metric.__name__)
            if np.isfinite(each).all() and y.any():
                np.testing.assert_allclose(
                    metric(y, s, average="weighted"),
                    np.average(each, weights=y.sum(0)),
                    err_msg=metric.__name__,
                )
            np.testing.assert_allclose(
                metric(y, s, average="micro"), metric(y.ravel(), s.ravel()), err_msg=metric.__name__
            )
    np.testing.assert_allclose(metrics.accuracy(y, s), np.mean((s >= 0.5) == y))
    assert metrics.confusion_matrix(y, s).shape == (4, 2, 2)


@settings(max_examples=8, deadline=None)
@given(binary, several, st.integers(0, 99))
def test_weights_count_cases(two, more, seed):
    for y, s in (two, more):
        weights = np.random.default_rng(seed).integers(0, 3, (3, len(y)))
        weights[:, 0] += 1  # an empty row has no cases to repeat
        for metric in EVERY:
            together = metric(y, s, weights=weights)
            assert together.shape == (3,)
            if metric is not metrics.exact_match:
                for average in AVERAGES:
                    rows = np.array([metric(y, s, weights=row, average=average) for row in weights])
                    np.testing.assert_allclose(
                        metric(y, s, weights=weights, average=average),
                        rows,
                        atol=1e-12,
                        err_msg=metric.__name__,
                    )
            for row, value in zip(weights, together, strict=True):
                np.testing.assert_allclose(
                    value,
                    metric(np.repeat(y, row), np.repeat(s, row, axis=0)),
                    err_msg=metric.__name__,
                    atol=1e-12,
                )
                np.testing.assert_allclose(metric(y, s, weights=row), value, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(binary)
def test_ranking_sees_order_alone(cases):
    y, s = cases
    for change in (lambda x: 3 * x - 7, np.exp, lambda x: x.astype(np.float32)):
        np.testing.assert_allclose(ranking.auc(y, change(s)), ranking.auc(y, s))
        np.testing.assert_allclose(
            ranking.average_precision(y, change(s)), ranking.average_precision(y, s)
        )
    np.testing.assert_allclose(ranking.auc(y, -s), 1 - ranking.auc(y, s))
    order = np.random.default_rng(0).permutation(len(y))
    for metric in EVERY:
        np.testing.assert_allclose(
            metric(y[order], s[order]), metric(y, s), err_msg=metric.__name__
        )


@pytest.mark.parametrize("metric", EVERY, **by_name)
def test_a_value_without_a_warning_or_nan_with_the_reason(metric):
    rng = np.random.default_rng(0)
    odd = [
        ([0, 0], [0.1, 0.9]),
        ([1, 1], [0.1, 0.9]),
        ([0], [0.2]),
        ([1], [0.7]),
        ([0, 1], [0.2, 0.9]),
        ([0, 1, 0], np.eye(3)[[0, 1, 0]]),
        ([0, 1, 2], np.eye(3)),
        ([[0, 1], [0, 0]], [[0.2, 0.9], [0.1, 0.1]]),
    ]
    odd += [(rng.integers(0, 2, 5), rng.random(5).round(1)) for _ in range(20)]
    for y, s in odd:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            value = metric(y, s)
        assert isinstance(value, float)
        assert np.isnan(value) == (len(said) == 1)
        if said:
            assert (
                said[0].category is cases.UndefinedMetric
                and " is undefined" in str(said[0].message)
                and said[0].filename == __file__
            )
    known = metric in (
        metrics.accuracy,
        metrics.exact_match,
        metrics.specificity,
        metrics.npv,
    )  # shares of the healthy, or of all
    assert metric([0, 0], [0.1, 0.2]) == 1 if known else np.isnan(metric([0, 0], [0.1, 0.2]))


def test_rows_of_weights_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in EVERY:
            assert np.isnan(
                metric([0, 1, 1], [0.2, 0.7, 0.8], weights=np.array([[0.0, 0, 0], [1, 1, 1]]))[0]
            )


@pytest.mark.parametrize(
    "metric, y, s, reason",
    [
        (metrics.sensitivity, [0, 0], [0.1, 0.9], "sensitivity is undefined: no case is ill"),
        (metrics.specificity, [1, 1], [0.1, 0.9], "specificity is undefined: no case is healthy"),
        (metrics.ppv, [0, 0], [0.1, 0.2], "ppv is undefined: nothing is predicted positive"),
        (
            named("ppv", metrics.ppv, prevalence=0.1),
            [0, 0],
            [0.1, 0.9],
            "ppv is undefined: no case is ill",
        ),
        (metrics.npv, [0, 1], [0.8, 0.7], "npv is undefined: nothing is predicted negative"),
        (metrics.f1, [0], [0.1], "f1 is undefined: no case is ill and none is predicted so"),
        (metrics.mcc, [0, 0], [0.1, 0.9], "mcc is undefined: all cases are of one class"),
        (metrics.mcc, [0, 1], [0.8, 0.9], "mcc is undefined: all predictions are of one class"),
        (
            metrics.kappa,
            [1, 1],
            [0.8, 0.9],
            "kappa is undefined: all cases and all predictions are of one and the same class",
        ),
        (ranking.auc, [1, 1], [0.8, 0.9], "auc is undefined: no case is healthy"),
        (
            ranking.average_precision,
            [0, 0],
            [0.8, 0.9],
            "average_precision is undefined: no case is ill",
        ),
        (
            metrics.positive_likelihood_ratio,
            [0, 1],
            [0.1, 0.9],
            "there is no false positive, the ratio has no bound",
        ),
        (
            metrics.negative_likelihood_ratio,
            [0, 1],
            [0.8, 0.9],
            "there is no true negative, the ratio has no bound",
        ),
        (
            metrics.diagnostic_odds_ratio,
            [0, 1],
            [0.1, 0.9],
            "a kind of error does not occur, the ratio has no bound",
        ),
        (
            metrics.sensitivity,
            [0, 2, 2],
            np.eye(4)[[0, 2, 2]],
            "sensitivity is undefined for class 1, 3: no case is of that class",
        ),
        (
            metrics.ppv,
            [0, 1, 2],
            np.eye(3)[[0, 1, 1]],
            "ppv is undefined for class 2: nothing is predicted as that class",
        ),
        (
            metrics.balanced_accuracy,
            [0, 2],
            np.eye(3)[[0, 2]],
            "balanced_accuracy is undefined: no case is of class 1",
        ),
        (
            metrics.recall_per_class,
            [0, 2],
            np.eye(3)[[0, 2]],
            "recall_per_class is undefined: no case is of class 1",
        ),
        (
            ranking.auc,
            [0, 0, 0],
            np.eye(3),
            "class 1, 2: no case is of that class; for class 0: no case is of another class",
        ),
        (
            ranking.auc,
            [[0, 1], [0, 0]],
            [[0.2, 0.9], [0.1, 0.1]],
            "auc is undefined for label 0: no case has that label",
        ),
        (
            metrics.balanced_accuracy,
            [[0, 1], [0, 0]],
            [[0.2, 0.9], [0.1, 0.1]],
            "accuracy is undefined for label 0: no case has that label",
        ),
        (ranking.roc_curve, [0, 0], [0.1, 0.2], "roc_curve is undefined: no case is ill"),
        (ranking.pr_curve, [0, 0], [0.1, 0.2], "pr_curve is undefined: no case is ill"),
    ],
)
def test_the_reason_is_told(metric, y, s, reason):
    with pytest.warns(cases.UndefinedMetric) as said:
        metric(y, s)
    assert str(said[0].message).endswith(reason) and len(said) == 1


def test_what_passes_for_the_same_cases():
    y = np.array([0, 1, 1, 0, 1])
    s = np.array([0.2, 0.8, 0.4, 0.6, 0.9])
    same = [
        (y.tolist(), s.tolist()),
        (y == 1, s.astype(np.float32)),
        (y[:, None], s),
        (y[:, None], s[:, None]),
        (y.astype(float), s),
        (pd.Series(y, index=list("abcde")), pd.Series(s)),
        (y.astype(np.uint8), np.c_[1 - s, s]),
    ]
    for labels, scores in same:
        for metric in EVERY:
            assert metric(labels, scores) == pytest.approx(metric(y, s), abs=1e-6)
    assert cases.check_cases(y, np.c_[1 - s, s]).task == "binary"


def test_inputs_are_left_as_they_are():
    y = np.array([1, 0, 1, 0])
    s = np.array([0.9, 0.8, 0.3, 0.1])
    kept = y.copy(), s.copy()
    weights = np.ones((2, 4))
    for metric in EVERY:
        metric(y, s)
        metric(y, s, weights=weights)
    assert (y == kept[0]).all() and (s == kept[1]).all() and (weights == 1).all()


def test_extreme_imbalance_and_many_cases():
    y = np.zeros(200_000, int)
    y[[7, 70_000]] = 1
    s = np.random.default_rng(0).random(200_000).round(4)
    assert ranking.auc(y, s) == pytest.approx(library.roc_auc_score(y, s), abs=1e-12)
    assert ranking.average_precision(y, s) == pytest.approx(
        library.average_precision_score(y, s), abs=1e-12
    )
    assert metrics.mcc(y, s) == pytest.approx(library.matthews_corrcoef(y, s >= 0.5), abs=1e-12)


def test_real_images_scored_by_their_brightness(shared):
    """PneumoniaMNIST: the mean grey value as a score; official labels, an official kind of task."""
    with np.load(shared / "medmnist" / "pneumoniamnist.npz") as data:
        y = data["test_labels"].ravel()
        s = data["test_images"].reshape(len(data["test_images"]), -1).mean(1) / 255
    called = s >= 0.5
    assert ranking.auc(y, s) == pytest.approx(library.roc_auc_score(y, s))
    assert ranking.average_precision(y, s) == pytest.approx(library.average_precision_score(y, s))
    assert metrics.f1(y, s) == pytest.approx(library.f1_score(y, called))
    assert metrics.mcc(y, s) == pytest.approx(library.matthews_corrcoef(y, called))
    assert metrics.prevalence(y) == pytest.approx(390 / 624)


@settings(max_examples=40, deadline=None)
@given(binary, st.integers(0, 99))
def test_two_classes_agree_with_scikit_learn(cases, seed):
    y, s = cases
    w = weights_of(seed, len(y))
    called = (s >= 0.5).astype(int)
    each = np.ones(len(y)) if w is None else w
    ill, healthy, positive, negative = (each @ side for side in (y, 1 - y, called, 1 - called))
    tp, fp, fn, tn = (
        each @ side
        for side in (y * called, (1 - y) * called, y * (1 - called), (1 - y) * (1 - called))
    )
    one_class = not ill or not healthy
    one_call = not positive or not negative
    sensible = each.sum() > 0
    if not sensible:
        return
    pairs = [
        (metrics.accuracy, library.accuracy_score, called, False, {}),
        (metrics.balanced_accuracy, library.balanced_accuracy_score, called, one_class, {}),
        (metrics.sensitivity, library.recall_score, called, not ill, {}),
        (metrics.ppv, library.precision_score, called, not positive, {}),
        (metrics.f1, library.f1_score, called, not ill and not positive, {}),
        (metrics.f_beta, library.fbeta_score, called, not ill and not positive, {"beta": 0.5}),
        (metrics.f_beta, library.fbeta_score, called, not ill and not positive, {"beta": 2}),
        (metrics.mcc, library.matthews_corrcoef, called, one_class or one_call, {}),
        (ranking.auc, library.roc_auc_score, s, one_class, {}),
        (ranking.average_precision, library.average_precision_score, s, not ill, {}),
    ]
    for ours, theirs, predicted, undefined, options in pairs:
        value = expected(theirs, y, predicted, undefined=undefined, sample_weight=w, **options)
        np.testing.assert_allclose(
            ours(y, s, weights=w, **options), value, err_msg=ours.__name__, rtol=0, atol=1e-12
        )
    for share in (0.05, 0.4, 1):
        value = expected(
            library.roc_auc_score, y, s, undefined=one_class, sample_weight=w, max_fpr=share
        )
        np.testing.assert_allclose(
            ranking.partial_auc(y, s, max_fpr=share, weights=w), value, rtol=0, atol=1e-12
        )
    for kind in (None, "linear", "quadratic"):
        value = expected(
            library.cohen_kappa_score,
            y,
            called,
            undefined=one_class and tp + tn == each.sum(),
            labels=[0, 1],
            weights=kind,
            sample_weight=w,
        )
        np.testing.assert_allclose(
            metrics.kappa(y, s, weighting=kind, weights=w), value, rtol=0, atol=1e-12
        )
    # `1 - called` as the positive class turns specificity and npv into recall and precision
    flipped = {"sample_weight": w}
    np.testing.assert_allclose(
        metrics.specificity(y, s, weights=w),
        expected(library.recall_score, 1 - y, 1 - called, undefined=not healthy, **flipped),
        atol=1e-12,
    )
    np.testing.assert_allclose(
        metrics.npv(y, s, weights=w),
        expected(library.precision_score, 1 - y, 1 - called, undefined=not negative, **flipped),
        atol=1e-12,
    )
    ratios = expected(library.class_likelihood_ratios, y, called, labels=[0, 1], sample_weight=w)
    np.testing.assert_allclose(
        metrics.positive_likelihood_ratio(y, s, weights=w),
        np.nan if one_class or not fp else ratios[0],
    )
    np.testing.assert_allclose(
        metrics.negative_likelihood_ratio(y, s, weights=w),
        np.nan if one_class or not tn else ratios[1],
    )
    np.testing.assert_allclose(
        metrics.diagnostic_odds_ratio(y, s, weights=w), tp * tn / (fp * fn) if fp * fn else np.nan
    )
    np.testing.assert_allclose(
        metrics.confusion_matrix(y, s, weights=w),
        library.confusion_matrix(y, called, labels=[0, 1], sample_weight=w),
        atol=1e-12,
    )


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_of_the_table_takes_weights_and_says_why_it_has_no_value(name):
    rng = np.random.default_rng(3)
    y = (rng.random(60) < 0.4).astype(int)
    s = rng.random(60).round(1)
    weights = rng.integers(0, 3, (3, 60))
    together = METRICS[name](y, s, weights=weights)
    repeated = [METRICS[name](np.repeat(y, row), np.repeat(s, row)) for row in weights]
    np.testing.assert_allclose(together, repeated, rtol=0, atol=1e-12)
    value, reason = cases.value_and_reason(METRICS[name], [1, 1], [0.2, 0.9])
    assert bool(reason) == bool(np.isnan(value))
