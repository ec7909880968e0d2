"""The report's table: values by scikit-learn, intervals by formulas, reasons, subgroups."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from medbook.evaluation import intervals, page
from medbook.evaluation.report import evaluate
from tests.studies import BINARY, FAST, several_classes, several_labels, two_classes


def test_binary_table_agrees_with_scikit_learn():
    y, score = two_classes()
    found = evaluate(y, score, threshold=0.3, **FAST).table.set_index("metric")
    call = score >= 0.3
    expected = {
        "auc": reference.roc_auc_score(y, score),
        "average_precision": reference.average_precision_score(y, score),
        "accuracy_largest_score": reference.accuracy_score(y, score > 0.5),
        "accuracy": reference.accuracy_score(y, call),
        "balanced_accuracy": reference.balanced_accuracy_score(y, call),
        "sensitivity": reference.recall_score(y, call),
        "specificity": reference.recall_score(1 - y, ~call),
        "ppv": reference.precision_score(y, call),
        "npv": reference.precision_score(1 - y, ~call),
        "f1": reference.f1_score(y, call),
        "mcc": reference.matthews_corrcoef(y, call),
        "prevalence": y.mean(),
        "kappa": reference.cohen_kappa_score(y, call),
        "partial_auc": reference.roc_auc_score(y, score, max_fpr=0.1),
        "f2": reference.fbeta_score(y, call, beta=2),
        "brier": reference.brier_score_loss(y, score),
        "log_loss": reference.log_loss(y, score),
    }
    ratios = ["positive_likelihood_ratio", "negative_likelihood_ratio"]
    expected |= dict(zip(ratios, reference.class_likelihood_ratios(y, call), strict=True))
    assert list(found.index) == BINARY
    for name, value in expected.items():
        assert found.value[name] == pytest.approx(value, abs=1e-12), name
    with_interval = found.drop(index="ece")
    assert (with_interval.low < with_interval.value).all() and (
        with_interval.value < with_interval.high
    ).all()
    assert math.isnan(found.low["ece"]) and "no interval" in found.method["ece"]
    assert (
        found.n["sensitivity"] == y.sum()
        and found.n["ppv"] == call.sum()
        and found.n["auc"] == len(y)
    )


def test_multi_class_table_agrees_with_scikit_learn():
    y, score = several_classes()
    result = evaluate(y, score, classes=["red", "white", "platelet"], **FAST)
    call = score.argmax(1)
    assert result["auc"].value == pytest.approx(
        reference.roc_auc_score(y, score, multi_class="ovr", average="macro")
    )
    assert result["accuracy_largest_score"].value == (call == y).mean()
    assert result["balanced_accuracy"].value == pytest.approx(
        reference.balanced_accuracy_score(y, call)
    )
    assert result["f1"].value == pytest.approx(reference.f1_score(y, call, average="macro"))
    assert [result[f"recall ({name})"].value for name in result.classes] == pytest.approx(
        reference.recall_score(y, call, average=None)
    )
    assert result["auc (platelet)"].value == pytest.approx(
        reference.roc_auc_score(y == 2, score[:, 2])
    )
    assert (
        result["recall (white)"].method == "Wilson" and result["recall (white)"].n == (y == 1).sum()
    )


def test_multi_label_table_agrees_with_scikit_learn():
    y, score = several_labels()
    result = evaluate(y, score, classes=["nodule", "effusion", "mass"], threshold=0.4, **FAST)
    assert result["auc"].value == pytest.approx(reference.roc_auc_score(y, score, average="macro"))
    assert result["accuracy"].value == pytest.approx(((score >= 0.4) == y).mean())
    assert result["exact_match"].value == pytest.approx(reference.accuracy_score(y, score >= 0.4))
    assert result["recall (mass)"].value == pytest.approx(
        reference.recall_score(y[:, 2], score[:, 2] >= 0.4)
    )


def test_the_largest_score_ignores_the_threshold_and_gives_a_tie_to_the_first_class():
    y = np.array([0, 1, 1, 0])
    score = np.array([0.5, 0.6, 0.4, 0.1])
    result = evaluate(y, score, threshold=0.35, **FAST)
    assert result["accuracy_largest_score"].value == 0.75
    assert (
        result["accuracy"].value == 0.75
        and result["sensitivity"].value == 1
        and result["specificity"].value == 0.5
    )


def test_intervals_are_wilsons_and_the_auc_intervals():
    y, score = two_classes()
    result = evaluate(y, score, confidence=0.9, **FAST)
    hits = int(((score >= 0.5) & (y == 1)).sum())
    assert tuple(result["sensitivity"][1:4]) == pytest.approx(
        intervals.wilson(hits, int(y.sum()), 0.9)
    )
    assert tuple(result["auc"][1:4]) == pytest.approx(
        intervals.auc_interval(y, score, confidence=0.9)
    )
    assert (
        result["f1"].method == "bootstrap"
        and result["sensitivity"].method == "Wilson"
        and result["auc"].method == "score type"
    )


def test_several_images_a_patient_are_redrawn_by_patient_and_widen_the_intervals():
    y, score = two_classes(60, seed=1)
    y = np.repeat(y, 8)
    score = np.repeat(score, 8)
    patients = np.repeat(np.arange(60), 8)
    alone = evaluate(y, score, **FAST)
    together = evaluate(y, score, patients=patients, **FAST)
    assert all(
        "by patient" in row.method
        for row in together.table.itertuples()
        if not row.metric.startswith("ece")
    )
    for name in (
        "auc",
        "accuracy",
        "sensitivity",
        "ppv",
        "positive_likelihood_ratio",
        "f1",
        "brier",
        "calibration_slope",
        "net_benefit",
    ):
        wide = together[name]
        narrow = alone[name]
        assert wide.value == narrow.value
        assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low), (
            name
        )  # eight alike images: sqrt(8) = 2.8 times wider


def test_one_image_a_patient_is_the_same_as_no_patients():
    y, score = two_classes()
    pd.testing.assert_frame_equal(
        evaluate(y, score, patients=np.arange(len(y)), **FAST).table,
        evaluate(y, score, **FAST).table,
    )


def test_nothing_wrong_in_a_few_patients_still_leaves_doubt():
    y = np.repeat([0, 1], 20)
    score = np.repeat([0.1, 0.9], 20)
    patients = np.repeat(np.arange(8), 5)
    result = evaluate(y, score, patients=patients, **FAST)
    row = result["sensitivity"]
    assert (
        row.value == 1
        and row.low == pytest.approx(intervals.wilson(4, 4)[1])
        and row.method == "Wilson, by patient"
    )
    for row in result.table.itertuples():
        assert math.isnan(row.low) or row.low < row.high, row.metric


def test_no_interval_has_zero_width_when_everything_is_right():
    y = np.repeat([0, 1], 15)
    for row in evaluate(y, y * 0.8 + 0.1, **FAST).table.itertuples():
        assert math.isnan(row.low) or (row.low < row.high <= 1), row.metric


@pytest.mark.parametrize(
    "label, missing",
    [
        (0, ["auc", "average_precision", "balanced_accuracy", "sensitivity", "ppv"]),
        (1, ["auc", "balanced_accuracy", "specificity", "ppv"]),
    ],
)
def test_one_class_only_gives_nan_with_a_reason(label, missing):
    result = evaluate(np.full(20, label), np.full(20, 0.2), **FAST)
    for name in missing:
        assert (
            math.isnan(result[name].value)
            and math.isnan(result[name].low)
            and result[name].method.startswith("undefined: ")
        ), name
    assert result["accuracy"].value == 1 - label


def test_a_class_without_cases_is_said_not_counted():
    y, score = several_classes()
    result = evaluate(np.minimum(y, 1), score, classes=["a", "b", "absent"], **FAST)
    assert (
        math.isnan(result["recall (absent)"].value)
        and result["recall (absent)"].method == "undefined: no case of absent"
    )
    assert math.isnan(result["auc (absent)"].value) and math.isnan(result["auc"].value)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0])),
        min_size=1,
        max_size=30,
    ),
    st.floats(0, 1),
)
def test_any_small_study_has_a_table_with_ordered_bounds(rows, threshold):
    y, score = map(np.array, zip(*rows, strict=True))
    found = evaluate(y, score, threshold=threshold, resamples=20).table
    assert list(found.metric) == BINARY
    known = found.dropna()
    assert (
        (known.low < known.high).all()
        and (known.low <= known.value + 1e-12).all()
        and (known.value <= known.high + 1e-12).all()
    )
    shares = known[~known.metric.isin(page._template("words.json")["unbounded"])]
    bottom = np.where(shares.metric.isin(["mcc", "kappa"]), -1, 0)
    assert (shares.low >= bottom).all() and (shares.high <= 1).all()
    assert found[found.value.isna()].method.str.startswith("undefined: ").all()
    assert found[found.value.notna() & found.low.isna()].method.str.contains("no interval").all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=1, max_size=40))
def test_the_effective_size_lies_between_one_and_the_number_of_rows(rows):
    hit, owner = (np.array(each) for each in zip(*rows, strict=True))
    size = intervals.effective_size(hit, owner)
    assert 0 < size <= len(hit) + 1e-9
    assert intervals.effective_size(hit, np.arange(len(hit))) == pytest.approx(len(hit))
    assert intervals.effective_size(
        np.repeat(hit, 3), np.repeat(np.arange(len(hit)), 3)
    ) == pytest.approx(len(hit))


@pytest.mark.parametrize("patients, truth", [(15, 0.8), (40, 0.9), (60, 0.97)])
def test_shares_of_clustered_images_keep_their_promise_where_wilson_over_images_does_not(
    patients, truth
):
    rng = np.random.default_rng(0)
    covered = 0
    naive = 0
    for _ in range(1500):
        right = (
            (rng.random((patients, 5)) < rng.beta(truth, 1 - truth, size=(patients, 1)))
            .ravel()
            .astype(float)
        )  # correlation 0.5
        size = intervals.effective_size(right, np.repeat(np.arange(patients), 5))
        _, low, high = intervals.wilson(right.mean() * size, size)
        covered += low <= truth <= high
        _, low, high = intervals.wilson(right.sum(), len(right))
        naive += low <= truth <= high
    assert 0.93 <= covered / 1500 <= 0.98 and naive / 1500 < 0.85


def test_likelihood_ratios_have_simels_and_woolfs_intervals():
    y, score = two_classes()
    result = evaluate(y, score, **FAST)
    tp, fp, fn, tn = (
        (result.predicted == a)[y == b].sum() for a, b in [(1, 1), (1, 0), (0, 1), (0, 0)]
    )
    spread = {
        "positive_likelihood_ratio": 1 / tp - 1 / (tp + fn) + 1 / fp - 1 / (fp + tn),
        "negative_likelihood_ratio": 1 / fn - 1 / (tp + fn) + 1 / tn - 1 / (fp + tn),
        "diagnostic_odds_ratio": 1 / tp + 1 / fp + 1 / fn + 1 / tn,
    }
    for name, variance in spread.items():
        row = result[name]
        assert np.log([row.low, row.high]) == pytest.approx(
            np.log(row.value) + np.array([-1, 1]) * 1.959963985 * variance**0.5
        )


def test_predictive_values_at_the_prevalence_of_the_cases_are_the_plain_ones():
    y, score = two_classes()
    result = evaluate(y, score, prevalence=y.mean(), **FAST)
    for name in ("ppv", "npv"):
        stated = next(
            row
            for row in result.table.itertuples()
            if row.metric.startswith(f"{name}_at_prevalence")
        )
        assert (
            stated.value == pytest.approx(result[name].value)
            and stated.low < stated.value < stated.high
        )
    rare = evaluate(y, score, prevalence=0.01, **FAST)["ppv_at_prevalence_0.01"]
    assert rare.value == pytest.approx(
        0.01
        * result["sensitivity"].value
        / (0.01 * result["sensitivity"].value + 0.99 * (1 - result["specificity"].value))
    )


def test_an_empty_cell_leaves_the_ratio_with_a_reason():
    y = np.repeat([0, 1], 20)
    result = evaluate(y, 0.2 + 0.6 * y, **FAST)
    assert (
        math.isnan(result["positive_likelihood_ratio"].value)
        and "undefined" in result["positive_likelihood_ratio"].method
    )
    assert (
        "no interval" in result["negative_likelihood_ratio"].method
        and result["negative_likelihood_ratio"].value == 0
    )
    assert "separates" in result["calibration_slope"].method


def test_the_calibration_error_of_a_perfect_model_is_what_a_perfect_model_shows():
    rng = np.random.default_rng(1)
    score = rng.beta(0.7, 1.5, 2000)
    good, bad = (
        evaluate((rng.random(2000) < truth).astype(int), score, **FAST)
        for truth in (score, score**2)
    )
    assert (
        good["ece"].value <= good["ece_if_perfect"].high
        and bad["ece"].value > bad["ece_if_perfect"].high
    )


def test_net_benefit_is_that_of_the_decision_curve_and_nothing_at_a_threshold_of_one():
    from medbook.evaluation.decision_curves import net_benefit

    y, score = two_classes()
    assert evaluate(y, score, threshold=0.2, **FAST)["net_benefit"].value == pytest.approx(
        net_benefit(y, score, 0.2)
    )
    assert "undefined" in evaluate(y, score, threshold=1, **FAST)["net_benefit"].method


def test_redraws_that_agree_up_to_rounding_give_no_interval():
    y = np.repeat([0, 1], [70, 10])
    assert math.isnan(evaluate(y, 0.1 + 0.8 * y, **FAST)["brier"].low)
    assert math.isnan(evaluate(y, 0.1 + 0.8 * y, **FAST)["partial_auc"].low)


def test_a_subgroup_is_the_evaluation_of_its_rows():
    y, score = two_classes()
    sex = np.where(np.arange(len(y)) % 3 == 0, "F", "M")
    found = evaluate(y, score, groups={"sex": sex}, **FAST).subgroups
    alone = evaluate(y[sex == "F"], score[sex == "F"], **FAST)
    for row in found[found.level == "F"].itertuples():
        assert (row.value, row.low, row.high, row.n) == pytest.approx(
            tuple(alone[row.metric][1:5])
        ), row.metric
    assert (
        found[found.level == "F"].images.iloc[0] == 100
        and found[found.level == "F"].cases.iloc[0] == y[sex == "F"].sum()
    )


def test_a_small_group_is_marked_by_the_rule():
    y, score = two_classes(100, prevalence=0.5)
    site = np.repeat(["big", "few images", "few cases"], [41, 29, 30])
    y[70:91] = 0
    found = (
        evaluate(y, score, groups={"site": site}, **FAST).subgroups.groupby("level").warning.first()
    )
    assert (
        found["few images"].startswith("small: 29 images")
        and "with 1" in found["few cases"]
        and found["big"] == ""
    )


def test_a_group_of_one_class_has_what_is_defined():
    y, score = two_classes()
    found = evaluate(y, score, groups={"ill": y}, **FAST).subgroups.set_index(["level", "metric"])
    assert (
        math.isnan(found.value["0", "auc"])
        and found.method["0", "auc"] == "undefined: cases of one class only"
    )
    assert math.isnan(found.value["0", "sensitivity"]) and 0 < found.value["0", "specificity"] < 1
