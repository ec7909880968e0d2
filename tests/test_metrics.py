import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as library

from medbook.evaluation import cases, metrics, ranking
from tests.metric_samples import AVERAGES, DECIDED, by_name, expected, several, weights_of

pytestmark = pytest.mark.filterwarnings("ignore::medbook.evaluation.cases.UndefinedMetric")


@settings(max_examples=25, deadline=None)
@given(several, st.integers(0, 99))
def test_many_classes_agree_with_scikit_learn(cases, seed):
    y, s = cases
    w = weights_of(seed, len(y))
    each = np.ones(len(y)) if w is None else w
    if not each.any():
        return
    called = s.argmax(1)
    present = np.bincount(y, each, minlength=4)
    predicted = np.bincount(called, each, minlength=4)
    kinds = {"labels": range(4), "sample_weight": w}
    np.testing.assert_allclose(
        metrics.confusion_matrix(y, s, weights=w),
        library.confusion_matrix(y, called, **kinds),
        atol=1e-12,
    )
    np.testing.assert_allclose(
        np.transpose(metrics.two_by_two(y, s, weights=w)),
        library.multilabel_confusion_matrix(y, called, **kinds).reshape(4, 4)[:, [3, 1, 2, 0]],
        atol=1e-12,
    )
    np.testing.assert_allclose(
        metrics.accuracy(y, s, weights=w),
        library.accuracy_score(y, called, sample_weight=w),
        atol=1e-12,
    )
    np.testing.assert_allclose(
        metrics.exact_match(y, s, weights=w), metrics.accuracy(y, s, weights=w)
    )
    lone = (present > 0).sum() == 1 or (predicted > 0).sum() == 1
    value = expected(library.matthews_corrcoef, y, called, sample_weight=w, undefined=lone)
    np.testing.assert_allclose(metrics.mcc(y, s, weights=w), value, atol=1e-12)
    same = (present > 0).sum() == 1 and (predicted == present).all()
    for kind in (None, "linear", "quadratic"):
        value = expected(
            library.cohen_kappa_score, y, called, undefined=same, weights=kind, **kinds
        )
        np.testing.assert_allclose(
            metrics.kappa(y, s, weighting=kind, weights=w), value, atol=1e-12
        )
    known = {"recall": present > 0, "precision": predicted > 0, "f": present + predicted > 0}
    recall = np.where(
        known["recall"], expected(library.recall_score, y, called, average=None, **kinds), np.nan
    )
    np.testing.assert_allclose(metrics.recall_per_class(y, s, weights=w), recall, atol=1e-12)
    np.testing.assert_allclose(
        metrics.balanced_accuracy(y, s, weights=w), recall.mean(), atol=1e-12
    )
    for average in AVERAGES:
        for ours, theirs, key, options in [
            (metrics.sensitivity, library.recall_score, "recall", {}),
            (metrics.ppv, library.precision_score, "precision", {}),
            (metrics.f1, library.f1_score, "f", {}),
            (metrics.f_beta, library.fbeta_score, "f", {"beta": 1.5}),
        ]:
            value = expected(theirs, y, called, average=average, **options, **kinds)
            if average is None:
                value = np.where(known[key], value, np.nan)
            elif (
                average == "macro"
                and not known[key].all()
                or average == "weighted"
                and not known[key][present > 0].all()
            ):
                value = np.nan  # where scikit-learn counts a 0
            np.testing.assert_allclose(
                ours(y, s, average=average, weights=w, **options),
                value,
                atol=1e-12,
                err_msg=f"{average} {key}",
            )


def test_predictive_values_at_a_prevalence_without_a_positive_call_say_so():
    with pytest.warns(
        cases.UndefinedMetric, match="ppv_at is undefined: nothing is predicted positive"
    ):
        assert np.isnan(metrics.ppv_at(0, 1, 0.3))
    y = np.repeat([1, 1, 0, 0], [9, 1, 99, 891])
    s = np.repeat([0.9, 0.1, 0.9, 0.1], [9, 1, 99, 891])
    assert metrics.ppv(y, s, prevalence=0.3) == pytest.approx(270 / 340) and metrics.npv(
        y, s, prevalence=0.3
    ) == pytest.approx(630 / 660)
    assert metrics.ppv(y, s, prevalence=0.01) == pytest.approx(metrics.ppv(y, s))
    np.testing.assert_allclose(
        metrics.ppv(y, s, prevalence=0.3, weights=np.ones((2, 1000))), [270 / 340] * 2
    )
    with pytest.raises(ValueError, match="prevalence holds 30"):
        metrics.ppv(y, s, prevalence=30)


def test_a_class_without_cases_has_no_weight_in_the_weighted_mean():
    y = [0, 2, 2]
    s = np.eye(3)[[0, 2, 0]]
    assert metrics.sensitivity(y, s, average="weighted") == pytest.approx(2 / 3)
    assert np.isnan(metrics.sensitivity(y, s)) and metrics.sensitivity(
        y, s, average="micro"
    ) == pytest.approx(2 / 3)


def test_kappa_by_hand():
    first = np.repeat([0, 0, 1, 1], [20, 5, 10, 15])
    second = np.repeat([0, 1, 0, 1], [20, 5, 10, 15])
    assert metrics.kappa(first, second) == pytest.approx(0.4)  # agreement 35/50, by chance 1/2
    grades = np.array([0, 1, 2, 3]), np.eye(4)[[0, 1, 3, 2]]
    kinds = [metrics.kappa(*grades, weighting=kind) for kind in (None, "linear", "quadratic")]
    np.testing.assert_allclose(kinds, [1 - 0.5 / 0.75, 1 - 0.5 / 1.25, 1 - 0.5 / 2.5])
    far = metrics.kappa([0, 1, 2, 3], np.eye(4)[[3, 1, 2, 0]], weighting="quadratic")
    assert far < kinds[2]  # a miss by three grades costs more than two by one


def test_undefined_is_nan_not_zero():
    assert (
        np.isnan(metrics.sensitivity([0, 0], [0.9, 0.1]))
        and metrics.specificity([0, 0], [0.9, 0.1]) == 0.5
    )
    assert np.isnan(metrics.ppv([0, 1], [0.1, 0.2])) and np.isnan(metrics.npv([0, 1], [0.7, 0.8]))
    assert np.isnan(metrics.mcc([0, 1], [0.1, 0.2])) and np.isnan(
        metrics.positive_likelihood_ratio([0, 1], [0.1, 0.9])
    )
    np.testing.assert_array_equal(
        metrics.recall_per_class([0, 2], np.eye(3)[[0, 2]]), [1, np.nan, 1]
    )


def test_thresholds():
    y = [0, 1, 1, 0]
    s = [0.2, 0.3, 0.8, 0.3]
    assert metrics.two_by_two(y, s, threshold=0.3) == (
        2,
        1,
        0,
        1,
    )  # a score at the threshold is positive
    assert (
        metrics.sensitivity(y, s, threshold=np.inf) == 0
        and metrics.specificity(y, s, threshold=-np.inf) == 0
    )
    logits = np.log(np.array(s) / (1 - np.array(s)))
    assert metrics.f1(y, logits, threshold=0) == metrics.f1(y, s)
    labels = [[0, 1], [1, 0]]
    scores = [[0.1, 0.3], [0.9, 0.1]]
    assert metrics.recall_per_class(labels, scores, threshold=[0.5, 0.2]).tolist() == [1, 1]


def test_counts_by_hand():
    y = np.repeat([1, 1, 0, 0], [9, 1, 99, 891])
    s = np.repeat([0.9, 0.1, 0.9, 0.1], [9, 1, 99, 891])
    assert metrics.two_by_two(y, s) == (9, 99, 1, 891)
    assert (
        metrics.ppv(y, s) == 9 / 108
        and metrics.npv(y, s) == 891 / 892
        and metrics.prevalence(y) == 0.01
    )
    assert metrics.positive_likelihood_ratio(y, s) == pytest.approx(
        9
    ) and metrics.negative_likelihood_ratio(y, s) == pytest.approx(1 / 9)
    cells = metrics.two_by_two([0, 0, 1, 2], np.eye(3)[[0, 1, 1, 0]])
    assert [each.tolist() for each in cells] == [[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 2, 3]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 50), st.integers(1, 50))
def test_bayes_gives_back_the_predictive_values_of_the_table(tp, fp, fn, tn):
    y = np.repeat([1, 0, 1, 0], [tp, fp, fn, tn])
    s = np.repeat([1.0, 1, 0, 0], [tp, fp, fn, tn])
    known = metrics.sensitivity(y, s), metrics.specificity(y, s), metrics.prevalence(y)
    assert metrics.ppv_at(*known) == pytest.approx(metrics.ppv(y, s))
    assert metrics.npv_at(*known) == pytest.approx(metrics.npv(y, s))


def test_bayes_at_the_edges():
    assert (
        metrics.ppv_at(0.9, 0.9, 0) == 0
        and metrics.npv_at(0.9, 0.9, 0) == 1
        and metrics.ppv_at(0.9, 0.9, 1) == 1
    )
    assert np.isnan(metrics.ppv_at(0, 1, 0.3)) and isinstance(metrics.ppv_at(0.9, 0.9, 0.1), float)
    np.testing.assert_allclose(metrics.ppv_at(0.9, 0.9, [0.01, 0.3]), [9 / 108, 270 / 340])
    with pytest.raises(ValueError, match="prevalence holds 30"):
        metrics.ppv_at(0.9, 0.9, 30)


@pytest.mark.parametrize("metric", DECIDED, **by_name)
def test_logits_need_a_threshold_of_their_own(metric):
    with pytest.raises(ValueError, match="y_score runs from -3 to 2; give probabilities"):
        metric([0, 1], [-3.0, 2.0])
    assert isinstance(metric([0, 1], [-3.0, 2.0], threshold=0), float)


def test_other_faulty_arguments():
    three = np.eye(3)
    with pytest.raises(ValueError, match="the largest score decides"):
        metrics.accuracy([0, 1, 2], three, threshold=0.3)
    with pytest.raises(ValueError, match="threshold is NaN"):
        metrics.accuracy([0, 1], [0.1, 0.2], threshold=np.nan)
    with pytest.raises(ValueError, match="average='mean'; give 'macro', 'micro' or 'weighted'"):
        metrics.f1([0, 1, 2], three, average="mean")
    with pytest.raises(ValueError, match="beta=-1; give a number >= 0"):
        metrics.f_beta([0, 1], [0.1, 0.9], beta=-1)
    with pytest.raises(ValueError, match="weighting='cubic'; give None, 'linear' or 'quadratic'"):
        metrics.kappa([0, 1], [0.1, 0.9], weighting="cubic")
    with pytest.raises(ValueError, match="max_fpr=0; give a false positive rate"):
        ranking.partial_auc([0, 1], [0.1, 0.9], max_fpr=0)
    with pytest.raises(ValueError, match="specificity holds 90"):
        ranking.sensitivity_at([0, 1], [0.1, 0.9], specificity=90)
    with pytest.raises(ValueError, match="draws one curve"):
        ranking.roc_curve([0, 1], [0.1, 0.9], weights=np.ones((3, 2)))
    with pytest.raises(ValueError, match="weights"):
        metrics.accuracy([0, 1], [0.1, 0.9], weights=[1, np.nan])
    with pytest.raises(ValueError, match=r"weights of shape \(3,\) for 2 cases"):
        ranking.auc([0, 1], [0.1, 0.2], weights=[1, 1, 1])
    with pytest.raises(ValueError, match="weights"):
        ranking.auc([0, 1], [0.1, 0.2], weights=[1, -1])
    with pytest.raises(ValueError, match=r"roc_curve\(y_true == k"):
        ranking.roc_curve([0, 1, 2], three)
    with pytest.raises(ValueError, match="give y_true == k"):
        metrics.prevalence([0, 1, 2])
