"""Ensembles: rows matched, scores averaged, errors taken apart."""

import keras
import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm

from medbook.evaluation.predictions import evaluate_table
from medbook.training.ensembles import ambiguity, average, disagreement, ensemble, mean_scores
from medbook.training.fitting import fit
from medbook.training.selection import candidate
from tests.made_up import scans

pytestmark = pytest.mark.slow


def tables(members=3, n=30, classes=2, seed=0):
    rng = np.random.default_rng(seed)
    base = pd.DataFrame(
        {
            "id": [f"i{place}" for place in range(n)],
            "patient": np.arange(n) // 2,
            "split": "valid",
            "y_true": rng.integers(0, classes, n),
        }
    )
    columns = [f"score_{name}" for name in "abc"[:classes]]
    return [
        base.join(pd.DataFrame(rng.dirichlet(np.ones(classes), n), columns=columns))
        for _ in range(members)
    ]


@pytest.mark.parametrize("classes", [2, 3])
def test_an_ensemble_matches_rows_and_averages(classes):
    members = tables(classes=classes)
    shuffled = [members[0], members[1].sample(frac=1, random_state=1), members[2].iloc[::-1]]
    columns = [name for name in members[0] if name.startswith("score_")]
    stack = np.stack([table[columns].to_numpy() for table in members])
    found = ensemble(shuffled)
    assert np.allclose(found[columns], stack.mean(0)) and found.drop(columns=columns).equals(
        members[0].drop(columns=columns)
    )
    geometric = ensemble(shuffled, average="logit")[columns].to_numpy()
    expected = np.exp(np.log(stack).mean(0))
    assert np.allclose(geometric, expected / expected.sum(1, keepdims=True)) and np.allclose(
        geometric.sum(1), 1
    )
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
    base = pd.DataFrame(
        {"id": range(9), "y_true_a": rng.integers(0, 2, 9), "y_true_b": rng.integers(0, 2, 9)}
    )
    pair = [base.assign(score_a=rng.random(9), score_b=rng.random(9)) for _ in range(2)]
    found = ensemble(pair, average="logit")
    assert np.allclose(
        found["score_b"], mean_scores(np.stack([table["score_b"] for table in pair]), "logit")
    )


def test_an_ensemble_refuses():
    one, two, three = tables()
    for bad, message in (
        ([one], "needs two or more"),
        ([one, two.iloc[1:]], "table 2 has other rows"),
        (
            [one, two, three.rename(columns={"score_a": "score_z"})],
            "table 3 has other rows or classes",
        ),
        ([one, two.assign(y_true=1 - two["y_true"])], "table 2 has other truths"),
        ([one.assign(id="x"), two], "cannot be told apart"),
    ):
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


def test_averages_of_calibrated_members_with_different_knowledge_are_underconfident():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=50_000)
    seen = rng.normal(size=(5, 50_000))
    labels = (truth + 0.3 * rng.normal(size=50_000) > 0).astype(int)
    signal = truth + seen  # each member sees the truth through its own noise
    members = norm.cdf(
        signal / 2 / np.sqrt(0.5 + 0.09)
    )  # P(y = 1 | signal), exact: each is calibrated
    each = members[0]
    mean = members.mean(0)
    assert abs(labels[each > 0.8].mean() - each[each > 0.8].mean()) < 0.01
    assert labels[mean > 0.8].mean() > mean[mean > 0.8].mean() + 0.05


def test_runs_average_as_their_tables_and_as_one_model():
    data = scans(30, images=1)
    models = [candidate(data, filters=1, depth=1) for _ in range(2)]
    runs = [
        fit(model, data, epochs=1, progress=False, seed=seed) for seed, model in enumerate(models)
    ]
    together = ensemble(runs)
    assert together.equals(ensemble([run.predictions for run in runs]))
    part = data.take(data.splits != "train")
    joint = keras.ops.convert_to_numpy(average(models)(part.batch(slice(None))))
    np.testing.assert_allclose(joint[:, 1], together["score_lesion"], atol=1e-5)
    assert average(models[:1]) is models[0]
