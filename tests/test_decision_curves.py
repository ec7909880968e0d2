"""Net benefit against its formula, closed forms, and its own invariants."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.evaluation.decision_curves import (
    GRID,
    avoided_interventions,
    decision_curve,
    net_benefit,
    net_benefit_difference,
    plot_decision_curve,
    treat_all,
)
from tests.test_decision import both_classes, counts


@settings(max_examples=40, deadline=None)
@given(both_classes(), st.sampled_from([None, 0.05, 0.6]))
def test_net_benefit_is_its_formula(cases, share):
    truth, score = cases
    ill = truth.sum()
    healthy = (truth == 0).sum()
    n = len(truth)
    thresholds = np.array([0.9, 0.0, 0.125, 0.5, 0.5, 0.99])  # unsorted, on ties, repeated
    for t, value in zip(
        thresholds, net_benefit(truth, score, thresholds, prevalence=share), strict=True
    ):
        tp, fp, fn, tn = counts(truth, score, t)
        at = n * np.array([ill, healthy]) / n if share is None else n * np.array([share, 1 - share])
        gained = tp / ill * at[0] / n
        harmed = fp / healthy * at[1] / n
        assert value == pytest.approx(gained - harmed * t / (1 - t), abs=1e-12)
        assert net_benefit(truth, score, t, prevalence=share) == value
        if t and share is None:
            assert avoided_interventions(truth, score, t) == pytest.approx(
                100 * (tn - fn * (1 - t) / t) / n, abs=1e-9
            )


def test_treating_all_none_and_rightly():
    rng = np.random.default_rng(5)
    truth = rng.random(50) < 0.3
    share = truth.mean()
    assert np.allclose(net_benefit(truth, np.ones(50), GRID), treat_all(share, GRID), atol=1e-12)
    assert (net_benefit(truth, np.zeros(50), GRID) == 0).all() and net_benefit(
        truth, np.zeros(50), 0
    ) == pytest.approx(share)
    assert np.allclose(net_benefit(truth, truth, GRID), share) and np.allclose(
        avoided_interventions(truth, truth, 0.2), 100 * (1 - share)
    )
    assert np.allclose(avoided_interventions(truth, np.ones(50), GRID), 0, atol=1e-9)


def test_the_curve_has_what_it_says():
    rng = np.random.default_rng(6)
    truth = rng.random(200) < 0.3
    score = np.clip(rng.normal(0.25 + 0.25 * truth, 0.15), 0, 1)
    curve = decision_curve(truth, score, resamples=300)
    assert (
        list(curve) == ["threshold", "net_benefit", "low", "high", "treat_all", "treat_none"]
        and len(curve) == 99
    )
    assert (
        np.allclose(curve["net_benefit"], net_benefit(truth, score, GRID))
        and (curve["treat_none"] == 0).all()
    )
    assert np.allclose(curve["treat_all"], treat_all(truth.mean(), GRID))
    assert (
        (curve["low"] <= curve["net_benefit"]) & (curve["net_benefit"] <= curve["high"])
    ).mean() > 0.95
    relative = decision_curve(truth, score, [0.2], standardised=True, resamples=50)
    assert relative["net_benefit"][0] == pytest.approx(curve["net_benefit"][19] / truth.mean())
    assert relative["treat_all"][0] == pytest.approx(curve["treat_all"][19] / truth.mean())
    again = [decision_curve(truth, score, [0.2], resamples=50, seed=4) for _ in range(2)]
    pd.testing.assert_frame_equal(*again)


def test_a_stated_prevalence_takes_its_chance_out_of_the_interval():
    rng = np.random.default_rng(7)
    truth = np.arange(300) % 3 == 0
    score = np.clip(rng.normal(0.3 + 0.3 * truth, 0.15), 0, 1)
    width = {
        share: np.ptp(
            decision_curve(truth, score, [0.05], prevalence=share)[["low", "high"]].to_numpy()
        )
        for share in (None, 1 / 3)
    }
    assert 0 < width[1 / 3] < 0.5 * width[None]


def test_intervals_are_wider_by_patient_and_cover():
    rng = np.random.default_rng(8)
    patient = np.repeat(np.arange(60), 5)
    hits = {"case": 0, "patient": 0}
    truth_at = 0.5 * (1 - 0.3)  # the closed form of risks spread evenly, at t = 0.3
    for _ in range(120):
        risk = np.repeat(rng.random(60), 5)
        truth = np.repeat(rng.random(60) < risk[::5], 5)
        for name, who in (("case", None), ("patient", patient)):
            low, high = decision_curve(truth, risk, [0.3], patients=who, resamples=200)[
                ["low", "high"]
            ].iloc[0]
            hits[name] += low <= truth_at <= high
    assert hits["patient"] / 120 > 0.88 and hits["case"] / 120 < 0.75


def test_the_difference_of_two_models_is_paired():
    rng = np.random.default_rng(9)
    truth = rng.random(400) < 0.3
    a = np.clip(rng.normal(0.3 + 0.3 * truth, 0.15), 0, 1)
    b = np.clip(a + rng.normal(0, 0.02, 400), 0, 1)
    table = net_benefit_difference(truth, a, b, [0.2, 0.4], resamples=300)
    assert np.allclose(
        table["difference"], net_benefit(truth, a, [0.2, 0.4]) - net_benefit(truth, b, [0.2, 0.4])
    )
    assert (table["low"] <= table["difference"]).all() and (
        table["difference"] <= table["high"]
    ).all()
    single = decision_curve(truth, a, [0.2, 0.4], resamples=300)
    assert (table["high"] - table["low"] < 0.5 * (single["high"] - single["low"])).all()
    swapped = net_benefit_difference(truth, b, a, [0.2, 0.4], resamples=300)
    assert np.allclose(swapped["low"], -table["high"])


def test_a_plot_of_two_curves():
    rng = np.random.default_rng(12)
    truth = rng.random(60) < 0.5
    curves = {name: decision_curve(truth, rng.random(60), resamples=20) for name in "ab"}
    axes = plot_decision_curve(curves)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "treat all",
        "treat none",
        "a",
        "b",
    ]
    assert axes.get_ylim()[1] > max(curve["high"].max() for curve in curves.values())
    import matplotlib.pyplot as plt

    plt.close("all")
