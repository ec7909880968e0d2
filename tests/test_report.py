"""The report's contracts: what `evaluate` counts, refuses, draws and writes."""
import errno
import json
import math
import os
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from medbook.evaluation import intervals, report
from medbook.evaluation.report import evaluate

FAST = {"resamples": 200}
BINARY = ["auc", "average_precision", "partial_auc", "sensitivity at specificity 0.9", "specificity at sensitivity 0.9",
          "accuracy (largest score)", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "ppv", "npv",
          "positive_likelihood_ratio", "negative_likelihood_ratio", "diagnostic_odds_ratio", "f1", "f2", "mcc", "kappa", "prevalence",
          "brier", "log_loss", "ece", "ece (if perfect)", "calibration_slope", "calibration_intercept", "mean score − share of cases",
          "net_benefit", "net_benefit (treat all)"]


def two_classes(n=300, seed=0, prevalence=0.3):
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < prevalence).astype(int)
    y[:2] = [0, 1]
    return y, 1 / (1 + np.exp(-(rng.normal(size=n) + 2 * y - 1.5)))


def several_classes(n=300, seed=0, share=(0.7, 0.2, 0.1)):
    rng = np.random.default_rng(seed)
    y = rng.choice(len(share), n, p=share)
    scores = np.exp(rng.normal(size=(n, len(share))) + 2 * np.eye(len(share))[y])
    return y, scores / scores.sum(1, keepdims=True)


def several_labels(n=200, seed=0):
    rng = np.random.default_rng(seed)
    y = (rng.random((n, 3)) < [0.5, 0.2, 0.1]).astype(int)
    return y, 1 / (1 + np.exp(-(rng.normal(size=y.shape) + 2 * y - 1)))


EXAMPLES = {"binary": two_classes, "multi-class": several_classes, "multi-label": several_labels}


# ---- the table

def test_binary_table_agrees_with_scikit_learn():
    y, score = two_classes()
    table = evaluate(y, score, threshold=0.3, **FAST).table.set_index("metric")
    call = score >= 0.3
    expected = {
        "auc": reference.roc_auc_score(y, score), "average_precision": reference.average_precision_score(y, score),
        "accuracy (largest score)": reference.accuracy_score(y, score > 0.5), "accuracy": reference.accuracy_score(y, call),
        "balanced_accuracy": reference.balanced_accuracy_score(y, call), "sensitivity": reference.recall_score(y, call),
        "specificity": reference.recall_score(1 - y, ~call), "ppv": reference.precision_score(y, call),
        "npv": reference.precision_score(1 - y, ~call), "f1": reference.f1_score(y, call),
        "mcc": reference.matthews_corrcoef(y, call), "prevalence": y.mean(), "kappa": reference.cohen_kappa_score(y, call),
        "partial_auc": reference.roc_auc_score(y, score, max_fpr=0.1),
        "f2": reference.fbeta_score(y, call, beta=2), "brier": reference.brier_score_loss(y, score),
        "log_loss": reference.log_loss(y, score),
    }
    ratios = ["positive_likelihood_ratio", "negative_likelihood_ratio"]
    expected |= dict(zip(ratios, reference.class_likelihood_ratios(y, call), strict=True))
    assert list(table.index) == BINARY
    for name, value in expected.items():
        assert table.value[name] == pytest.approx(value, abs=1e-12), name
    with_interval = table.drop(index="ece")
    assert (with_interval.low < with_interval.value).all() and (with_interval.value < with_interval.high).all()
    assert math.isnan(table.low["ece"]) and "no interval" in table.method["ece"]
    assert table.n["sensitivity"] == y.sum() and table.n["ppv"] == call.sum() and table.n["auc"] == len(y)


def test_multi_class_table_agrees_with_scikit_learn():
    y, score = several_classes()
    result = evaluate(y, score, classes=["red", "white", "platelet"], **FAST)
    call = score.argmax(1)
    assert result["auc"].value == pytest.approx(reference.roc_auc_score(y, score, multi_class="ovr", average="macro"))
    assert result["accuracy (largest score)"].value == (call == y).mean()
    assert result["balanced_accuracy"].value == pytest.approx(reference.balanced_accuracy_score(y, call))
    assert result["f1"].value == pytest.approx(reference.f1_score(y, call, average="macro"))
    assert [result[f"recall ({name})"].value for name in result.classes] == pytest.approx(reference.recall_score(y, call, average=None))
    assert result["auc (platelet)"].value == pytest.approx(reference.roc_auc_score(y == 2, score[:, 2]))
    assert result["recall (white)"].method == "Wilson" and result["recall (white)"].n == (y == 1).sum()


def test_multi_label_table_agrees_with_scikit_learn():
    y, score = several_labels()
    result = evaluate(y, score, classes=["nodule", "effusion", "mass"], threshold=0.4, **FAST)
    assert result["auc"].value == pytest.approx(reference.roc_auc_score(y, score, average="macro"))
    assert result["accuracy"].value == pytest.approx(((score >= 0.4) == y).mean())
    assert result["accuracy (all labels right)"].value == pytest.approx(reference.accuracy_score(y, score >= 0.4))
    assert result["recall (mass)"].value == pytest.approx(reference.recall_score(y[:, 2], score[:, 2] >= 0.4))


def test_one_column_and_two_columns_of_scores_mean_the_same():
    y, score = two_classes()
    one, two = (evaluate(y, s, **FAST).table for s in (score, np.stack([1 - score, score], axis=1)))
    pd.testing.assert_frame_equal(one, two)


def test_the_largest_score_ignores_the_threshold_and_gives_a_tie_to_the_first_class():
    y, score = np.array([0, 1, 1, 0]), np.array([0.5, 0.6, 0.4, 0.1])
    result = evaluate(y, score, threshold=0.35, **FAST)
    assert result["accuracy (largest score)"].value == 0.75
    assert result["accuracy"].value == 0.75 and result["sensitivity"].value == 1 and result["specificity"].value == 0.5


def test_intervals_are_wilsons_and_the_auc_intervals():
    y, score = two_classes()
    result = evaluate(y, score, confidence=0.9, **FAST)
    hits = int(((score >= 0.5) & (y == 1)).sum())
    assert tuple(result["sensitivity"][1:4]) == pytest.approx(intervals.wilson(hits, int(y.sum()), 0.9))
    assert tuple(result["auc"][1:4]) == pytest.approx(intervals.auc_interval(y, score, confidence=0.9))
    assert result["f1"].method == "bootstrap" and result["sensitivity"].method == "Wilson" and result["auc"].method == "score type"


def test_several_images_a_patient_are_redrawn_by_patient_and_widen_the_intervals():
    y, score = two_classes(60, seed=1)
    y, score, patients = np.repeat(y, 8), np.repeat(score, 8), np.repeat(np.arange(60), 8)
    alone, together = evaluate(y, score, **FAST), evaluate(y, score, patients=patients, **FAST)
    assert all("by patient" in row.method for row in together.table.itertuples() if not row.metric.startswith("ece"))
    for name in ("auc", "accuracy", "sensitivity", "ppv", "positive_likelihood_ratio", "f1", "brier", "calibration_slope", "net_benefit"):
        wide, narrow = together[name], alone[name]
        assert wide.value == narrow.value
        assert wide.high - wide.low > 1.8 * (narrow.high - narrow.low), name   # eight alike images: sqrt(8) = 2.8 times wider


def test_one_image_a_patient_is_the_same_as_no_patients():
    y, score = two_classes()
    pd.testing.assert_frame_equal(evaluate(y, score, patients=np.arange(len(y)), **FAST).table, evaluate(y, score, **FAST).table)


def test_nothing_wrong_in_a_few_patients_still_leaves_doubt():
    y, score, patients = np.repeat([0, 1], 20), np.repeat([0.1, 0.9], 20), np.repeat(np.arange(8), 5)
    result = evaluate(y, score, patients=patients, **FAST)
    row = result["sensitivity"]
    assert row.value == 1 and row.low == pytest.approx(intervals.wilson(4, 4)[1]) and row.method == "Wilson, by patient"
    for row in result.table.itertuples():
        assert math.isnan(row.low) or row.low < row.high, row.metric


def test_no_interval_has_zero_width_when_everything_is_right():
    y = np.repeat([0, 1], 15)
    for row in evaluate(y, y * 0.8 + 0.1, **FAST).table.itertuples():
        assert math.isnan(row.low) or (row.low < row.high <= 1), row.metric


@pytest.mark.parametrize("label, missing", [(0, ["auc", "average_precision", "balanced_accuracy", "sensitivity", "ppv"]),
                                            (1, ["auc", "balanced_accuracy", "specificity", "ppv"])])
def test_one_class_only_gives_nan_with_a_reason(label, missing):
    result = evaluate(np.full(20, label), np.full(20, 0.2), **FAST)
    for name in missing:
        assert math.isnan(result[name].value) and math.isnan(result[name].low) and result[name].method.startswith("undefined: "), name
    assert result["accuracy"].value == 1 - label


def test_a_class_without_cases_is_said_not_counted():
    y, score = several_classes()
    result = evaluate(np.minimum(y, 1), score, classes=["a", "b", "absent"], **FAST)
    assert math.isnan(result["recall (absent)"].value) and result["recall (absent)"].method == "undefined: no case of absent"
    assert math.isnan(result["auc (absent)"].value) and math.isnan(result["auc"].value)


def test_same_seed_same_table_other_seed_other_bounds():
    y, score = two_classes()
    first, again, other = (evaluate(y, score, seed=seed, **FAST).table for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    chance = first.metric == "ece (if perfect)"                       # drawn from the seed altogether
    assert (first.value == other.value)[~chance].all() and not first.low.equals(other.low)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.sampled_from([0.0, 0.1, 0.5, 0.7, 1.0])), min_size=1, max_size=30), st.floats(0, 1))
def test_any_small_study_has_a_table_with_ordered_bounds(rows, threshold):
    y, score = map(np.array, zip(*rows, strict=True))
    table = evaluate(y, score, threshold=threshold, resamples=20).table
    assert list(table.metric) == BINARY
    known = table.dropna()
    assert (known.low < known.high).all() and (known.low <= known.value + 1e-12).all() and (known.value <= known.high + 1e-12).all()
    shares = known[~known.metric.isin(report.UNBOUNDED)]
    bottom = np.where(shares.metric.isin(["mcc", "kappa"]), -1, 0)
    assert (shares.low >= bottom).all() and (shares.high <= 1).all()
    assert table[table.value.isna()].method.str.startswith("undefined: ").all()
    assert table[table.value.notna() & table.low.isna()].method.str.contains("no interval").all()


# ---- one pass for all that is redrawn

def degenerate(name):
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1], [12, 8])
    return {"ties": (y, rng.choice([0.2, 0.5, 0.8], 20)), "one case": (np.eye(20, dtype=int)[4], rng.random(20)),
            "all equal": (y, np.full(20, 0.4)), "perfect": (y, 0.1 + 0.8 * y), "reversed": (y, 0.9 - 0.8 * y),
            "certain": (y, y.astype(float)), "no case": (0 * y, rng.random(20))}[name]


@pytest.mark.parametrize("name", ["ties", "one case", "all equal", "perfect", "reversed", "certain", "no case"])
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_the_joint_metric_is_every_metric_by_itself(name, threshold):
    y, score = degenerate(name)
    p = report.check(y, score, threshold=threshold)
    joint, rng = report.Joint(p), np.random.default_rng(0)
    weights = rng.multinomial(20, np.full(20, 1 / 20), 30).astype(float)
    together, once = joint(y, score, weights=weights), joint(y, score)
    with np.errstate(all="ignore"):
        for number, (metric_name, metric) in enumerate(report.redrawn_metrics(p).items()):
            assert together[:, number] == pytest.approx(metric(y, score, weights=weights), abs=1e-12, nan_ok=True), metric_name
            assert once[number] == pytest.approx(report._value(metric, y, score)[0], abs=1e-12, nan_ok=True), metric_name
    assert (joint.lost == np.isnan(together).sum(0)).all()


@pytest.mark.parametrize("task", EXAMPLES)
def test_the_joint_bounds_are_those_of_each_metrics_own_bootstrap(task):
    y, score = EXAMPLES[task](120)
    result = evaluate(y, score, patients=np.arange(120) // 3, resamples=60)
    for name, metric in report.redrawn_metrics(result).items():
        value, low, high = intervals.bootstrap(metric, y, score, resamples=60, patients=result.owner, stratify=False)
        row = result[name]
        assert row.value == pytest.approx(value, abs=1e-12), name
        if name != "ece":
            assert (row.low, row.high) == pytest.approx((low, high), abs=1e-12), name


# ---- intervals that are not redrawn

@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=1, max_size=40))
def test_the_effective_size_lies_between_one_and_the_number_of_rows(rows):
    hit, owner = (np.array(each) for each in zip(*rows, strict=True))
    size = intervals.effective_size(hit, owner)
    assert 0 < size <= len(hit) + 1e-9
    assert intervals.effective_size(hit, np.arange(len(hit))) == pytest.approx(len(hit))
    assert intervals.effective_size(np.repeat(hit, 3), np.repeat(np.arange(len(hit)), 3)) == pytest.approx(len(hit))


@pytest.mark.parametrize("patients, truth", [(15, 0.8), (40, 0.9), (60, 0.97)])
def test_shares_of_clustered_images_keep_their_promise_where_wilson_over_images_does_not(patients, truth):
    rng, covered, naive = np.random.default_rng(0), 0, 0
    for _ in range(1500):
        right = (rng.random((patients, 5)) < rng.beta(truth, 1 - truth, size=(patients, 1))).ravel().astype(float)   # correlation 0.5
        size = intervals.effective_size(right, np.repeat(np.arange(patients), 5))
        _, low, high = intervals.wilson(right.mean() * size, size)
        covered += low <= truth <= high
        _, low, high = intervals.wilson(right.sum(), len(right))
        naive += low <= truth <= high
    assert 0.93 <= covered / 1500 <= 0.98 and naive / 1500 < 0.85


def test_likelihood_ratios_have_simels_and_woolfs_intervals():
    y, score = two_classes()
    result = evaluate(y, score, **FAST)
    tp, fp, fn, tn = ((result.called == a)[y == b].sum() for a, b in [(1, 1), (1, 0), (0, 1), (0, 0)])
    spread = {"positive_likelihood_ratio": 1 / tp - 1 / (tp + fn) + 1 / fp - 1 / (fp + tn),
              "negative_likelihood_ratio": 1 / fn - 1 / (tp + fn) + 1 / tn - 1 / (fp + tn),
              "diagnostic_odds_ratio": 1 / tp + 1 / fp + 1 / fn + 1 / tn}
    for name, variance in spread.items():
        row = result[name]
        assert np.log([row.low, row.high]) == pytest.approx(np.log(row.value) + np.array([-1, 1]) * 1.959963985 * variance**0.5)


def test_predictive_values_at_the_prevalence_of_the_cases_are_the_plain_ones():
    y, score = two_classes()
    result = evaluate(y, score, prevalence=y.mean(), **FAST)
    for name in ("ppv", "npv"):
        stated = next(row for row in result.table.itertuples() if row.metric.startswith(f"{name} (prevalence"))
        assert stated.value == pytest.approx(result[name].value) and stated.low < stated.value < stated.high
    rare = evaluate(y, score, prevalence=0.01, **FAST)["ppv (prevalence 0.01)"]
    assert rare.value == pytest.approx(0.01 * result["sensitivity"].value / (0.01 * result["sensitivity"].value
                                                                             + 0.99 * (1 - result["specificity"].value)))


def test_an_empty_cell_leaves_the_ratio_with_a_reason():
    y = np.repeat([0, 1], 20)
    result = evaluate(y, 0.2 + 0.6 * y, **FAST)
    assert math.isnan(result["positive_likelihood_ratio"].value) and "undefined" in result["positive_likelihood_ratio"].method
    assert "no interval" in result["negative_likelihood_ratio"].method and result["negative_likelihood_ratio"].value == 0
    assert "separates" in result["calibration_slope"].method


def test_the_calibration_error_of_a_perfect_model_is_what_a_perfect_model_shows():
    rng = np.random.default_rng(1)
    score = rng.beta(0.7, 1.5, 2000)
    good, bad = (evaluate((rng.random(2000) < truth).astype(int), score, **FAST) for truth in (score, score**2))
    assert good["ece"].value <= good["ece (if perfect)"].high and bad["ece"].value > bad["ece (if perfect)"].high


def test_net_benefit_is_that_of_chapter_34_and_nothing_at_a_threshold_of_one():
    from medbook.evaluation.decision import net_benefit
    y, score = two_classes()
    assert evaluate(y, score, threshold=0.2, **FAST)["net_benefit"].value == pytest.approx(net_benefit(y, score, 0.2))
    assert "undefined" in evaluate(y, score, threshold=1, **FAST)["net_benefit"].method


# ---- subgroups

def test_a_subgroup_is_the_evaluation_of_its_rows():
    y, score = two_classes()
    sex = np.where(np.arange(len(y)) % 3 == 0, "F", "M")
    found = evaluate(y, score, groups={"sex": sex}, **FAST).subgroups
    alone = evaluate(y[sex == "F"], score[sex == "F"], **FAST)
    for row in found[found.level == "F"].itertuples():
        assert (row.value, row.low, row.high, row.n) == pytest.approx(tuple(alone[row.metric][1:5])), row.metric
    assert found[found.level == "F"].images.iloc[0] == 100 and found[found.level == "F"].cases.iloc[0] == y[sex == "F"].sum()


def test_a_table_with_a_row_a_patient_is_joined_by_name():
    y, score = two_classes(60)
    patients = np.array([f"P{i // 3}" for i in range(60)])
    by_row = {"age": np.arange(60) // 3 * 4, "site": np.where(np.arange(60) // 3 < 5, "A", None)}
    people = pd.DataFrame({"patient": [f"P{i}" for i in range(20)], "age": np.arange(20) * 4, "site": ["A"] * 5 + [None] * 15})
    first = evaluate(y, score, patients=patients, groups=by_row, **FAST).subgroups
    second = evaluate(y, score, patients=patients, groups=people.sample(frac=1, random_state=0), **FAST).subgroups
    pd.testing.assert_frame_equal(first, second)
    assert first.level.unique().tolist() == ["under 18", "18 to 39", "40 to 59", "60 to 79", "A", "unknown"]


def test_ages_numbers_and_many_names_become_few_levels():
    assert report._levels("PatientAge", ["045Y", "006M", "081Y"])[1].tolist() == ["40 to 59", "under 18", "80 and over"]
    assert report._levels("dose", np.arange(100.0))[0] == ["up to 24.75", "24.75 to 49.5", "49.5 to 74.25", "above 74.25"]
    levels, words = report._levels("site", [f"site {i % 30}" for i in range(300)])
    assert len(levels) == 12 and levels[-1] == "all others" and len(words) == 300
    assert report._levels("grade", [1.0, 2.0, np.nan])[0] == ["1", "2", "unknown"]
    assert report._levels("dose", np.repeat([0.0, 1, 2, 3, 4, 5, 6, 7], [90] + [1] * 7))[0]      # quartiles that coincide


def test_a_small_group_is_marked_by_the_rule():
    y, score = two_classes(100, prevalence=0.5)
    site = np.repeat(["big", "few images", "few cases"], [41, 29, 30])
    y[70:91] = 0
    found = evaluate(y, score, groups={"site": site}, **FAST).subgroups.groupby("level").warning.first()
    assert found["few images"].startswith("small: 29 images") and "with 1" in found["few cases"] and found["big"] == ""


def test_a_group_of_one_class_has_what_is_defined():
    y, score = two_classes()
    found = evaluate(y, score, groups={"ill": y}, **FAST).subgroups.set_index(["level", "metric"])
    assert math.isnan(found.value["0", "auc"]) and found.method["0", "auc"] == "undefined: cases of one class only"
    assert math.isnan(found.value["0", "sensitivity"]) and 0 < found.value["0", "specificity"] < 1


PEOPLE = pd.DataFrame({"patient": ["A", "B"], "sex": ["F", "M"]})


@pytest.mark.parametrize("change, words", [
    ({"groups": {"sex": ["F"]}}, "sex has 1 values for 20 rows"),
    ({"groups": ["F"] * 20}, "a table or a dict"),
    ({"groups": PEOPLE}, "patients was not given"),
    ({"groups": PEOPLE, "patients": ["A"] * 20}, "patient B has no rows in y_true"),
    ({"groups": PEOPLE, "patients": ["A"] * 10 + ["C", "B"] * 5}, "no row for patient C"),
    ({"groups": pd.concat([PEOPLE, PEOPLE]), "patients": ["A", "B"] * 10}, "patient A twice"),
    ({"prevalence": 2}, "prevalence is 2"),
    ({"patients": ["P"] * 21}, "a patient without a row cannot be judged"),
    ({"y_true": ["no", "mass"] * 10, "classes": ["no", "yes"]}, "'mass', which is none of the classes no, yes"),
    ({"y_true": ["no", "yes"] * 10}, "give classes="),
])
def test_groups_and_names_that_do_not_fit_are_one_clear_line(change, words):
    y, score = two_classes(20)
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        evaluate(**{"y_true": y, "y_score": score} | FAST | change)
    assert "\n" not in str(caught.value)


def test_rows_of_several_classes_must_sum_to_one():
    y, score = several_classes(30)
    score[7] *= 0.9
    with pytest.raises(ValueError, match="row 7 sums to 0.9, not to 1"):
        evaluate(y, score, **FAST)


def test_labels_may_be_names():
    y, score = two_classes()
    names = np.array(["healthy", "ill"])
    plain = evaluate(y, score, classes=names, **FAST).table
    for labels in (names[y], names[y].tolist(), pd.Series(names[y]), pd.Categorical(names[y])):
        pd.testing.assert_frame_equal(evaluate(labels, score, classes=names, **FAST).table, plain)


# ---- bad input

Y, S = two_classes(20)


@pytest.mark.parametrize("change, words", [
    ({"y_true": []}, "at least one"),
    ({"y_true": ["a"] * 20}, "y_true holds"),
    ({"y_true": Y + 0.5}, "whole numbers"),
    ({"y_true": Y - 1}, "whole numbers"),
    ({"y_true": np.where(Y, np.nan, 0.0)}, "y_true of shape"),
    ({"y_true": Y + 1}, "label 2"),
    ({"y_score": S[:-1]}, "(20,)"),
    ({"y_score": np.where(Y, np.nan, S)}, "NaN or infinite"),
    ({"y_score": np.where(Y, np.inf, S)}, "NaN or infinite"),
    ({"y_score": S * 7}, "from 0 to 1"),
    ({"y_score": ["high"] * 20}, "y_score holds"),
    ({"y_score": np.zeros((20, 2, 2))}, "shape"),
    ({"y_score": np.stack([S, S], 1)}, "sum to"),
    ({"y_true": np.zeros((20, 3), int)}, "many labels"),
    ({"classes": ["only one"]}, "2 different names"),
    ({"classes": ["same", "same"]}, "2 different names"),
    ({"patients": ["P1"]}, "patients has 1 names for 20 rows"),
    ({"patients": [None] * 20}, "no name in 20 rows"),
    ({"threshold": 1.5}, "threshold is 1.5"),
    ({"threshold": math.nan}, "threshold is nan"),
    ({"confidence": 95}, "confidence"),
    ({"resamples": 0}, "resamples"),
    ({"resamples": 2.5}, "resamples is 2.5; give a whole number"),
    ({"seed": None}, "seed is None"),
    ({"seed": -1}, "seed 0 or more"),
    ({"threshold": "a"}, "threshold is 'a'"),
    ({"classes": "ab"}, "classes is the text 'ab'"),
    ({"patients": [""] + ["P"] * 19}, "no name in 1 rows"),
    ({"y_score": np.full((20, 3), 1 / 3), "threshold": 0.4}, "largest score"),
])
def test_bad_input_is_one_clear_line(change, words):
    with pytest.raises(ValueError, match=re.escape(words)) as caught:
        evaluate(**{"y_true": Y, "y_score": S} | change)
    assert "\n" not in str(caught.value)


def test_an_unknown_metric_or_figure_names_the_known_ones():
    result = evaluate(Y, S, **FAST)
    with pytest.raises(ValueError, match="roc, pr, confusion, reliability, recall"):
        result.plot("sankey")
    with pytest.raises(KeyError, match="average_precision"):
        result["no such"]


# ---- figures

@pytest.mark.parametrize("task", EXAMPLES)
def test_every_figure_of_every_task_draws_on_the_axes_it_is_given(task):
    from matplotlib.figure import Figure
    y, score = EXAMPLES[task]()
    result = evaluate(y, score, groups={"sex": np.arange(len(y)) % 2}, **FAST)
    assert "subgroups" in report.kinds(result) and ("decision" in report.kinds(result)) == (task == "binary")
    for kind in report.kinds(result):
        ax = Figure().subplots()
        assert result.plot(kind, ax) is ax
        assert ax.lines or ax.images or ax.collections


def test_a_figure_that_cannot_be_says_why():
    with pytest.raises(ValueError, match="no subgroups were asked for"):
        evaluate(Y, S, **FAST).plot("subgroups")
    with pytest.raises(ValueError, match="for two classes"):
        evaluate(*several_classes(), **FAST).plot("decision")


def test_roc_curve_and_its_area_are_scikit_learns():
    y, score = two_classes()
    score = score.round(1)
    from matplotlib.figure import Figure
    result = evaluate(y, score, **FAST)
    line = next(line for line in result.plot("roc", Figure().subplots()).lines if line.get_label().startswith("1 "))
    fpr, tpr, _ = reference.roc_curve(y, score, drop_intermediate=False)
    assert line.get_xdata() == pytest.approx(fpr) and line.get_ydata() == pytest.approx(tpr)
    tp, fp = report._counts(y, score)
    assert tp / y.sum() == pytest.approx(tpr[1:]) and fp / (1 - y).sum() == pytest.approx(fpr[1:])


def test_bands_hold_their_curves():
    from matplotlib.figure import Figure
    result = evaluate(*two_classes(), **FAST)
    for kind in ("roc", "pr"):
        ax = result.plot(kind, Figure().subplots())
        band = ax.collections[0].get_paths()[0].vertices
        assert np.isfinite(band).all() and band.min() >= 0 and band.max() <= 1
        assert np.ptp(band[:, 1]) > 0.3


def test_confusion_counts_rows_true_columns_called():
    y, score = several_classes()
    result = evaluate(y, score, **FAST)
    assert (report._confusion(result) == reference.confusion_matrix(y, score.argmax(1))).all()
    y, score = several_labels()
    counts = report._confusion(evaluate(y, score, **FAST)).reshape(-1, 2, 2)
    expected = reference.multilabel_confusion_matrix(y, score >= 0.5)[:, ::-1, ::-1]   # ours: found, missed / false alarm, left alone
    assert (counts == expected).all()


def test_reliability_counts_every_score_once_and_wilsons_bars():
    y, score = two_classes()
    score[:2] = [0, 1]
    table = report.reliability(evaluate(y, score, **FAST))
    assert table.n.sum() == len(y) and (table.n * table.share).sum() == pytest.approx(y.sum())
    inside = (score >= 0.9)
    assert table.iloc[-1].n == inside.sum() and table.iloc[-1].share == pytest.approx(y[inside].mean())
    assert table.iloc[-1][["low", "high"]].tolist() == pytest.approx(list(intervals.wilson(int(y[inside].sum()), int(inside.sum()))[1:]))


def test_a_redraw_by_weights_is_the_curve_of_repeated_rows():
    y, score = two_classes(40)
    weights = np.random.default_rng(0).integers(1, 4, size=(5, 40)).astype(float)
    grid = np.linspace(0.05, 1, 20)
    for read in (report._sensitivity_at, report._precision_at):
        together = report._curve(read, grid, y, score, weights)
        for row, each in zip(together, weights.astype(int), strict=True):
            assert row == pytest.approx(report._curve(read, grid, np.repeat(y, each), np.repeat(score, each)))


def test_mistakes_are_wrong_and_sorted_by_certainty():
    y, score = two_classes()
    rows = evaluate(y, score, classes=["no", "yes"], **FAST).mistakes(5)
    assert len(rows) == 5 and (rows.true != rows.called).all()
    assert (np.diff((rows.score - 0.5).abs()) <= 0).all()
    assert ((score >= 0.5) != y).sum() >= 5 and (rows.score == score[rows.row]).all()


def test_mistakes_find_missed_cases_also_at_a_low_threshold():
    y, score = two_classes(600, prevalence=0.3)
    kinds = evaluate(y, score, threshold=0.3, classes=["no", "yes"], **FAST).mistakes(12).called.value_counts()
    assert kinds["no"] > 1 and kinds["yes"] > 1


def test_mistakes_of_several_labels_are_wrong_and_named():
    y, score = several_labels()
    result = evaluate(y, score, classes=["a", "b", "c"], **FAST)
    for row in result.mistakes(8).itertuples():
        k = "abc".index(row.true[-1])
        assert y[row.row, k] == (not row.true.startswith("no ")) and row.score == score[row.row, k]
        assert (score[row.row, k] >= 0.5) != y[row.row, k]


# ---- files

def test_json_keeps_every_digit_and_turns_nan_into_null(tmp_path):
    y, score = two_classes()
    result = evaluate(y, score, patients=np.arange(len(y)) // 2, classes=["no", "yes"], **FAST)
    text = result.to_json(tmp_path / "report.json", settings={"lr": np.float32(0.5), "best": math.nan, "path": tmp_path}).read_text()
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert read["schema"] == "medbook.evaluation/1" and read["task"] == "binary" and read["classes"] == ["no", "yes"]
    assert [row["value"] for row in read["metrics"]] == result.table.value.tolist()
    assert read["settings"]["lr"] == 0.5 and read["settings"]["best"] is None
    assert np.sum(read["confusion"]) == read["images"] == len(y) and read["patients"] == len(y) // 2
    alone = json.loads(evaluate([0, 0], [0.1, 0.2], **FAST).to_json(tmp_path / "one.json").read_text())
    assert alone["metrics"][0]["value"] is None


def test_csv_reads_back_as_the_table(tmp_path):
    result = evaluate(*two_classes(), **FAST)
    pd.testing.assert_frame_equal(pd.read_csv(result.to_csv(tmp_path / "report.csv"), float_precision="round_trip"), result.table)


@pytest.mark.parametrize("task", EXAMPLES)
def test_html_escapes_what_users_write_and_asks_nothing_of_the_network(task, tmp_path):
    y, score = EXAMPLES[task]()
    evil = "<script>alert('x')</script>"
    classes = [evil, "$x_1$ & \\frac", "third"][: 2 if task == "binary" else 3]
    page = evaluate(y, score, classes=classes, **FAST).to_html(
        tmp_path / "report.html", title=evil, notes=[evil], settings={evil: {evil: [evil]}}, images={evil: np.zeros((4, 4))},
        history=pd.DataFrame({"epoch": [1, 2], "loss": [1.0, math.nan], "valid_loss": [1.0, 0.9], evil: [1, 2], "valid_" + evil: [1, 2]}),
    ).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    outside = [link for link in re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?([^\"')\s]+)", page) if not link.startswith(("data:", "#"))]
    assert not outside and "http:" not in page and "https:" not in page
    assert page.startswith("<!doctype html>") and '<html lang="en">' in page and "not for diagnosis" in page
    assert page.count("<img") == page.count("alt=") == 7 + (task == "binary")   # five figures (or six), the learning curve, one image


def test_html_shows_the_numbers_the_notes_and_what_is_left_to_the_authors(tmp_path):
    y, score = two_classes()
    result = evaluate(y, score, **FAST)
    settings = {"split": "by patient", "model": {"name": "compact"}}
    page = result.to_html(tmp_path / "r.html", notes="One sentence.", settings=settings).read_text()
    assert f"{result['auc'].value:.3f}" in page and f"{result['auc'].low:.3f} to {result['auc'].high:.3f}" in page
    assert "<li>One sentence.</li>" in page and "to be completed by the authors" in page
    assert "split: by patient" in page and "model.name: compact" in page
    assert "No patients were named" in page and "Learning curve" not in page


def test_html_of_an_undefined_number_shows_a_dash_and_the_reason(tmp_path):
    page = evaluate([0, 0, 0], [0.1, 0.2, 0.3], **FAST).to_html(tmp_path / "r.html").read_text()
    assert "undefined: cases of one class only" in page and "nan" not in re.sub(r"data:[^\"]*", "", page).lower()


def test_html_takes_odd_histories(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PLOTS", {})
    result = evaluate(Y, S, **FAST)
    for columns in ({}, {"epoch": [1]}, {"loss": [0.5]}, {"epoch": [1], "val_loss": [0.3]}):
        history = pd.DataFrame(columns)
        page = result.to_html(tmp_path / "r.html", history=history).read_text()
        assert ("Learning curve" in page) == ("loss" in " ".join(history.columns))


@pytest.mark.parametrize("image", [np.zeros((3, 4), np.uint8), np.ones((3, 4, 1)), np.full((3, 4, 3), 0.5, np.float32),
                                   np.full((3, 4), np.nan)])
def test_images_become_png_of_their_own_size(image):
    import base64
    import io

    from matplotlib.image import imread
    source = report._png(image)
    pixels = imread(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))
    assert pixels.shape[:2] == (3, 4)
    assert pixels[0, 0, 0] == pytest.approx(np.nan_to_num(image.astype(float)).ravel()[0], abs=0.003)


def test_names_in_any_script_reach_the_figures_as_text(tmp_path, recwarn):
    import base64
    page = evaluate(Y, S, classes=["正常", "肺炎"], **FAST).to_html(tmp_path / "r.html").read_text(encoding="utf-8")
    figure = base64.b64decode(re.search(r"data:image/svg\+xml;base64,([^\"]+)", page)[1]).decode()
    assert "肺炎" in figure and not [w for w in recwarn if "Glyph" in str(w.message)]


def test_what_the_backend_sets_at_the_first_figure_outlasts_the_style(monkeypatch):
    """In Jupyter the first figure starts the backend, which turns interactive mode on: undone with the style, no figure would show."""
    import matplotlib
    from matplotlib import pyplot
    first = pyplot.figure

    def starts_the_backend(*args, **options):
        matplotlib.rcParams["interactive"] = True
        return first(*args, **options)
    with matplotlib.rc_context({"interactive": False}):
        monkeypatch.setattr(pyplot, "figure", starts_the_backend)
        evaluate(Y, S, **FAST).plot("recall")
        pyplot.close()
        assert matplotlib.rcParams["interactive"] and matplotlib.rcParams["axes.spines.top"]


def test_the_worst_errors_are_taken_from_the_images_of_all_rows(tmp_path):
    y, score = two_classes(40)
    images = np.full((40, 6, 6), np.arange(40)[:, None, None] / 40)
    result = evaluate(y, score, **FAST)
    wrong = result.mistakes()
    for source in (images, list(images), lambda row: images[row]):
        errors, others = report._pictures(result, source)
        assert len(errors) == len(wrong) and others == []
        assert [error["source"] for error in errors] == [report._png(images[row]) for row in wrong.row]
    page = result.to_html(tmp_path / "r.html", images=images).read_text()
    assert "Worst errors" in page and f"row {wrong.row[0]}" in page and "worst errors are shown" in page
    with pytest.raises(ValueError, match="images has 3 images for 40 rows"):
        result.to_html(tmp_path / "r.html", images=images[:3])


def test_images_beyond_zero_and_one_are_stretched_and_large_ones_made_small():
    import base64
    import io

    from matplotlib.image import imread
    read = lambda source: imread(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,"))))  # noqa: E731
    pixels = read(report._png(np.array([[-1000, 0], [500, 3000]], np.int16)))
    assert pixels[0, 0, 0] == 0 and pixels[1, 1, 0] == 1 and pixels[0, 1, 0] == pytest.approx(0.25, abs=0.01)
    assert read(report._png(np.zeros((2000, 500)))).shape[:2] == (286, 72)


# ---- checklists

def test_the_checklists_have_their_items_and_mark_what_is_unknown(tmp_path):
    lists = report.checklists()
    numbers = [int(re.match(r"\d+", item["item"])[0]) for item in lists["TRIPOD+AI"]["items"]]
    assert numbers == sorted(numbers) and set(numbers) == set(range(1, 28))
    assert not any("item" in item for item in lists["CLAIM"]["items"])
    known = {fact for one in lists.values() for item in one["items"] for fact in item.get("facts", [])}
    result = evaluate(Y, S, groups={"sex": np.arange(20) % 2}, **FAST)
    assert known == set(report._told(result, [1]))
    bare, full = (report._filled(result, settings, []) for settings in ([], report._flat({"epochs": 20, "data": {"name": "x"}})))
    for one, other in zip(bare, full, strict=True):
        assert one["blank"] > other["blank"] > 0 and other["blank"] < len(other["items"])
    page = result.to_html(tmp_path / "r.html", settings={"epochs": 20}).read_text()
    left = sum(one["blank"] for one in report._filled(result, report._flat({"epochs": 20}), []))
    assert page.count("to be completed by the authors") == left


def test_no_setting_is_read_into_a_checklist_by_a_part_of_its_name():
    assert report._known([("batch_size", "32"), ("data.name", "x"), ("database", "y")], ["data"]) == "data.name: x"


def test_an_image_of_impossible_shape_is_named():
    with pytest.raises(ValueError, match=r"images: an image has shape \(2, 2, 2\)"):
        report._png(np.zeros((2, 2, 2)))


def test_a_missing_folder_is_named(tmp_path):
    result = evaluate(Y, S, **FAST)
    for write in (result.to_html, result.to_json, result.to_csv):
        with pytest.raises(OSError, match="there is no folder .*nowhere") as caught:
            write(tmp_path / "nowhere" / "file")
        assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="it is a folder"):
        result.to_csv(tmp_path)


def test_a_full_disk_leaves_the_old_file_whole_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "report.csv"
    path.write_text("old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="cannot write .*report.csv: no space left on device; free some space") as caught:
        evaluate(Y, S, **FAST).to_csv(path)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["report.csv"]


def test_import_and_evaluate_ask_for_nothing_heavy(monkeypatch):
    import importlib
    import sys

    import medbook
    monkeypatch.setattr(medbook, "evaluation", medbook.evaluation)                      # put back afterwards
    for name in [name for name in sys.modules if name.startswith("medbook.evaluation")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("keras", "tensorflow", "matplotlib", "seaborn", "jinja2", "cv2", "skimage", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)                                    # an import of it raises ImportError
    fresh = importlib.import_module("medbook.evaluation.report")
    assert fresh is not report and len(fresh.evaluate([0, 1], [0.2, 0.8], resamples=5).table) == len(BINARY)
    with pytest.raises(ImportError):
        fresh.evaluate([0, 1], [0.2, 0.8], resamples=5).plot("recall")


@pytest.mark.parametrize("ill", [1, 2, 4])
def test_a_class_of_few_has_no_redrawn_interval_and_no_ratios(ill, tmp_path, recwarn):
    rng = np.random.default_rng(ill)
    y, score = np.repeat([0, 1], [80 - ill, ill]), rng.random(80)
    result = evaluate(y, score, classes=["no", "yes"], **FAST)
    for name in ["balanced_accuracy", "mcc", "brier", "average_precision", "positive_likelihood_ratio"]:
        row = result[name]
        assert math.isnan(row.low) and (math.isnan(row.value) or f"only {ill} image" in row.method), name
    page = result.to_html(tmp_path / "r.html").read_text()
    assert f"no interval: only {ill} image" in page and not recwarn.list
    enough = evaluate(np.append(y, np.ones(5 - ill, int)), np.append(score, np.full(5 - ill, 0.4)), **FAST)
    assert enough["brier"].low < enough["brier"].value < enough["brier"].high


def test_redraws_that_agree_up_to_rounding_give_no_interval():
    y = np.repeat([0, 1], [70, 10])
    assert math.isnan(evaluate(y, 0.1 + 0.8 * y, **FAST)["brier"].low)
    assert math.isnan(evaluate(y, 0.1 + 0.8 * y, **FAST)["partial_auc"].low)


@pytest.mark.parametrize("metric", ["brier", "log_loss", "average_precision"])
def test_intervals_of_numbers_that_move_with_the_prevalence_hold_it(metric):
    """The truth from a large cohort; 200 small ones of the same kind, in which the number of the ill varies."""
    rng, held = np.random.default_rng(0), 0

    def cohort(n):
        y = (rng.random(n) < 0.1).astype(int)
        x = rng.normal(size=n) + 1.5 * y
        return y, 1 / (1 + np.exp(-(1.5 * x - 1.125 + math.log(1 / 9))))
    truth = report.redrawn_metrics(report.check(*cohort(10)))[metric](*cohort(400_000))
    for _ in range(200):
        p = report.check(*cohort(300), resamples=300)
        low, high = report._redraw(p, report.redrawn_metrics(p)[metric], p.y_true, p.y_score)[1:]
        held += low <= truth <= high
    assert held / 200 >= 0.9


def test_half_answered_topics_count_as_blank():
    items = report._filled(evaluate(Y, S, **FAST), report._flat({"data": {"name": "x", "digest": "ab12", "shape": [1]}}), [])
    told = [item["text"] for one in items for item in one["items"] if item["text"]]
    assert "data.name: x" in told and not any("ab12" in text for text in told)
    for one in items:
        assert one["blank"] == sum(not item["text"] or "____" in item["text"] for item in one["items"])


def test_one_label_an_image_is_told_and_rounded_rows_are_mended():
    y, score = several_classes()
    assert "if only one can hold" in " ".join(report._cautions(evaluate(np.eye(3, dtype=int)[y], score, **FAST)))
    assert report.check(y, score.round(2)).y_score.sum(1) == pytest.approx(1, abs=1e-12)
