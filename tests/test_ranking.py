import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as library

from medbook.evaluation import ranking
from tests.metric_samples import AVERAGES, binary, expected, several, weights_of

pytestmark = pytest.mark.filterwarnings("ignore::medbook.evaluation.cases.UndefinedMetric")


@settings(max_examples=60, deadline=None)
@given(binary, st.integers(0, 99))
def test_curves_agree_with_scikit_learn_and_enclose_the_areas(cases, seed):
    y, s = cases
    w = weights_of(seed, len(y))
    each = np.ones(len(y)) if w is None else w
    if not each.any():
        return
    roc = ranking.roc_curve(y, s, weights=w)
    pr = ranking.pr_curve(y, s, weights=w)
    if each @ y and each @ (1 - y):
        np.testing.assert_allclose(
            roc, library.roc_curve(y, s, sample_weight=w, drop_intermediate=False), atol=1e-12
        )
        np.testing.assert_allclose(np.trapezoid(roc.tpr, roc.fpr), ranking.auc(y, s, weights=w))
        wanted = float(roc.tpr[seed % len(roc.tpr)])
        assert ranking.specificity_at(y, s, sensitivity=wanted, weights=w) == pytest.approx(
            1 - roc.fpr[roc.tpr >= wanted - 1e-12].min()
        )
        assert ranking.sensitivity_at(y, s, specificity=wanted, weights=w) == pytest.approx(
            roc.tpr[1 - roc.fpr >= wanted - 1e-12].max()
        )
        precision, recall, thresholds = library.precision_recall_curve(y, s, sample_weight=w)
        np.testing.assert_allclose(pr.precision, precision[:-1][::-1])
        np.testing.assert_allclose(pr.recall, recall[:-1][::-1])
        np.testing.assert_allclose(pr.thresholds, thresholds[::-1])
        np.testing.assert_allclose(
            np.sum(np.diff(pr.recall, prepend=0) * pr.precision),
            ranking.average_precision(y, s, weights=w),
        )
    else:
        assert np.isnan(roc.tpr).all() != np.isnan(roc.fpr).all()


@settings(max_examples=40, deadline=None)
@given(several, st.integers(0, 99))
def test_ranking_of_many_classes_agrees_with_scikit_learn(cases, seed):
    y, s = cases
    s = (s + 0.1) / (s + 0.1).sum(axis=1, keepdims=True)  # scikit-learn wants rows that sum to 1
    w = weights_of(seed, len(y))
    each = np.ones(len(y)) if w is None else w
    present = np.bincount(y, each, minlength=4)
    one_hot = (y[:, None] == np.arange(4)).astype(int)
    whole = (present > 0) & (present < each.sum())
    for average in AVERAGES:
        for ours, theirs, known in [
            (ranking.auc, library.roc_auc_score, whole),
            (ranking.average_precision, library.average_precision_score, present > 0),
        ]:
            value = ours(y, s, average=average, weights=w)
            if average is None:
                one = [
                    expected(
                        theirs, one_hot[:, k], s[:, k], sample_weight=w, undefined=not known[k]
                    )
                    for k in range(4)
                ]
                np.testing.assert_allclose(value, one, atol=1e-12)
            elif average == "micro" and each.any():
                np.testing.assert_allclose(
                    value, theirs(one_hot, s, average=average, sample_weight=w), atol=1e-12
                )
            elif known.all():
                np.testing.assert_allclose(
                    value, theirs(one_hot, s, average=average, sample_weight=w), atol=1e-12
                )
                if ours is ranking.auc:
                    np.testing.assert_allclose(
                        value,
                        theirs(y, s, average=average, sample_weight=w, multi_class="ovr"),
                        atol=1e-12,
                    )
            elif average == "macro":
                assert np.isnan(value)


def test_partial_auc_and_fixed_specificity_by_hand():
    y = [1, 0, 1, 1, 0, 0]
    s = [0.9, 0.7, 0.6, 0.4, 0.3, 0.1]
    assert ranking.partial_auc(y, s, max_fpr=1 / 3, standardised=False) == pytest.approx(1 / 9)
    assert ranking.partial_auc(y, s, max_fpr=1 / 3) == pytest.approx(
        0.5 * (1 + (1 / 9 - 1 / 18) / (1 / 3 - 1 / 18))
    )
    assert ranking.sensitivity_at(y, s, specificity=1) == pytest.approx(1 / 3)
    assert ranking.sensitivity_at(y, s, specificity=2 / 3) == 1 and ranking.specificity_at(
        y, s, sensitivity=1
    ) == pytest.approx(2 / 3)
    assert (
        ranking.specificity_at(y, s, sensitivity=0) == 1
        and ranking.sensitivity_at([0, 1], [0.9, 0.1], specificity=1) == 0
    )
