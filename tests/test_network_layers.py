"""Chapter 2.15: normalisation, dropout, depthwise and transposed convolution as layers of the
network."""

import keras
import numpy as np
import pytest

from medbook.foundations.arrays import ArrayError
from medbook.foundations.backprop import (
    Conv2D,
    Dense,
    Flatten,
    Network,
    ReLU,
    get_weights,
    gradient_check,
    set_weights,
)
from medbook.foundations.layers import (
    BatchNormalization,
    Conv2DTranspose,
    DepthwiseConv2D,
    Dropout,
    LayerNormalization,
)
from medbook.foundations.optimizers import SGD, train

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 8, 8, 1))
Y = np.array([0, 1, 0, 1, 1, 0])


def layers():
    """A network's layers that go down and up again."""
    return [
        Conv2D(4, stride=2, padding="same"),
        BatchNormalization(),
        ReLU(),
        DepthwiseConv2D(multiplier=2),
        LayerNormalization(),
        Conv2DTranspose(2, 3, stride=2),
        Flatten(),
        Dense(2),
    ]


@pytest.mark.parametrize("training", [True, False])
def test_gradients_equal_differences(training):
    network = Network([Dropout(0.3), *layers()], (8, 8, 1), dtype="float64")
    found = gradient_check(network, X, Y, training=training)
    if training:
        del found["1 Conv2D bias"]  # the batch norm behind it takes it away: zero of zero
    assert max(found.values()) < 1e-5


def test_five_steps_follow_keras():
    network = Network(layers(), (8, 8, 1), dtype="float64")
    kl = keras.layers
    model = keras.Sequential(
        [
            kl.Input((8, 8, 1)),
            kl.Conv2D(4, 3, strides=2, padding="same"),
            kl.BatchNormalization(),
            kl.ReLU(),
            kl.DepthwiseConv2D(3, depth_multiplier=2),
            kl.LayerNormalization(),
            kl.Conv2DTranspose(2, 3, strides=2),
            kl.Flatten(),
            kl.Dense(2),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    set_weights(network, model.get_weights())
    optimizer = SGD(0.05)
    for _ in range(5):
        ours = network.learn(X, Y)
        optimizer.update(network.layers)
        assert ours == pytest.approx(float(model.train_on_batch(X.astype("float32"), Y)), abs=1e-4)
    for a, b in zip(get_weights(network), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    theirs = keras.ops.softmax(model(X.astype("float32"), training=False))
    np.testing.assert_allclose(network.predict(X), theirs, atol=1e-4)


def test_in_use_an_image_does_not_depend_on_its_company():
    network = Network([Dropout(0.5), *layers()], (8, 8, 1), dtype="float64")
    train(network, X, Y, epochs=2, batch_size=3, report=None)
    together = network.predict(X)
    alone = np.concatenate([network.predict(X[i : i + 1]) for i in range(len(X))])
    np.testing.assert_allclose(together, alone, atol=1e-12)


def test_the_same_seed_repeats_the_same_training_with_dropout():
    weights = []
    for _ in range(2):
        network = Network([Dropout(0.5), Flatten(), Dense(2)], (8, 8, 1), dtype="float64", seed=3)
        train(network, X, Y, epochs=2, batch_size=2, report=None)
        weights.append(get_weights(network))
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_dropout_draws_anew_and_only_while_learning():
    network = Network([Dropout(0.5), Flatten(), Dense(2)], (8, 8, 1), dtype="float64")
    first = network.forward(X, training=True)
    assert not np.array_equal(first, network.forward(X, training=True))
    np.testing.assert_array_equal(network.forward(X), network.forward(X))


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: Dropout(1), "^rate: "),
        (lambda: BatchNormalization(momentum=2), "^momentum: "),
        (lambda: LayerNormalization(epsilon=0), "^epsilon: "),
        (lambda: DepthwiseConv2D(multiplier=0), "^multiplier: "),
        (lambda: Conv2DTranspose(0), "^filters: "),
        (lambda: Network([DepthwiseConv2D(9)], (8, 8, 1)), "^layer 0 .*spans 9 × 9"),
    ],
)
def test_faults_are_named(call, said):
    with pytest.raises(ArrayError, match=said):
        call()
