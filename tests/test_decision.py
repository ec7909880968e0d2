"""Thresholds against slow searches, closed forms, and their own invariants."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.evaluation.decision import (
    ThresholdWarning,
    calibrated_threshold,
    choose_threshold,
    cost_threshold,
    expected_cost,
    iso_cost_slope,
    least_cost_class,
    threshold_for_sensitivity,
    threshold_for_specificity,
    threshold_interval,
    youden,
)
from medbook.evaluation.decision_curves import (
    GRID,
    avoided_interventions,
    decision_curve,
    net_benefit,
    net_benefit_difference,
    treat_all,
)
from medbook.evaluation.metrics import balanced_accuracy, prevalence, sensitivity, specificity


@st.composite
def both_classes(draw):
    """Labels with both classes and scores with many ties, n from 2 to 30."""
    n = draw(st.integers(2, 30))
    truth = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    truth[0] = 0
    truth[-1] = 1
    return np.array(truth), np.array(
        draw(st.lists(st.sampled_from(np.linspace(0, 1, 9).tolist()), min_size=n, max_size=n))
    )


def counts(truth, score, threshold):
    """(tp, fp, fn, tn), counted one by one."""
    called = [s >= threshold for s in score]
    pairs = list(zip(truth, called, strict=True))
    return tuple(
        pairs.count((label, bool(call))) for label, call in ((1, 1), (0, 1), (1, 0), (0, 0))
    )


def candidates(score):
    """All thresholds that differ: above all scores, then the scores going down."""
    return [np.inf, *sorted(set(score.tolist()), reverse=True)]


def the_same_decisions(score, one, other):
    return ((score >= one) == (score >= other)).all()


@settings(max_examples=60, deadline=None)
@given(both_classes())
def test_youden_is_the_highest_best_threshold_of_a_slow_search(cases):
    truth, score = cases
    ill = truth.sum()
    healthy = (truth == 0).sum()
    value = {
        t: c[0] * healthy - c[1] * ill
        for t in candidates(score)[1:]
        for c in [counts(truth, score, t)]
    }
    best = max(value, key=lambda t: (value[t], t))
    assert the_same_decisions(score, youden(truth, score), best)


@settings(max_examples=60, deadline=None)
@given(
    both_classes(), st.sampled_from([0.2, 1, 3, 7]), st.sampled_from([None, 0.01, 0.3, 0.5, 0.97])
)
def test_no_threshold_costs_less_than_the_one_by_cost(cases, cost_fn, share):
    truth, score = cases
    ill = truth.sum()
    healthy = (truth == 0).sum()
    at = truth.mean() if share is None else share

    def cost(t):
        tp, fp, *_ = counts(truth, score, t)
        return expected_cost(tp / ill, 1 - fp / healthy, cost_fp=1, cost_fn=cost_fn, prevalence=at)

    chosen = cost_threshold(truth, score, cost_fn=cost_fn, prevalence=share)
    assert cost(chosen) <= min(map(cost, candidates(score))) + 1e-12


@settings(max_examples=60, deadline=None)
@given(both_classes(), st.sampled_from([0.01, 0.5, 0.55, 0.8, 0.95, 1.0]))
def test_targets_are_reached_and_no_better_threshold_reaches_them(cases, target):
    truth, score = cases
    for rule, metric, others in (
        (threshold_for_sensitivity, sensitivity, np.greater),
        (threshold_for_specificity, specificity, np.less),
    ):
        chosen = rule(truth, score, target)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert metric(truth, score, threshold=chosen) >= target - 1e-9
            for t in candidates(score)[1:]:
                if others(t, chosen) and not the_same_decisions(score, t, chosen):
                    assert metric(truth, score, threshold=t) < target - 1e-9


@settings(max_examples=40, deadline=None)
@given(both_classes(), st.data())
def test_weights_are_repeated_cases(cases, data):
    truth, score = cases
    weights = np.array(
        data.draw(st.lists(st.integers(0, 3), min_size=len(truth), max_size=len(truth)))
    )
    weights[0] = weights[-1] = 1
    rows = np.repeat(np.arange(len(truth)), weights)
    rules = (
        youden,
        cost_threshold,
        lambda *a, **k: cost_threshold(*a, cost_fn=4, prevalence=0.1, **k),
        lambda *a, **k: threshold_for_sensitivity(*a, 0.7, **k),
        lambda *a, **k: threshold_for_specificity(*a, 0.7, **k),
        lambda *a, **k: net_benefit(*a, GRID, **k),
        lambda *a, **k: net_benefit(*a, 0.3, prevalence=0.2, **k),
        lambda *a, **k: avoided_interventions(*a, 0.3, **k),
    )
    for rule in rules:
        repeated = rule(truth[rows], score[rows])
        single = rule(truth, score, weights=weights)
        assert np.allclose(repeated, single, atol=1e-12, rtol=0)
        assert np.allclose(
            rule(truth, score, weights=np.stack([weights, np.ones(len(truth))])),
            [single, rule(truth, score)],
            atol=1e-12,
        )


def test_a_resample_without_one_class_has_no_threshold():
    truth = np.array([0, 1, 1])
    score = np.array([0.1, 0.6, 0.8])
    both = youden(truth, score, weights=[[0, 1, 1], [1, 1, 0]])
    assert np.isnan(both[0]) and both[1] == (0.1 + 0.6) / 2
    assert np.isnan(
        net_benefit(truth, score, 0.2, prevalence=0.3, weights=[[0, 1, 1], [1, 1, 0]])
    ).tolist() == [True, False]


@pytest.mark.parametrize(
    "rule", [youden, cost_threshold, threshold_for_sensitivity, threshold_for_specificity]
)
def test_perfect_separation_is_cut_half_way(rule):
    assert rule([0, 0, 1, 1], [0.1, 0.2, 0.6, 0.9]) == pytest.approx(0.4)


def test_neighbouring_floats_are_told_apart():
    low = 0.3
    score = np.array([low, np.nextafter(low, 1)])
    assert (score >= youden([0, 1], score)).tolist() == [False, True]
    assert (score >= threshold_for_specificity([1, 0], score, 1.0)).tolist() == [False, False]


def test_any_real_scores_can_be_cut_but_only_probabilities_have_a_net_benefit():
    assert youden([0, 1], [-7, 30]) == 11.5
    with pytest.raises(
        ValueError, match="y_score runs from -7 to 30; give probabilities"
    ):
        net_benefit([0, 1], [-7, 30], 0.2)


def test_two_columns_are_the_second():
    truth = np.array([0, 1, 0, 1])
    score = np.array([0.2, 0.7, 0.6, 0.9])
    pair = np.c_[1 - score, score]
    assert youden(truth, pair) == youden(truth, score)
    assert choose_threshold(truth, pair) == choose_threshold(truth, score)
    assert net_benefit(truth, pair, 0.3) == net_benefit(truth, score, 0.3)
    assert (net_benefit_difference(truth, pair, score, [0.3], resamples=5)["difference"] == 0).all()


@pytest.mark.parametrize(
    ("work", "said"),
    [
        (
            lambda: youden([1, 1], [0.2, 0.7]),
            "needs ill and healthy cases, but all 2 labels of y_true are 1",
        ),
        (lambda: youden([0], [0.2]), "all 1 labels of y_true are 0"),
        (lambda: youden([0, 1], [0.2]), r"y_true has shape \(2,\), y_score \(1,\)"),
        (lambda: youden([0, 1], [0.2, np.nan]), "NaN"),
        (lambda: youden([0, 1, 2], np.eye(3)), "youden takes one class"),
        (lambda: youden([0, 1], [0.2, 0.3], weights=[1, -1]), "weights"),
        (lambda: cost_threshold([0, 1], [0.2, 0.3], cost_fn=0), "cost_fn=0; give the cost"),
        (
            lambda: cost_threshold([0, 1], [0.2, 0.3], prevalence=1.2),
            "prevalence=1.2; give a share",
        ),
        (lambda: calibrated_threshold(cost_fp=-1), "cost_fp=-1"),
        (lambda: threshold_for_sensitivity([0, 1], [0.2, 0.3], 95), "target=95; give a share"),
        (lambda: threshold_for_specificity([0, 1], [0.2, 0.3], 0), "target=0; give a share"),
        (
            lambda: choose_threshold([0, 1], [0.2, 0.3], "f1"),
            "rule='f1'; give one of 'youden', 'cost'",
        ),
        (lambda: net_benefit([0, 1], [0.2, 0.3], 1), "give a risk from 0 up to but not 1"),
        (lambda: net_benefit([0, 1], [0.2, 0.3], []), "give a risk"),
        (lambda: net_benefit([0, 1], [0.2, 0.3], np.nan), "give a risk"),
        (lambda: treat_all(2, 0.1), "prevalence=2"),
        (lambda: avoided_interventions([0, 1], [0.2, 0.3], [0, 0.1]), "give risks above 0"),
        (
            lambda: decision_curve([0, 0], [0.2, 0.3], standardised=True),
            "divides by the prevalence",
        ),
        (lambda: decision_curve([0, 1], [0.2, 0.3], patients=[1]), "patients"),
        (lambda: net_benefit_difference([0, 1], [0.2, 0.3], [0.2, 0.3, 0.4]), "y_score"),
        (lambda: least_cost_class([[0.5, 0.2]], np.eye(2)), "sum to 1"),
        (lambda: least_cost_class([0.5, 0.5], np.eye(2)), r"give \(n, classes\)"),
    ],
)
def test_what_cannot_be_answered_is_refused_in_one_line(work, said):
    with pytest.raises(ValueError, match=said) as told:
        work()
    assert "\n" not in str(told.value)


def test_the_choice_says_what_it_reaches():
    rng = np.random.default_rng(0)
    truth = rng.random(300) < 0.4
    score = np.clip(rng.normal(0.4 + 0.2 * truth, 0.2), 0, 1)
    for rule, options in (
        ("youden", {}),
        ("cost", {"cost_fn": 3}),
        ("sensitivity", {"target": 0.9}),
        ("specificity", {"target": 0.9}),
    ):
        choice = choose_threshold(truth, score, rule, **options)
        assert (
            choice[4:8] == counts(truth, score, choice.threshold)
            and choice.rule == rule
            and choice.note == ""
        )
        assert choice.sensitivity == sensitivity(truth, score, threshold=choice.threshold)
        assert choice.specificity == specificity(truth, score, threshold=choice.threshold)
        assert isinstance(choice.threshold, float) and all(
            isinstance(count, int) for count in choice[4:8]
        )


@pytest.mark.parametrize(
    ("truth", "score", "rule", "options", "said"),
    [
        ([1, 0, 0, 1], [0.5] * 4, "youden", {}, "no threshold does better than chance"),
        ([1, 0, 1, 0], [0.1, 0.9, 0.2, 0.8], "youden", {}, "no threshold does better than chance"),
        ([1, 0], [0.5, 0.5], "sensitivity", {"target": 1.0}, "everybody predicted positive"),
        ([1, 0], [0.5, 0.5], "specificity", {}, "nobody predicted positive"),
        ([1, 0, 0, 0], [0.2, 0.9, 0.8, 0.7], "cost", {}, "nobody predicted positive"),
        (
            [1, 1, 0, 0],
            [0.9, 0.8, 0.2, 0.1],
            "sensitivity",
            {},
            "sensitivity 0.95 allows not one error among 2 ill cases",
        ),
        (
            [1, 1, 0, 0],
            [0.9, 0.8, 0.2, 0.1],
            "specificity",
            {"target": 0.9},
            "specificity 0.9 allows not one error among 2 healthy cases",
        ),
    ],
)
def test_a_target_that_is_not_truly_reached_is_told(truth, score, rule, options, said):
    with pytest.warns(ThresholdWarning, match=said):
        choice = choose_threshold(truth, score, rule, **options)
    assert said in choice.note and np.isfinite(choice.threshold)


def test_calibrated_scores_give_the_closed_form():
    rng = np.random.default_rng(3)
    risk = rng.random(300_000)
    ill = rng.random(300_000) < risk
    for cost_fn in (1, 4, 19):
        closed = calibrated_threshold(cost_fn=cost_fn)
        assert closed == 1 / (1 + cost_fn)
        cost = [
            expected_cost(
                sensitivity(ill, risk, threshold=t),
                specificity(ill, risk, threshold=t),
                cost_fp=1,
                cost_fn=cost_fn,
                prevalence=ill.mean(),
            )
            for t in (closed, cost_threshold(ill, risk, cost_fn=cost_fn))
        ]
        assert 0 <= cost[0] - cost[1] < 0.002
    assert np.abs(net_benefit(ill, risk, GRID) - (1 - GRID) / 2).max() < 0.02


def test_the_binormal_model_gives_the_closed_form():
    from scipy.stats import norm

    quantiles = norm.ppf((np.arange(20_000) + 0.5) / 20_000)  # a sample without chance
    d = 1.2
    truth = np.repeat([0, 1], 20_000)
    score = np.r_[quantiles, quantiles + d]
    assert abs(youden(truth, score) - d / 2) < 0.03
    assert (
        abs(
            2 * balanced_accuracy(truth, score, threshold=youden(truth, score))
            - 1
            - (2 * norm.cdf(d / 2) - 1)
        )
        < 1e-3
    )
    for cost_fn, share in ((1, 0.5), (4, 0.1), (2, 0.3)):
        slope = iso_cost_slope(cost_fp=1, cost_fn=cost_fn, prevalence=share)
        assert (
            abs(
                cost_threshold(truth, score, cost_fn=cost_fn, prevalence=share)
                - (d / 2 + np.log(slope) / d)
            )
            < 0.03
        )
    assert (
        iso_cost_slope(cost_fp=1, cost_fn=1, prevalence=0) == np.inf
        and iso_cost_slope(cost_fp=1, cost_fn=1, prevalence=1) == 0
    )


def test_the_interval_of_a_threshold_holds_it_and_narrows():
    rng = np.random.default_rng(10)
    width = []
    for n in (100, 4000):
        truth = rng.random(n) < 0.4
        score = np.clip(rng.normal(0.4 + 0.2 * truth, 0.15), 0, 1)
        value, low, high = threshold_interval(
            truth, score, "sensitivity", target=0.9, resamples=200
        )
        assert value == threshold_for_sensitivity(truth, score, 0.9) and low <= value <= high
        width.append(high - low)
    assert width[1] < width[0] / 2
    wide = threshold_interval(
        np.repeat(truth[:100], 5),
        np.repeat(score[:100], 5),
        patients=np.repeat(np.arange(100), 5),
        resamples=200,
    )
    narrow = threshold_interval(np.repeat(truth[:100], 5), np.repeat(score[:100], 5), resamples=200)
    assert wide[2] - wide[1] > narrow[2] - narrow[1]


def test_least_cost_is_the_largest_score_for_equal_costs():
    scores = np.random.default_rng(11).dirichlet(np.ones(4), 200)
    assert np.array_equal(least_cost_class(scores, 1 - np.eye(4)), scores.argmax(axis=1))
    slow = [
        min(range(4), key=lambda k, p=p: sum(p[j] * (j + 1) * (j != k) for j in range(4)))
        for p in scores
    ]
    assert least_cost_class(scores, (np.arange(4)[:, None] + 1) * (1 - np.eye(4))).tolist() == slow


def test_breast_lumps_by_scikit_learn():
    from sklearn.datasets import load_breast_cancer
    from sklearn.metrics import confusion_matrix, roc_curve

    lumps = load_breast_cancer()
    truth = (lumps.target == 0).astype(int)
    score = lumps.data[:, 1] / 100
    fpr, tpr, cuts = roc_curve(truth, score, drop_intermediate=False)
    assert the_same_decisions(score, youden(truth, score), cuts[np.argmax(tpr - fpr)])
    for t in (0.1, 0.17, 0.25):
        tn, fp, fn, tp = confusion_matrix(truth, score >= t).ravel()
        assert abs(net_benefit(truth, score, t) - (tp - fp * t / (1 - t)) / len(truth)) < 1e-12
    assert prevalence(truth) == truth.mean()


def test_an_unknown_option_of_a_rule_is_named():
    with pytest.raises(
        ValueError,
        match="'cost' has no option 'false_negative'; it has cost_fp, cost_fn, prevalence",
    ):
        choose_threshold([0, 1, 1, 0], [0.1, 0.4, 0.6, 0.2], "cost", false_negative=1)
    with pytest.raises(ValueError, match="'youden' has no option 'target'; it has none"):
        choose_threshold([0, 1, 1, 0], [0.1, 0.4, 0.6, 0.2], target=0.9)
