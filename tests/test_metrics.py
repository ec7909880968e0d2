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

DECIDED = [metrics.accuracy, metrics.balanced_accuracy, metrics.sensitivity, metrics.specificity, metrics.ppv, metrics.npv, metrics.f1,
           metrics.mcc, metrics.positive_likelihood_ratio, metrics.negative_likelihood_ratio]
RANKED = [metrics.auc, metrics.average_precision]
EVERY = DECIDED + RANKED
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


@settings(max_examples=30, deadline=None)
@given(binary)
def test_two_classes_agree_with_scikit_learn(cases):
    y, s = cases
    called = (s >= .5).astype(int)
    ill, healthy, positive, negative = y.sum(), (1 - y).sum(), called.sum(), (1 - called).sum()
    one_class, one_call = not ill or not healthy, not positive or not negative
    pairs = [
        (metrics.accuracy, library.accuracy_score, called, False),
        (metrics.balanced_accuracy, library.balanced_accuracy_score, called, one_class),
        (metrics.sensitivity, library.recall_score, called, not ill),
        (metrics.ppv, library.precision_score, called, not positive),
        (metrics.f1, library.f1_score, called, not ill and not positive),
        (metrics.mcc, library.matthews_corrcoef, called, one_class or one_call),
        (metrics.auc, library.roc_auc_score, s, one_class),
        (metrics.average_precision, library.average_precision_score, s, not ill),
    ]
    for ours, theirs, predicted, undefined in pairs:
        np.testing.assert_allclose(ours(y, s), expected(theirs, y, predicted, undefined=undefined), err_msg=ours.__name__)
    # `1 - called` as the positive class turns specificity and npv into recall and precision
    np.testing.assert_allclose(metrics.specificity(y, s), expected(library.recall_score, 1 - y, 1 - called, undefined=not healthy))
    np.testing.assert_allclose(metrics.npv(y, s), expected(library.precision_score, 1 - y, 1 - called, undefined=not negative))
    assert (metrics.confusion_matrix(y, s) == library.confusion_matrix(y, called, labels=[0, 1])).all()


@settings(max_examples=30, deadline=None)
@given(binary)
def test_curves_agree_with_scikit_learn_and_enclose_the_areas(cases):
    y, s = cases
    roc, pr = metrics.roc_curve(y, s), metrics.pr_curve(y, s)
    if 0 < y.sum() < len(y):
        np.testing.assert_allclose(roc, library.roc_curve(y, s, drop_intermediate=False))
        np.testing.assert_allclose(np.trapezoid(roc.tpr, roc.fpr), metrics.auc(y, s))
        precision, recall, thresholds = library.precision_recall_curve(y, s)
        np.testing.assert_allclose(pr.precision, precision[:-1][::-1])
        np.testing.assert_allclose(pr.recall, recall[:-1][::-1])
        np.testing.assert_allclose(pr.thresholds, thresholds[::-1])
        np.testing.assert_allclose(np.sum(np.diff(pr.recall, prepend=0) * pr.precision), metrics.average_precision(y, s))
    else:
        assert np.isnan(roc.tpr).all() != np.isnan(roc.fpr).all()


@settings(max_examples=30, deadline=None)
@given(several)
def test_many_classes_agree_with_scikit_learn(cases):
    y, s = cases
    called, present = s.argmax(1), np.bincount(y, minlength=4)
    kinds = {"labels": range(4), "average": None}
    np.testing.assert_array_equal(metrics.confusion_matrix(y, s), library.confusion_matrix(y, called, labels=range(4)))
    np.testing.assert_allclose(metrics.accuracy(y, s), np.mean(called == y))
    recall = np.where(present > 0, expected(library.recall_score, y, called, **kinds), np.nan)
    np.testing.assert_allclose(metrics.recall_per_class(y, s), recall)
    np.testing.assert_allclose(metrics.sensitivity(y, s, average=None), recall)
    np.testing.assert_allclose(metrics.balanced_accuracy(y, s), recall.mean())
    asked = present + np.bincount(called, minlength=4) > 0
    np.testing.assert_allclose(metrics.f1(y, s, average=None), np.where(asked, expected(library.f1_score, y, called, **kinds), np.nan))
    lone = len(set(y)) == 1 or len(set(called)) == 1
    np.testing.assert_allclose(metrics.mcc(y, s), expected(library.matthews_corrcoef, y, called, undefined=lone), atol=1e-12)
    each = [expected(library.roc_auc_score, y == k, s[:, k], undefined=not 0 < present[k] < len(y)) for k in range(4)]
    np.testing.assert_allclose(metrics.auc(y, s, average=None), each)
    np.testing.assert_allclose(metrics.auc(y, s), np.mean(each))


@settings(max_examples=20, deadline=None)
@given(several)
def test_many_labels_are_means_of_two_class_metrics(cases):
    _, s = cases
    y = (s[:, ::-1] > .2).astype(int)
    for metric in EVERY:
        each = [metric(y[:, k], s[:, k]) for k in range(4)]
        np.testing.assert_allclose(metric(y, s), np.mean(each), err_msg=metric.__name__)
    np.testing.assert_allclose(metrics.accuracy(y, s), np.mean((s >= .5) == y))
    assert metrics.confusion_matrix(y, s).shape == (4, 2, 2)


@settings(max_examples=20, deadline=None)
@given(binary, several, st.integers(0, 99))
def test_weights_count_cases(two, more, seed):
    for y, s in (two, more):
        weights = np.random.default_rng(seed).integers(0, 3, (3, len(y)))
        weights[:, 0] += 1                                    # an empty row has no cases to repeat
        for metric in EVERY:
            together = metric(y, s, weights=weights)
            assert together.shape == (3,)
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
def test_one_class_is_a_number_or_nan_and_never_raises_nor_warns(metric):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for y, s in [([0, 0], [.1, .9]), ([1, 1], [.1, .9]), ([0], [.2]), ([0, 1, 0], np.eye(3)[[0, 1, 0]])]:
            assert isinstance(metric(y, s), float)
    known = metric in (metrics.accuracy, metrics.specificity, metrics.npv)          # shares of the healthy, or of all
    assert metric([0, 0], [.1, .2]) == 1 if known else np.isnan(metric([0, 0], [.1, .2]))


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


def test_reliability():
    rng = np.random.default_rng(0)
    score = rng.random(50_000)
    curve = metrics.reliability_curve(rng.random(50_000) < score, score)
    np.testing.assert_allclose(curve.observed, curve.predicted, atol=.03)
    assert curve.counts.sum() == 50_000 and len(curve.edges) == 11
    edge = metrics.reliability_curve([0, 1, 1], [0., .5, 1.], bins=2)
    assert edge.counts.tolist() == [1, 2] and edge.observed.tolist() == [0, 1]
    assert np.isnan(metrics.reliability_curve([0, 1], [.1, .15], bins=4).observed[1:]).all()


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
    with pytest.raises(ValueError, match="average='micro'"):
        metrics.f1([0, 1, 2], three, average="micro")
    with pytest.raises(ValueError, match=r"weights of shape \(3,\) for 2 cases"):
        metrics.auc([0, 1], [.1, .2], weights=[1, 1, 1])
    with pytest.raises(ValueError, match="weights"):
        metrics.auc([0, 1], [.1, .2], weights=[1, -1])
    with pytest.raises(ValueError, match=r"roc_curve\(y_true == k"):
        metrics.roc_curve([0, 1, 2], three)
    with pytest.raises(ValueError, match="give y_true == k"):
        metrics.prevalence([0, 1, 2])
    with pytest.raises(ValueError, match="bins"):
        metrics.reliability_curve([0, 1], [.1, .2], bins=0)


def test_inputs_are_left_as_they_are():
    y, s = np.array([1, 0, 1, 0]), np.array([.9, .8, .3, .1])
    kept = y.copy(), s.copy()
    for metric in EVERY:
        metric(y, s)
    assert (y == kept[0]).all() and (s == kept[1]).all()


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
