"""RESULTS.md's section on coverage: what intervals hold, and how often tests reject a true null."""

import warnings
from functools import partial

import numpy as np
from scipy import stats

from medbook.evaluation.comparison import mcnemar, paired_delong
from medbook.evaluation.intervals import auc_interval
from medbook.evaluation.resampling import bootstrap
from medbook.evaluation.metrics import sensitivity
from medbook.evaluation.ranking import auc

STUDIES = 4000
DESIGNS = [(10, 40, 0.9), (10, 40, 0.95), (20, 60, 0.98), (39, 117, 0.9)]  # ill, healthy, true AUC


def shift(truth):
    """Distance of two normal distributions of unit width whose AUC is `truth`."""
    return np.sqrt(2) * stats.norm.ppf(truth)


def drawn(method, y_true, y_score):
    """A bootstrap interval of 500 resamples."""
    return bootstrap(auc, y_true, y_score, resamples=500, method=method)


INTERVALS = {
    name: partial(auc_interval, method=name) for name in ("score", "delong", "logit", "newcombe")
}
INTERVALS |= {
    f"bootstrap, {name}": partial(drawn, name) for name in ("expanded", "percentile", "bca")
}


def held(interval, ill, healthy, truth, spread=1.0):
    """Share of the studies whose interval holds the truth; the ill scatter by `spread`."""
    y_true = np.repeat([1, 0], [ill, healthy])
    rng = np.random.default_rng(1)
    centre = np.sqrt(1 + spread**2) * stats.norm.ppf(truth) * y_true
    width = np.where(y_true == 1, spread, 1.0)
    studies = (interval(y_true, rng.normal(centre, width)) for _ in range(STUDIES))
    return np.mean([low <= truth <= high for _, low, high in studies])


def clustered(seed, patients, images=5, truth=0.85, shared=0.5):
    """Labels, scores, patients of a study whose images of one patient are correlated."""
    rng = np.random.default_rng(seed)
    ill = np.repeat((np.arange(patients) < 0.4 * patients).astype(int), images)
    who = np.repeat(np.arange(patients), images)
    return (
        ill,
        shift(truth) * ill
        + np.sqrt(shared) * rng.normal(size=patients)[who]
        + np.sqrt(1 - shared) * rng.normal(size=len(who)),
        who,
    )


def held_by_patient(patients, truth=0.85):
    """Share held for AUC and sensitivity, by image and by patient, and by the score interval."""
    middle = shift(truth) / 2
    aims = {
        "AUC": (auc, truth),
        "sensitivity": (partial(sensitivity, threshold=middle), stats.norm.cdf(middle)),
    }
    found = {}
    for seed in range(STUDIES):
        y_true, y_score, who = clustered(seed, patients)
        for name, (metric, aim) in aims.items():
            for unit, owners in (("image", None), ("patient", who)):
                _, low, high = bootstrap(metric, y_true, y_score, patients=owners, resamples=500)
                found.setdefault((name, f"bootstrap by {unit}"), []).append(low <= aim <= high)
        _, low, high = auc_interval(y_true, y_score, patients=who)
        found.setdefault(("AUC", "score by patient"), []).append(low <= truth <= high)
    return {key: np.mean(values) for key, values in found.items()}


def rejected(ill, healthy, truth, shared=0.5):
    """Share of studies of two equal models in which paired DeLong and McNemar reject at 5 %."""
    y_true = np.repeat([1, 0], [ill, healthy])
    rng = np.random.default_rng(2)
    found = []
    for _ in range(STUDIES):
        common = rng.normal(size=len(y_true))
        a, b = (
            shift(truth) * y_true
            + np.sqrt(shared) * common
            + np.sqrt(1 - shared) * rng.normal(size=len(y_true))
            for _ in range(2)
        )
        right = [(score > shift(truth) / 2) == y_true for score in (a, b)]
        found.append((paired_delong(y_true, a, b).p < 0.05, mcnemar(*right).p < 0.05))
    return np.mean(found, axis=0)


def lines():
    """The section, line by line."""
    yield (
        f"## coverage\n\nShare of {STUDIES:,} simulated studies whose nominal 95 % interval holds "
        "the truth; a share near"
    )
    yield (
        ".95 is known to about ± .007. Scores are normal with equal spread; "
        "ill/healthy patients, true AUC.\n"
    )
    yield (
        "| AUC interval | "
        + " | ".join(f"{ill}/{healthy}, {truth:g}" for ill, healthy, truth in DESIGNS)
        + " |"
    )
    yield "|---|" + "---|" * len(DESIGNS)
    for name, interval in INTERVALS.items():
        yield (
            f"| {name} | "
            + " | ".join(f"{held(interval, *design):.3f}" for design in DESIGNS)
            + " |"
        )
    uneven = [held(auc_interval, *design, spread=2.0) for design in DESIGNS]
    yield (
        "| score, the ill twice as spread as the healthy | "
        + " | ".join(f"{share:.3f}" for share in uneven)
        + " |"
    )
    yield (
        "\nFive images a patient, half of the scores' variance shared by a patient's images, "
        "two patients of five ill, true AUC .85.\n"
    )
    sizes = (40, 80)
    found = [held_by_patient(patients) for patients in sizes]
    yield (
        "| | "
        + " | ".join(f"{patients} patients" for patients in sizes)
        + " |\n|---|"
        + "---|" * len(sizes)
    )
    for key in found[0]:
        yield f"| {', '.join(key)} | " + " | ".join(f"{each[key]:.3f}" for each in found) + " |"
    yield (
        "\nTwo equally good models on the same patients: share of studies in which a test "
        "at 5 % calls them different.\n"
    )
    designs = [(39, 117, 0.9), (39, 117, 0.8), (100, 300, 0.9), (250, 374, 0.85)]
    yield (
        "| | "
        + " | ".join(f"{ill}/{healthy}, {truth:g}" for ill, healthy, truth in designs)
        + " |\n|---|"
        + "---|" * len(designs)
    )
    shares = np.array([rejected(*design) for design in designs])
    for name, values in zip(
        ("paired DeLong (`compare(...).p`)", "McNemar, accuracy"), shares.T, strict=True
    ):
        yield f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |"
    yield ""


def section():
    """The section as text; warnings about resamples are of no interest here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(lines())
