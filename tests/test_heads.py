"""Attention with many heads equals Keras's layer, forward and backward."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.foundations.arrays import ArrayError, numerical_gradient
from medbook.foundations.attention import causal_mask, padding_mask
from medbook.foundations.heads import (
    HeadWeights,
    multi_head_attention,
    multi_head_attention_backward,
)
from tests.test_attention import few, kinds, normal, random_mask, reference, seeds


@st.composite
def heads(draw, *, sizes=few, most=3, depths=few):
    """A layer's settings and inputs: self- or cross-attention, odd sizes, biases or none."""
    batch, target, source = draw(st.integers(1, most)), draw(sizes), draw(sizes)
    itself = draw(st.booleans())
    inputs = [draw(sizes)] * 3 if itself else [draw(sizes) for _ in range(3)]
    layer = dict(
        num_heads=draw(st.integers(1, 3)),
        key_dim=draw(depths),
        value_dim=draw(st.none() | st.sampled_from([2, 3, 5])),
        use_bias=draw(st.booleans()),
        output_shape=draw(st.none() | few),
    )
    return (
        layer,
        [
            (batch, target, inputs[0]),
            *((batch, target if itself else source, size) for size in inputs[1:]),
        ],
        itself,
        draw(seeds),
    )


def build(settings, shapes, itself, seed, kind):
    """A Keras layer with random weights of moderate size, and its inputs."""
    layer = keras.layers.MultiHeadAttention(**settings, dtype=kind)
    layer.build(shapes[0], shapes[2], shapes[1])
    layer.set_weights(
        [0.5 * array for array in normal(seed, *(w.shape for w in layer.weights), kind=kind)]
    )
    query, key, value = normal(seed + 1, *shapes, kind=kind)
    return layer, [query] * 3 if itself else [query, key, value]


@given(made=heads(), rank=st.sampled_from([0, 2, 3, 4]))
@settings(max_examples=30, deadline=None)
def test_many_heads_equal_one_head_after_the_other(made, rank):
    layer, (query, key, value) = build(*made, "float64")
    weights, heads = HeadWeights.from_keras(layer.get_weights()), layer.num_heads
    mask = heads_mask(rank, len(query), heads, query.shape[1], key.shape[1], blind=True)
    everywhere = np.ones((len(query), heads, query.shape[1], key.shape[1]), bool)
    if mask is not None:
        everywhere &= mask[:, np.newaxis] if mask.ndim == 3 else mask
    biases = [np.zeros(heads) if bias is None else bias for bias in weights[1:6:2]]
    output, attention = multi_head_attention(query, key, value, weights, mask=mask)
    expected = np.zeros_like(output) + (0 if weights.output_bias is None else weights.output_bias)
    for head in range(heads):
        ask, offer, give = (
            x @ kernel[:, head] + bias[head]
            for x, kernel, bias in zip((query, key, value), weights[:6:2], biases, strict=True)
        )
        found, wanted = reference(ask, offer, give, everywhere[:, head])
        expected += found @ weights.output_kernel[head]
        assert abs(attention[:, head] - wanted).max() <= 1e-10
    assert abs(output - expected).max() <= 1e-10


def heads_mask(rank, batch, heads, target, source, *, blind=False):
    """A mask of 2, 3 or 4 axes, or None for 0."""
    shape = {
        0: (),
        2: (target, source),
        3: (batch, target, source),
        4: (batch, heads, target, source),
    }[rank]
    mask = random_mask(1, shape, blind=blind) if shape else None
    return (
        mask[np.newaxis] if rank == 2 and batch == target else mask
    )  # else it could be (batch, source)


def equals_keras(made, rank, kind, close):
    """Both ways of the layer; the one without scores differs for targets that see nothing."""
    layer, (query, key, value) = build(*made, kind)
    weights = HeadWeights.from_keras(layer.get_weights())
    for blind in (False, True):
        mask = heads_mask(
            rank, len(query), layer.num_heads, query.shape[1], key.shape[1], blind=blind
        )
        ours = multi_head_attention(query, key, value, weights, mask=mask)
        pairs = list(
            zip(
                ours,
                layer(query, value, key, attention_mask=mask, return_attention_scores=True),
                strict=True,
            )
        )
        if not blind:
            pairs.append((ours[0], layer(query, value, key, attention_mask=mask)))
        for mine, other in pairs:
            assert (
                mine.shape == tuple(other.shape)
                and mine.dtype == kind
                and abs(mine - np.asarray(other)).max() <= close
            )


# Keras 3.15 on TensorFlow takes a bias (heads, 1) for one along time where there are as many
# steps as heads, so depths start at 2 here.
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
@given(made=heads(depths=st.integers(2, 5)), rank=st.sampled_from([0, 2, 3, 4]))
@settings(max_examples=25, deadline=None)
def test_many_heads_equal_kerass_in_float32(made, rank):
    equals_keras(made, rank, "float32", 1e-5)


# Keras rounds 1 / sqrt(depth) to float32 in float64 too; at depths 4 and 16 it is exact.
@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
@given(made=heads(depths=st.sampled_from([4, 16])), rank=st.sampled_from([0, 2, 3, 4]))
@settings(max_examples=25, deadline=None)
def test_many_heads_equal_kerass_in_float64(made, rank):
    equals_keras(made, rank, "float64", 1e-10)


@kinds
def test_many_heads_equal_kerass_with_padding_and_the_future_hidden(kind, close):
    layer, (x, _, _) = build(dict(num_heads=2, key_dim=4), [(3, 7, 5)] * 3, True, 0, kind)
    weights, lengths = HeadWeights.from_keras(layer.get_weights()), np.array([7, 4, 1])
    theirs = layer(x, x, use_causal_mask=True)
    ours, _ = multi_head_attention(x, x, x, weights, mask=causal_mask(7))
    assert abs(ours - np.asarray(theirs)).max() <= close
    theirs, scores = layer(
        x,
        x,
        key_mask=np.arange(7) < lengths[:, np.newaxis],
        use_causal_mask=True,
        return_attention_scores=True,
    )
    ours, attention = multi_head_attention(
        x, x, x, weights, mask=causal_mask(7) & padding_mask(lengths, 7)
    )
    assert (
        abs(ours - np.asarray(theirs)).max() <= close
        and abs(attention - np.asarray(scores)).max() <= close
    )


@given(made=heads(sizes=st.integers(1, 3), most=2), masked=st.booleans())
@settings(max_examples=25, deadline=None)
def test_gradients_of_every_array_are_those_of_differences(made, masked):
    settings, shapes, _, seed = made
    layer, inputs = build(settings, shapes, False, seed, "float64")
    mask = (
        random_mask(seed, (shapes[0][0], shapes[0][1], shapes[1][1]), blind=True)
        if masked
        else None
    )
    weights = HeadWeights.from_keras(layer.get_weights())
    output, _ = multi_head_attention(*inputs, weights, mask=mask)
    (grad,) = normal(seed, output.shape)
    *gradients, weight_gradients = multi_head_attention_backward(grad, *inputs, weights, mask=mask)
    everything = [*inputs, *weights]

    def loss(place, array):
        arrays = [*everything[:place], array, *everything[place + 1 :]]
        return np.sum(
            grad * multi_head_attention(*arrays[:3], HeadWeights(*arrays[3:]), mask=mask)[0]
        )

    for place, (array, gradient) in enumerate(
        zip(everything, [*gradients, *weight_gradients], strict=True)
    ):
        if array is None:
            assert gradient is None
        else:
            expected = numerical_gradient(lambda a, place=place: loss(place, a), array)
            assert gradient.shape == array.shape and abs(gradient - expected).max() <= 1e-6


@kinds
@pytest.mark.parametrize("bias", [True, False])
def test_gradients_equal_kerass(kind, close, bias):
    settings = dict(num_heads=3, key_dim=4, value_dim=2, output_shape=6, use_bias=bias)
    layer, (x, _, _) = build(settings, [(2, 5, 4)] * 3, True, 5, kind)
    (grad,) = normal(6, (2, 5, 6), kind=kind)
    grad, mask = grad / 4, causal_mask(5)
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(variable, variable, attention_mask=mask[np.newaxis]) * grad)
    theirs = tape.gradient(loss, [variable, *(w.value for w in layer.trainable_weights)])
    *gradients, weights = multi_head_attention_backward(
        grad, x, x, x, HeadWeights.from_keras(layer.get_weights()), mask=mask
    )
    ours = [sum(gradients), *weights.to_keras()]
    assert len(ours) == len(theirs) == (9 if bias else 5)
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.dtype == kind and abs(mine - other.numpy()).max() <= close


def test_many_heads_without_positions_do_not_see_the_order():
    layer, (x, _, _) = build(dict(num_heads=2, key_dim=3), [(1, 6, 4)] * 3, True, 8, "float64")
    weights, order = HeadWeights.from_keras(layer.get_weights()), np.array([3, 0, 5, 1, 4, 2])
    output, _ = multi_head_attention(x, x, x, weights)
    moved, _ = multi_head_attention(x[:, order], x[:, order], x[:, order], weights)
    assert np.allclose(moved, output[:, order], rtol=0, atol=1e-12)


def test_a_target_of_many_heads_that_sees_nothing_is_left_with_the_bias():
    layer, (x, _, _) = build(dict(num_heads=2, key_dim=3), [(2, 4, 5)] * 3, True, 9, "float64")
    weights = HeadWeights.from_keras(layer.get_weights())
    output, attention = multi_head_attention(x, x, x, weights, mask=padding_mask([4, 0], 4))
    assert (
        np.allclose(output[1], weights.output_bias)
        and not attention[1].any()
        and np.allclose(attention[0].sum(axis=-1), 1)
    )


@pytest.mark.parametrize("bias", [True, False])
def test_weights_go_to_keras_and_back(bias):
    layer, inputs = build(
        dict(num_heads=2, key_dim=3, value_dim=5, use_bias=bias),
        [(1, 2, 4)] * 3,
        True,
        4,
        "float32",
    )
    weights = HeadWeights.from_keras(layer.get_weights())
    assert weights.value_kernel.shape == (4, 2, 5) and weights.output_kernel.shape == (2, 5, 4)
    assert (weights.output_bias is None) is not bias
    twin = keras.layers.MultiHeadAttention(2, 3, value_dim=5, use_bias=bias)
    twin.build(*[(1, 2, 4)] * 3)
    twin.set_weights(weights.to_keras())
    assert np.array_equal(twin(*inputs[:2]), layer(*inputs[:2]))


def test_nothing_given_is_changed():
    layer, (x, _, _) = build(dict(num_heads=2, key_dim=3), [(2, 4, 5)] * 3, True, 9, "float64")
    weights, mask, grad = (
        HeadWeights.from_keras(layer.get_weights()),
        causal_mask(4),
        np.ones((2, 4, 5)),
    )
    given = [x, mask, grad, *weights]
    kept = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    multi_head_attention_backward(grad, x, x, x, weights, mask=mask)
    assert all(np.array_equal(now, then) for now, then in zip(given, kept, strict=True))


def test_a_bias_of_each_head_and_its_gradient():
    layer, (x, _, _) = build(dict(num_heads=2, key_dim=3), [(2, 4, 5)] * 3, True, 9, "float64")
    weights = HeadWeights.from_keras(layer.get_weights())
    bias, grad = normal(4, (1, 2, 4, 4), (2, 4, 5))
    mask = causal_mask(4)
    output, attention = multi_head_attention(
        x, x, x, weights, mask=mask, bias=np.where(mask, bias, -np.inf)
    )
    plain, _ = multi_head_attention(x, x, x, weights, mask=mask)
    assert (
        np.allclose(attention.sum(axis=-1), 1)
        and not attention[..., ~mask].any()
        and abs(output - plain).max() > 0.01
    )
    found = multi_head_attention_backward(grad, x, x, x, weights, mask=mask, bias=bias)
    expected = numerical_gradient(
        lambda b: np.sum(grad * multi_head_attention(x, x, x, weights, mask=mask, bias=b)[0]), bias
    )
    assert len(found) == 5 and abs(found[4] - expected).max() <= 1e-6


# --- what is told


def good_weights(inputs=4, heads=2, key_dim=3, value_dim=5, outputs=6):
    into = [(inputs, heads, key_dim), (heads, key_dim)] * 2 + [
        (inputs, heads, value_dim),
        (heads, value_dim),
    ]
    return HeadWeights(*normal(0, *into, (heads, value_dim, outputs), (outputs,)))


X, W = np.ones((2, 3, 4)), good_weights()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: HeadWeights.from_keras([X] * 10), ["arrays: 10", "8, or 4", "gate"]),
        (lambda: multi_head_attention(X, X, X, list(W)), ["weights: list", "HeadWeights"]),
        (
            lambda: multi_head_attention(X[0], X, X, W),
            ["query: shape (3, 4)", "(batch, target, inputs)"],
        ),
        (lambda: multi_head_attention(X, X[:1], X, W), ["key: shape (1, 3, 4)", "batch = 2"]),
        (lambda: multi_head_attention(X, X, X[:, :2], W), ["value: shape (2, 2, 4)", "source = 3"]),
        (
            lambda: multi_head_attention(X, X, X, good_weights(inputs=5)),
            ["weights.query_kernel: shape (5, 2, 3)", "inputs = 4"],
        ),
        (
            lambda: multi_head_attention(X, X, X, W._replace(key_kernel=np.ones((4, 1, 3)))),
            ["weights.key_kernel: ", "heads = 2"],
        ),
        (
            lambda: multi_head_attention(X, X, X, W._replace(value_kernel=np.ones((4, 1, 5)))),
            ["weights.value_kernel: ", "heads = 2"],
        ),
        (
            lambda: multi_head_attention(X, X, X, W._replace(output_kernel=np.ones((2, 3, 6)))),
            ["weights.output_kernel: ", "value_dim = 5"],
        ),
        (
            lambda: multi_head_attention(X, X, X, W._replace(output_bias=np.ones(5))),
            ["weights.output_bias: shape (5,)", "outputs = 6"],
        ),
        (
            lambda: multi_head_attention(X, X, X, W._replace(key_bias=np.ones((2, 4)))),
            ["weights.key_bias: shape (2, 4)", "key_dim = 3"],
        ),
        (
            lambda: multi_head_attention(X, X, X, W._replace(value_kernel=None)),
            ["weights.value_kernel: shape ()", "value_dim"],
        ),
        (
            lambda: multi_head_attention(X, X, X, W, mask=np.ones((3, 3, 3), bool)),
            ["mask: ", "(2, 2, 3, 3)"],
        ),
        (
            lambda: multi_head_attention_backward(X, X, X, X, W),
            ["grad: shape (2, 3, 4)", "(2, 3, 6)"],
        ),
        (lambda: HeadWeights.from_keras(None), ["arrays: NoneType", "8, or 4"]),
        (
            lambda: multi_head_attention(
                X, X, X * 1e300, W._replace(value_kernel=1e300 * np.ones((4, 2, 5)))
            ),
            ["value times weights.value_kernel: ", "nan or infinite"],
        ),
        (
            lambda: multi_head_attention(
                np.ones((3, 3, 4)),
                np.ones((3, 3, 4)),
                np.ones((3, 3, 4)),
                W,
                mask=np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]], bool),
            ),
            ["mask: shape (3, 3)", "(batch, source)"],
        ),
        (
            lambda: multi_head_attention(X, X, X, W, bias=np.ones((2, 3, 3))),
            ["bias: shape (2, 3, 3)", "4 axes"],
        ),
    ],
)
def test_faults_are_named(call, words):
    with pytest.raises(ArrayError) as told:
        call()
    message = str(told.value)
    assert (
        message.startswith(words[0])
        and "\n" not in message
        and all(word in message for word in words)
    ), message
