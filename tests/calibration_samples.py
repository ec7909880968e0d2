"""Samples that the tests of calibration, slope and recalibration share."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medbook.evaluation import recalibration
from medbook.evaluation import calibration_slope as slope

TOOLS = [
    recalibration.TemperatureScaling,
    recalibration.PlattScaling,
    recalibration.IsotonicScaling,
]
STRATEGIES = {"width": "uniform", "count": "quantile"}
EXACT = {"rtol": 0, "atol": 1e-12}
# ties, exact 0 and 1, scores on the bins' edges, certainty, one class: all of them come up
scores = st.sampled_from(
    [0, 1e-300, 1e-12, 0.1, 0.2, 0.3, 0.30000001, 0.5, 0.5, 0.7, 0.9, 1 - 1e-9, 1]
)
cases = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.int64, n, elements=st.integers(0, 1)), arrays(np.float64, n, elements=scores)
    )
)
bins_ = st.integers(1, 25)


def simulated(n=2000, seed=0, sharpness=2.0):
    """(truths, true probabilities, over-confident scores)."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(-0.5, 1.5, n)
    return (
        (rng.random(n) < slope.sigmoid(odds)).astype(int),
        slope.sigmoid(odds),
        slope.sigmoid(sharpness * odds),
    )


def several(n=400, classes=4, seed=0, sharpness=2.0):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(classes), n)
    sharp = p**sharpness
    return (
        (rng.random((n, 1)) > p.cumsum(1)).sum(1).clip(max=classes - 1),
        p,
        sharp / sharp.sum(1, keepdims=True),
    )
