"""Optimisers and training: Keras's losses step for step, repeatable, clear errors."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pandas as pd
import pytest

from medbook.evaluation.ranking import auc
from medbook.foundations.arrays import ArrayError
from medbook.foundations.backprop import (
    Dense,
    Network,
    ReLU,
    digits_double,
    get_weights,
    set_weights,
)
from medbook.foundations.optimizers import SGD, Adam, Momentum, batches, train
from medbook.images import load
from tests.test_backprop import images


def keras_digits(dtype, classes):
    """Keras's digits_double, every layer in `dtype`."""
    layers = keras.layers
    keras.config.set_dtype_policy(dtype)
    try:
        return keras.Sequential(
            [
                layers.Input((28, 28, 1)),
                layers.Conv2D(32, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Conv2D(64, 3, activation="relu"),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dense(64, activation="relu"),
                layers.Dense(classes, activation="softmax"),
            ]
        )
    finally:
        keras.config.set_dtype_policy("float32")


def twenty_steps(x, y, ours, theirs, dtype, *, classes=10):
    """The largest difference of our losses from Keras's: same weights, twenty batches."""
    keras.utils.set_random_seed(0)
    x = x.astype(dtype)
    model = keras_digits(dtype, classes)
    model.compile(theirs, "sparse_categorical_crossentropy")
    network = digits_double(classes=classes, dtype=dtype)
    set_weights(network, model.get_weights())
    differences = []
    for rows in np.split(np.arange(len(x)), 20):
        model.reset_metrics()
        expected = float(model.train_on_batch(x[rows], y[rows]))
        differences.append(abs(network.learn(x[rows], y[rows]) - expected))
        ours.update(network.layers)
    return max(differences)


OPTIMIZERS = [
    (lambda: SGD(0.05), lambda: keras.optimizers.SGD(0.05)),
    (lambda: Momentum(0.02, 0.9), lambda: keras.optimizers.SGD(0.02, momentum=0.9)),
    (lambda: Adam(0.001), lambda: keras.optimizers.Adam(0.001)),
]


@pytest.mark.parametrize("ours, theirs", OPTIMIZERS, ids=["sgd", "momentum", "adam"])
def test_twenty_steps_follow_keras(ours, theirs):
    """In double precision; Keras reports its loss and keeps its constants in float32."""
    assert twenty_steps(*images(20 * 16, (28, 28, 1), 10), ours(), theirs(), "float64") < 1e-5


@pytest.mark.parametrize("ours, theirs", OPTIMIZERS, ids=["sgd", "momentum", "adam"])
def test_twenty_steps_follow_keras_on_radiographs(shared, ours, theirs):
    """In single precision: the middle of three orders, for rounding may turn a ReLU on in one."""
    data = load(shared / "medmnist" / "pneumoniamnist.npz").subset("train")
    orders = [np.random.default_rng(seed).permutation(len(data))[: 20 * 64] for seed in range(3)]
    assert (
        np.median(
            [
                twenty_steps(
                    data.batch(rows), data.labels[rows], ours(), theirs(), "float32", classes=2
                )
                for rows in orders
            ]
        )
        < 1e-4
    )


def test_training_is_reproducible_and_can_go_on():
    x, y = images(100, (6,), 3)
    whole, halves = (Network([Dense(8), ReLU(), Dense(3)], (6,), seed=5) for _ in range(2))
    history = train(whole, x, y, epochs=3, seed=1, valid=(x, y), report=None)
    train(halves, x, y, epochs=3, seed=1, report=None)
    assert [row["epoch"] for row in history] == [1, 2, 3] and history[-1]["valid_loss"] < history[
        0
    ]["valid_loss"]
    assert all((a == b).all() for a, b in zip(get_weights(whole), get_weights(halves), strict=True))


def test_rows_belong_together_by_position():
    """A pandas index, shuffled as after a split of one's own, is not looked at."""
    x, y = images(60, (5,), 2)
    order = np.random.default_rng(1).permutation(60)
    plain, tables = (Network([Dense(8), ReLU(), Dense(2)], (5,)) for _ in range(2))
    expected = train(plain, x[order], y[order], epochs=2, report=None)
    assert (
        train(
            tables,
            pd.DataFrame(x[order], index=order),
            pd.Series(y[order], index=order),
            epochs=2,
            report=None,
        )
        == expected
    )
    assert (
        train(
            Network([Dense(8), ReLU(), Dense(2)], (5,)),
            x[order],
            y[order].tolist(),
            epochs=2,
            report=None,
        )
        == expected
    )


def test_every_row_once_an_epoch():
    parts = batches(103, 10, np.random.default_rng(0))
    assert [len(part) for part in parts] == [10] * 10 + [3]
    assert sorted(np.concatenate(parts)) == list(range(103))


def test_reports_each_epoch():
    x, y = images(10, (4,), 2)
    lines = []
    train(Network([Dense(2)], (4,)), x, y, epochs=2, valid=(x, y), report=lines.append)
    assert len(lines) == 2 and all(word in lines[0] for word in ("epoch 1", "loss", "valid_loss"))


@pytest.mark.parametrize(
    "options, word",
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 2.5}, "epochs"),
        ({"batch_size": -1}, "batch_size"),
        ({"batch_size": None}, "batch_size"),
        ({"optimizer": "adam"}, "optimizer"),
        ({"valid": (np.ones((2, 4), "float32"), [0])}, "y"),
        ({"valid": (np.ones((0, 4)), [])}, "x"),
        ({"valid": np.ones((2, 4))}, "valid"),
        ({"seed": "a"}, "seed"),
        ({"seed": 0.5}, "seed"),
    ],
)
def test_bad_settings_of_training(options, word):
    x, y = images(6, (4,), 2)
    with pytest.raises(ArrayError, match=f"^{word}: .*expected"):
        train(Network([Dense(2)], (4,)), x, y, report=None, **options)


def test_a_diverging_run_stops_with_a_reason():
    x, y = images(64, (4,), 2)
    network = Network([Dense(8), ReLU(), Dense(8), ReLU(), Dense(1)], (4,), loss="squared")
    with (
        np.errstate(all="ignore"),
        pytest.raises(ArrayError, match="^optimizer: a rate of 10000.0 let the weights grow"),
    ):
        train(network, x, y.astype("float32"), optimizer=SGD(1e4), epochs=20, report=None)


def test_reaches_093_on_pneumonia(shared):
    """The project's bound for a network in NumPy, on the valid split."""
    data = load(shared / "medmnist" / "pneumoniamnist.npz")
    train_set, valid = data.subset("train"), data.subset("valid")
    network = digits_double(data.shape, 2, seed=0)
    train(
        network,
        train_set.batch(slice(None)),
        train_set.labels,
        epochs=1,
        batch_size=64,
        report=None,
    )
    assert auc(valid.labels, network.predict(valid.batch(slice(None)))[:, 1]) >= 0.93


def test_labels_with_nan_are_not_taken_for_a_large_rate():
    x, y = images(40, (4,), 2)
    for loss, outputs in (("squared", 1), ("sigmoid", 1), ("softmax", 2)):
        network = Network([Dense(outputs)], (4,), loss=loss)
        holed = np.where(np.arange(40) == 7, np.nan, y)
        with pytest.raises(
            ArrayError, match=r"^y: shape \(40,\) with 1 labels nan or infinite, the first at row 7"
        ):
            train(network, x, holed, report=None)
        with pytest.raises(ArrayError, match="^y: .*1 labels nan"):
            train(network, x, y, valid=(x, holed), report=None)


@pytest.mark.parametrize("make", [Momentum, Adam])
def test_an_optimizer_serves_one_network(make):
    x, y = images(40, (4,), 2)
    first, second = (Network([Dense(3), ReLU(), Dense(2)], (4,), seed=seed) for seed in (0, 1))
    optimizer = make()
    train(first, x, y, optimizer=optimizer, report=None)
    train(first, x, y, optimizer=optimizer, report=None)  # its own: it goes on
    before = get_weights(second)
    with pytest.raises(
        ArrayError, match=f"^optimizer: this {make.__name__} keeps the moments of another network"
    ):
        train(second, x, y, optimizer=optimizer, report=None)
    second.learn(x, y)
    with pytest.raises(ArrayError, match=f"^layers: .*as in {make.__name__}"):
        optimizer.update(second.layers)
    assert all((a == b).all() for a, b in zip(before, get_weights(second), strict=True))
    plain = SGD()
    for network in (first, second):
        train(network, x, y, optimizer=plain, report=None)  # has no moments


def test_only_a_network_can_be_trained():
    with pytest.raises(ArrayError, match="^network: list, but expected a Network"):
        train([], np.ones((2, 4)), [0, 1])
