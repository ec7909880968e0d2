"""The curves that follow sliders, in Python: against the metrics, repeated cases, refusals."""

import itertools
import warnings

import numpy as np
import pytest
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.evaluation import cases, metrics, ranking
from medbook.evaluation.calibration import ece
from medbook.evaluation.recalibration import prior_correction
from medbook.evaluation.decision_curves import net_benefit
from medbook.evaluation.interactive import (
    CurveExplorer,
    Setting,
    _draw_benefit,
    curve_point,
    score_range,
    score_steps,
    shown_scores,
)
from tests.test_decision import both_classes


def films(n=300, seed=0, share=0.3):
    """Calibrated scores of two normal groups, with ties."""
    rng = np.random.default_rng(seed)
    ill = rng.random(n) < share
    marks = np.round(rng.normal(1.5 * ill), 1)
    return ill.astype(int), 1 / (1 + np.exp(-(1.5 * marks - 1.125 + np.log(share / (1 - share)))))


@settings(max_examples=40, deadline=None)
@given(both_classes())
def test_steps_are_the_cases_counted(cases):
    truth, score = cases
    steps = score_steps(truth, score)
    assert steps.scores.tolist() == sorted(set(score.tolist()))
    for at, ill, healthy in zip(steps.scores, steps.ill, steps.healthy, strict=True):
        assert ill == np.sum((score == at) & (truth == 1)) and healthy == np.sum(
            (score == at) & (truth == 0)
        )
    assert steps.share == pytest.approx(truth.mean())


def test_many_scores_are_grouped_and_counts_are_off_by_less_than_a_group():
    rng = np.random.default_rng(1)
    truth = rng.random(5000) < 0.3
    score = np.r_[rng.random(4000) ** 4, np.full(1000, 0.25)]
    exact = score_steps(truth, score)
    grouped = score_steps(truth, score, most=400)
    assert len(grouped.scores) == 400 and (np.diff(grouped.scores) > 0).all()
    assert grouped.ill.sum() == truth.sum() and grouped.healthy.sum() == (~truth).sum()
    largest = int((grouped.ill + grouped.healthy)[np.abs(grouped.scores - 0.25) > 0.01].max())
    assert largest <= 11
    for t in rng.random(50):
        one, other = (curve_point(steps, threshold=t) for steps in (exact, grouped))
        away = abs(t - 0.25) > 0.01
        assert abs(one["tp"] + one["fp"] - other["tp"] - other["fp"]) <= (
            largest if away else 1000 + largest
        )
    assert (
        abs(curve_point(exact, threshold=0.5)["auc"] - curve_point(grouped, threshold=0.5)["auc"])
        < 1e-3
    )


@pytest.mark.parametrize(
    ("share", "ratio", "corrected", "trained_on"),
    itertools.product((None, 0.01, 0.6), (None, 1.0, 20.0), (False, True), (None, 0.5)),
)
def test_the_numbers_are_those_of_the_metrics_on_weighted_cases(
    share, ratio, corrected, trained_on
):
    truth, score = films()
    own = truth.mean()
    here = share or own
    trained = trained_on or own
    used_on = 1 / (1 + ratio) if ratio else trained
    if corrected:
        used_on = here
    shown = prior_correction(score, trained_on=trained, used_on=used_on)
    weights = np.where(truth == 1, here / truth.sum(), (1 - here) / (truth == 0).sum())
    for t in (0.0, 0.13, 0.5, 0.97, 1.0):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cases.UndefinedMetric)
            point = curve_point(
                score_steps(truth, score),
                threshold=t,
                prevalence=share,
                ratio=ratio,
                corrected=corrected,
                trained_on=trained_on,
            )
            for name in ("sensitivity", "specificity", "ppv", "npv", "f1"):
                expected = getattr(metrics, name)(truth, shown, threshold=t, weights=weights)
                assert np.isclose(point[name], expected, atol=1e-12, equal_nan=True)
        counts = metrics.two_by_two(truth, shown, threshold=t)
        assert [point[name] for name in ("tp", "fp", "fn", "tn")] == list(counts)
        if t < 1:
            assert point["net_benefit"] == pytest.approx(
                net_benefit(truth, shown, t, prevalence=here), abs=1e-12
            )
        else:
            assert np.isnan(point["net_benefit"])
    assert point["auc"] == pytest.approx(ranking.auc(truth, score), abs=1e-12)
    assert point["average_precision"] == pytest.approx(
        ranking.average_precision(truth, score, weights=weights), abs=1e-12
    )
    assert point["ece"] == pytest.approx(ece(truth, shown, weights=weights), abs=1e-12)
    assert point["mean_score"] == pytest.approx(weights @ shown, abs=1e-12)


def test_a_prevalence_is_healthy_cases_repeated():
    truth, score = films(80, seed=2)
    rows = np.r_[np.flatnonzero(truth == 1), np.tile(np.flatnonzero(truth == 0), 9)]
    more = score_steps(truth[rows], score[rows])
    there = curve_point(
        score_steps(truth, score), threshold=0.4, prevalence=more.share, trained_on=0.3
    )
    drawn = curve_point(more, threshold=0.4, trained_on=0.3)
    for name in set(drawn) - {"fp", "tn", "prevalence"}:
        assert there[name] == pytest.approx(drawn[name], abs=1e-12), name


@settings(max_examples=40, deadline=None)
@given(both_classes(), st.floats(0.01, 100), st.floats(0.001, 0.999))
def test_what_moves_and_what_stays(cases, ratio, share):
    truth, score = cases
    steps = score_steps(truth, score)
    base = curve_point(steps, threshold=0.5)
    elsewhere = curve_point(steps, threshold=0.5, prevalence=share)
    for name in ("sensitivity", "specificity", "auc", "tp", "fp"):
        assert elsewhere[name] == pytest.approx(base[name], abs=1e-9)
    retrained = curve_point(steps, threshold=0.5, ratio=ratio)
    assert (
        retrained["auc"] == base["auc"]
        and retrained["average_precision"] == base["average_precision"]
    )
    fixed = [
        curve_point(steps, threshold=0.5, prevalence=share, ratio=each, corrected=True)
        for each in (None, ratio)
    ]
    assert str(fixed[0]) == str(fixed[1])
    shown = shown_scores(steps.scores, trained_on=0.3, prevalence=0.5, ratio=ratio)
    back = shown_scores(shown, trained_on=1 / (1 + ratio), prevalence=0.3, corrected=True)
    assert (np.diff(shown) >= 0).all() and np.allclose(back, steps.scores)


def test_the_explorer_follows_its_traits_and_has_a_picture():
    truth, score = films()
    explorer = CurveExplorer(
        truth, np.c_[1 - score, score], threshold=0.3, classes=("no", "yes"), title="films"
    )
    assert explorer.point == curve_point(score_steps(truth, score), threshold=0.3)
    explorer.threshold = 0.7
    explorer.prevalence = 0.02
    explorer.ratio = 1
    assert explorer.point == curve_point(
        score_steps(truth, score), threshold=0.7, prevalence=0.02, ratio=1.0
    )
    bundle, _ = explorer._repr_mimebundle_()
    assert bundle["image/png"][:8] == b"\x89PNG\r\n\x1a\n" and len(bundle["image/png"]) < 100_000
    assert bundle["text/plain"].startswith(
        "CurveExplorer(films: threshold 0.7, prevalence 2 % yes, trained 1 : 1; sensitivity"
    )
    assert "application/vnd.jupyter.widget-view+json" in bundle
    explorer.corrected = True
    assert "corrected" in explorer.alt() and explorer.still() != bundle["image/png"]


@pytest.mark.parametrize(
    "settings_",
    [
        {"threshold": 1.0},
        {"threshold": 0.0, "prevalence": 0.001},
        {"threshold": 0.5, "prevalence": 0.999, "ratio": 1000.0},
    ],
)
@pytest.mark.parametrize(
    "cases", [([0, 1], [0.0, 1.0]), ([0, 1], [0.5, 0.5]), ([1, 0, 0], [0.2, 0.9, 0.9])]
)
def test_every_picture_can_be_drawn(cases, settings_):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        explorer = CurveExplorer(*cases, **settings_)
        assert len(explorer.still()) > 5000 and explorer.alt()


def test_a_hundred_thousand_cases_are_sent_in_less_than_a_megabyte():
    rng = np.random.default_rng(3)
    truth = rng.random(100_000) < 0.1
    score = rng.random(100_000)
    explorer = CurveExplorer(truth, score)
    assert sum(len(getattr(explorer, name)) for name in ("_scores", "_ill", "_healthy")) < 1_000_000
    assert abs(explorer.point["sensitivity"] - metrics.sensitivity(truth, score)) < 1e-3


@pytest.mark.parametrize(
    ("arguments", "options", "said"),
    [
        (([1, 1], [0.2, 0.7]), {}, "all 2 labels of y_true are 1"),
        (([0, 1], [0.2, np.inf]), {}, "NaN or infinite"),
        (([0, 1], [0.2]), {}, "y_true has shape"),
        (([0, 1, 2], np.eye(3)), {}, "CurveExplorer takes one class"),
        (([0, 1], [0.2, 0.7]), {"trained_on": 1}, "trained_on=1; give a share"),
        (([0, 1], [0.2, 0.7]), {"classes": "ab"}, "give two names"),
        (([0, 1], [0.2, 0.7]), {"classes": ["a"]}, "give two names"),
    ],
)
def test_what_has_no_curves_is_refused(arguments, options, said):
    with pytest.raises(ValueError, match=said):
        CurveExplorer(*arguments, **options)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("threshold", (-0.1, 1.1, np.nan)),
        ("prevalence", (0, 1, -1, np.nan)),
        ("ratio", (0, -3, np.inf, np.nan)),
    ],
)
def test_a_setting_out_of_its_range_is_refused(name, values):
    explorer = CurveExplorer([0, 1, 1], [0.2, 0.7, 0.4])
    for value in values:
        with pytest.raises(traitlets.TraitError):
            setattr(explorer, name, value)
    assert (
        explorer.point["threshold"] == 0.5
        and explorer.prevalence is None
        and explorer.ratio is None
    )


def test_a_setting_holds_the_scores_as_shown():
    truth, score = films()
    now = Setting.of(score_steps(truth, score), threshold=0.2, ratio=1.0)
    assert np.allclose(
        now.scores, prior_correction(np.unique(score), trained_on=truth.mean(), used_on=0.5)
    )


@pytest.mark.parametrize(("share", "mark"), [(None, "o"), (0.001, "v")])
def test_the_still_prints_and_marks_the_net_benefit_that_it_draws(share, mark):
    from matplotlib.figure import Figure

    now = Setting.of(score_steps(*films()), threshold=0.3, prevalence=share)
    gain = now.point["net_benefit"] / now.point["prevalence"]
    axes = Figure().subplots()
    _draw_benefit(axes, now)
    dot = axes.lines[-1]
    assert dot.get_marker() == mark and axes.get_ylim()[0] < dot.get_ydata()[0] < axes.get_ylim()[1]
    shown = axes.get_title().partition("here ")[2]
    assert shown.endswith("↓") == (mark == "v") and "-" not in shown
    assert float(shown.replace("−", "-").replace(" ↓", "")) == pytest.approx(gain, rel=0.002)
    assert "-" not in CurveExplorer(*films(), threshold=0.3, prevalence=share).alt()


# ---- scores that are no probabilities


def markers(n=300, seed=0, digits=1):
    """A measured marker, higher in the ill, with ties."""
    rng = np.random.default_rng(seed)
    ill = rng.random(n) < 0.3
    ill[:2] = 0, 1
    return ill.astype(int), np.round(rng.normal(40 + 15 * ill, 10), digits)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 500),
    st.sampled_from([0, 1, 9]),
    st.floats(-50, 150) | st.integers(0, 299),
    st.sampled_from([None, 0.01]),
)
def test_any_score_has_the_numbers_of_the_metrics_at_any_threshold(seed, digits, threshold, share):
    truth, score = markers(seed=seed, digits=digits)
    threshold = float(score[threshold]) if isinstance(threshold, int) else threshold
    point = curve_point(score_steps(truth, score), threshold=threshold, prevalence=share)
    positive = score >= threshold
    counts = [int(np.sum(positive & (truth == 1))), int(np.sum(positive & (truth == 0)))]
    assert [point["tp"], point["fp"]] == counts
    assert (
        point["tp"] + point["fn"] == truth.sum()
        and point["fp"] + point["tn"] == len(truth) - truth.sum()
    )
    here = truth.mean() if share is None else share
    weights = np.where(truth == 1, here / truth.sum(), (1 - here) / (truth == 0).sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", cases.UndefinedMetric)
        for name in ("sensitivity", "specificity", "ppv", "npv", "f1"):
            expected = getattr(metrics, name)(truth, positive.astype(float), weights=weights)
            assert np.isclose(point[name], expected, atol=1e-12, equal_nan=True), name
    assert point["auc"] == pytest.approx(ranking.auc(truth, score), abs=1e-12)
    assert np.isnan([point[name] for name in ("net_benefit", "treat_all", "ece")]).all()


def test_a_marker_has_four_panels_and_no_correction():
    explorer = CurveExplorer(*markers(), classes=("no", "yes"), title="marker")
    point = explorer.point
    best = max(
        curve_point(explorer.steps, threshold=t)["sensitivity"]
        + curve_point(explorer.steps, threshold=t)["specificity"]
        for t in explorer.steps.scores
    )
    assert point["sensitivity"] + point["specificity"] == pytest.approx(best)
    assert "calibration" not in explorer.alt() and "PPV" in explorer.alt()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(explorer.still()) > 5000
    explorer.threshold = -1.5
    assert explorer.point["fn"] == 0 and "threshold −1.5" in repr(explorer)
    for name, value in (
        ("ratio", 1.0),
        ("corrected", True),
        ("threshold", np.nan),
        ("threshold", np.inf),
    ):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(explorer, name, value)
    with pytest.raises(traitlets.TraitError, match="trained_on needs probabilities"):
        CurveExplorer(*markers(), trained_on=0.5)
    assert explorer.ratio is None and not explorer.corrected


@pytest.mark.parametrize(
    "scores",
    [
        [-2.31, 4.2, 0.1],
        [1000.0, 1002.0, 1001.0],
        [5.0, 5.0, 5.0],
        [1e-6, -3e-6, 0.0],
        [-7e8, 3e9, 0.0],
        [0.0, 1.0001, 0.5],
    ],
)
def test_the_slider_reaches_from_everybody_to_nobody(scores):
    steps = score_steps([0, 1, 1], scores)
    low, high, step = score_range(steps)
    assert low <= steps.scores[0] and high > steps.scores[-1] and 0 < step <= high - low
    ends = [curve_point(steps, threshold=end) for end in (low, high)]
    assert ends[0]["fn"] == ends[0]["tn"] == 0 and ends[1]["tp"] == ends[1]["fp"] == 0
    assert len(CurveExplorer([0, 1, 1], scores).still()) > 5000


def test_scores_are_compared_in_their_own_precision():
    rng = np.random.default_rng(0)
    for kind in (np.float16, np.float32, np.float64):
        for shift in (0, 3):
            score = rng.integers(0, 11, 60).astype(kind) / kind(10) + kind(shift)
            truth = np.arange(60) % 2
            explorer = CurveExplorer(truth, score)
            for threshold in (
                *(shift + k / 10 for k in range(11)),
                *map(float, score),
                shift + 0.7 - 1e-12,
                shift + 0.7 + 1e-3,
            ):
                explorer.threshold = threshold
                wanted = [int(np.sum((score >= threshold) & (truth == each))) for each in (1, 0)]
                assert [explorer.point["tp"], explorer.point["fp"]] == wanted
    assert (
        curve_point(score_steps([1, 0], np.array([0.7, 0.2], np.float32)), threshold=0.7)["tp"] == 1
    )


def test_all_points_are_those_of_the_roc_curve():
    truth, score = markers(500)
    steps = score_steps(truth, score)
    fpr, tpr, thresholds = ranking.roc_curve(truth, score)
    points = [curve_point(steps, threshold=t) for t in thresholds[1:]]
    assert np.allclose([point["sensitivity"] for point in points], tpr[1:])
    assert np.allclose([1 - point["specificity"] for point in points], fpr[1:])


def test_every_distinct_score_can_be_kept():
    rng = np.random.default_rng(3)
    truth = rng.random(100_000) < 0.1
    score = rng.normal(size=100_000)
    explorer = CurveExplorer(truth, score, most=None)
    assert len(explorer.steps.scores) == 100_000
    for threshold in (0.0, float(score[7]), 1.3):
        explorer.threshold = threshold
        assert explorer.point["tp"] == int(np.sum((score >= threshold) & truth))
