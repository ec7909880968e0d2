"""Strategies against imbalance: their effective prior in closed form, and what an epoch shows."""

import keras
import numpy as np
import pandas as pd
import pytest

from medbook.images.assembly import from_arrays
from medbook.training.balance import (
    STRATEGIES,
    ShiftedFocalLoss,
    Strategy,
    class_weights,
    draw_by_patient,
    effective_weights,
    epoch_order,
    find_strategy,
    focal_to_probability,
    inverse_weights,
    settle_balance,
    show_epoch,
)

TRAINED = [strategy for strategy in STRATEGIES.values() if strategy.decide == "largest"]


def spots(n=600, rare=0.1, *, seed=0, per_patient=3):
    """Noisy 8 × 8 images, `per_patient` of a patient; class 1 has a bright spot; splits by
    patient."""
    rng = np.random.default_rng(seed)
    patients = np.repeat(np.arange(n // per_patient), per_patient)
    labels = np.repeat(rng.random(n // per_patient) < rare, per_patient).astype(int)
    images = rng.normal(100, 25, (n, 8, 8))
    images[:, 3:6, 3:6] += 30 * labels[:, None, None]
    pixels = images.clip(0, 255).astype("uint8")[..., None]
    return from_arrays(pixels, labels, classes=["none", "spot"], patients=patients.astype(str))


@pytest.fixture(scope="module")
def data():
    return spots()


@pytest.fixture(scope="module")
def train(data):
    return data.subset("train")


def expected_losses(z, row, strategy, natural):
    """What a settled strategy's training minimises at one x, for many logits z (m, K): (m,)."""
    times = np.asarray(strategy.shares or natural) / natural
    times = times * (strategy.weights or 1.0) * (strategy.keep or 1.0)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p = (p / p.sum(axis=1, keepdims=True)).astype("float32")
    truth = np.eye(len(row), dtype="float32")
    loss = ShiftedFocalLoss(strategy.adjust, strategy.gamma)
    each = [loss.call(np.tile(truth[k], (len(p), 1)), p) for k in range(len(row))]
    losses = np.stack([keras.ops.convert_to_numpy(one) for one in each], axis=1).astype(float)
    return losses @ (row * times)


def best_answer(row, strategy, natural, rounds=8):
    """The logits (K,) that minimise it: a grid about the best so far, ever finer."""
    best = np.log(row / row.sum())
    side = np.linspace(-1, 1, 15)
    steps = np.stack(np.meshgrid(*[side] * (len(row) - 1)), axis=-1).reshape(-1, len(row) - 1)
    steps = np.hstack([np.zeros((len(steps), 1)), steps])
    for zoom in range(rounds):
        trials = best + 5 * steps / 2.5**zoom
        best = trials[np.argmin(expected_losses(trials, row, strategy, natural))]
    return best


@pytest.mark.parametrize(
    "strategy", [*TRAINED, Strategy("both", gamma=2.0, adjust=1.0)], ids=lambda each: each.name
)
@pytest.mark.parametrize("classes", [2, 3])
def test_correction_of_the_best_answer_is_the_truth(strategy, classes):
    """Closed form: whatever a strategy trains with, its best answer, corrected, is the true
    probability of each class."""
    rng = np.random.default_rng(classes)
    prior = np.array([0.8, 0.2]) if classes == 2 else np.array([0.7, 0.2, 0.1])
    joint = rng.dirichlet(np.full(3, 2.0), classes).T * prior
    settled = strategy.settle(prior * 1000)
    z = np.array([best_answer(row, settled, prior) for row in joint])
    given = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    truth = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(settled.correct(given, prior), truth, atol=4e-3)
    used = np.full(classes, 1 / classes)
    moved = joint / prior * used
    truth = moved / moved.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(settled.correct(given, used), truth, atol=6e-3)


def test_weights_multiply_the_odds():
    """Weights w multiply trained odds by w1 / w0, so the effective odds of the prior by as much."""
    counts = np.array([950, 50])
    for weights in ((1.0, 7.0), (0.3, 0.1)):
        prior = Strategy("own", weights=weights).settle(counts).prior
        assert prior[1] / prior[0] == pytest.approx(50 / 950 * weights[1] / weights[0])
    several = Strategy("both", weights=(1, 2), keep=(0.5, 1), shares=(0.75, 0.25))
    both = several.settle(counts).prior
    assert both[1] / both[0] == pytest.approx(0.25 / 0.75 * 2 / 0.5)
    half = Strategy("half", adjust=0.5).settle(counts).prior
    assert half[1] / half[0] == pytest.approx((50 / 950) ** 0.5)


@pytest.mark.parametrize(
    "name",
    [
        "inverse-weights",
        "weighted-focal",
        "logit-adjusted",
        "over-sampling",
        "under-sampling",
        "masked-majority",
        "minority-augmentation",
    ],
)
def test_balanced_strategies_train_at_equal_shares(name, data):
    np.testing.assert_allclose(STRATEGIES[name].settle(data).prior, [0.5, 0.5])


def test_plain_and_focal_train_at_the_natural_shares(data, train):
    for name in ("plain", "focal", "threshold", "adjusted-afterwards"):
        natural = np.bincount(train.labels) / len(train)
        np.testing.assert_allclose(STRATEGIES[name].settle(data).prior, natural)


def test_class_weights_equal_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat([0, 1, 2], [70, 25, 5])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(class_weights(labels), expected, rtol=1e-6)
    np.testing.assert_allclose(inverse_weights([70, 25, 5]), expected)


def test_effective_number_of_images():
    counts = np.array([5000, 500, 20])
    np.testing.assert_allclose(effective_weights(counts, 0), 1)
    nearly = effective_weights(counts, 1 - 1e-9)
    inverse = inverse_weights(counts)
    np.testing.assert_allclose(nearly / nearly[0], inverse / inverse[0], rtol=1e-4)
    direct = [(1 - 0.999) / (1 - 0.999**n) for n in counts]
    np.testing.assert_allclose(effective_weights(counts, 0.999), direct)
    numbers = 1 / effective_weights(counts, 0.99)  # 1 + β + β² + ..., n terms
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
        waiting = of_patient[of_patient < there]  # nobody waits while another gives more
        assert (waiting >= of_patient.max() - 1).all()
    else:
        assert times.min() > 0
        further = (times - 1).groupby(patients).sum()
        assert further.max() - further.min() <= 1
        within = (times - 1).groupby(patients)
        assert (within.max() - within.min() <= 1).all()


def test_draws_without_patients_are_by_image():
    drawn = draw_by_patient(np.arange(10), None, 25, np.random.default_rng(0))
    assert sorted(np.bincount(drawn)) == [2] * 5 + [3] * 5


def test_the_order_of_an_epoch_depends_on_seed_and_number_alone():
    assert (epoch_order(9, (0, 1), 3) == epoch_order(9, (0, 1), 3)).all()
    assert (epoch_order(50, 0, 3) != epoch_order(50, 0, 4)).any()
    assert sorted(epoch_order(9, 0, 3)) == list(range(9))


@pytest.mark.parametrize("strategy", TRAINED, ids=lambda each: each.name)
def test_an_epoch_shows_what_the_strategy_says(strategy, data, train):
    settled = strategy.settle(data)
    rows, weights, moved = show_epoch(settled, train, (0, 0), 3)
    again = show_epoch(settled, train, (0, 0), 3)
    assert (rows == again.rows).all() and (weights == again.weights).all()
    other = show_epoch(settled, train, (0, 0), 4)
    assert (rows != other.rows).any()
    assert (rows != show_epoch(settled, train, (1, 0), 3).rows).any()
    assert (moved is not None) == (strategy.augment == "rare")
    assert len(rows) == len(train)
    shares = np.bincount(train.labels[rows], weights=weights[rows]) / weights[rows].sum()
    if strategy.keep is None and not strategy.adjust:
        np.testing.assert_allclose(shares, settled.prior, atol=1 / len(train))
        assert weights[rows].mean() == pytest.approx(1, abs=0.02)


def test_inverse_weights_are_the_class_weights_to_the_last_bit(data, train):
    """So that runs of version 0.1 with balance="weights" go on with the same numbers."""
    settled = STRATEGIES["inverse-weights"].settle(data)
    weights = show_epoch(settled, train, (0, 0), 0).weights
    assert weights.dtype == np.float32
    assert (weights == class_weights(train.labels)[train.labels]).all()


def test_masks_hit_the_prior_over_many_epochs(data, train):
    settled = STRATEGIES["masked-majority"].settle(data)
    total = sum(
        np.bincount(train.labels, weights=show_epoch(settled, train, (0,), epoch).weights)
        for epoch in range(200)
    )
    np.testing.assert_allclose(total / total.sum(), settled.prior, atol=0.02)
    assert total.sum() / 200 / len(train) == pytest.approx(1, abs=0.05)


def test_under_sampling_throws_away_for_the_whole_run(data, train):
    def shown(name):
        settled = STRATEGIES[name].settle(data)
        epochs = [show_epoch(settled, train, (0, 0), epoch).rows for epoch in range(30)]
        return np.unique(np.concatenate(epochs))

    counts = np.bincount(train.labels[shown("under-sampling")])
    assert counts.tolist() == [np.bincount(train.labels).min()] * 2
    assert len(shown("over-sampling")) == len(train)


# losses


def test_losses_equal_keras():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 50).astype("float32")
    y = np.eye(3, dtype="float32")[rng.integers(0, 3, 50)]
    plain = float(keras.losses.CategoricalCrossentropy()(y, p))
    assert float(ShiftedFocalLoss(np.zeros(3))(y, p)) == pytest.approx(plain, rel=1e-4)
    focal = keras.losses.CategoricalFocalCrossentropy(alpha=1.0, gamma=2.0)
    ours = float(ShiftedFocalLoss(np.zeros(3), 2.0)(y, p))
    assert ours == pytest.approx(float(focal(y, p)), rel=1e-3)
    shift = np.log([0.7, 0.2, 0.1])
    from_logits = keras.losses.CategoricalCrossentropy(from_logits=True)
    adjusted = float(from_logits(y, np.log(p) + shift.astype("float32")))
    assert float(ShiftedFocalLoss(shift)(y, p)) == pytest.approx(adjusted, rel=1e-4)


def test_a_single_sigmoid_loses_as_a_softmax_of_two():
    p = np.array([0.1, 0.6, 0.9], "float32")
    y = np.array([0, 1, 0])
    loss = ShiftedFocalLoss([0.0, -2.0], 1.5)
    one = loss(y[:, None].astype("float32"), p[:, None])
    two = loss(np.eye(2, dtype="float32")[y], np.stack([1 - p, p], axis=1))
    assert float(one) == pytest.approx(float(two), rel=1e-6)


def test_focal_scores_that_are_certain_or_even_stay():
    certain = [[0.5, 0.5], [1.0, 0.0], [0.0, 1.0]]
    np.testing.assert_allclose(focal_to_probability(certain, 2.0), certain, atol=1e-9)
    assert focal_to_probability([[0.3, 0.7]], 2.0)[0, 1] > 0.7  # answered too timidly
    unfocused = [[0.2, 0.3, 0.5]]
    np.testing.assert_allclose(focal_to_probability(unfocused, 0.0), unfocused)


# words


def test_words_mean_strategies(data):
    assert settle_balance("auto", data) == STRATEGIES["inverse-weights"].settle(data)
    assert settle_balance("plain", data).name == "plain"
    assert settle_balance("none", data) is None and settle_balance(None, data) is None
    with pytest.warns(DeprecationWarning, match="called 'inverse-weights' now"):
        assert settle_balance("weights", data) == STRATEGIES["inverse-weights"].settle(data)
    many = from_arrays(
        np.zeros((4, 8, 8, 1), "uint8"),
        np.array([[0, 1], [1, 0], [1, 1], [0, 0]]),
        classes=["a", "b"],
    )
    assert settle_balance("auto", many) is None
    with pytest.raises(ValueError, match="one class an image"):
        settle_balance("focal", many)


def test_settings_in_a_line(data):
    """What run.json says of a strategy; runs are told apart by it, so it must not change."""
    counts = np.array([100, 50])
    said = {
        "inverse-weights": "weights 0.75 1.5",
        "over-sampling": "shares 0.5 0.5",
        "weighted-focal": "weights 0.75 1.5; gamma 2",
        "plain": "plain",
        "under-sampling": "shares 0.5 0.5; discard True",
        "logit-adjusted": "adjust -0.405465 -1.09861",
        "masked-majority": "keep 0.5 1",
        "threshold": "decide threshold",
    }
    for name, line in said.items():
        assert str(STRATEGIES[name].settle(counts)) == line
    assert str(STRATEGIES["inverse-weights"]) == "weights inverse_weights"


@pytest.mark.parametrize(
    "make, said",
    [
        (
            lambda: find_strategy("weight"),
            "balance must be 'auto', 'none', a Strategy or one of plain",
        ),
        (lambda: find_strategy(3), "got 3"),
        (lambda: Strategy("x", augment="some"), "augment must be 'all' or 'rare'"),
        (
            lambda: Strategy("x", decide="best"),
            "decide must be 'largest' or 'prior' or 'threshold'",
        ),
        (lambda: Strategy("x", gamma=-1), "gamma must be a number of 0 or more"),
        (lambda: Strategy("x", discard=True), "discard needs the shares"),
        (
            lambda: Strategy("x", weights=(1, 2, 3)).settle(spots(60, 0.5)),
            "weights must be 2 numbers",
        ),
        (
            lambda: Strategy("x", keep=(2, 1)).settle(spots(60, 0.5)),
            "keep must be shares from 0 to 1",
        ),
        (
            lambda: Strategy("x", weights=lambda counts: 1 / (counts - counts)).settle(
                spots(60, 0.5)
            ),
            "weights must be 2 numbers above 0",
        ),
    ],
)
def test_clear_errors(make, said):
    with pytest.raises(ValueError) as error, np.errstate(divide="ignore"):
        make()
    assert said in str(error.value) and "\n" not in str(error.value)
