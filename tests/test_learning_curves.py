"""Learning curves: the power law, its band, and what is said or not said to be known."""

import json
from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import curve_fit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from medbook.training.learning_curves import fit_curve, learning_curve, nested, power_law
from medbook.training.selection import candidate
from tests.made_up import poisoned, scans

matplotlib.use("agg")


FAST = LogisticRegression(C=0.05, max_iter=500)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_reports")]


@pytest.fixture(scope="module")
def data():
    return scans()


@pytest.mark.parametrize(
    "law", [(0.05, 0.9, 0.5), (0.0, 2.0, 1.0), (0.2, 0.5, 0.3), (0.1, 30.0, 1.8)]
)
def test_the_power_law_finds_planted_numbers(law):
    sizes = np.array([20, 40, 80, 160, 320, 640])
    found = power_law(sizes, law[0] + law[1] * sizes ** -law[2])
    assert np.allclose(found, law, rtol=2e-3, atol=1e-3)


def test_the_power_law_is_the_least_squares_solution_for_one_curve_and_many():
    rng = np.random.default_rng(0)
    sizes = np.tile([15.0, 30, 60, 120, 240], 4)
    errors = 0.1 + 0.8 * sizes**-0.6 + 0.1 * rng.normal(size=(30, 20)) / np.sqrt(sizes)
    many = power_law(sizes, errors)
    for place in range(0, 30, 7):
        ours = [each[place] for each in many]
        assert np.allclose(ours, power_law(sizes, errors[place]))
        theirs, _ = curve_fit(
            lambda n, a, b, c: a + b * n**-c,
            sizes,
            errors[place],
            p0=ours,
            sigma=1 / np.sqrt(sizes),
            bounds=([0, 0, 0.02], [1, np.inf, 3]),
            xtol=1e-12,
            ftol=1e-12,
            gtol=1e-12,
            max_nfev=20_000,
        )
        loss = [
            np.sum(sizes * (a + b * sizes**-c - errors[place]) ** 2) for a, b, c in (ours, theirs)
        ]
        assert loss[0] <= loss[1] * (1 + 1e-6)


def test_the_power_law_of_a_flat_or_falling_curve_is_flat():
    sizes = np.array([10, 20, 40])
    assert np.allclose(power_law(sizes, [0.2, 0.2, 0.2])[:2], (0.2, 0))
    a, b, _ = power_law(sizes, [0.1, 0.2, 0.3])
    assert b == 0 and 0.1 < a < 0.3
    for bad in (
        ([10, 20, 20], [1, 2, 3]),
        ([0, 1, 2], [1, 2, 3]),
        ([1, 2, 3], [1, 2]),
        ([1, 2, 3], [1, 2, np.nan]),
    ):
        with pytest.raises(ValueError, match="give three or more sizes"):
            power_law(*bad)


def curve_of(rng, law=(0.08, 1.0, 0.6), noise=0.25, sizes=(20, 40, 80, 160), seeds=5):
    rows = [
        {
            "patients": size,
            "images": size,
            "seed": seed,
            "value": 1 - law[0] - law[1] * size ** -law[2] + noise * rng.normal() / size**0.5,
        }
        for seed in range(seeds)
        for size in sizes
    ]

    def metric(y_true, y_score):
        return 0.0

    return fit_curve(pd.DataFrame(rows), [], metric, 400, seed=0)


def test_the_band_covers_further_trainings_and_the_planted_need():
    rng = np.random.default_rng(1)
    hits = []
    needs = []
    for _ in range(60):
        curve = curve_of(rng)
        band = curve.predict([160, 400])
        truth = (
            1
            - 0.08
            - band["patients"] ** -0.6
            + 0.25 * rng.normal(size=2) / np.sqrt(band["patients"])
        )
        hits.append(((band["low"] <= truth) & (truth <= band["high"])).tolist())
        need = curve.needed(0.88)  # 0.12 = 0.08 + n^-0.6: n = 0.04^(-1/0.6) = 213.7
        needs.append(need.low <= 0.04 ** (-1 / 0.6) <= need.high)
    assert (np.mean(hits, axis=0) > 0.85).all() and np.mean(needs) > 0.85


def test_what_is_needed_is_said_or_said_not_to_be_known():
    curve = curve_of(np.random.default_rng(0), noise=0.02, seeds=8)
    assert abs(curve.needed(0.88).patients / 0.04 ** (-1 / 0.6) - 1) < 0.25
    assert "more than the 160 in hand" in str(curve.needed(0.88)) and "needs about" in str(
        curve.needed(0.88)
    )
    assert "is reached with about" in str(curve.needed(0.8)) and curve.needed(0.8).patients < 160
    never = curve.needed(0.99)
    assert (
        never.patients == np.inf
        and never.high == np.inf
        and "cannot be said" in str(never)
        and never.reached < 0.5
    )
    assert "more than 1,600" in str(replace(curve.needed(0.88), high=np.inf))
    assert "where it ends cannot be said" in str(replace(curve.needed(0.88), high=np.inf))
    with pytest.raises(ValueError, match="between 0 and 1"):
        curve.needed(1)


@pytest.mark.parametrize("seed", range(5))
def test_larger_sets_hold_the_smaller_and_every_class(seed):
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    labels = (np.arange(60) < 15).astype(int)[patients]
    sizes = [8, 20, 33, 60]
    parts = nested(labels, patients, sizes, seed=seed)
    assert [len(np.unique(patients[part])) for part in parts] == sizes and len(parts[-1]) == len(
        labels
    )
    assert all(set(small) < set(large) for small, large in zip(parts, parts[1:], strict=False))
    for part, size in zip(parts, sizes, strict=True):
        assert np.isin(patients, np.unique(patients[part])).sum() == len(
            part
        )  # all images of a patient
        assert abs(len(np.unique(patients[part][labels[part] == 1])) - size / 4) <= 1  # stratified


@pytest.mark.parametrize(
    "sizes, message",
    [
        ([2, 5, 61], "between 2 and 60"),
        ([1, 5, 9], "between 2 and 60"),
        ([], "between 2 and 60"),
        ([2, 20, 60], "do not hold every class"),
    ],
)
def test_nested_refuses(sizes, message):
    with pytest.raises(ValueError, match=message):
        nested(np.array([0] * 55 + [1] * 5), None, sizes)


def test_a_learning_curve_rises_and_never_reads_test():
    dataset = scans(150, images=2, lesion=0.5, seed=2)
    options = dict(sizes=[10, 20, 45, 90], seeds=range(4), resamples=200)
    curve = learning_curve(FAST, dataset, **options)
    other = learning_curve(FAST, poisoned(dataset), **options)
    assert curve.table.equals(other.table) and curve.law == other.law
    means = curve.table.groupby("patients")["value"].mean()
    assert (
        means.iloc[-1] > means.iloc[0] + 0.1
        and (curve.table["images"] == 2 * curve.table["patients"]).all()
    )
    part = dataset.subset("train")
    valid = dataset.subset("valid")
    chosen = nested(part.labels, part.patients, [45], seed=2)[0]
    model = LogisticRegression(C=0.05, max_iter=500).fit(
        part.batch(chosen).reshape(len(chosen), -1), part.labels[chosen]
    )
    score = model.predict_proba(valid.batch(slice(None)).reshape(len(valid), -1))[:, 1]
    row = curve.table[(curve.table["seed"] == 2) & (curve.table["patients"] == 45)].iloc[0]
    assert abs(row["value"] - roc_auc_score(valid.labels, score)) < 1e-9
    band = curve.predict([10, 90, 300])
    assert (
        (band["low"] < band["value"]).all()
        and (band["value"] < band["high"]).all()
        and band["high"].max() <= 1
    )
    assert curve.plot(target=0.9).axes[0].get_ylabel() == "AUC on valid"


def test_a_network_gets_as_many_steps_from_few_patients(data, tmp_path):
    learning_curve(
        lambda part: candidate(part, filters=1, depth=1),
        data,
        [9, 18, 36],
        seeds=[0],
        epochs=1,
        resamples=20,
        out=tmp_path,
    )
    epochs = {
        path.parent.name: json.loads(path.read_text())["settings"]["epochs"]
        for path in tmp_path.rglob("run.json")
    }
    assert epochs == {"9-patients-seed0": 4, "18-patients-seed0": 2, "36-patients-seed0": 1}


def test_a_learning_curve_refuses(data):
    for options, message in (
        ({"sizes": [10, 20, 999]}, "between 2 and 36"),
        ({"sizes": [10, 20]}, "needs three sizes or more"),
        ({"seeds": []}, "and a seed"),
    ):
        with pytest.raises(ValueError, match=message):
            learning_curve(FAST, data, **options)


def test_a_learning_curve_needs_a_valid_split_with_every_class(data):
    with pytest.raises(ValueError, match="no image of valid is lesion"):
        learning_curve(FAST, data.take((data.splits != "valid") | (data.labels == 0)))
