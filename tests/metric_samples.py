"""Metrics and samples that several tests of metrics share."""

import warnings
from functools import partial

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medbook.evaluation import metrics, ranking


def named(name, function, **options):
    """The function with some arguments fixed, and a name for messages."""
    metric = partial(function, **options)
    metric.__name__ = name
    return metric


AVERAGED = [
    metrics.sensitivity,
    metrics.specificity,
    metrics.ppv,
    metrics.npv,
    metrics.f1,
    named("f2", metrics.f_beta, beta=2),
    metrics.positive_likelihood_ratio,
    metrics.negative_likelihood_ratio,
    metrics.diagnostic_odds_ratio,
    named("ppv_at_a_tenth", metrics.ppv, prevalence=0.1),
    named("npv_at_a_tenth", metrics.npv, prevalence=0.1),
]
DECIDED = AVERAGED + [
    metrics.accuracy,
    metrics.exact_match,
    metrics.balanced_accuracy,
    metrics.mcc,
    metrics.kappa,
    named("linear_kappa", metrics.kappa, weighting="linear"),
    named("quadratic_kappa", metrics.kappa, weighting="quadratic"),
]
RANKED = [
    ranking.auc,
    ranking.average_precision,
    named("left_auc", ranking.partial_auc, max_fpr=0.3),
    named("bare_left_auc", ranking.partial_auc, max_fpr=0.3, standardised=False),
    named("sensitivity_at", ranking.sensitivity_at, specificity=0.8),
    named("specificity_at", ranking.specificity_at, sensitivity=0.8),
]
EVERY = DECIDED + RANKED
AVERAGES = ["macro", "micro", "weighted", None]
by_name = {"ids": lambda metric: metric.__name__}
# few distinct scores, so that ties abound; few or no cases of a class, so that the extremes come up
binary = st.integers(1, 60).flatmap(
    lambda n: st.tuples(
        arrays(np.int64, n, elements=st.sampled_from([0, 0, 0, 1])),
        arrays(np.float64, n, elements=st.sampled_from([0, 0.1, 0.25, 0.5, 0.5, 0.7, 0.9, 1])),
    )
)
several = st.integers(2, 40).flatmap(
    lambda n: st.tuples(
        arrays(np.int64, n, elements=st.integers(0, 3)),
        arrays(np.float64, (n, 4), elements=st.sampled_from([0, 0.1, 0.3, 0.5, 0.9])),
    )
)


def expected(function, *arguments, undefined=False, **options):
    """scikit-learn's value, nan where the quantity is undefined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.nan if undefined else function(*arguments, **options)


def weights_of(seed, n):
    """No weights, counts with zeros, or any positive numbers."""
    rng = np.random.default_rng(seed)
    return [None, rng.integers(0, 3, n).astype(float), rng.random(n) + 0.01][seed % 3]
