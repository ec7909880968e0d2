"""Evaluation statistics: bootstrap against a loop, DeLong against a sort, the table, growth."""

import tracemalloc

import numpy as np
from sklearn.metrics import roc_auc_score

from medbook.evaluation import evaluate
from medbook.evaluation.intervals import delong
from medbook.evaluation.ranking import auc
from medbook.evaluation.resampling import bootstrap
from tests.bench import Row, faster, seconds


def cases(n, seed=0):
    """Labels (n,), two of five ill, and probabilities with an AUC of about .86."""
    rng = np.random.default_rng(seed)
    y_true = (rng.random(n) < 0.4).astype(int)
    return y_true, 1 / (1 + np.exp(-rng.normal(1.5 * y_true - 0.8)))


def loop(y_true, y_score, resamples):
    """What people write: scikit-learn's AUC of one resample after the other."""
    rng = np.random.default_rng(0)
    found = []
    ill = np.flatnonzero(y_true == 1)
    healthy = np.flatnonzero(y_true == 0)
    for _ in range(resamples):
        rows = np.r_[rng.choice(ill, len(ill)), rng.choice(healthy, len(healthy))]
        found.append(roc_auc_score(y_true[rows], y_score[rows]))
    return np.percentile(found, [2.5, 97.5])


def resampling():
    for n, target in ((624, ">= 30"), (10_000, ">= 15")):
        pair = cases(n)
        yield faster(
            f"AUC, 1,000 resamples, n = {n:,}, against a scikit-learn loop (s)",
            lambda pair=pair: bootstrap(auc, *pair, resamples=1000),
            lambda pair=pair: loop(*pair, 1000),
            target,
            repeats=3,
        )


def sorting():
    pair = cases(1_000_000)
    for name, sort in (("np.sort", np.sort), ("np.argsort", np.argsort)):
        ours, theirs = seconds(lambda: delong(*pair), lambda sort=sort: sort(pair[1]), repeats=15)
        yield Row(
            f"DeLong, n = 1,000,000, in times of one {name} of the scores (s)",
            ours,
            theirs,
            ours / theirs,
            "<= 3",
        )


def whole():
    taken = {}
    for n, limit in ((624, 1), (10_000, None), (100_000, 10)):
        pair = cases(n)
        patients = np.arange(n) // 5
        ours, by_patient = seconds(
            lambda pair=pair: evaluate(*pair),
            lambda pair=pair, who=patients: evaluate(*pair, patients=who),
            repeats=3 if n < 100_000 else 1,
        )
        taken[n] = ours
        if limit:
            yield Row(
                f"evaluate, 2,000 resamples of every metric, n = {n:,}: seconds against {limit}",
                ours,
                limit,
                limit / ours,
                ">= 1",
            )
            yield Row(
                "the same by patient, five images each",
                by_patient,
                limit,
                limit / by_patient,
                ">= 1",
            )
    longer = taken[100_000] / taken[10_000]
    grown = 10 * np.log(100_000) / np.log(10_000)
    yield Row(
        "evaluate at 100,000 against 10,000 cases, in units of n log n",
        longer,
        grown,
        longer / grown,
        "<= 1.25",
    )


def peak(resamples):
    """Megabytes that Python held at most during `evaluate` at n = 100,000."""
    pair = cases(100_000)
    tracemalloc.start()
    evaluate(*pair, resamples=resamples)
    most = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return most


def rows():
    yield from resampling()
    yield from sorting()
    yield from whole()
    many = peak(400)
    few = peak(40)
    yield Row(
        "memory of evaluate at n = 100,000 (MB): 400 resamples against 40",
        many,
        few,
        many / few,
        "<= 1.2",
    )
