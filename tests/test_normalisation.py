"""Chapter 2.7: batch and layer normalisation and dropout equal Keras,
and their gradients equal differences."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.foundations.arrays import ArrayError, NotFiniteError, numerical_gradient
from medbook.foundations.normalisation import (
    batch_norm,
    batch_norm_backward,
    batch_norm_inference,
    batch_norm_inference_backward,
    dropout,
    dropout_backward,
    dropout_mask,
    layer_norm,
    layer_norm_backward,
    running_statistics,
)

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}


@st.composite
def cases(draw):
    """A shape (batch, ..., channels) with at least two numbers a channel, a dtype,
    an epsilon and a seed."""
    shape = draw(st.lists(st.integers(1, 5), min_size=2, max_size=4))
    shape[0] += 1
    return (
        tuple(shape),
        draw(st.sampled_from(["float32", "float64"])),
        draw(st.sampled_from([1e-3, 1e-5, 0.1])),
        draw(st.integers(0, 999)),
    )


def drawn(shape, dtype, seed):
    """Random x, gamma, beta and grad."""
    rng = np.random.default_rng(seed)
    x = rng.normal(2, 3, shape)
    gamma, beta = rng.normal(size=(2, shape[-1]))
    return [array.astype(dtype) for array in (x, gamma, beta, rng.normal(size=shape))]


def keras_layer(kind, x, gamma, beta, epsilon):
    """Keras's layer with these parameters, in x's precision."""
    layer = kind(epsilon=epsilon, dtype=str(x.dtype))
    layer.build(x.shape)
    layer.gamma.assign(gamma)
    layer.beta.assign(beta)
    return layer


@settings(max_examples=40, deadline=None)
@given(cases())
def test_batch_norm_equals_keras(case):
    shape, dtype, epsilon, seed = case
    x, gamma, beta, _ = drawn(shape, dtype, seed)
    layer = keras_layer(keras.layers.BatchNormalization, x, gamma, beta, epsilon)
    # the tolerance grows with 1 / spread, as Keras's own rounding does
    allowed = TOLERANCE[dtype] * 10 * max(1, np.abs(gamma).max()) / np.sqrt(epsilon) ** 0.5
    y = batch_norm(x, gamma, beta, epsilon=epsilon)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, layer(x, training=True), atol=allowed)
    zeros, ones = np.zeros(shape[-1], dtype), np.ones(shape[-1], dtype)
    mean, variance = running_statistics(zeros, ones, x)
    np.testing.assert_allclose(mean, layer.moving_mean, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(variance, layer.moving_variance, atol=10 * TOLERANCE[dtype])
    np.testing.assert_allclose(
        batch_norm_inference(x, gamma, beta, mean, variance, epsilon=epsilon),
        layer(x, training=False),
        atol=allowed,
    )


@settings(max_examples=40, deadline=None)
@given(cases())
def test_layer_norm_equals_keras(case):
    shape, dtype, epsilon, seed = case
    x, gamma, beta, _ = drawn(shape, dtype, seed)
    layer = keras_layer(keras.layers.LayerNormalization, x, gamma, beta, epsilon)
    allowed = TOLERANCE[dtype] * 10 * max(1, np.abs(gamma).max()) / np.sqrt(epsilon) ** 0.5
    np.testing.assert_allclose(layer_norm(x, gamma, beta, epsilon=epsilon), layer(x), atol=allowed)


@settings(max_examples=25, deadline=None)
@given(cases())
@pytest.mark.parametrize(
    "forward, backward", [(batch_norm, batch_norm_backward), (layer_norm, layer_norm_backward)]
)
def test_gradients_equal_differences(forward, backward, case):
    shape, _, _, seed = case
    x, gamma, beta, grad = drawn(shape, "float64", seed)
    arguments = [x, gamma, beta]
    for place, gradient in enumerate(backward(grad, *arguments, epsilon=0.1)):

        def error(value, place=place):
            moved = [*arguments]
            moved[place] = value
            return np.sum(grad * forward(*moved, epsilon=0.1))

        np.testing.assert_allclose(gradient, numerical_gradient(error, arguments[place]), atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(cases())
def test_gradients_in_use_equal_differences(case):
    shape, _, epsilon, seed = case
    x, gamma, beta, grad = drawn(shape, "float64", seed)
    rng = np.random.default_rng(seed)
    arguments = [x, gamma, beta, rng.normal(size=shape[-1]), rng.uniform(0.5, 2, shape[-1])]
    for place, gradient in enumerate(
        batch_norm_inference_backward(grad, *arguments, epsilon=epsilon)
    ):

        def error(value, place=place):
            moved = [*arguments]
            moved[place] = value
            return np.sum(grad * batch_norm_inference(*moved, epsilon=epsilon))

        np.testing.assert_allclose(gradient, numerical_gradient(error, arguments[place]), atol=1e-6)


def test_gradients_equal_tensorflows():
    tf = pytest.importorskip("tensorflow")
    x, gamma, beta, grad = drawn((4, 6, 5, 3), "float64", 0)
    for kind, backward in (
        (keras.layers.BatchNormalization, batch_norm_backward),
        (keras.layers.LayerNormalization, layer_norm_backward),
    ):
        layer = keras_layer(kind, x, gamma, beta, 1e-3)
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            error = tf.reduce_sum(grad * layer(variable, training=True))
        theirs = tape.gradient(error, [variable, layer.gamma.value, layer.beta.value])
        for ours, each in zip(backward(grad, x, gamma, beta), theirs, strict=True):
            np.testing.assert_allclose(ours, each, atol=1e-10)


def test_float32_statistics_do_not_lose_the_variance():
    x = (1e4 + np.random.default_rng(0).normal(size=(200_000, 1))).astype("float32")
    ones, zeros = np.ones(1, "float32"), np.zeros(1, "float32")
    y = batch_norm(x, ones, zeros, epsilon=1e-5)
    assert abs(y.std() - 1) < 1e-3 and abs(y.mean()) < 1e-3


@pytest.mark.parametrize("rate", [0, 0.1, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_the_way_back(rate):
    x = np.ones((200, 500), "float32")
    y = dropout(x, rate, seed=(3, 1))
    assert abs((y == 0).mean() - rate) < 0.01 and abs(y.mean() - 1) < 0.03
    assert y.dtype == "float32"
    np.testing.assert_array_equal(dropout_backward(x, x, rate, seed=(3, 1)), y)
    np.testing.assert_array_equal(dropout_mask(x.shape, rate, seed=(3, 1)), y)
    assert rate == 0 or not np.array_equal(y, dropout(x, rate, seed=(3, 2)))


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda x, one: batch_norm(x[0, 0, 0], one, one), "x: shape"),
        (lambda x, one: batch_norm(x.astype("int64"), one, one), "float32 or float64"),
        (
            lambda x, one: batch_norm(x, one[:1], one),
            r"gamma: shape \(1,\), but expected \(channels = 3\)",
        ),
        (lambda x, one: batch_norm(x, one, one, epsilon=0), "epsilon"),
        (lambda x, one: batch_norm(x, one, one, epsilon="a"), "epsilon"),
        (lambda x, one: layer_norm(np.full_like(x, np.inf), one, one), "finite"),
        (lambda x, one: batch_norm_backward(x[:1], x, one, one), "grad: shape"),
        (lambda x, one: batch_norm_inference(x, one, one, one, -one), "variance"),
        (lambda x, one: running_statistics(one, one, x, momentum=2), "momentum"),
        (lambda x, one: running_statistics(one[:2], one, x), "mean: shape"),
        (lambda x, one: dropout(x, 1), "rate"),
        (lambda x, one: dropout(x, "half"), "rate"),
        (lambda x, one: dropout_backward(x[0], x, 0.5), "grad: shape"),
        (lambda x, one: dropout(x, 0.5, seed="a"), "seed"),
    ],
)
def test_faults_are_named(call, said):
    with pytest.raises(ArrayError, match=said):
        call(np.ones((2, 4, 5, 3)), np.ones(3))


def test_not_a_number_has_its_own_error():
    with pytest.raises(NotFiniteError, match="beta"):
        batch_norm(np.ones((2, 3)), np.ones(3), np.full(3, np.nan))
