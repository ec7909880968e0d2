import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from medbook.evaluation import metrics, ranking
from medbook.evaluation.comparison import (
    Comparison,
    compare,
    compare_tables,
    mcnemar,
    non_inferiority,
    paired_bootstrap,
    paired_delong,
    paired_share,
)
from medbook.evaluation.intervals import delong


def study(seed=0, ill=40, healthy=120, truth=(0.85, 0.85), shared=0.5):
    """Labels and two models' probabilities whose ranks have the AUCs `truth`."""
    rng = np.random.default_rng(seed)
    y = np.repeat([1, 0], [ill, healthy])
    common = rng.normal(size=len(y))
    noise = [
        np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=len(y)) for _ in truth
    ]
    return y, *(
        stats.norm.cdf(part + (y - 0.5) * np.sqrt(2) * stats.norm.ppf(area))
        for part, area in zip(noise, truth, strict=True)
    )


def brute_force_variance(y, a, b):
    """Variance of the AUCs' difference, from the covariance of the placements."""
    total = 0
    for side, sign in ((1, 1), (0, -1)):
        own = y == side
        other = y != side
        wins = [
            ((sign * (s[own][:, None] - s[other])) > 0) + 0.5 * (s[own][:, None] == s[other])
            for s in (a, b)
        ]
        total += np.var(wins[1].mean(1) - wins[0].mean(1), ddof=1) / own.sum()
    return total


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 20), st.integers(2, 20), st.sampled_from([1, 2, 15]))
def test_paired_delong_is_the_textbooks(seed, ill, healthy, digits):
    y, a, b = study(seed, ill, healthy)
    a = a.round(digits)
    b = b.round(digits)
    found = paired_delong(y, a, b)
    variance = brute_force_variance(y, a, b)
    assert found.value == pytest.approx(ranking.auc(y, b) - ranking.auc(y, a))
    if variance > 1e-12:
        z = found.value / np.sqrt(variance)
        assert found.p == pytest.approx(2 * stats.norm.sf(abs(z)), abs=1e-9)
        ends = np.clip(found.value + np.array([-1, 1]) * 1.959964 * np.sqrt(variance), -1, 1)
        np.testing.assert_allclose([found.low, found.high], ends, atol=1e-6)
    turned = paired_delong(y, b, a)
    np.testing.assert_allclose(turned[:3], (-found.value, -found.high, -found.low), atol=1e-12)


def test_the_null_is_rejected_one_time_in_twenty():
    """4,000 pairs of equal models: between 4 and 6 %."""
    for ill, healthy, truth in [(39, 117, 0.8), (100, 100, 0.85)]:
        rejected = [
            paired_delong(*study(seed, ill, healthy, (truth, truth))).p < 0.05
            for seed in range(4000)
        ]
        assert 0.04 <= np.mean(rejected) <= 0.06


def test_compare_rejects_the_null_as_its_parts_do():
    for seed in range(5):
        y, a, b = study(seed)
        found = compare(y, a, b, resamples=50)
        assert found.p == paired_delong(y, a, b).p
        row = found.table.set_index("metric").loc["accuracy"]
        assert row.p == mcnemar((a >= 0.5) == y, (b >= 0.5) == y).p
        assert row.a == metrics.accuracy(y, a) and row.b == pytest.approx(metrics.accuracy(y, b))


def test_by_patient_copies_tell_nothing_new_and_the_null_holds():
    y, a, b = study()
    copies = np.repeat(np.arange(len(y)), 3)
    named = [f"P{k}" for k in copies]
    np.testing.assert_allclose(
        paired_delong(y[copies], a[copies], b[copies], patients=named)[:4],
        paired_delong(y, a, b)[:4],
    )
    assert paired_delong(y[copies], a[copies], b[copies]).p < paired_delong(y, a, b).p
    rejected = np.zeros(2)
    for seed in range(800):
        rng = np.random.default_rng(seed)
        who = np.repeat(np.arange(80), 5)
        ill = np.repeat((np.arange(80) < 32).astype(int), 5)
        first, second = (
            1.5 * ill + rng.normal(size=80)[who] + rng.normal(size=400) for _ in range(2)
        )
        rejected += [
            paired_delong(ill, first, second, patients=who).p < 0.05,
            paired_delong(ill, first, second).p < 0.05,
        ]
    by_patient, by_image = rejected / 800
    assert 0.03 < by_patient < 0.075 and by_image > 0.2  # four standard errors of slack


def test_several_classes_and_labels():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    a, b = (np.exp(rng.normal(size=(240, 3)) + skill * np.eye(3)[y]) for skill in (0.8, 2.0))
    a, b = (score / score.sum(1, keepdims=True) for score in (a, b))
    found = compare(y, a, b)
    assert list(found.table.metric) == ["auc", "accuracy"] and found.p < 1e-4
    np.testing.assert_allclose(
        paired_bootstrap(ranking.auc, y, a, b)[:3], paired_delong(y, a, b)[:3], atol=0.015
    )
    labels = (rng.random((200, 2)) < 0.4).astype(int)
    several = compare(labels, rng.random((200, 2)), 0.5 * rng.random((200, 2)) + 0.3 * labels)
    assert (
        list(several.table.metric) == ["auc", "average_precision"]
        and (several.table.difference > 0).all()
    )


# disagreements


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_mcnemar_exact_is_the_binomial_test(only_a, only_b, both):
    a, b = np.repeat([[1, 0], [0, 1], [1, 1]], [only_a, only_b, both + 1], axis=0).T
    found = mcnemar(a, b, exact=True)
    assert found[:2] == (only_a, only_b)
    assert found.p == pytest.approx(
        stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1
    )
    assert mcnemar(a, b).p <= found.p and mcnemar(b, a).p == pytest.approx(mcnemar(a, b).p)


def test_mcnemar_by_patient():
    a, b = np.repeat([[1, 0], [0, 1], [1, 1]], [10, 25, 60], axis=0).T
    one_each = mcnemar(a, b, patients=np.arange(95))
    assert one_each.p == pytest.approx(
        stats.chi2.sf((25 - 10) ** 2 / 35, 1)
    )  # McNemar's chi-squared
    assert mcnemar(
        np.tile(a, 4), np.tile(b, 4), patients=np.tile(np.arange(95), 4)
    ).p == pytest.approx(one_each.p)
    assert mcnemar([1, 0], [1, 0], patients=["x", "y"]).p == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 25), st.integers(0, 25), st.integers(1, 60), st.sampled_from([0.8, 0.95]))
def test_paired_share_has_width_and_agrees_with_mcnemar(only_a, only_b, rest, confidence):
    n = only_a + only_b + rest
    value, low, high = paired_share(only_a, only_b, n, confidence)
    assert -1 <= low <= value <= high <= 1 and low < high and value == (only_b - only_a) / n
    turned = paired_share(only_b, only_a, n, confidence)
    np.testing.assert_allclose(turned, (-value, -high, -low), atol=1e-9)
    if only_a + only_b:
        excluded = abs(only_b - only_a) / np.sqrt(only_a + only_b) > stats.norm.ppf(
            0.5 + confidence / 2
        )
        assert excluded == (low > 1e-12 or high < -1e-12)


def test_paired_share_covers():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        only_a, only_b, _ = rng.multinomial(60, [0.08, 0.16, 0.76])
        _, low, high = paired_share(only_a, only_b, 60)
        held.append(low <= 0.08 <= high)
    assert 0.93 < np.mean(held) < 0.975


# not worse than


def test_non_inferiority_is_the_interval_above_the_margin():
    for seed in range(10):
        y, a, b = study(seed, 100, 300)
        found = non_inferiority(y, a, b, margin=0.04)
        difference = paired_delong(y, a, b)
        assert found.shown == (difference.low > -0.04) == (found.p < 0.025)
        error = (difference.high - difference.low) / 2 / 1.959964
        assert found.p == pytest.approx(stats.norm.sf((difference.value + 0.04) / error), abs=1e-6)


def test_non_inferiority_is_wrong_one_time_in_forty_at_the_margin():
    shown = [
        non_inferiority(*study(seed, 60, 120, (0.85, 0.80)), margin=0.05).shown
        for seed in range(1500)
    ]
    assert 0.01 < np.mean(shown) < 0.042  # .025, four standard errors


# tables


def tables():
    """Two predictions tables of the same cases in different order, with valid and test."""
    y, a, b = study()
    first = pd.DataFrame(
        {
            "id": [f"c{k}" for k in range(160)],
            "patient": np.arange(160) // 2,
            "split": ["valid", "test", "test", "test"] * 40,
            "y_true": y,
            "score_well": 1 - a,
            "score_ill": a,
        }
    )
    return first, first.assign(score_well=1 - b, score_ill=b).sample(frac=1, random_state=1)


def test_tables_are_matched_by_id_and_compared_on_test():
    first, second = tables()
    y, a, b = study()
    test = (first.split == "test").to_numpy()
    direct = compare(y[test], a[test], b[test], patients=first.patient[test].astype(str))
    pd.testing.assert_frame_equal(compare_tables(first, second).table, direct.table)
    assert compare_tables(first, second, split="valid").table.n.iloc[0] == 40


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda table: table[table.id != "c2"], "1 cases, such as 'c2'"),
        (lambda table: table.assign(y_true=1 - table.y_true), "disagree on the truth of 120 cases"),
        (lambda table: table.rename(columns={"score_ill": "score_sick"}), "other classes"),
        (lambda table: table.assign(id="c1"), "'c1' stands in several rows"),
        (lambda table: table.drop(columns="id").iloc[1:], "rows and not both a column id"),
    ],
)
def test_tables_of_other_cases_are_refused(change, words):
    first, second = tables()
    with pytest.raises(ValueError, match=words):
        compare_tables(first, change(second))


# degenerate and faulty


def test_the_same_model_twice():
    y, a, _ = study()
    found = compare(y, a, a, margin=0.01)
    assert (
        (found.table.difference == 0).all() and (found.table.p == 1).all() and found.not_worse.shown
    )
    accuracy = found.table.set_index("metric").loc["accuracy"]
    assert accuracy.low < 0 < accuracy.high  # no disagreement among 160 is no certainty


def test_perfect_and_useless():
    y = np.repeat([0, 1], 20)
    found = compare(y, np.full(40, 0.5), y * 0.8 + 0.1)
    assert (
        found.table.difference.iloc[0] == 0.5
        and np.isnan(found.p)
        and "variance 0" in found.table.method.iloc[0]
    )
    assert 0.2 < found.table.low.iloc[0] < 0.5 < found.table.high.iloc[0] < 0.8
    assert paired_bootstrap(metrics.accuracy, y, 1 - y, y).value == 1


def test_two_perfect_models_on_a_handful_are_not_shown_to_be_alike():
    y = [0, 0, 1, 1]
    a = [0.1, 0.2, 0.8, 0.9]
    b = [0.3, 0.1, 0.6, 0.7]
    found = compare(y, a, b, margin=0.05)
    assert found.table.low[0] < -0.4 and found.table.high[0] > 0.4 and np.isnan(found.p)
    assert not found.not_worse.shown and np.isnan(found.not_worse.p)
    many = np.repeat([0, 1], 400)
    assert compare(
        many, np.linspace(0, 1, 800), np.linspace(0, 1, 800) ** 2, margin=0.05
    ).not_worse.shown  # 400 perfect pairs do tell
    constant = compare(many[::10], np.full(80, 0.5), np.full(80, 0.4), margin=0.05)
    assert not constant.not_worse.shown and constant.table.low[0] < -0.05


def test_one_patient_gives_no_interval():
    y, a, b = study()
    table = compare(y, a, b, patients=["p"] * 160, resamples=50).table
    assert table.loc[1:, ["low", "high"]].isna().all(None) and "no interval" in table.method[1]


def test_one_class_gives_what_is_defined():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = compare(
            np.ones(30, int), np.linspace(0, 1, 30), np.linspace(0.3, 1, 30)
        ).table.set_index("metric")
    assert (
        table.loc["auc", ["difference", "low", "p"]].isna().all()
        and "one class only" in table.loc["auc", "method"]
    )
    assert table.loc["average_precision", ["low", "p"]].isna().all()
    assert table.loc["sensitivity", "difference"] > 0 and "specificity" not in table.index


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda y, a, b: compare(y, a, b[1:]), "y_true has shape"),
        (lambda y, a, b: compare(y, a, np.c_[1 - b, b, 0 * b]), "score_a has shape"),
        (lambda y, a, b: compare(y, a, b, patients=["x"]), "patients has shape"),
        (lambda y, a, b: compare(y, a, b, margin=5), "margin=5"),
        (lambda y, a, b: compare(y, a, b, confidence=95), "confidence=95"),
        (lambda y, a, b: compare(y, a, b, resamples=0), "resamples=0"),
        (lambda y, a, b: compare(y, np.where(y, a, np.nan), b), "NaN"),
        (lambda y, a, b: compare(y, a, 100 * b), "score_b goes from"),
        (lambda y, a, b: compare(y, a, b, threshold=np.nan), "threshold=nan"),
        (lambda y, a, b: compare(y, a, b, threshold=[0.5, 0.4, 0.3]), "one for each model"),
        (lambda y, a, b: compare(y, a, b, names=("A",)), "give two"),
        (lambda y, a, b: mcnemar([1, 2], [0, 1]), "right_a"),
        (lambda y, a, b: mcnemar([1, 0], [0]), "right_a has 2 cases"),
        (lambda y, a, b: paired_share(3, 4, 6), "of n=6"),
    ],
)
def test_faulty_input_gets_one_line(change, words):
    with pytest.raises(ValueError, match=words) as error:
        change(*study())
    assert "\n" not in str(error.value)


def test_shown_and_plotted():
    y, a, b = study()
    found = compare(y, a, b, names=("old", "new"), margin=0.05)
    assert (
        isinstance(found, Comparison)
        and "new − old" in repr(found)
        and "<table" in found._repr_html_()
    )
    axes = found.plot()
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "auc",
        "sensitivity",
        "specificity",
        "accuracy",
        "average_precision",
    ]
    assert "new − old" in axes.get_xlabel()


def test_real_images_of_cells(shared):
    """BCCD: is a white cell known better by blue less green than by darkness? By smear."""
    with np.load(shared / "bccd" / "bccd_crops32.npz", allow_pickle=False) as data:
        white = (data["labels"] == 1).astype(int)
        smear = data["image_id"]
        colour = data["images"].astype(float).mean((1, 2)) / 255
    found = compare(
        white,
        1 - colour.mean(1),
        np.clip(0.5 + colour[:, 2] - colour[:, 1], 0, 1),
        patients=smear,
        resamples=200,
    )
    row = found.table.iloc[0]
    assert row.a == pytest.approx(delong(white, 1 - colour.mean(1))[0])
    assert row.low < row.difference < row.high and "by patient" in row.method
