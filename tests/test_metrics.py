import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics as library

from medbook.evaluation import metrics

pytestmark = pytest.mark.filterwarnings("ignore::medbook.evaluation.metrics.UndefinedMetric")


def named(name, function, **options):
    """The function with some arguments fixed, and a name for messages."""
    def metric(y_true, y_score, **more):
        return function(y_true, y_score, **options, **more)
    metric.__name__ = name
    return metric


AVERAGED = [metrics.sensitivity, metrics.specificity, metrics.ppv, metrics.npv, metrics.f1, named("f2", metrics.f_beta, beta=2),
            metrics.positive_likelihood_ratio, metrics.negative_likelihood_ratio, metrics.diagnostic_odds_ratio,
            named("ppv_at_a_tenth", metrics.ppv, prevalence=.1), named("npv_at_a_tenth", metrics.npv, prevalence=.1)]
DECIDED = AVERAGED + [metrics.accuracy, metrics.exact_match, metrics.balanced_accuracy, metrics.mcc, metrics.kappa,
                      named("linear_kappa", metrics.kappa, weighting="linear"),
                      named("quadratic_kappa", metrics.kappa, weighting="quadratic")]
RANKED = [metrics.auc, metrics.average_precision, named("left_auc", metrics.partial_auc, max_fpr=.3),
          named("bare_left_auc", metrics.partial_auc, max_fpr=.3, standardised=False),
          named("sensitivity_at", metrics.sensitivity_at, specificity=.8), named("specificity_at", metrics.specificity_at, sensitivity=.8)]
EVERY = DECIDED + RANKED
AVERAGES = ["macro", "micro", "weighted", None]
by_name = {"ids": lambda metric: metric.__name__}

# few distinct scores, so that ties abound; few or no cases of a class, so that the extremes come up
binary = st.integers(1, 60).flatmap(lambda n: st.tuples(
    arrays(np.int64, n, elements=st.sampled_from([0, 0, 0, 1])),
    arrays(np.float64, n, elements=st.sampled_from([0, .1, .25, .5, .5, .7, .9, 1]))))
several = st.integers(2, 40).flatmap(lambda n: st.tuples(
    arrays(np.int64, n, elements=st.integers(0, 3)), arrays(np.float64, (n, 4), elements=st.sampled_from([0, .1, .3, .5, .9]))))


def expected(function, *arguments, undefined=False, **options):
    """scikit-learn's value, nan where the quantity is undefined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.nan if undefined else function(*arguments, **options)


def weights_of(seed, n):
    """No weights, counts with zeros, or any positive numbers."""
    rng = np.random.default_rng(seed)
    return [None, rng.integers(0, 3, n).astype(float), rng.random(n) + .01][seed % 3]


@settings(max_examples=40, deadline=None)
@given(binary, st.integers(0, 99))
def test_two_classes_agree_with_scikit_learn(cases, seed):
    y, s = cases
    w = weights_of(seed, len(y))
    called, each = (s >= .5).astype(int), np.ones(len(y)) if w is None else w
    ill, healthy, positive, negative = (each @ side for side in (y, 1 - y, called, 1 - called))
    tp, fp, fn, tn = (each @ side for side in (y * called, (1 - y) * called, y * (1 - called), (1 - y) * (1 - called)))
    one_class, one_call, sensible = not ill or not healthy, not positive or not negative, each.sum() > 0
    if not sensible:
        return
    pairs = [
        (metrics.accuracy, library.accuracy_score, called, False, {}),
        (metrics.balanced_accuracy, library.balanced_accuracy_score, called, one_class, {}),
        (metrics.sensitivity, library.recall_score, called, not ill, {}),
        (metrics.ppv, library.precision_score, called, not positive, {}),
        (metrics.f1, library.f1_score, called, not ill and not positive, {}),
        (metrics.f_beta, library.fbeta_score, called, not ill and not positive, {"beta": .5}),
        (metrics.f_beta, library.fbeta_score, called, not ill and not positive, {"beta": 2}),
        (metrics.mcc, library.matthews_corrcoef, called, one_class or one_call, {}),
        (metrics.auc, library.roc_auc_score, s, one_class, {}),
        (metrics.average_precision, library.average_precision_score, s, not ill, {}),
    ]
    for ours, theirs, predicted, undefined, options in pairs:
        value = expected(theirs, y, predicted, undefined=undefined, sample_weight=w, **options)
        np.testing.assert_allclose(ours(y, s, weights=w, **options), value, err_msg=ours.__name__, rtol=0, atol=1e-12)
    for share in (.05, .4, 1):
        value = expected(library.roc_auc_score, y, s, undefined=one_class, sample_weight=w, max_fpr=share)
        np.testing.assert_allclose(metrics.partial_auc(y, s, max_fpr=share, weights=w), value, rtol=0, atol=1e-12)
    for kind in (None, "linear", "quadratic"):
        value = expected(library.cohen_kappa_score, y, called, undefined=one_class and tp + tn == each.sum(), labels=[0, 1], weights=kind,
                         sample_weight=w)
        np.testing.assert_allclose(metrics.kappa(y, s, weighting=kind, weights=w), value, rtol=0, atol=1e-12)
    # `1 - called` as the positive class turns specificity and npv into recall and precision
    flipped = {"sample_weight": w}
    np.testing.assert_allclose(metrics.specificity(y, s, weights=w),
                               expected(library.recall_score, 1 - y, 1 - called, undefined=not healthy, **flipped), atol=1e-12)
    np.testing.assert_allclose(metrics.npv(y, s, weights=w),
                               expected(library.precision_score, 1 - y, 1 - called, undefined=not negative, **flipped), atol=1e-12)
    ratios = expected(library.class_likelihood_ratios, y, called, labels=[0, 1], sample_weight=w)
    np.testing.assert_allclose(metrics.positive_likelihood_ratio(y, s, weights=w), np.nan if one_class or not fp else ratios[0])
    np.testing.assert_allclose(metrics.negative_likelihood_ratio(y, s, weights=w), np.nan if one_class or not tn else ratios[1])
    np.testing.assert_allclose(metrics.diagnostic_odds_ratio(y, s, weights=w), tp * tn / (fp * fn) if fp * fn else np.nan)
    np.testing.assert_allclose(metrics.confusion_matrix(y, s, weights=w),
                               library.confusion_matrix(y, called, labels=[0, 1], sample_weight=w), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(binary, st.integers(0, 99))
def test_curves_agree_with_scikit_learn_and_enclose_the_areas(cases, seed):
    y, s = cases
    w = weights_of(seed, len(y))
    each = np.ones(len(y)) if w is None else w
    if not each.any():
        return
    roc, pr = metrics.roc_curve(y, s, weights=w), metrics.pr_curve(y, s, weights=w)
    if each @ y and each @ (1 - y):
        np.testing.assert_allclose(roc, library.roc_curve(y, s, sample_weight=w, drop_intermediate=False), atol=1e-12)
        np.testing.assert_allclose(np.trapezoid(roc.tpr, roc.fpr), metrics.auc(y, s, weights=w))
        wanted = float(roc.tpr[seed % len(roc.tpr)])
        assert metrics.specificity_at(y, s, sensitivity=wanted, weights=w) == pytest.approx(1 - roc.fpr[roc.tpr >= wanted - 1e-12].min())
        assert metrics.sensitivity_at(y, s, specificity=wanted, weights=w) == pytest.approx(roc.tpr[1 - roc.fpr >= wanted - 1e-12].max())
        precision, recall, thresholds = library.precision_recall_curve(y, s, sample_weight=w)
        np.testing.assert_allclose(pr.precision, precision[:-1][::-1])
        np.testing.assert_allclose(pr.recall, recall[:-1][::-1])
        np.testing.assert_allclose(pr.thresholds, thresholds[::-1])
        np.testing.assert_allclose(np.sum(np.diff(pr.recall, prepend=0) * pr.precision), metrics.average_precision(y, s, weights=w))
    else:
        assert np.isnan(roc.tpr).all() != np.isnan(roc.fpr).all()


@settings(max_examples=25, deadline=None)
@given(several, st.integers(0, 99))
def test_many_classes_agree_with_scikit_learn(cases, seed):
    y, s = cases
    w = weights_of(seed, len(y))
    each = np.ones(len(y)) if w is None else w
    if not each.any():
        return
    called, present = s.argmax(1), np.bincount(y, each, minlength=4)
    predicted = np.bincount(called, each, minlength=4)
    kinds = {"labels": range(4), "sample_weight": w}
    np.testing.assert_allclose(metrics.confusion_matrix(y, s, weights=w), library.confusion_matrix(y, called, **kinds), atol=1e-12)
    np.testing.assert_allclose(np.transpose(metrics.two_by_two(y, s, weights=w)),
                               library.multilabel_confusion_matrix(y, called, **kinds).reshape(4, 4)[:, [3, 1, 2, 0]], atol=1e-12)
    np.testing.assert_allclose(metrics.accuracy(y, s, weights=w), library.accuracy_score(y, called, sample_weight=w), atol=1e-12)
    np.testing.assert_allclose(metrics.exact_match(y, s, weights=w), metrics.accuracy(y, s, weights=w))
    lone = (present > 0).sum() == 1 or (predicted > 0).sum() == 1
    value = expected(library.matthews_corrcoef, y, called, sample_weight=w, undefined=lone)
    np.testing.assert_allclose(metrics.mcc(y, s, weights=w), value, atol=1e-12)
    same = (present > 0).sum() == 1 and (predicted == present).all()
    for kind in (None, "linear", "quadratic"):
        value = expected(library.cohen_kappa_score, y, called, undefined=same, weights=kind, **kinds)
        np.testing.assert_allclose(metrics.kappa(y, s, weighting=kind, weights=w), value, atol=1e-12)
    known = {"recall": present > 0, "precision": predicted > 0, "f": present + predicted > 0}
    recall = np.where(known["recall"], expected(library.recall_score, y, called, average=None, **kinds), np.nan)
    np.testing.assert_allclose(metrics.recall_per_class(y, s, weights=w), recall, atol=1e-12)
    np.testing.assert_allclose(metrics.balanced_accuracy(y, s, weights=w), recall.mean(), atol=1e-12)
    for average in AVERAGES:
        for ours, theirs, key, options in [
                (metrics.sensitivity, library.recall_score, "recall", {}), (metrics.ppv, library.precision_score, "precision", {}),
                (metrics.f1, library.f1_score, "f", {}), (metrics.f_beta, library.fbeta_score, "f", {"beta": 1.5})]:
            value = expected(theirs, y, called, average=average, **options, **kinds)
            if average is None:
                value = np.where(known[key], value, np.nan)
            elif average == "macro" and not known[key].all() or average == "weighted" and not known[key][present > 0].all():
                value = np.nan                                # where scikit-learn counts a 0
            np.testing.assert_allclose(ours(y, s, average=average, weights=w, **options), value, atol=1e-12, err_msg=f"{average} {key}")


@settings(max_examples=40, deadline=None)
@given(several, st.integers(0, 99))
def test_ranking_of_many_classes_agrees_with_scikit_learn(cases, seed):
    y, s = cases
    s = (s + .1) / (s + .1).sum(axis=1, keepdims=True)        # scikit-learn wants rows that sum to 1
    w = weights_of(seed, len(y))
    each = np.ones(len(y)) if w is None else w
    present, one_hot = np.bincount(y, each, minlength=4), (y[:, None] == np.arange(4)).astype(int)
    whole = (present > 0) & (present < each.sum())
    for average in AVERAGES:
        for ours, theirs, known in [(metrics.auc, library.roc_auc_score, whole),
                                    (metrics.average_precision, library.average_precision_score, present > 0)]:
            value = ours(y, s, average=average, weights=w)
            if average is None:
                one = [expected(theirs, one_hot[:, k], s[:, k], sample_weight=w, undefined=not known[k]) for k in range(4)]
                np.testing.assert_allclose(value, one, atol=1e-12)
            elif average == "micro" and each.any():
                np.testing.assert_allclose(value, theirs(one_hot, s, average=average, sample_weight=w), atol=1e-12)
            elif known.all():
                np.testing.assert_allclose(value, theirs(one_hot, s, average=average, sample_weight=w), atol=1e-12)
                if ours is metrics.auc:
                    np.testing.assert_allclose(value, theirs(y, s, average=average, sample_weight=w, multi_class="ovr"), atol=1e-12)
            elif average == "macro":
                assert np.isnan(value)


@settings(max_examples=40, deadline=None)
@given(several, st.integers(0, 99))
def test_many_labels_agree_with_scikit_learn(cases, seed):
    _, s = cases
    y, called, w = (s[:, ::-1] > .2).astype(int), (s >= .5).astype(int), weights_of(seed, len(s))
    each = np.ones(len(y)) if w is None else w
    np.testing.assert_allclose(metrics.confusion_matrix(y, s, weights=w), library.multilabel_confusion_matrix(y, called, sample_weight=w),
                               atol=1e-12)
    if each.any():
        np.testing.assert_allclose(metrics.exact_match(y, s, weights=w), library.accuracy_score(y, called, sample_weight=w), atol=1e-12)
    ill, healthy = each @ y, each @ (1 - y)
    for average in AVERAGES:
        for ours, theirs, guess in [(metrics.sensitivity, library.recall_score, called), (metrics.f1, library.f1_score, called),
                                    (metrics.auc, library.roc_auc_score, s),
                                    (metrics.average_precision, library.average_precision_score, s)]:
            if (ill > 0).all() and (healthy > 0).all():
                np.testing.assert_allclose(ours(y, s, average=average, weights=w), theirs(y, guess, average=average, sample_weight=w),
                                           atol=1e-12, err_msg=f"{ours.__name__} {average}")
            elif average is None:
                assert np.isnan(ours(y, s, average=None, weights=w))[ill == 0].all() or ours is metrics.f1


@settings(max_examples=20, deadline=None)
@given(several)
def test_many_labels_are_means_of_two_class_metrics(cases):
    _, s = cases
    y = (s[:, ::-1] > .2).astype(int)
    for metric in EVERY:
        if metric is not metrics.exact_match:
            each = [metric(y[:, k], s[:, k]) for k in range(4)]
            np.testing.assert_allclose(metric(y, s), np.mean(each), err_msg=metric.__name__)
            np.testing.assert_allclose(metric(y, s, average=None), each, err_msg=metric.__name__)
            if np.isfinite(each).all() and y.any():
                np.testing.assert_allclose(metric(y, s, average="weighted"), np.average(each, weights=y.sum(0)), err_msg=metric.__name__)
            np.testing.assert_allclose(metric(y, s, average="micro"), metric(y.ravel(), s.ravel()), err_msg=metric.__name__)
    np.testing.assert_allclose(metrics.accuracy(y, s), np.mean((s >= .5) == y))
    assert metrics.confusion_matrix(y, s).shape == (4, 2, 2)


@settings(max_examples=8, deadline=None)
@given(binary, several, st.integers(0, 99))
def test_weights_count_cases(two, more, seed):
    for y, s in (two, more):
        weights = np.random.default_rng(seed).integers(0, 3, (3, len(y)))
        weights[:, 0] += 1                                    # an empty row has no cases to repeat
        for metric in EVERY:
            together = metric(y, s, weights=weights)
            assert together.shape == (3,)
            if metric is not metrics.exact_match:
                for average in AVERAGES:
                    rows = np.array([metric(y, s, weights=row, average=average) for row in weights])
                    np.testing.assert_allclose(metric(y, s, weights=weights, average=average), rows, atol=1e-12, err_msg=metric.__name__)
            for row, value in zip(weights, together, strict=True):
                np.testing.assert_allclose(value, metric(np.repeat(y, row), np.repeat(s, row, axis=0)), err_msg=metric.__name__, atol=1e-12)
                np.testing.assert_allclose(metric(y, s, weights=row), value, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(binary)
def test_ranking_sees_order_alone(cases):
    y, s = cases
    for change in (lambda x: 3 * x - 7, np.exp, lambda x: x.astype(np.float32)):
        np.testing.assert_allclose(metrics.auc(y, change(s)), metrics.auc(y, s))
        np.testing.assert_allclose(metrics.average_precision(y, change(s)), metrics.average_precision(y, s))
    np.testing.assert_allclose(metrics.auc(y, -s), 1 - metrics.auc(y, s))
    order = np.random.default_rng(0).permutation(len(y))
    for metric in EVERY:
        np.testing.assert_allclose(metric(y[order], s[order]), metric(y, s), err_msg=metric.__name__)


def test_extreme_imbalance_and_many_cases():
    y = np.zeros(200_000, int)
    y[[7, 70_000]] = 1
    s = np.random.default_rng(0).random(200_000).round(4)
    assert metrics.auc(y, s) == pytest.approx(library.roc_auc_score(y, s), abs=1e-12)
    assert metrics.average_precision(y, s) == pytest.approx(library.average_precision_score(y, s), abs=1e-12)
    assert metrics.mcc(y, s) == pytest.approx(library.matthews_corrcoef(y, s >= .5), abs=1e-12)


@pytest.mark.parametrize("metric", EVERY, **by_name)
def test_a_value_without_a_warning_or_nan_with_the_reason(metric):
    rng = np.random.default_rng(0)
    odd = [([0, 0], [.1, .9]), ([1, 1], [.1, .9]), ([0], [.2]), ([1], [.7]), ([0, 1], [.2, .9]), ([0, 1, 0], np.eye(3)[[0, 1, 0]]),
           ([0, 1, 2], np.eye(3)), ([[0, 1], [0, 0]], [[.2, .9], [.1, .1]])]
    odd += [(rng.integers(0, 2, 5), rng.random(5).round(1)) for _ in range(20)]
    for y, s in odd:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            value = metric(y, s)
        assert isinstance(value, float)
        assert np.isnan(value) == (len(said) == 1)
        if said:
            assert said[0].category is metrics.UndefinedMetric and " is undefined" in str(said[0].message) and said[0].filename == __file__
    known = metric in (metrics.accuracy, metrics.exact_match, metrics.specificity, metrics.npv)          # shares of the healthy, or of all
    assert metric([0, 0], [.1, .2]) == 1 if known else np.isnan(metric([0, 0], [.1, .2]))


def test_rows_of_weights_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for metric in EVERY:
            assert np.isnan(metric([0, 1, 1], [.2, .7, .8], weights=np.array([[0., 0, 0], [1, 1, 1]]))[0])


@pytest.mark.parametrize("metric, y, s, reason", [
    (metrics.sensitivity, [0, 0], [.1, .9], "sensitivity is undefined: no case is ill"),
    (metrics.specificity, [1, 1], [.1, .9], "specificity is undefined: no case is healthy"),
    (metrics.ppv, [0, 0], [.1, .2], "ppv is undefined: nothing is called positive"),
    (named("ppv", metrics.ppv, prevalence=.1), [0, 0], [.1, .9], "ppv is undefined: no case is ill"),
    (metrics.npv, [0, 1], [.8, .7], "npv is undefined: nothing is called negative"),
    (metrics.f1, [0, 0], [.1, .2], "f1 is undefined: no case is ill and none is called so"),
    (metrics.mcc, [0, 0], [.1, .9], "mcc is undefined: all cases are of one class"),
    (metrics.mcc, [0, 1], [.8, .9], "mcc is undefined: all calls are of one class"),
    (metrics.kappa, [1, 1], [.8, .9], "kappa is undefined: all cases and all calls are of one and the same class"),
    (metrics.auc, [1, 1], [.8, .9], "auc is undefined: no case is healthy"),
    (metrics.average_precision, [0, 0], [.8, .9], "average_precision is undefined: no case is ill"),
    (metrics.positive_likelihood_ratio, [0, 1], [.1, .9], "there is no false positive, the ratio has no bound"),
    (metrics.negative_likelihood_ratio, [0, 1], [.8, .9], "there is no true negative, the ratio has no bound"),
    (metrics.diagnostic_odds_ratio, [0, 1], [.1, .9], "a kind of error does not occur, the ratio has no bound"),
    (metrics.sensitivity, [0, 2, 2], np.eye(4)[[0, 2, 2]], "sensitivity is undefined for class 1, 3: no case is of that class"),
    (metrics.ppv, [0, 1, 2], np.eye(3)[[0, 1, 1]], "ppv is undefined for class 2: nothing is called that class"),
    (metrics.balanced_accuracy, [0, 2], np.eye(3)[[0, 2]], "balanced_accuracy is undefined: no case is of class 1"),
    (metrics.recall_per_class, [0, 2], np.eye(3)[[0, 2]], "recall_per_class is undefined: no case is of class 1"),
    (metrics.auc, [0, 0, 0], np.eye(3), "class 1, 2: no case is of that class; for class 0: no case is of another class"),
    (metrics.auc, [[0, 1], [0, 0]], [[.2, .9], [.1, .1]], "auc is undefined for label 0: no case has that label"),
    (metrics.balanced_accuracy, [[0, 1], [0, 0]], [[.2, .9], [.1, .1]], "accuracy is undefined for label 0: no case has that label"),
    (metrics.roc_curve, [0, 0], [.1, .2], "roc_curve is undefined: no case is ill"),
    (metrics.pr_curve, [0, 0], [.1, .2], "pr_curve is undefined: no case is ill"),
])
def test_the_reason_is_told(metric, y, s, reason):
    with pytest.warns(metrics.UndefinedMetric) as said:
        metric(y, s)
    assert str(said[0].message).endswith(reason) and len(said) == 1


def test_predictive_values_at_a_prevalence_without_a_positive_call_say_so():
    with pytest.warns(metrics.UndefinedMetric, match="ppv_at is undefined: nothing is called positive"):
        assert np.isnan(metrics.ppv_at(0, 1, .3))
    y, s = np.repeat([1, 1, 0, 0], [9, 1, 99, 891]), np.repeat([.9, .1, .9, .1], [9, 1, 99, 891])
    assert metrics.ppv(y, s, prevalence=.3) == pytest.approx(270 / 340) and metrics.npv(y, s, prevalence=.3) == pytest.approx(630 / 660)
    assert metrics.ppv(y, s, prevalence=.01) == pytest.approx(metrics.ppv(y, s))
    np.testing.assert_allclose(metrics.ppv(y, s, prevalence=.3, weights=np.ones((2, 1000))), [270 / 340] * 2)
    with pytest.raises(ValueError, match="prevalence holds 30"):
        metrics.ppv(y, s, prevalence=30)


def test_a_class_without_cases_has_no_weight_in_the_weighted_mean():
    y, s = [0, 2, 2], np.eye(3)[[0, 2, 0]]
    assert metrics.sensitivity(y, s, average="weighted") == pytest.approx(2 / 3)
    assert np.isnan(metrics.sensitivity(y, s)) and metrics.sensitivity(y, s, average="micro") == pytest.approx(2 / 3)


def test_kappa_by_hand():
    first, second = np.repeat([0, 0, 1, 1], [20, 5, 10, 15]), np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    assert metrics.kappa(first, second) == pytest.approx(.4)                   # agreement 35/50, by chance 1/2
    grades = np.array([0, 1, 2, 3]), np.eye(4)[[0, 1, 3, 2]]
    kinds = [metrics.kappa(*grades, weighting=kind) for kind in (None, "linear", "quadratic")]
    np.testing.assert_allclose(kinds, [1 - .5 / .75, 1 - .5 / 1.25, 1 - .5 / 2.5])
    far = metrics.kappa([0, 1, 2, 3], np.eye(4)[[3, 1, 2, 0]], weighting="quadratic")
    assert far < kinds[2]                                     # a miss by three grades costs more than two by one


def test_partial_auc_and_fixed_specificity_by_hand():
    y, s = [1, 0, 1, 1, 0, 0], [.9, .7, .6, .4, .3, .1]
    assert metrics.partial_auc(y, s, max_fpr=1 / 3, standardised=False) == pytest.approx(1 / 9)
    assert metrics.partial_auc(y, s, max_fpr=1 / 3) == pytest.approx(.5 * (1 + (1 / 9 - 1 / 18) / (1 / 3 - 1 / 18)))
    assert metrics.sensitivity_at(y, s, specificity=1) == pytest.approx(1 / 3)
    assert metrics.sensitivity_at(y, s, specificity=2 / 3) == 1 and metrics.specificity_at(y, s, sensitivity=1) == pytest.approx(2 / 3)
    assert metrics.specificity_at(y, s, sensitivity=0) == 1 and metrics.sensitivity_at([0, 1], [.9, .1], specificity=1) == 0


def test_undefined_is_nan_not_zero():
    assert np.isnan(metrics.sensitivity([0, 0], [.9, .1])) and metrics.specificity([0, 0], [.9, .1]) == .5
    assert np.isnan(metrics.ppv([0, 1], [.1, .2])) and np.isnan(metrics.npv([0, 1], [.7, .8]))
    assert np.isnan(metrics.mcc([0, 1], [.1, .2])) and np.isnan(metrics.positive_likelihood_ratio([0, 1], [.1, .9]))
    np.testing.assert_array_equal(metrics.recall_per_class([0, 2], np.eye(3)[[0, 2]]), [1, np.nan, 1])


def test_what_passes_for_the_same_cases():
    y, s = np.array([0, 1, 1, 0, 1]), np.array([.2, .8, .4, .6, .9])
    same = [(y.tolist(), s.tolist()), (y == 1, s.astype(np.float32)), (y[:, None], s), (y[:, None], s[:, None]), (y.astype(float), s),
            (pd.Series(y, index=list("abcde")), pd.Series(s)), (y.astype(np.uint8), np.c_[1 - s, s])]
    for labels, scores in same:
        for metric in EVERY:
            assert metric(labels, scores) == pytest.approx(metric(y, s), abs=1e-6)
    assert metrics.check_cases(y, np.c_[1 - s, s]).task == "binary"


def test_thresholds():
    y, s = [0, 1, 1, 0], [.2, .3, .8, .3]
    assert metrics.two_by_two(y, s, threshold=.3) == (2, 1, 0, 1)              # a score at the threshold is positive
    assert metrics.sensitivity(y, s, threshold=np.inf) == 0 and metrics.specificity(y, s, threshold=-np.inf) == 0
    logits = np.log(np.array(s) / (1 - np.array(s)))
    assert metrics.f1(y, logits, threshold=0) == metrics.f1(y, s)
    labels, scores = [[0, 1], [1, 0]], [[.1, .3], [.9, .1]]
    assert metrics.recall_per_class(labels, scores, threshold=[.5, .2]).tolist() == [1, 1]


def test_counts_by_hand():
    y, s = np.repeat([1, 1, 0, 0], [9, 1, 99, 891]), np.repeat([.9, .1, .9, .1], [9, 1, 99, 891])
    assert metrics.two_by_two(y, s) == (9, 99, 1, 891)
    assert metrics.ppv(y, s) == 9 / 108 and metrics.npv(y, s) == 891 / 892 and metrics.prevalence(y) == .01
    assert metrics.positive_likelihood_ratio(y, s) == pytest.approx(9) and metrics.negative_likelihood_ratio(y, s) == pytest.approx(1 / 9)
    cells = metrics.two_by_two([0, 0, 1, 2], np.eye(3)[[0, 1, 1, 0]])
    assert [each.tolist() for each in cells] == [[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 2, 3]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 50), st.integers(1, 50))
def test_bayes_gives_back_the_predictive_values_of_the_table(tp, fp, fn, tn):
    y, s = np.repeat([1, 0, 1, 0], [tp, fp, fn, tn]), np.repeat([1., 1, 0, 0], [tp, fp, fn, tn])
    known = metrics.sensitivity(y, s), metrics.specificity(y, s), metrics.prevalence(y)
    assert metrics.ppv_at(*known) == pytest.approx(metrics.ppv(y, s))
    assert metrics.npv_at(*known) == pytest.approx(metrics.npv(y, s))


def test_bayes_at_the_edges():
    assert metrics.ppv_at(.9, .9, 0) == 0 and metrics.npv_at(.9, .9, 0) == 1 and metrics.ppv_at(.9, .9, 1) == 1
    assert np.isnan(metrics.ppv_at(0, 1, .3)) and isinstance(metrics.ppv_at(.9, .9, .1), float)
    np.testing.assert_allclose(metrics.ppv_at(.9, .9, [.01, .3]), [9 / 108, 270 / 340])
    with pytest.raises(ValueError, match="prevalence holds 30"):
        metrics.ppv_at(.9, .9, 30)


@pytest.mark.parametrize("labels, scores, words", [
    ([], [], "y_true has shape"),
    ([0, 1], [.1], r"y_true has shape \(2,\), y_score \(1,\)"),
    ([0, 1], [.1, np.nan], r"y_score of shape \(2,\) holds 1 values"),
    ([0, 1], [.1, np.inf], "NaN or infinite"),
    ([0, np.nan], [.1, .2], "y_true of shape"),
    ([0, 2], [.1, .2], "y_true holds label 2"),
    ([0, 3], np.eye(3)[:2], "y_true holds label 3"),
    ([0, -1], [.1, .2], "whole numbers"),
    ([0, .5], [.1, .2], "whole numbers"),
    (["ill", "well"], [.1, .2], "y_true holds"),
    ([0, 1], ["a", "b"], "y_score holds"),
    ([0, 1], [[.1, .2], [.3]], "y_score has rows of different lengths"),
    ([0, 1], np.zeros((2, 2, 2)), r"y_score has shape \(2, 2, 2\)"),
    ([[0, 2], [1, 1]], [[.1, .2], [.3, .4]], r"y_true of shape \(2, 2\) holds 2"),
    ([[0, 1], [1, 1]], [.1, .2], "many labels need"),
    ([0, 1], [[3., 1.], [1., 2.]], "rows that sum to"),
])
@pytest.mark.parametrize("metric", [metrics.auc, metrics.sensitivity, metrics.accuracy], **by_name)
def test_bad_input_gets_one_line_that_names_the_argument(metric, labels, scores, words):
    with pytest.raises(ValueError, match=words) as error:
        metric(labels, scores)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("metric", DECIDED, **by_name)
def test_logits_need_a_threshold_of_their_own(metric):
    with pytest.raises(ValueError, match="y_score runs from -3 to 2; give probabilities"):
        metric([0, 1], [-3., 2.])
    assert isinstance(metric([0, 1], [-3., 2.], threshold=0), float)


def test_other_faulty_arguments():
    three = np.eye(3)
    with pytest.raises(ValueError, match="the largest score decides"):
        metrics.accuracy([0, 1, 2], three, threshold=.3)
    with pytest.raises(ValueError, match="threshold is NaN"):
        metrics.accuracy([0, 1], [.1, .2], threshold=np.nan)
    with pytest.raises(ValueError, match="average='mean'; give 'macro', 'micro' or 'weighted'"):
        metrics.f1([0, 1, 2], three, average="mean")
    with pytest.raises(ValueError, match="beta=-1; give a number >= 0"):
        metrics.f_beta([0, 1], [.1, .9], beta=-1)
    with pytest.raises(ValueError, match="weighting='cubic'; give None, 'linear' or 'quadratic'"):
        metrics.kappa([0, 1], [.1, .9], weighting="cubic")
    with pytest.raises(ValueError, match="max_fpr=0; give a false positive rate"):
        metrics.partial_auc([0, 1], [.1, .9], max_fpr=0)
    with pytest.raises(ValueError, match="specificity holds 90"):
        metrics.sensitivity_at([0, 1], [.1, .9], specificity=90)
    with pytest.raises(ValueError, match="draws one curve"):
        metrics.roc_curve([0, 1], [.1, .9], weights=np.ones((3, 2)))
    with pytest.raises(ValueError, match="weights"):
        metrics.accuracy([0, 1], [.1, .9], weights=[1, np.nan])
    with pytest.raises(ValueError, match=r"weights of shape \(3,\) for 2 cases"):
        metrics.auc([0, 1], [.1, .2], weights=[1, 1, 1])
    with pytest.raises(ValueError, match="weights"):
        metrics.auc([0, 1], [.1, .2], weights=[1, -1])
    with pytest.raises(ValueError, match=r"roc_curve\(y_true == k"):
        metrics.roc_curve([0, 1, 2], three)
    with pytest.raises(ValueError, match="give y_true == k"):
        metrics.prevalence([0, 1, 2])


def test_inputs_are_left_as_they_are():
    y, s = np.array([1, 0, 1, 0]), np.array([.9, .8, .3, .1])
    kept = y.copy(), s.copy()
    weights = np.ones((2, 4))
    for metric in EVERY:
        metric(y, s)
        metric(y, s, weights=weights)
    assert (y == kept[0]).all() and (s == kept[1]).all() and (weights == 1).all()


def test_checked_cases_are_looked_at_and_cannot_be_written_to():
    y, s = np.array([1, 0, 1, 0]), np.array([.9, .8, .3, .1])
    for labels, scores in [(y, s), (y, np.c_[1 - s, s]), (y, np.eye(3)[[0, 1, 2, 0]]), (np.c_[y, y], np.c_[s, s]), (y.tolist(), s > .5)]:
        cases = metrics.check_cases(labels, scores)
        assert cases.y_true.dtype == np.int64 and cases.y_score.dtype == np.float64
        for checked in cases[1:]:
            with pytest.raises(ValueError, match="read-only"):
                checked[0] = 0
    cases = metrics.check_cases(y, s)
    assert np.shares_memory(cases.y_true, y) and np.shares_memory(cases.y_score, s)            # a million cases are not copied
    assert y.flags.writeable and s.flags.writeable
    with pytest.raises(ValueError, match="whole numbers"):
        metrics.check_cases(np.array([2**63 + 1, 0], np.uint64), [.1, .2])


def test_numbers_in_object_arrays_are_numbers():
    y, s = [0, 1, 1.0, np.True_], [.1, .8, np.float32(.25), 1]
    cases = metrics.check_cases(np.array(y, object), np.array(s, object))
    assert cases.y_true.tolist() == [0, 1, 1, 1] and cases.y_score.tolist() == [.1, .8, .25, 1]
    for labels, scores in [(["0", "1"], [.1, .2]), ([0, None], [.1, .2])]:
        with pytest.raises(ValueError, match="not numbers"):
            metrics.check_cases(np.array(labels, object), scores)


def test_real_images_scored_by_their_brightness(shared):
    """PneumoniaMNIST: the mean grey value as a score; official labels, an official kind of task."""
    with np.load(shared / "medmnist" / "pneumoniamnist.npz") as data:
        y, s = data["test_labels"].ravel(), data["test_images"].reshape(len(data["test_images"]), -1).mean(1) / 255
    called = s >= .5
    assert metrics.auc(y, s) == pytest.approx(library.roc_auc_score(y, s))
    assert metrics.average_precision(y, s) == pytest.approx(library.average_precision_score(y, s))
    assert metrics.f1(y, s) == pytest.approx(library.f1_score(y, called))
    assert metrics.mcc(y, s) == pytest.approx(library.matthews_corrcoef(y, called))
    assert metrics.prevalence(y) == pytest.approx(390 / 624)


def test_import_is_light():
    heavy = "'keras', 'tensorflow', 'matplotlib', 'sklearn', 'pandas'"
    code = f"import sys, medbook.evaluation.metrics; print([name for name in ({heavy}) if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
