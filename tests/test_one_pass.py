"""All redrawn numbers in one pass: equal to each metric's own bootstrap."""

import math

import numpy as np
import pytest

from medbook.evaluation import figures, table
from medbook.evaluation.inputs import check_predictions
from medbook.evaluation.one_pass import JointMetric, cohort_bootstrap, resampled_metrics
from medbook.evaluation.report import evaluate
from medbook.evaluation.resampling import bootstrap
from tests.studies import EXAMPLES, two_classes


def degenerate(name):
    rng = np.random.default_rng(3)
    y = np.repeat([0, 1], [12, 8])
    return {
        "ties": (y, rng.choice([0.2, 0.5, 0.8], 20)),
        "one case": (np.eye(20, dtype=int)[4], rng.random(20)),
        "all equal": (y, np.full(20, 0.4)),
        "perfect": (y, 0.1 + 0.8 * y),
        "reversed": (y, 0.9 - 0.8 * y),
        "certain": (y, y.astype(float)),
        "no case": (0 * y, rng.random(20)),
    }[name]


@pytest.mark.parametrize(
    "name", ["ties", "one case", "all equal", "perfect", "reversed", "certain", "no case"]
)
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_the_joint_metric_is_every_metric_by_itself(name, threshold):
    y, score = degenerate(name)
    p = check_predictions(y, score, threshold=threshold)
    joint = JointMetric(p)
    rng = np.random.default_rng(0)
    weights = rng.multinomial(20, np.full(20, 1 / 20), 30).astype(float)
    together = joint(y, score, weights=weights)
    once = joint(y, score)
    with np.errstate(all="ignore"):
        for number, (metric_name, metric) in enumerate(resampled_metrics(p).items()):
            assert together[:, number] == pytest.approx(
                metric(y, score, weights=weights), abs=1e-12, nan_ok=True
            ), metric_name
            assert once[number] == pytest.approx(
                table._value(metric, y, score)[0], abs=1e-12, nan_ok=True
            ), metric_name
    assert (joint.lost == np.isnan(together).sum(0)).all()


@pytest.mark.parametrize("task", EXAMPLES)
def test_the_joint_bounds_are_those_of_each_metrics_own_bootstrap(task):
    y, score = EXAMPLES[task](120)
    result = evaluate(y, score, patients=np.arange(120) // 3, resamples=60)
    for name, metric in resampled_metrics(result).items():
        value, low, high = bootstrap(
            metric, y, score, resamples=60, patients=result.owner, stratify=False
        )
        row = result[name]
        assert row.value == pytest.approx(value, abs=1e-12), name
        if name != "ece":
            assert (row.low, row.high) == pytest.approx((low, high), abs=1e-12), name


def test_a_redraw_by_weights_is_the_curve_of_repeated_rows():
    y, score = two_classes(40)
    weights = np.random.default_rng(0).integers(1, 4, size=(5, 40)).astype(float)
    grid = np.linspace(0.05, 1, 20)
    for read in (figures._sensitivity_at, figures._precision_at):
        together = figures._curve(read, grid, y, score, weights)
        for row, each in zip(together, weights.astype(int), strict=True):
            assert row == pytest.approx(
                figures._curve(read, grid, np.repeat(y, each), np.repeat(score, each))
            )


@pytest.mark.parametrize("metric", ["brier", "log_loss", "average_precision"])
def test_intervals_of_numbers_that_move_with_the_prevalence_hold_it(metric):
    """The truth from a large cohort; 200 small ones in which the number of the ill varies."""
    rng = np.random.default_rng(0)
    held = 0

    def cohort(n):
        y = (rng.random(n) < 0.1).astype(int)
        x = rng.normal(size=n) + 1.5 * y
        return y, 1 / (1 + np.exp(-(1.5 * x - 1.125 + math.log(1 / 9))))

    truth = resampled_metrics(check_predictions(*cohort(10)))[metric](*cohort(400_000))
    for _ in range(200):
        p = check_predictions(*cohort(300), resamples=300)
        low, high = cohort_bootstrap(p, resampled_metrics(p)[metric], p.y_true, p.y_score)[1:]
        held += low <= truth <= high
    assert held / 200 >= 0.9
