"""An honest comparison of strategies: figures, intervals, seeds, and what is said of them."""

import json

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from medbook.evaluation.intervals import wilson
from medbook.images import load
from medbook.training import imbalance
from medbook.training.balance import STRATEGIES, Strategy, show_epoch
from medbook.training.imbalance import compare_strategies, figures, prior_weights, thin
from medbook.training.runs import TrainingError
from tests.test_balance import spots

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_reports")]


@pytest.fixture(scope="module")
def data():
    return spots()


def tiny(dataset):
    layers = keras.layers.Flatten(), keras.layers.Dense(len(dataset.classes), "softmax")
    return keras.Sequential([keras.layers.Input(dataset.shape), *layers])


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: thin(spots(60, 0.5), "lump", 0.1), "give a class of none, spot"),
        (lambda: thin(spots(60, 0.5), "spot", 0.99), "fewer than the"),
        (lambda: compare_strategies(spots(60, 0.5), ["plain", "plain"]), "each of another name"),
        (lambda: compare_strategies(spots(60, 0.5), []), "one or more seeds and strategies"),
        (
            lambda: compare_strategies(spots(60, 0.5), ["plain"], prior=(1, 0)),
            "prior must be 2 shares above 0",
        ),
        (lambda: imbalance.study_data("mnist"), "no study is called 'mnist'"),
    ],
)
def test_clear_errors(make, said):
    with pytest.raises(ValueError) as error, np.errstate(divide="ignore"):
        make()
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_class_without_training_images_is_told(data):
    without = data.take(np.flatnonzero((data.splits != "test") | (data.labels == 0)))
    with pytest.raises(ValueError, match="test has no image of class spot"):
        compare_strategies(without, ["plain"])


def test_thin_leaves_test_alone(data):
    thinned = thin(data, "spot", 0.02, seed=3)
    for split in ("train", "valid"):
        part = thinned.subset(split)
        assert part.labels.sum() == max(1, round(0.02 / 0.98 * (part.labels == 0).sum()))
        assert (part.labels == 0).sum() == (data.subset(split).labels == 0).sum()
    assert (thinned.subset("test").ids == data.subset("test").ids).all()
    assert (thin(data, 1, 0.02, seed=3).ids == thinned.ids).all() and (
        thin(data, 1, 0.02, seed=4).ids != thinned.ids
    ).any()


def test_prior_weights_set_the_shares():
    rng = np.random.default_rng(0)
    y = rng.permutation(np.repeat([0, 1, 2], [50, 30, 20]))
    prior = np.array([0.9, 0.09, 0.01])
    for weights in (None, rng.integers(0, 4, (7, 100)).astype(float)):
        found = prior_weights(y, prior, weights)
        shares = np.stack([found[..., y == k].sum(axis=-1) for k in range(3)], axis=-1) / 100
        np.testing.assert_allclose(shares, np.broadcast_to(prior, shares.shape))
    assert (
        prior_weights(np.zeros(4, int), [0.5, 0.5]).tolist() == [0.5] * 4
        or prior_weights(np.zeros(4, int), [0.5, 0.5]).sum() <= 4
    )


def test_figures_equal_the_metrics():
    """Against scikit-learn, weighted, for two and three classes."""
    import sklearn.metrics as library

    rng = np.random.default_rng(5)
    for classes in (2, 3):
        y = np.arange(200) % classes
        scores = rng.dirichlet(np.ones(classes), 200)
        predicted = rng.integers(0, classes, 200)
        w = rng.random(200)
        found = dict(
            zip(
                imbalance.FIGURES,
                figures(y, predicted, scores, scores, rarest=1, threshold=0.3, weights=w),
                strict=True,
            )
        )
        recalls = library.recall_score(y, predicted, average=None, sample_weight=w)
        assert found["worst_recall"] == pytest.approx(recalls.min(), abs=1e-12)
        assert found["macro_f1"] == pytest.approx(
            library.f1_score(y, predicted, average="macro", sample_weight=w), abs=1e-12
        )
        assert found["accuracy"] == pytest.approx(
            library.accuracy_score(y, predicted, sample_weight=w), abs=1e-12
        )
        area = np.mean(
            [library.roc_auc_score(y == k, scores[:, k], sample_weight=w) for k in range(classes)]
        )
        assert found["auc"] == pytest.approx(area, abs=1e-12)
        alarm = scores[:, 1] >= 0.3
        benefit = (w[alarm & (y == 1)].sum() - w[alarm & (y != 1)].sum() * 0.3 / 0.7) / w.sum()
        assert (
            found["net_benefit"] == pytest.approx(benefit, abs=1e-12)
            and found["ece"] == found["ece_corrected"]
        )


OWN = Strategy("triple", weights=(1, 3))


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strategies")
    options = dict(
        model=tiny,
        epochs=15,
        batch_size=32,
        learning_rate=0.01,
        resamples=200,
        progress=False,
        out=folder,
    )
    names = ["plain", OWN, "over-sampling", "adjusted-afterwards", "threshold"]
    return folder, options, names, compare_strategies(data, names, (0, 1), **options)


def test_table_has_every_strategy_figure_and_seed(compared):
    _, _, names, found = compared
    assert len(found.table) == 5 * 8 and len(found.runs) == 5 * 2 * 8 and len(found.valid) == 5 * 8
    assert found.wide().shape == (5, 8) and found.wide().index[1] == "triple"
    table = found.table
    assert (table.low <= table.value + 1e-9).all() and (table.value <= table.high + 1e-9).all()
    assert (table.lowest <= table.value + 1e-12).all() and (
        table.value <= table.highest + 1e-12
    ).all()
    means = found.runs.groupby(["strategy", "figure"]).value.mean()
    np.testing.assert_allclose(
        table.set_index(["strategy", "figure"]).value.sort_index(), means.sort_index()
    )
    assert (found.gains[found.gains.strategy == "plain"][["value", "low", "high"]] == 0).all(
        axis=None
    )
    assert found.choice() in found.valid.strategy.tolist() and "0." in found._repr_html_()
    assert (
        "; seeds 0." in found.wide().loc["triple", "accuracy"]
        and "seeds" not in found.wide(gains=True).loc["triple", "accuracy"]
    )
    lines = found.to_markdown(("worst_recall", "ece")).splitlines()
    assert (
        lines[0] == "| | worst recall | seeds | its gain | ECE |"
        and len(lines) == 7
        and lines[3].startswith("| triple | 0.")
    )
    with pytest.raises(ValueError, match="no figure is called"):
        found.choice("recall")


def fixed_scores(n=60, ill=12):
    """A predictions table of valid and test, a patient an image, with the positives first; scores
    are given by `answered`."""
    one = pd.DataFrame(
        {
            "patient": np.arange(n).astype(str),
            "y_true": (np.arange(n) < ill).astype(int),
            "score_a": 0.5,
            "score_b": 0.5,
        }
    )
    return pd.concat([one.assign(split=split) for split in ("valid", "test")], ignore_index=True)


def answered(predicted):
    """An answer that calls `predicted` (n,), with scores to fit."""
    scores = np.where(np.eye(2)[predicted] == 1, 0.8, 0.2)
    return {split: (predicted, scores, scores) for split in ("valid", "test")}


def told(*strategies):
    """The table of strategies, each a list of what its seeds call."""
    table = fixed_scores()
    prior = np.array([0.8, 0.2])
    names = [f"s{place}" for place in range(len(strategies))]
    given = [[answered(predicted) for predicted in runs] for runs in strategies]
    about = {"seeds": list(range(len(strategies[0]))), "threshold": 0.2, "resamples": 400}
    return imbalance._tabulate(table, given, names, about, rarest=1, prior=prior)


def test_an_interval_holds_the_chance_of_the_seed():
    """Two seeds of which one finds all and the other next to nobody: the interval reaches from the
    one to the other."""
    truth = (np.arange(60) < 12).astype(int)
    nearly_none = truth * (np.arange(60) < 1)
    found = told([truth, truth], [truth, nearly_none])
    row = found.table.set_index(["strategy", "figure"]).loc[("s1", "worst_recall")]
    assert (
        row.value == pytest.approx((1 + 1 / 12) / 2)
        and row.low <= row.lowest == pytest.approx(1 / 12)
        and row.high >= row.highest == 1
    )
    gain = found.gains.set_index(["strategy", "figure"]).loc[("s1", "worst_recall")]
    assert gain.low <= 1 / 12 - 1 + 1e-9 and gain.high >= -1e-9


def test_an_interval_without_width_is_wilsons_and_said():
    nobody = np.zeros(60, int)
    found = told([nobody, nobody], [(np.arange(60) < 6).astype(int)] * 2)
    rows = found.table.set_index(["strategy", "figure"])
    assert tuple(rows.loc[("s0", "worst_recall"), ["value", "low", "high"]]) == pytest.approx(
        wilson(0, 12)
    )
    assert tuple(rows.loc[("s0", "accuracy"), ["value", "low", "high"]]) == pytest.approx(
        wilson(48, 60)
    )
    assert (
        found.wide().loc["s0", "macro_f1"].split(";")[0].endswith("(–")
        and found.wide(gains=True).loc["s0", "accuracy"] == "0.000 (–)"
    )
    first = found.about["doubts"][0]
    assert first.startswith("s0: the same in every resample")
    assert "worst_recall (Wilson interval)" in first and "macro_f1 (no interval)" in first
    assert first in found._repr_html_() and not any(
        "worst_recall" in each for each in found.about["doubts"][1:]
    )


def test_decisions_share_the_plain_run(compared):
    folder, _, _, found = compared
    assert sorted(path.name for path in folder.iterdir()) == ["over-sampling", "plain", "triple"]
    wide = found.table.pivot(index="strategy", columns="figure", values="value")
    for name in ("adjusted-afterwards", "threshold"):
        assert wide.loc[name, "ece_corrected"] == pytest.approx(wide.loc["plain", "ece_corrected"])
        assert wide.loc[name, "auc"] == pytest.approx(wide.loc["plain", "auc"])
    assert wide.loc["adjusted-afterwards", "worst_recall"] >= wide.loc["plain", "worst_recall"]


def test_the_same_call_reads_what_is_there(compared, data, monkeypatch):
    folder, options, names, found = compared
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("predictions.csv")}
    again = compare_strategies(data, names, (0, 1), **options)
    pd.testing.assert_frame_equal(again.table, found.table, rtol=1e-6)
    assert (
        before == {path: path.stat().st_mtime_ns for path in folder.rglob("predictions.csv")}
        and len(before) == 6
    )
    assert (
        json.loads((folder / "plain" / "seed-1" / "run.json").read_text())["settings"]["balance"]
        == "plain"
    )


def test_a_folder_of_other_settings_is_refused(compared, data):
    _, options, _, _ = compared
    with pytest.raises(TrainingError, match="holds another run .*weights 1 3"):
        compare_strategies(data, [Strategy("triple", weights=(1, 4))], (0,), **options)


def test_prior_of_use_weighs_test(compared, data):
    _, options, names, found = compared
    other = compare_strategies(data, names[:1], (0, 1), prior=(0.5, 0.5), **options)
    assert other.about["prior"] == [0.5, 0.5] and other.about["threshold"] == 0.5
    first = other.table.set_index("figure").value
    recalls = found.runs[(found.runs.strategy == "plain") & (found.runs.figure == "worst_recall")]
    assert first["worst_recall"] == pytest.approx(
        recalls.value.mean()
    )  # recall does not depend on the prior; accuracy does
    assert (
        first["accuracy"]
        < found.table[found.table.strategy == "plain"].set_index("figure").value["accuracy"]
    )


def test_over_sampled_scores_come_back(compared):
    """The corrected scores of the over-sampled model are nearer to plain's than the given ones
    are."""
    wide = compared[3].table.pivot(index="strategy", columns="figure", values="value")
    assert wide.loc["over-sampling", "ece_corrected"] < wide.loc["over-sampling", "ece"]


def test_plot(compared):
    fig = compared[3].plot()
    assert len(fig.axes) == 4 and fig.axes[0].get_yticklabels()[1].get_text() == "triple"
    plt.close(fig)


def test_real_cells_thinned_to_one_in_a_hundred(shared):
    data = imbalance.study_data("bccd")
    counts = pd.DataFrame(data.summary())
    assert counts.loc["Platelets"].tolist()[:3] == [32, 5, 72]
    assert not set(data.subset("train").patients) & set(data.subset("test").patients)
    assert len(load("bccd").subset("test")) == len(data.subset("test"))
    settled = STRATEGIES["over-sampling"].settle(data)
    train = data.subset("train")
    rows = show_epoch(settled, train, (0, 0), 0).rows
    assert np.ptp(np.bincount(train.labels[rows])) <= 1
    platelets = rows[train.labels[rows] == 2]
    of_patient = pd.Series(train.patients[platelets]).value_counts()
    assert (
        of_patient.max() - of_patient.min() <= 3
    )  # a smear with three platelets comes hardly more often
