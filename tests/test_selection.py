"""Chapter 4.6: search, folds by patient, learning curves, ensembles, and what choosing on the test set does."""
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import matplotlib
import numpy as np
import optuna
import pandas as pd
import pytest
from scipy.optimize import curve_fit
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import PredefinedSplit, StratifiedGroupKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from medbook.evaluation.ranking import auc
from medbook.evaluation.predictions import evaluate_table
from medbook.images.datasets import Card, Dataset, load, split
from medbook.training.fitting import TrainingError, fit
from medbook.training.selection import (
    ambiguity,
    auc_intervals,
    candidate,
    cross_validate,
    disagreement,
    ensemble,
    expected_maximum,
    fit_curve,
    folds,
    learning_curve,
    mean_scores,
    nested,
    null_spread,
    power_law,
    search,
    selection_optimism,
)

matplotlib.use("agg")

pytestmark = pytest.mark.usefixtures("without_reports")


def scans(patients=60, images=3, size=12, seed=0, lesion=1.0, sickness=0.5):
    """Made-up scans: every patient has a pattern of his own, the ill ones a bright spot somewhere in each image."""
    rng = np.random.default_rng(seed)
    people = np.repeat(np.arange(patients), images)
    labels = (people < round(sickness * patients)).astype(np.int64)
    pictures = 0.5 + 0.3 * rng.normal(size=(patients, size, size))[people] + 0.3 * rng.normal(size=(len(people), size, size))
    rows, columns = np.mgrid[:size, :size]
    for place in np.flatnonzero(labels):
        y, x = rng.uniform(3, size - 3, 2)
        pictures[place] += lesion * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 5)
    names = np.array([f"p{name:03}" for name in people])
    ids = np.array([f"{name}-{place}" for place, name in enumerate(names)])
    return Dataset(pictures[..., None].astype("float32"), labels, ["normal", "lesion"], names,
                   split(labels, patients=names, fractions=(0.6, 0.2, 0.2), seed=seed), ids, Card("scans"), "binary")


def poisoned(dataset):
    """The same data with a test split that would ruin whoever reads it: labels turned over, pixels not a number."""
    labels, images, test = dataset.labels.copy(), dataset.images.copy(), dataset.splits == "test"
    labels[test], images[test] = 1 - labels[test], np.nan
    return replace(dataset, labels=labels, images=images)


@pytest.fixture(scope="module")
def data():
    return scans()


FAST = LogisticRegression(C=0.05, max_iter=500)


# folds

@pytest.mark.parametrize("seed", range(25))
def test_no_patient_stands_in_two_folds_and_every_fold_has_every_class(seed):
    rng = np.random.default_rng(seed)
    k, classes = int(rng.integers(2, 7)), int(rng.integers(2, 5))
    own = np.concatenate([np.arange(classes).repeat(k), rng.choice(classes, rng.integers(0, 60), p=rng.dirichlet(np.ones(classes)))])
    patients = np.repeat(np.arange(len(own)), rng.integers(1, 9, len(own)))
    labels, order = own[patients], rng.permutation(len(patients))
    labels, patients = labels[order], patients[order].astype(str)
    home = folds(labels, patients, k, seed=seed)
    assert set(home) == set(range(k))
    assert (pd.Series(home).groupby(patients).nunique() == 1).all()
    assert (pd.crosstab(labels, home) > 0).all(axis=None)
    assert np.array_equal(home, folds(labels, patients, k, seed=seed))


def spread_of(labels, home, k):
    table = pd.crosstab(labels, home).reindex(columns=range(k), fill_value=0)
    return float(np.abs(table.div(table.sum(axis=1), axis=0) - 1 / k).max(axis=None))


def test_folds_are_as_even_as_scikit_learns():
    ours, theirs = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        patients = np.repeat(np.arange(80), rng.integers(1, 12, 80))
        labels = (np.random.default_rng(seed + 99).random(80) < 0.2).astype(int)[patients]
        home = np.empty(len(labels), int)
        for fold, (_, rows) in enumerate(StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, patients)):
            home[rows] = fold
        ours.append(spread_of(labels, folds(labels, patients, seed=seed), 5))
        theirs.append(spread_of(labels, home, 5))
    assert np.mean(ours) <= np.mean(theirs) and max(ours) < 0.1


def test_folds_without_patients_and_with_several_findings():
    labels = np.array([0] * 41 + [1] * 11)
    home = folds(labels, k=5, seed=3)
    assert all(2 <= (labels[home == fold] == 1).sum() <= 3 and 10 <= (home == fold).sum() <= 11 for fold in range(5))
    many = np.random.default_rng(0).integers(0, 2, (60, 3))
    home = folds(many, np.arange(60) // 2, 4)
    assert all(many[home == fold].any(axis=0).all() for fold in range(4)) and (home[::2] == home[1::2]).all()
    assert not np.array_equal(folds(labels, k=5, seed=3), folds(labels, k=5, seed=4))


@pytest.mark.parametrize("labels, patients, k, message", [
    ([0] * 9 + [1] * 3, None, 5, r"k=5 folds, but class 1 has 3 patients; use k=3 or fewer"),
    ([0, 0, 0, 1, 1, 1], [1, 2, 3, 4, 4, 4], 2, r"class 1 has 1 patient; folds need two or more"),
    ([1, 1, 1], None, 2, r"all 3 rows are of class 1"),
    ([0, 1, 0, 1], None, 1, r"k=1; give a whole number of folds, 2 or more"),
    ([0, 1, 0, 1], None, 2.5, r"k=2.5"),
    ([0, 1, 0], ["a", "b"], 2, r"3 labels but 2 patients"),
    ([0, 1, 0, 1], ["a", "b", None, "c"], 2, r"a patient is missing"),
    ([], None, 2, r"no rows"),
])
def test_folds_refuse(labels, patients, k, message):
    with pytest.raises(ValueError, match=message):
        folds(np.array(labels, int), patients, k)


# luck

def test_expected_maximum_has_its_closed_forms_and_agrees_with_a_simulation():
    known = {1: 0, 2: 1 / np.sqrt(np.pi), 3: 1.5 / np.sqrt(np.pi), 4: 1.0293753730, 5: 1.1629644736, 10: 1.5387527308, 100: 2.5075936}
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
    values = [auc(np.isin(np.arange(7), ill).astype(int), np.arange(7.0)) for ill in combinations(range(7), 3)]
    assert abs(np.std(values) - null_spread(3, 4)) < 1e-12
    with pytest.raises(ValueError, match="1 or more of each"):
        null_spread(0, 4)


def test_the_best_of_models_without_skill_looks_skilled_on_the_rows_it_was_chosen_on():
    rng, k, size = np.random.default_rng(0), 20, 50
    labels = np.arange(2000) % 2
    table = selection_optimism(labels, rng.normal(size=(k, 2000)), size=size, repeats=300)
    promised = 0.5 + null_spread(25, 25) * expected_maximum(k)
    assert abs(table["on_test"].mean() - promised) < 0.01 and promised > 0.64
    assert abs(table["on_valid"].mean() - 0.5) < 0.02
    assert (table[["on_test_truth", "on_valid_truth"]].mean() - 0.5).abs().max() < 0.02
    again = selection_optimism(labels, np.random.default_rng(0).normal(size=(k, 2000)), size=size, repeats=300)
    slow = selection_optimism(labels, np.random.default_rng(0).normal(size=(k, 2000)), size=size, repeats=3, metric=lambda y, s: auc(y, s))
    assert table.equals(again) and np.abs(table.head(3) - slow).max(axis=None) < 1e-12


def test_selection_optimism_keeps_patients_together_and_refuses():
    labels, patients = np.repeat(np.arange(40) % 2, 5), np.repeat(np.arange(40), 5)
    seen = []

    def metric(y_true, y_score):
        seen.append(set(y_score.astype(int)))
        return 0.0

    selection_optimism(labels, patients[None].astype(float), size=10, patients=patients, metric=metric, repeats=3)
    for valid, test, rest in zip(seen[:3], seen[3:6], seen[6:], strict=True):
        assert len(valid) == len(test) == 10 and len(rest) == 20 and not valid & test and not valid & rest and not test & rest
    with pytest.raises(ValueError, match="less than half"):
        selection_optimism(labels, patients[None].astype(float), size=20, patients=patients)
    with pytest.raises(ValueError, match="give \\(models, cases\\)"):
        selection_optimism(labels, patients[None, :-1].astype(float), size=5)


def test_the_best_pixel_of_real_radiographs_is_too_good_on_the_images_it_was_chosen_on(shared):
    dataset = load("pneumoniamnist")
    rows = np.random.default_rng(0).permutation(len(dataset))[:2000]
    pixels = dataset.batch(rows)[:, ::3, ::3, 0].reshape(len(rows), -1).T
    table = selection_optimism(dataset.labels[rows], pixels, size=40, repeats=80)
    gaps = (table["on_test"] - table["on_test_truth"]).mean(), (table["on_valid"] - table["on_valid_truth"]).mean()
    assert gaps[0] > 0.03 and abs(gaps[1]) < 0.02 and gaps[0] > 2 * abs(gaps[1])


# cross-validation

def test_every_image_is_predicted_once_by_a_model_that_did_not_see_its_patient(data):
    found = cross_validate(FAST, data, 4, seed=1)
    part = data.take(data.splits != "test")
    assert found.predictions["id"].tolist() == part.ids.tolist() and found.predictions["y_true"].tolist() == part.labels.tolist()
    assert (found.predictions.groupby("patient")["fold"].nunique() == 1).all() and found.folds["images"].sum() == len(part)
    home = folds(part.labels, part.patients, 4, seed=1)
    pixels = part.batch(slice(None)).reshape(len(part), -1)
    expected = cross_val_predict(FAST, pixels, part.labels, cv=PredefinedSplit(home), method="predict_proba")
    assert np.abs(found.predictions[["score_normal", "score_lesion"]].to_numpy() - expected).max() < 1e-6
    values = [roc_auc_score(part.labels[home == fold], expected[home == fold, 1]) for fold in range(4)]
    assert np.allclose(found.folds["value"], values)


def test_cross_validation_never_reads_test_and_evaluates_by_patient(data):
    found, other = cross_validate(FAST, data, 3), cross_validate(FAST, poisoned(data), 3)
    assert found.predictions.equals(other.predictions)
    assert "by patient" in " ".join(found.evaluate(resamples=50).table["method"])
    table = found.intervals()
    assert (table["low"] < table["value"]).all() and (table["value"] < table["high"]).all() and table.to_numpy().max() <= 1
    assert abs(table.loc["mean of folds", "value"] - found.folds["value"].mean()) < 1e-12
    assert evaluate_table(found.predictions.drop(columns="fold"), resamples=50)[1][0].startswith("Figures are of all")


def test_intervals_of_perfect_separation_stay_within_reason():
    table = pd.DataFrame({"id": range(40), "patient": range(100, 140), "y_true": [0, 1] * 20, "score_a": [1.0, 0.0] * 20,
                          "score_b": [0.0, 1.0] * 20, "fold": np.arange(40) // 10 + 1})
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
    assert all(np.array_equal(old, new) for old, new in zip(before, network.get_weights(), strict=True))
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cv").rglob("model.keras")}
    again = cross_validate(network, data, 2, epochs=1, out=tmp_path / "cv", precision="float32")
    assert len(times) == 2 and all(path.stat().st_mtime_ns == when for path, when in times.items())
    columns = ["score_normal", "score_lesion"]
    assert np.allclose(found.predictions[columns], again.predictions[columns], atol=1e-6)
    with pytest.raises(ValueError, match="patience needs a valid split"):
        cross_validate(network, data, 2, patience=3)


# search

SMALL = {"filters": [1, 2], "kernel_size": [1, 3]}


def plain(table):
    return table.drop(columns="seconds")


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A search over a range, so that Optuna proposes, in one go, and its folder."""
    folder = tmp_path_factory.mktemp("whole")
    return search(data, SPACE, trials=3, epochs=2, pruner="halving", out=folder, progress=False, precision="float32"), folder


SPACE = {"learning_rate": (1e-4, 1e-2, "log"), "filters": (1, 3), "kernel_size": [1, 3]}


def test_a_search_goes_on_where_it_was_and_never_reads_test(data, whole, tmp_path):
    options = dict(epochs=2, pruner="halving", progress=False, precision="float32")
    search(data, SPACE, trials=2, out=tmp_path, **options)
    found = search(poisoned(data), SPACE, trials=3, out=tmp_path, **options)          # other test data: the same search
    assert plain(found.table).equals(plain(whole[0].table)) and found.best == whole[0].best
    assert len(search(data, SPACE, trials=2, out=tmp_path, **options).table) == 3     # what is there stays


SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from test_selection import SPACE, scans
from medbook.training.selection import search
search(scans(), SPACE, trials=3, epochs=2, pruner="halving", out={out!r}, precision="float32")
"""


def test_a_search_that_is_killed_goes_on(data, whole, tmp_path):
    script = SCRIPT.format(tests=str(Path(__file__).parent), out=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        line = process.stdout.readline()
        assert line.startswith("trial 1 of 3: learning rate"), line
        time.sleep(0.3)                                                               # some way into the second trial
        process.send_signal(signal.SIGKILL)
    found = search(data, SPACE, trials=3, epochs=2, pruner="halving", out=tmp_path, progress=False, precision="float32")
    assert plain(found.table).equals(plain(whole[0].table))


def test_a_folder_of_another_search_is_refused(data, whole, tmp_path):
    options = dict(trials=1, epochs=2, pruner="halving", out=whole[1], progress=False, precision="float32")
    for space, other, changed, what in ((SMALL, data, {}, "space"), (SPACE, scans(seed=1), {}, "data"), (SPACE, data, {"seed": 1}, "seed"),
                                        (SPACE, data, {"epochs": 3}, "options"), (SPACE, data, {"pruner": None}, "pruner")):
        with pytest.raises(TrainingError, match=f"holds another search \\(it differs in {what}\\); choose another folder"):
            search(other, space, **options | changed)
    (tmp_path / "study.db").write_bytes(b"something")
    with pytest.raises(TrainingError, match="is not of a search of medbook"):
        search(data, SPACE, **options | {"out": tmp_path})
    (tmp_path / "search.json").write_text((whole[1] / "search.json").read_text())
    with pytest.raises(TrainingError, match="cannot be read .*start over with resume=False"):
        search(data, SPACE, **options | {"out": tmp_path})
    (tmp_path / "search.json").write_text("{}")
    with pytest.raises(TrainingError, match="is no search's note"):
        search(data, SPACE, **options | {"out": tmp_path})


def test_a_trial_is_what_fit_gives(data, whole):
    found = whole[0]
    row = found.table[found.table["status"] == "complete"].iloc[0]
    keras.utils.set_random_seed(int(np.random.SeedSequence([0, 44]).generate_state(1)[0]))
    network = candidate(data, filters=int(row["filters"]), kernel_size=int(row["kernel_size"]))
    run = fit(network, data, epochs=2, learning_rate=row["learning_rate"], precision="float32", progress=False)
    table = run.predictions[run.predictions["split"] == "valid"]
    assert abs(auc(table["y_true"], table["score_lesion"]) - row["value"]) < 1e-6
    assert row["weights"] == network.count_params() and row["epochs"] == 2


def test_a_space_that_fits_is_gone_through_once_and_what_cannot_be_built_is_noted(data):
    found = search(data, {"depth": [1, 9], "filters": [1]}, trials=10, epochs=1, pruner=None, progress=False, balance="none")
    table = found.table.set_index("depth")
    assert sorted(table.index) == [1, 9] and table["status"].to_dict() == {1: "complete", 9: "failed"}
    assert "shrinks to nothing" in table["note"][9] and found.best == {"depth": 1, "filters": 1} and found.value == table["value"][1]
    assert found.build(data).count_params() == table["weights"][1]
    with pytest.raises(TrainingError, match="none of 1 trials was completed; the last: .*shrinks to nothing"):
        search(data, {"depth": [9]}, trials=2, epochs=1, progress=False)


def test_the_figure_and_the_printed_lines(data, capsys):
    found = search(data, SMALL | {"learning_rate": (1e-4, 1e-3, "log")}, trials=2, epochs=1, seed=3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[0].startswith("trial 1 of 2: filters") and "best" in lines[1]
    figure = found.plot()
    assert [panel.get_xlabel() for panel in figure.axes] == ["epoch", "filters", "kernel size", "learning rate"]
    assert found.options == {"learning_rate": found.best["learning_rate"]}


class StopAll(optuna.pruners.BasePruner):
    def prune(self, study, trial):
        return True


def test_a_pruner_stops_trials_early(data):
    with pytest.raises(TrainingError, match="none of 1 trials was completed; the last: stopped early"):
        search(data, {"filters": [1]}, trials=3, epochs=4, pruner=StopAll(), progress=False)


@pytest.mark.parametrize("space, options, message", [
    ({}, {}, "the space is empty"),
    ({"kernel_size": []}, {}, r"space\['kernel_size'\] is \[\]"),
    ({"kernel_size": 3}, {}, "give a list of choices, or a range"),
    ({"kernel_size": (5, 3)}, {}, "give a list of choices, or a range"),
    ({"filters": [(1, 2)]}, {}, "one or more numbers, words"),
    ({"kernel": [3]}, {}, "the space holds 'kernel', which neither the network nor fit takes; they take augment, balance"),
    (SMALL, {"trials": 0}, "trials and epochs must be 1 or more"),
    (SMALL, {"epochs": 0}, "trials and epochs must be 1 or more"),
    (SMALL, {"pruner": "best"}, "pruner must be"),
])
def test_a_search_refuses(data, space, options, message):
    with pytest.raises(ValueError, match=message):
        search(data, space, **{"trials": 1, "epochs": 1, "progress": False} | options)


def test_a_search_needs_a_valid_split_with_every_class(data):
    with pytest.raises(ValueError, match="no image is in the valid split"):
        search(data.take(data.splits != "valid"), SMALL)
    with pytest.raises(ValueError, match="no image of valid is lesion"):
        search(data.take((data.splits != "valid") | (data.labels == 0)), SMALL)
    with pytest.raises(ValueError, match="no image of valid is lesion"):
        learning_curve(FAST, data.take((data.splits != "valid") | (data.labels == 0)))


# learning curves

@pytest.mark.parametrize("law", [(0.05, 0.9, 0.5), (0.0, 2.0, 1.0), (0.2, 0.5, 0.3), (0.1, 30.0, 1.8)])
def test_the_power_law_finds_planted_numbers(law):
    sizes = np.array([20, 40, 80, 160, 320, 640])
    found = power_law(sizes, law[0] + law[1] * sizes ** -law[2])
    assert np.allclose(found, law, rtol=2e-3, atol=1e-3)


def test_the_power_law_is_the_least_squares_solution_for_one_curve_and_many():
    rng, sizes = np.random.default_rng(0), np.tile([15.0, 30, 60, 120, 240], 4)
    errors = 0.1 + 0.8 * sizes**-0.6 + 0.1 * rng.normal(size=(30, 20)) / np.sqrt(sizes)
    many = power_law(sizes, errors)
    for place in range(0, 30, 7):
        ours = [each[place] for each in many]
        assert np.allclose(ours, power_law(sizes, errors[place]))
        theirs, _ = curve_fit(lambda n, a, b, c: a + b * n**-c, sizes, errors[place], p0=ours, sigma=1 / np.sqrt(sizes),
                              bounds=([0, 0, 0.02], [1, np.inf, 3]), xtol=1e-12, ftol=1e-12, gtol=1e-12, max_nfev=20_000)
        loss = [np.sum(sizes * (a + b * sizes**-c - errors[place]) ** 2) for a, b, c in (ours, theirs)]
        assert loss[0] <= loss[1] * (1 + 1e-6)


def test_the_power_law_of_a_flat_or_falling_curve_is_flat():
    sizes = np.array([10, 20, 40])
    assert np.allclose(power_law(sizes, [0.2, 0.2, 0.2])[:2], (0.2, 0))
    a, b, _ = power_law(sizes, [0.1, 0.2, 0.3])
    assert b == 0 and 0.1 < a < 0.3
    for bad in (([10, 20, 20], [1, 2, 3]), ([0, 1, 2], [1, 2, 3]), ([1, 2, 3], [1, 2]), ([1, 2, 3], [1, 2, np.nan])):
        with pytest.raises(ValueError, match="give three or more sizes"):
            power_law(*bad)


def curve_of(rng, law=(0.08, 1.0, 0.6), noise=0.25, sizes=(20, 40, 80, 160), seeds=5):
    rows = [{"patients": size, "images": size, "seed": seed,
             "value": 1 - law[0] - law[1] * size ** -law[2] + noise * rng.normal() / size**0.5} for seed in range(seeds) for size in sizes]

    def metric(y_true, y_score):
        return 0.0

    return fit_curve(pd.DataFrame(rows), [], metric, 400, seed=0)


def test_the_band_covers_further_trainings_and_the_planted_need():
    rng, hits, needs = np.random.default_rng(1), [], []
    for _ in range(60):
        curve = curve_of(rng)
        band = curve.predict([160, 400])
        truth = 1 - 0.08 - band["patients"] ** -0.6 + 0.25 * rng.normal(size=2) / np.sqrt(band["patients"])
        hits.append(((band["low"] <= truth) & (truth <= band["high"])).tolist())
        need = curve.needed(0.88)                                             # 0.12 = 0.08 + n^-0.6: n = 0.04^(-1/0.6) = 213.7
        needs.append(need.low <= 0.04 ** (-1 / 0.6) <= need.high)
    assert (np.mean(hits, axis=0) > 0.85).all() and np.mean(needs) > 0.85


def test_what_is_needed_is_said_or_said_not_to_be_known():
    curve = curve_of(np.random.default_rng(0), noise=0.02, seeds=8)
    assert abs(curve.needed(0.88).patients / 0.04 ** (-1 / 0.6) - 1) < 0.25
    assert "more than the 160 in hand" in str(curve.needed(0.88)) and "needs about" in str(curve.needed(0.88))
    assert "is reached with about" in str(curve.needed(0.8)) and curve.needed(0.8).patients < 160
    never = curve.needed(0.99)
    assert never.patients == np.inf and never.high == np.inf and "cannot be said" in str(never) and never.reached < 0.5
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
    assert [len(np.unique(patients[part])) for part in parts] == sizes and len(parts[-1]) == len(labels)
    assert all(set(small) < set(large) for small, large in zip(parts, parts[1:], strict=False))
    for part, size in zip(parts, sizes, strict=True):
        assert np.isin(patients, np.unique(patients[part])).sum() == len(part)         # all images of a patient
        assert abs(len(np.unique(patients[part][labels[part] == 1])) - size / 4) <= 1   # stratified


@pytest.mark.parametrize("sizes, message", [([2, 5, 61], "between 2 and 60"), ([1, 5, 9], "between 2 and 60"), ([], "between 2 and 60"),
                                            ([2, 20, 60], "do not hold every class")])
def test_nested_refuses(sizes, message):
    with pytest.raises(ValueError, match=message):
        nested(np.array([0] * 55 + [1] * 5), None, sizes)


def test_a_learning_curve_rises_and_never_reads_test():
    dataset = scans(150, images=2, lesion=0.5, seed=2)
    curve, other = (learning_curve(FAST, each, [10, 20, 45, 90], seeds=range(4), resamples=200) for each in (dataset, poisoned(dataset)))
    assert curve.table.equals(other.table) and curve.law == other.law
    means = curve.table.groupby("patients")["value"].mean()
    assert means.iloc[-1] > means.iloc[0] + 0.1 and (curve.table["images"] == 2 * curve.table["patients"]).all()
    part, valid = dataset.subset("train"), dataset.subset("valid")
    chosen = nested(part.labels, part.patients, [45], seed=2)[0]
    model = LogisticRegression(C=0.05, max_iter=500).fit(part.batch(chosen).reshape(len(chosen), -1), part.labels[chosen])
    score = model.predict_proba(valid.batch(slice(None)).reshape(len(valid), -1))[:, 1]
    row = curve.table[(curve.table["seed"] == 2) & (curve.table["patients"] == 45)].iloc[0]
    assert abs(row["value"] - roc_auc_score(valid.labels, score)) < 1e-9
    band = curve.predict([10, 90, 300])
    assert (band["low"] < band["value"]).all() and (band["value"] < band["high"]).all() and band["high"].max() <= 1
    assert curve.plot(target=0.9).axes[0].get_ylabel() == "AUC on valid"


def test_a_network_gets_as_many_steps_from_few_patients(data, tmp_path):
    learning_curve(lambda part: candidate(part, filters=1, depth=1), data, [9, 18, 36], seeds=[0], epochs=1, resamples=20, out=tmp_path)
    epochs = {path.parent.name: json.loads(path.read_text())["settings"]["epochs"] for path in tmp_path.rglob("run.json")}
    assert epochs == {"9-patients-seed0": 4, "18-patients-seed0": 2, "36-patients-seed0": 1}


def test_a_learning_curve_refuses(data):
    for options, message in (({"sizes": [10, 20, 999]}, "between 2 and 36"), ({"sizes": [10, 20]}, "needs three sizes or more"),
                             ({"seeds": []}, "and a seed")):
        with pytest.raises(ValueError, match=message):
            learning_curve(FAST, data, **options)


# ensembles

def tables(members=3, n=30, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    base = pd.DataFrame({"id": [f"i{place}" for place in range(n)], "patient": np.arange(n) // 2, "split": "valid",
                         "y_true": rng.integers(0, classes, n)})
    columns = [f"score_{name}" for name in "abc"[:classes]]
    return [base.join(pd.DataFrame(rng.dirichlet(np.ones(classes), n), columns=columns)) for _ in range(members)]


@pytest.mark.parametrize("classes", [2, 3])
def test_an_ensemble_matches_rows_and_averages(classes):
    members = tables(classes=classes)
    shuffled = [members[0], members[1].sample(frac=1, random_state=1), members[2].iloc[::-1]]
    columns = [name for name in members[0] if name.startswith("score_")]
    stack = np.stack([table[columns].to_numpy() for table in members])
    found = ensemble(shuffled)
    assert np.allclose(found[columns], stack.mean(0)) and found.drop(columns=columns).equals(members[0].drop(columns=columns))
    geometric = ensemble(shuffled, average="logit")[columns].to_numpy()
    expected = np.exp(np.log(stack).mean(0))
    assert np.allclose(geometric, expected / expected.sum(1, keepdims=True)) and np.allclose(geometric.sum(1), 1)
    evaluate_table(found, resamples=20)


def test_the_mean_of_logits_of_two_classes():
    members = np.array([[0.9, 0.5, 0.0], [0.6, 0.5, 1.0]])
    logit = np.log(members[:, :2] / (1 - members[:, :2])).mean(0)
    assert np.allclose(mean_scores(members, "logit"), [*1 / (1 + np.exp(-logit)), 0.5])
    assert np.allclose(mean_scores(members), [0.75, 0.5, 0.5])
    with pytest.raises(ValueError, match="average must be"):
        mean_scores(members, "median")


def test_findings_are_averaged_one_by_one():
    rng = np.random.default_rng(0)
    base = pd.DataFrame({"id": range(9), "y_true_a": rng.integers(0, 2, 9), "y_true_b": rng.integers(0, 2, 9)})
    pair = [base.assign(score_a=rng.random(9), score_b=rng.random(9)) for _ in range(2)]
    found = ensemble(pair, average="logit")
    assert np.allclose(found["score_b"], mean_scores(np.stack([table["score_b"] for table in pair]), "logit"))


def test_an_ensemble_refuses():
    one, two, three = tables()
    for bad, message in (([one], "needs two or more"), ([one, two.iloc[1:]], "table 2 has other rows"),
                         ([one, two, three.rename(columns={"score_a": "score_z"})], "table 3 has other rows or classes"),
                         ([one, two.assign(y_true=1 - two["y_true"])], "table 2 has other truths"),
                         ([one.assign(id="x"), two], "cannot be told apart")):
        with pytest.raises(ValueError, match=message):
            ensemble(bad)


@pytest.mark.parametrize("shape", [(1, 7), (4, 50), (3, 20, 4)])
def test_error_of_the_mean_is_mean_error_less_ambiguity(shape):
    rng = np.random.default_rng(0)
    members = rng.random(shape) if len(shape) == 2 else rng.dirichlet(np.ones(shape[2]), shape[:2])
    y_true = rng.integers(0, 2 if len(shape) == 2 else shape[2], shape[1])
    parts = ambiguity(y_true, members)
    assert abs(parts["mean"] - (parts["members"] - parts["ambiguity"])) < 1e-15
    assert parts["ambiguity"] >= 0 and (shape[0] > 1 or parts["ambiguity"] == 0)
    with pytest.raises(ValueError, match="give \\(members, cases\\)"):
        ambiguity(y_true[:-1], members)


def test_disagreement():
    members = np.array([[0.9, 0.1, 0.6, 0.4], [0.8, 0.7, 0.2, 0.3], [0.9, 0.1, 0.6, 0.4]])
    assert disagreement(members).tolist() == [[0, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0]]
    assert np.array_equal(disagreement(np.stack([1 - members, members], -1)), disagreement(members))


def test_runs_average_as_their_tables(data):
    runs = [fit(candidate(data, filters=1, depth=1), data, epochs=1, progress=False, seed=seed) for seed in (0, 1)]
    assert ensemble(runs).equals(ensemble([run.predictions for run in runs]))


def test_averages_of_calibrated_members_with_different_knowledge_are_underconfident():
    rng = np.random.default_rng(0)
    truth, seen = rng.normal(size=50_000), rng.normal(size=(5, 50_000))
    labels = (truth + 0.3 * rng.normal(size=50_000) > 0).astype(int)
    signal = truth + seen                                                     # each member sees the truth through its own noise
    members = norm.cdf(signal / 2 / np.sqrt(0.5 + 0.09))                       # P(y = 1 | signal), exact: each is calibrated
    each, mean = members[0], members.mean(0)
    assert abs(labels[each > 0.8].mean() - each[each > 0.8].mean()) < 0.01
    assert labels[mean > 0.8].mean() > mean[mean > 0.8].mean() + 0.05
