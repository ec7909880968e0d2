"""Cross-validation: folds by patient, and what choosing on the test set does."""

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, StratifiedGroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from medbook.evaluation.ranking import auc
from medbook.evaluation.predictions import evaluate_table
from medbook.images.sources import load
from medbook.training.cross_validation import (
    auc_intervals,
    cross_validate,
    expected_maximum,
    folds,
    null_spread,
    selection_optimism,
)
from medbook.training.selection import candidate
from tests.made_up import poisoned, scans


FAST = LogisticRegression(C=0.05, max_iter=500)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_reports")]


@pytest.fixture(scope="module")
def data():
    return scans()


@pytest.mark.parametrize("seed", range(25))
def test_no_patient_stands_in_two_folds_and_every_fold_has_every_class(seed):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(2, 7))
    classes = int(rng.integers(2, 5))
    own = np.concatenate(
        [
            np.arange(classes).repeat(k),
            rng.choice(classes, rng.integers(0, 60), p=rng.dirichlet(np.ones(classes))),
        ]
    )
    patients = np.repeat(np.arange(len(own)), rng.integers(1, 9, len(own)))
    labels = own[patients]
    order = rng.permutation(len(patients))
    labels = labels[order]
    patients = patients[order].astype(str)
    home = folds(labels, patients, k, seed=seed)
    assert set(home) == set(range(k))
    assert (pd.Series(home).groupby(patients).nunique() == 1).all()
    assert (pd.crosstab(labels, home) > 0).all(axis=None)
    assert np.array_equal(home, folds(labels, patients, k, seed=seed))


def spread_of(labels, home, k):
    table = pd.crosstab(labels, home).reindex(columns=range(k), fill_value=0)
    return float(np.abs(table.div(table.sum(axis=1), axis=0) - 1 / k).max(axis=None))


def test_folds_are_as_even_as_scikit_learns():
    ours = []
    theirs = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        patients = np.repeat(np.arange(80), rng.integers(1, 12, 80))
        labels = (np.random.default_rng(seed + 99).random(80) < 0.2).astype(int)[patients]
        home = np.empty(len(labels), int)
        for fold, (_, rows) in enumerate(
            StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, patients)
        ):
            home[rows] = fold
        ours.append(spread_of(labels, folds(labels, patients, seed=seed), 5))
        theirs.append(spread_of(labels, home, 5))
    assert np.mean(ours) <= np.mean(theirs) and max(ours) < 0.1


def test_folds_without_patients_and_with_several_findings():
    labels = np.array([0] * 41 + [1] * 11)
    home = folds(labels, k=5, seed=3)
    assert all(
        2 <= (labels[home == fold] == 1).sum() <= 3 and 10 <= (home == fold).sum() <= 11
        for fold in range(5)
    )
    many = np.random.default_rng(0).integers(0, 2, (60, 3))
    home = folds(many, np.arange(60) // 2, 4)
    assert (
        all(many[home == fold].any(axis=0).all() for fold in range(4))
        and (home[::2] == home[1::2]).all()
    )
    assert not np.array_equal(folds(labels, k=5, seed=3), folds(labels, k=5, seed=4))


@pytest.mark.parametrize(
    "labels, patients, k, message",
    [
        ([0] * 9 + [1] * 3, None, 5, r"k=5 folds, but class 1 has 3 patients; use k=3 or fewer"),
        (
            [0, 0, 0, 1, 1, 1],
            [1, 2, 3, 4, 4, 4],
            2,
            r"class 1 has 1 patient; folds need two or more",
        ),
        ([1, 1, 1], None, 2, r"all 3 rows are of class 1"),
        ([0, 1, 0, 1], None, 1, r"k=1; give a whole number of folds, 2 or more"),
        ([0, 1, 0, 1], None, 2.5, r"k=2.5"),
        ([0, 1, 0], ["a", "b"], 2, r"3 labels but 2 patients"),
        ([0, 1, 0, 1], ["a", "b", None, "c"], 2, r"a patient is missing"),
        ([], None, 2, r"no rows"),
    ],
)
def test_folds_refuse(labels, patients, k, message):
    with pytest.raises(ValueError, match=message):
        folds(np.array(labels, int), patients, k)


def test_expected_maximum_has_its_closed_forms_and_agrees_with_a_simulation():
    known = {
        1: 0,
        2: 1 / np.sqrt(np.pi),
        3: 1.5 / np.sqrt(np.pi),
        4: 1.0293753730,
        5: 1.1629644736,
        10: 1.5387527308,
        100: 2.5075936,
    }
    assert all(abs(expected_maximum(k) - value) < 1e-7 for k, value in known.items())
    drawn = np.random.default_rng(0).normal(size=(40_000, 20)).max(axis=1)
    assert abs(drawn.mean() - expected_maximum(20)) < 4 * drawn.std() / 200
    values = [expected_maximum(k) for k in (1, 2, 7, 50, 1000, 10**6)]
    assert values == sorted(values) and values[-1] < np.sqrt(2 * np.log(10**6))
    for k in (0, -1, 2.5):
        with pytest.raises(ValueError, match="whole number of models"):
            expected_maximum(k)


def test_null_spread_is_that_of_all_orders():
    from itertools import combinations

    values = [
        auc(np.isin(np.arange(7), ill).astype(int), np.arange(7.0))
        for ill in combinations(range(7), 3)
    ]
    assert abs(np.std(values) - null_spread(3, 4)) < 1e-12
    with pytest.raises(ValueError, match="1 or more of each"):
        null_spread(0, 4)


def test_the_best_of_models_without_skill_looks_skilled_on_the_rows_it_was_chosen_on():
    rng = np.random.default_rng(0)
    k = 20
    size = 50
    labels = np.arange(2000) % 2
    table = selection_optimism(labels, rng.normal(size=(k, 2000)), size=size, repeats=300)
    promised = 0.5 + null_spread(25, 25) * expected_maximum(k)
    assert abs(table["on_test"].mean() - promised) < 0.01 and promised > 0.64
    assert abs(table["on_valid"].mean() - 0.5) < 0.02
    assert (table[["on_test_truth", "on_valid_truth"]].mean() - 0.5).abs().max() < 0.02
    again = selection_optimism(
        labels, np.random.default_rng(0).normal(size=(k, 2000)), size=size, repeats=300
    )
    slow = selection_optimism(
        labels,
        np.random.default_rng(0).normal(size=(k, 2000)),
        size=size,
        repeats=3,
        metric=lambda y, s: auc(y, s),
    )
    assert table.equals(again) and np.abs(table.head(3) - slow).max(axis=None) < 1e-12


def test_selection_optimism_keeps_patients_together_and_refuses():
    labels = np.repeat(np.arange(40) % 2, 5)
    patients = np.repeat(np.arange(40), 5)
    seen = []

    def metric(y_true, y_score):
        seen.append(set(y_score.astype(int)))
        return 0.0

    selection_optimism(
        labels, patients[None].astype(float), size=10, patients=patients, metric=metric, repeats=3
    )
    for valid, test, rest in zip(seen[:3], seen[3:6], seen[6:], strict=True):
        assert (
            len(valid) == len(test) == 10
            and len(rest) == 20
            and not valid & test
            and not valid & rest
            and not test & rest
        )
    with pytest.raises(ValueError, match="less than half"):
        selection_optimism(labels, patients[None].astype(float), size=20, patients=patients)
    with pytest.raises(ValueError, match="give \\(models, cases\\)"):
        selection_optimism(labels, patients[None, :-1].astype(float), size=5)


def test_the_best_pixel_of_real_radiographs_is_too_good_on_the_images_it_was_chosen_on(shared):
    dataset = load("pneumoniamnist")
    rows = np.random.default_rng(0).permutation(len(dataset))[:2000]
    pixels = dataset.batch(rows)[:, ::3, ::3, 0].reshape(len(rows), -1).T
    table = selection_optimism(dataset.labels[rows], pixels, size=40, repeats=80)
    gaps = (
        (table["on_test"] - table["on_test_truth"]).mean(),
        (table["on_valid"] - table["on_valid_truth"]).mean(),
    )
    assert gaps[0] > 0.03 and abs(gaps[1]) < 0.02 and gaps[0] > 2 * abs(gaps[1])


def test_every_image_is_predicted_once_by_a_model_that_did_not_see_its_patient(data):
    found = cross_validate(FAST, data, 4, seed=1)
    part = data.take(data.splits != "test")
    assert (
        found.predictions["id"].tolist() == part.ids.tolist()
        and found.predictions["y_true"].tolist() == part.labels.tolist()
    )
    assert (found.predictions.groupby("patient")["fold"].nunique() == 1).all() and found.folds[
        "images"
    ].sum() == len(part)
    home = folds(part.labels, part.patients, 4, seed=1)
    pixels = part.batch(slice(None)).reshape(len(part), -1)
    expected = cross_val_predict(
        FAST, pixels, part.labels, cv=PredefinedSplit(home), method="predict_proba"
    )
    assert (
        np.abs(found.predictions[["score_normal", "score_lesion"]].to_numpy() - expected).max()
        < 1e-6
    )
    values = [
        roc_auc_score(part.labels[home == fold], expected[home == fold, 1]) for fold in range(4)
    ]
    assert np.allclose(found.folds["value"], values)


def test_cross_validation_never_reads_test_and_evaluates_by_patient(data):
    found = cross_validate(FAST, data, 3)
    other = cross_validate(FAST, poisoned(data), 3)
    assert found.predictions.equals(other.predictions)
    assert "by patient" in " ".join(found.evaluate(resamples=50).table["method"])
    table = found.intervals()
    assert (
        (table["low"] < table["value"]).all()
        and (table["value"] < table["high"]).all()
        and table.to_numpy().max() <= 1
    )
    assert abs(table.loc["mean of folds", "value"] - found.folds["value"].mean()) < 1e-12
    assert evaluate_table(found.predictions.drop(columns="fold"), resamples=50)[1][0].startswith(
        "Figures are of all"
    )


def test_intervals_of_perfect_separation_stay_within_reason():
    table = pd.DataFrame(
        {
            "id": range(40),
            "patient": range(100, 140),
            "y_true": [0, 1] * 20,
            "score_a": [1.0, 0.0] * 20,
            "score_b": [0.0, 1.0] * 20,
            "fold": np.arange(40) // 10 + 1,
        }
    )
    found = auc_intervals(table)
    assert found.loc["pooled", "high"] <= 1 and found.loc["pooled", "low"] < 1
    assert found.loc["mean of folds", "value"] == 1 and np.isnan(found.loc["mean of folds", "low"])


def test_folds_by_image_leak_where_a_patient_has_several_images():
    dataset = scans(80, images=4, lesion=0.0, seed=5)
    near = KNeighborsClassifier(1)
    by_image = cross_validate(near, dataset, 4, by_patient=False).folds["value"].mean()
    by_patient = cross_validate(near, dataset, 4).folds["value"].mean()
    assert by_image > 0.85 and abs(by_patient - 0.5) < 0.12


def test_a_network_is_copied_for_each_fold_and_a_stopped_cross_validation_goes_on(data, tmp_path):
    keras.utils.set_random_seed(0)
    network = candidate(data, filters=2, depth=1)
    before = [weights.copy() for weights in network.get_weights()]
    found = cross_validate(network, data, 2, epochs=1, out=tmp_path / "cv", precision="float32")
    assert all(
        np.array_equal(old, new) for old, new in zip(before, network.get_weights(), strict=True)
    )
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cv").rglob("model.keras")}
    again = cross_validate(network, data, 2, epochs=1, out=tmp_path / "cv", precision="float32")
    assert len(times) == 2 and all(path.stat().st_mtime_ns == when for path, when in times.items())
    columns = ["score_normal", "score_lesion"]
    assert np.allclose(found.predictions[columns], again.predictions[columns], atol=1e-6)
    with pytest.raises(ValueError, match="patience needs a valid split"):
        cross_validate(network, data, 2, patience=3)
