"""Strategies against imbalance: their effective prior in closed form, what an epoch shows, and an honest comparison."""
import inspect
import json

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

from medbook.images import load
from medbook.images.datasets import from_arrays
from medbook.training import imbalance
from medbook.training.cnn import build_cnn
from medbook.training.fitting import Batches, TrainingError, fit
from medbook.training.imbalance import (
    STRATEGIES,
    ShiftedFocalLoss,
    Strategy,
    compare_strategies,
    draw_by_patient,
    effective_weights,
    figures,
    find_strategy,
    focal_to_probability,
    inverse_weights,
    prior_weights,
    thin,
)

TRAINED = [strategy for strategy in STRATEGIES.values() if strategy.decide == "largest"]

pytestmark = pytest.mark.usefixtures("without_reports")


def spots(n=600, rare=0.1, *, seed=0, per_patient=3):
    """Noisy 8 × 8 images, `per_patient` of a patient; class 1 has a bright spot. A data set with splits by patient."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n // per_patient), per_patient)
    labels = np.repeat(rng.random(n // per_patient) < rare, per_patient).astype(int)
    images = rng.normal(100, 25, (n, 8, 8))
    images[:, 3:6, 3:6] += 30 * labels[:, None, None]
    return from_arrays(images.clip(0, 255).astype("uint8")[..., None], labels, classes=["none", "spot"], patients=patients.astype(str))


@pytest.fixture(scope="module")
def data():
    return spots()


@pytest.fixture(scope="module")
def train(data):
    return data.subset("train")


def tiny(dataset):
    layers = keras.layers.Flatten(), keras.layers.Dense(len(dataset.classes), "softmax")
    return keras.Sequential([keras.layers.Input(dataset.shape), *layers])


def best_answer(joint, strategy, loss):
    """The logits (x, K) that minimise the loss a settled strategy trains with, when x and y have the joint distribution (x, K)."""
    natural = joint.sum(axis=0)
    times = np.asarray(strategy.shares or natural) / natural * (strategy.weights or 1.0) * (strategy.keep or 1.0)
    truth = np.eye(joint.shape[1], dtype="float32")

    def total(z, row):
        p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
        losses = keras.ops.convert_to_numpy(loss.call(truth, np.tile(p.astype("float32"), (len(truth), 1)))).astype(float)
        return (row * times * losses).sum()
    options = {"xatol": 1e-6, "fatol": 1e-13, "maxiter": 4000}
    return [minimize(total, np.log(row / row.sum()), args=(row,), method="Nelder-Mead", options=options).x for row in joint]


@pytest.mark.parametrize("strategy", [*TRAINED, Strategy("focal-adjusted", gamma=2.0, adjust=1.0)], ids=lambda each: each.name)
@pytest.mark.parametrize("classes", [2, 3])
def test_correction_of_the_best_answer_is_the_truth(strategy, classes):
    """Closed form: whatever a strategy trains with, its best answer, corrected, is the true probability of each class."""
    rng = np.random.default_rng(classes)
    prior = np.array([0.8, 0.2]) if classes == 2 else np.array([0.7, 0.2, 0.1])
    joint = rng.dirichlet(np.full(4, 2.0), classes).T * prior
    settled = imbalance.settle_strategy(strategy, prior * 1000)
    z = np.array(best_answer(joint, settled, ShiftedFocalLoss(settled.adjust, settled.gamma)))
    given = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(settled.correct(given, prior), joint / joint.sum(axis=1, keepdims=True), atol=4e-3)
    used = np.full(classes, 1 / classes)
    moved = joint / prior * used
    np.testing.assert_allclose(settled.correct(given, used), moved / moved.sum(axis=1, keepdims=True), atol=6e-3)


def test_weights_multiply_the_odds():
    """Weights w multiply trained odds by w1 / w0, so the effective odds of the prior by as much."""
    counts = np.array([950, 50])
    for weights in ((1.0, 7.0), (0.3, 0.1)):
        prior = imbalance.settle_strategy(Strategy("own", weights=weights), counts).prior
        assert prior[1] / prior[0] == pytest.approx(50 / 950 * weights[1] / weights[0])
    both = imbalance.settle_strategy(Strategy("both", weights=(1, 2), keep=(0.5, 1), shares=(0.75, 0.25)), counts).prior
    assert both[1] / both[0] == pytest.approx(0.25 / 0.75 * 2 / 0.5)
    half = imbalance.settle_strategy(Strategy("half", adjust=0.5), counts).prior
    assert half[1] / half[0] == pytest.approx((50 / 950) ** 0.5)


@pytest.mark.parametrize("name", ["inverse-weights", "weighted-focal", "logit-adjusted", "over-sampling", "under-sampling",
                                  "masked-majority", "minority-augmentation"])
def test_balanced_strategies_train_at_equal_shares(name, data):
    np.testing.assert_allclose(STRATEGIES[name].settle(data).prior, [0.5, 0.5])


def test_plain_and_focal_train_at_the_natural_shares(data, train):
    for name in ("plain", "focal", "threshold", "adjusted-afterwards"):
        np.testing.assert_allclose(STRATEGIES[name].settle(data).prior, np.bincount(train.labels) / len(train))


def test_effective_number_of_images():
    counts = np.array([5000, 500, 20])
    np.testing.assert_allclose(effective_weights(counts, 0), 1)
    nearly = effective_weights(counts, 1 - 1e-9)
    np.testing.assert_allclose(nearly / nearly[0], inverse_weights(counts) / inverse_weights(counts)[0], rtol=1e-4)
    direct = [(1 - 0.999) / (1 - 0.999**n) for n in counts]
    np.testing.assert_allclose(effective_weights(counts, 0.999), direct)
    numbers = 1 / effective_weights(counts, 0.99)          # 1 + β + β² + ..., n terms
    np.testing.assert_allclose(numbers, [sum(0.99**i for i in range(n)) for n in counts])


# drawing


@pytest.mark.parametrize("count", [0, 1, 7, 30, 31, 95])
def test_draws_by_patient(count):
    rng = np.random.default_rng(count)
    patients = rng.choice(list("abcdefg"), 30, p=[0.5, 0.2, 0.1, 0.05, 0.05, 0.05, 0.05])
    rows = rng.permutation(1000)[:30]
    drawn = draw_by_patient(rows, patients, count, rng)
    assert len(drawn) == count and set(drawn) <= set(rows)
    times = pd.Series(drawn).value_counts().reindex(rows, fill_value=0)
    if count <= 30:
        assert times.max() <= 1
        of_patient = times.groupby(patients).sum()
        there = pd.Series(patients).value_counts().sort_index()
        assert (of_patient[of_patient < there] >= of_patient.max() - 1).all()          # nobody waits while another gives more
    else:
        assert times.min() == 1 or times.min() > 0
        further = (times - 1).groupby(patients).sum()
        assert further.max() - further.min() <= 1
        within = (times - 1).groupby(patients)
        assert (within.max() - within.min() <= 1).all()


def test_draws_without_patients_are_by_image():
    drawn = draw_by_patient(np.arange(10), None, 25, np.random.default_rng(0))
    assert sorted(np.bincount(drawn)) == [2] * 5 + [3] * 5


@pytest.mark.parametrize("strategy", TRAINED, ids=lambda each: each.name)
def test_an_epoch_shows_what_the_strategy_says(strategy, data, train):
    settled = strategy.settle(data)
    rows, weights = settled.epoch(train, (0, 0), 3)
    again = settled.epoch(train, (0, 0), 3)
    assert (rows == again[0]).all() and (weights == again[1]).all()
    other = settled.epoch(train, (0, 0), 4)
    assert (rows != other[0]).any() and (rows != settled.epoch(train, (1, 0), 3)[0]).any()
    assert len(rows) == len(train)
    shares = np.bincount(train.labels[rows], weights=weights[rows]) / weights[rows].sum()
    if strategy.keep is None and not strategy.adjust:
        np.testing.assert_allclose(shares, settled.prior, atol=1 / len(train))
        assert weights[rows].mean() == pytest.approx(1, abs=0.02)


def test_masks_hit_the_prior_over_many_epochs(data, train):
    settled = STRATEGIES["masked-majority"].settle(data)
    total = sum(np.bincount(train.labels, weights=settled.epoch(train, (0,), epoch)[1]) for epoch in range(200))
    np.testing.assert_allclose(total / total.sum(), settled.prior, atol=0.02)
    assert total.sum() / 200 / len(train) == pytest.approx(1, abs=0.05)


def test_under_sampling_throws_away_for_the_whole_run(data, train):
    settled = STRATEGIES["under-sampling"].settle(data)
    shown = np.unique(np.concatenate([settled.epoch(train, (0, 0), epoch)[0] for epoch in range(30)]))
    counts = np.bincount(train.labels[shown])
    assert counts.tolist() == [np.bincount(train.labels).min()] * 2
    over = STRATEGIES["over-sampling"].settle(data)
    assert len(np.unique(np.concatenate([over.epoch(train, (0, 0), epoch)[0] for epoch in range(30)]))) == len(train)


def test_a_run_repeats_what_plain_training_does(data):
    """A strategy without a setting is `balance="none"`; inverse weights are `balance="weights"`."""
    for word, strategy in (("none", "plain"), ("weights", "inverse-weights")):
        runs = []
        for balance in (word, strategy):
            keras.utils.set_random_seed(1)
            runs.append(fit(tiny(data), data, epochs=3, balance=balance, progress=False))
        np.testing.assert_allclose(runs[0].predictions.score_spot, runs[1].predictions.score_spot, atol=1e-5)


@pytest.mark.parametrize("name", ["under-sampling", "minority-augmentation", "logit-adjusted", "masked-majority"])
def test_every_kind_trains_and_learns(name, data):
    keras.utils.set_random_seed(0)
    run = fit(tiny(data), data, epochs=15, batch_size=32, learning_rate=0.03, balance=name, progress=False)
    valid = run.predictions[run.predictions.split == "test"]
    assert imbalance.auc(valid.y_true, valid.score_spot) > 0.8
    assert run.info["settings"]["balance"] == str(STRATEGIES[name].settle(data))


def test_a_single_sigmoid_trains_alike(data):
    """Loss and scores of one sigmoid are those of the softmax over (1 − p, p)."""
    p = np.array([0.1, 0.6, 0.9], "float32")
    y = np.array([0, 1, 0])
    loss = ShiftedFocalLoss([0.0, -2.0], 1.5)
    one = loss(y[:, None].astype("float32"), p[:, None])
    two = loss(np.eye(2, dtype="float32")[y], np.stack([1 - p, p], axis=1))
    assert float(one) == pytest.approx(float(two), rel=1e-6)
    run = fit(build_cnn(data.shape, 1, filters=(4,), dense=()), data, epochs=1, balance="logit-adjusted", progress=False)
    assert np.isfinite(run.history.loss).all()


def test_losses_equal_keras():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 50).astype("float32")
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, 50)]
    assert float(ShiftedFocalLoss(np.zeros(3))(y, p)) == pytest.approx(float(keras.losses.CategoricalCrossentropy()(y, p)), rel=1e-4)
    focal = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0)
    assert float(ShiftedFocalLoss(np.zeros(3), 2.0)(y, p)) == pytest.approx(float(focal(y, p)), rel=1e-3)
    logits = np.log(p) + np.log([0.7, 0.2, 0.1]).astype("float32")
    adjusted = keras.losses.CategoricalCrossentropy(from_logits=True)(y, logits)
    assert float(ShiftedFocalLoss(np.log([0.7, 0.2, 0.1]))(y, p)) == pytest.approx(float(adjusted), rel=1e-4)


def test_focal_scores_that_are_certain_or_even_stay():
    np.testing.assert_allclose(focal_to_probability([[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]], 2.0), [[0.5, 0.5], [1, 0], [0, 1]], atol=1e-9)
    timid = focal_to_probability([[0.3, 0.7]], 2.0)[0, 1]
    assert timid > 0.7                                                   # the focal loss is answered too timidly
    np.testing.assert_allclose(focal_to_probability([[0.2, 0.3, 0.5]], 0.0), [[0.2, 0.3, 0.5]])


def test_marked_images_alone_are_moved(data, train):
    settled = STRATEGIES["minority-augmentation"].settle(data)
    batches = Batches(train, 2, 32, seed=(0, 0), strategy=settled)
    (x, y), = [batches[0][:2]]
    assert set(x) == {"image", "moved"} and (x["moved"][:, 0, 0, 0] == y[:, 1]).all()
    from medbook.images.augmentation import augmenter
    from medbook.training.fitting import moved_where_marked
    keras.utils.set_random_seed(0)
    same = keras.Sequential([keras.layers.Input(data.shape), keras.layers.Activation("linear")])
    out = keras.ops.convert_to_numpy(moved_where_marked(same, augmenter("any", seed=0))(x, training=True))
    changed = np.abs(out - x["image"]).max(axis=(1, 2, 3)) > 1e-3
    assert (changed == (y[:, 1] == 1)).all()


# refusing


@pytest.mark.parametrize("make, said", [
    (lambda: find_strategy("weight"), "balance must be 'auto', 'weights', 'none', a Strategy or one of plain"),
    (lambda: find_strategy(3), "got 3"),
    (lambda: Strategy("x", augment="some"), "augment must be 'all' or 'rare'"),
    (lambda: Strategy("x", decide="best"), "decide must be 'largest' or 'prior' or 'threshold'"),
    (lambda: Strategy("x", gamma=-1), "gamma must be a number of 0 or more"),
    (lambda: Strategy("x", discard=True), "discard needs the shares"),
    (lambda: Strategy("x", weights=(1, 2, 3)).settle(spots(60, 0.5)), "weights must be 2 numbers above 0"),
    (lambda: Strategy("x", keep=(2, 1)).settle(spots(60, 0.5)), "keep must be shares from 0 to 1"),
    (lambda: Strategy("x", weights=lambda counts: 1 / (counts - counts)).settle(spots(60, 0.5)), "weights must be 2 numbers above 0"),
    (lambda: thin(spots(60, 0.5), "lump", 0.1), "give a class of none, spot"),
    (lambda: thin(spots(60, 0.5), "spot", 0.99), "fewer than the"),
    (lambda: compare_strategies(spots(60, 0.5), ["plain", "plain"]), "each of another name"),
    (lambda: compare_strategies(spots(60, 0.5), []), "one or more seeds and strategies"),
    (lambda: compare_strategies(spots(60, 0.5), ["plain"], prior=(1, 0)), "prior must be 2 shares above 0"),
    (lambda: imbalance.study_data("mnist"), "no study is called 'mnist'"),
])
def test_clear_errors(make, said):
    with pytest.raises(ValueError) as error, np.errstate(divide="ignore"):
        make()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_class_without_training_images_is_told(data):
    without = data.take(np.flatnonzero((data.splits != "test") | (data.labels == 0)))
    with pytest.raises(ValueError, match="test has no image of class spot"):
        compare_strategies(without, ["plain"])
    many = from_arrays(np.zeros((4, 8, 8, 1), "uint8"), np.array([[0, 1], [1, 0], [1, 1], [0, 0]]), classes=["a", "b"])
    with pytest.raises(ValueError, match="one class an image"):
        STRATEGIES["focal"].settle(many)


# counting


def test_thin_leaves_test_alone(data):
    thinned = thin(data, "spot", 0.02, seed=3)
    for split in ("train", "valid"):
        part = thinned.subset(split)
        assert part.labels.sum() == max(1, round(0.02 / 0.98 * (part.labels == 0).sum()))
        assert (part.labels == 0).sum() == (data.subset(split).labels == 0).sum()
    assert (thinned.subset("test").ids == data.subset("test").ids).all()
    assert (thin(data, 1, 0.02, seed=3).ids == thinned.ids).all() and (thin(data, 1, 0.02, seed=4).ids != thinned.ids).any()


def test_prior_weights_set_the_shares():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1, 2], [50, 30, 20]))
    prior = np.array([0.9, 0.09, 0.01])
    for weights in (None, rng.integers(0, 4, (7, 100)).astype(float)):
        found = prior_weights(y, prior, weights)
        shares = np.stack([found[..., y == k].sum(axis=-1) for k in range(3)], axis=-1) / 100
        np.testing.assert_allclose(shares, np.broadcast_to(prior, shares.shape))
    assert prior_weights(np.zeros(4, int), [0.5, 0.5]).tolist() == [0.5] * 4 or prior_weights(np.zeros(4, int), [0.5, 0.5]).sum() <= 4


def test_figures_equal_the_metrics():
    """Against scikit-learn, weighted, for two and three classes."""
    import sklearn.metrics as library
    rng = np.random.default_rng(5)
    for classes in (2, 3):
        y = np.arange(200) % classes
        scores = rng.dirichlet(np.ones(classes), 200)
        called, w = rng.integers(0, classes, 200), rng.random(200)
        found = dict(zip(imbalance.FIGURES, figures(y, called, scores, scores, rarest=1, threshold=0.3, weights=w), strict=True))
        recalls = library.recall_score(y, called, average=None, sample_weight=w)
        assert found["worst recall"] == pytest.approx(recalls.min(), abs=1e-12)
        assert found["macro F1"] == pytest.approx(library.f1_score(y, called, average="macro", sample_weight=w), abs=1e-12)
        assert found["accuracy"] == pytest.approx(library.accuracy_score(y, called, sample_weight=w), abs=1e-12)
        area = np.mean([library.roc_auc_score(y == k, scores[:, k], sample_weight=w) for k in range(classes)])
        assert found["AUC"] == pytest.approx(area, abs=1e-12)
        alarm = scores[:, 1] >= 0.3
        benefit = (w[alarm & (y == 1)].sum() - w[alarm & (y != 1)].sum() * 0.3 / 0.7) / w.sum()
        assert found["net benefit"] == pytest.approx(benefit, abs=1e-12) and found["ECE"] == found["ECE corrected"]


# comparing


OWN = Strategy("triple", weights=(1, 3))


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies")
    options = dict(model=tiny, epochs=15, batch_size=32, learning_rate=0.01, resamples=200, progress=False, out=folder)
    names = ["plain", OWN, "over-sampling", "adjusted-afterwards", "threshold"]
    return folder, options, names, compare_strategies(data, names, (0, 1), **options)


def test_table_has_every_strategy_figure_and_seed(compared):
    _, _, names, found = compared
    assert len(found.table) == 5 * 8 and len(found.runs) == 5 * 2 * 8 and len(found.valid) == 5 * 8
    assert found.wide().shape == (5, 8) and found.wide().index[1] == "triple"
    table = found.table
    assert (table.low <= table.value + 1e-9).all() and (table.value <= table.high + 1e-9).all()
    assert (table.lowest <= table.value + 1e-12).all() and (table.value <= table.highest + 1e-12).all()
    means = found.runs.groupby(["strategy", "figure"]).value.mean()
    np.testing.assert_allclose(table.set_index(["strategy", "figure"]).value.sort_index(), means.sort_index())
    assert (found.gains[found.gains.strategy == "plain"][["value", "low", "high"]] == 0).all(axis=None)
    assert found.choice() in found.valid.strategy.tolist() and "0." in found._repr_html_()
    assert "; seeds 0." in found.wide().loc["triple", "accuracy"] and "seeds" not in found.wide(gains=True).loc["triple", "accuracy"]
    lines = found.to_markdown(("worst recall", "ECE")).splitlines()
    assert lines[0] == "| | worst recall | seeds | its gain | ECE |" and len(lines) == 7 and lines[3].startswith("| triple | 0.")
    with pytest.raises(ValueError, match="no figure is called"):
        found.choice("recall")


def fixed_scores(n=60, ill=12):
    """A predictions table of valid and test, a patient an image, with the positives first; scores are given by `answered`."""
    one = pd.DataFrame({"patient": np.arange(n).astype(str), "y_true": (np.arange(n) < ill).astype(int), "score_a": 0.5, "score_b": 0.5})
    return pd.concat([one.assign(split=split) for split in ("valid", "test")], ignore_index=True)


def answered(called):
    """An answer that calls `called` (n,), with scores to fit."""
    scores = np.where(np.eye(2)[called] == 1, 0.8, 0.2)
    return {split: (called, scores, scores) for split in ("valid", "test")}


def told(*strategies):
    """The table of strategies, each a list of what its seeds call."""
    table, prior = fixed_scores(), np.array([0.8, 0.2])
    names, given = [f"s{place}" for place in range(len(strategies))], [[answered(called) for called in runs] for runs in strategies]
    about = {"seeds": list(range(len(strategies[0]))), "threshold": 0.2, "resamples": 400}
    return imbalance.tabulate(table, given, names, about, rarest=1, prior=prior)


def test_an_interval_holds_the_chance_of_the_seed():
    """Two seeds of which one finds all and the other next to nobody: the interval reaches from the one to the other."""
    truth = (np.arange(60) < 12).astype(int)
    nearly_none = truth * (np.arange(60) < 1)
    found = told([truth, truth], [truth, nearly_none])
    row = found.table.set_index(["strategy", "figure"]).loc[("s1", "worst recall")]
    assert row.value == pytest.approx((1 + 1 / 12) / 2) and row.low <= row.lowest == pytest.approx(1 / 12) and row.high >= row.highest == 1
    gain = found.gains.set_index(["strategy", "figure"]).loc[("s1", "worst recall")]
    assert gain.low <= 1 / 12 - 1 + 1e-9 and gain.high >= -1e-9


def test_an_interval_without_width_is_wilsons_and_said():
    from medbook.evaluation.intervals import wilson
    nobody = np.zeros(60, int)
    found = told([nobody, nobody], [(np.arange(60) < 6).astype(int)] * 2)
    rows = found.table.set_index(["strategy", "figure"])
    assert tuple(rows.loc[("s0", "worst recall"), ["value", "low", "high"]]) == pytest.approx(wilson(0, 12))
    assert tuple(rows.loc[("s0", "accuracy"), ["value", "low", "high"]]) == pytest.approx(wilson(48, 60))
    assert found.wide().loc["s0", "macro F1"].split(";")[0].endswith("(–") and found.wide(gains=True).loc["s0", "accuracy"] == "0.000 (–)"
    first = found.about["doubts"][0]
    assert first.startswith("s0: the same in every resample")
    assert "worst recall (Wilson interval)" in first and "macro F1 (no interval)" in first
    assert first in found._repr_html_() and not any("worst recall" in each for each in found.about["doubts"][1:])


def test_decisions_share_the_plain_run(compared):
    folder, _, _, found = compared
    assert sorted(path.name for path in folder.iterdir()) == ["over-sampling", "plain", "triple"]
    wide = found.table.pivot(index="strategy", columns="figure", values="value")
    for name in ("adjusted-afterwards", "threshold"):
        assert wide.loc[name, "ECE corrected"] == pytest.approx(wide.loc["plain", "ECE corrected"])
        assert wide.loc[name, "AUC"] == pytest.approx(wide.loc["plain", "AUC"])
    assert wide.loc["adjusted-afterwards", "worst recall"] >= wide.loc["plain", "worst recall"]


def test_the_same_call_reads_what_is_there(compared, data, monkeypatch):
    folder, options, names, found = compared
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("predictions.csv")}
    again = compare_strategies(data, names, (0, 1), **options)
    pd.testing.assert_frame_equal(again.table, found.table, rtol=1e-6)
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("predictions.csv")} and len(before) == 6
    assert json.loads((folder / "plain" / "seed-1" / "run.json").read_text())["settings"]["balance"] == "plain"


def test_a_folder_of_other_settings_is_refused(compared, data):
    _, options, _, _ = compared
    with pytest.raises(TrainingError, match="holds another run .*weights 1 3"):
        compare_strategies(data, [Strategy("triple", weights=(1, 4))], (0,), **options)


def test_prior_of_use_weighs_test(compared, data):
    _, options, names, found = compared
    other = compare_strategies(data, names[:1], (0, 1), prior=(0.5, 0.5), **options)
    assert other.about["prior"] == [0.5, 0.5] and other.about["threshold"] == 0.5
    first = other.table.set_index("figure").value
    recalls = found.runs[(found.runs.strategy == "plain") & (found.runs.figure == "worst recall")]
    assert first["worst recall"] == pytest.approx(recalls.value.mean())          # recall does not depend on the prior; accuracy does
    assert first["accuracy"] < found.table[found.table.strategy == "plain"].set_index("figure").value["accuracy"]


def test_over_sampled_scores_come_back(compared):
    """The corrected scores of the over-sampled model are nearer to plain's than the given ones are."""
    wide = compared[3].table.pivot(index="strategy", columns="figure", values="value")
    assert wide.loc["over-sampling", "ECE corrected"] < wide.loc["over-sampling", "ECE"]


def test_plot(compared):
    fig = compared[3].plot()
    assert len(fig.axes) == 4 and fig.axes[0].get_yticklabels()[1].get_text() == "triple"
    import matplotlib.pyplot as plt
    plt.close(fig)


def test_real_cells_thinned_to_one_in_a_hundred(shared):
    data = imbalance.study_data("bccd")
    counts = pd.DataFrame(data.summary())
    assert counts.loc["Platelets"].tolist()[:3] == [32, 5, 72]
    assert not set(data.subset("train").patients) & set(data.subset("test").patients)
    assert len(load("bccd").subset("test")) == len(data.subset("test"))
    settled = STRATEGIES["over-sampling"].settle(data)
    train = data.subset("train")
    rows, _ = settled.epoch(train, (0, 0), 0)
    assert np.ptp(np.bincount(train.labels[rows])) <= 1
    platelets = rows[train.labels[rows] == 2]
    of_patient = pd.Series(train.patients[platelets]).value_counts()
    assert of_patient.max() - of_patient.min() <= 3                     # a smear with three platelets comes hardly more often


def test_every_public_thing_says_what_it_does():
    for name in imbalance.__all__:
        thing = getattr(imbalance, name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            assert inspect.getdoc(thing), name
