"""Chapter 2.12: attention equals Keras's and SciPy's formula, its slopes are those of calculus, its masks hide what they say."""
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from medbook.foundations.arrays import ArrayError, numerical_gradient
from medbook.foundations.attention import (
    HeadWeights,
    causal_mask,
    embedding,
    embedding_backward,
    multi_head_attention,
    multi_head_attention_backward,
    one_hot,
    padding_mask,
    positional_encoding,
    scaled_dot_product_attention,
    scaled_dot_product_attention_backward,
)

seeds = st.integers(0, 2**32 - 1)
few = st.integers(1, 5)
kinds = pytest.mark.parametrize("kind, close", [("float32", 1e-5), ("float64", 1e-10)])


def normal(seed, *shapes, kind="float64"):
    random = np.random.default_rng(seed)
    return [random.normal(size=shape).astype(kind) for shape in shapes]


def random_mask(seed, shape, *, blind=False):
    """A mask that hides about half; with `blind` some targets may be left with nothing."""
    mask = np.random.default_rng(seed).random(shape) < 0.5
    if not blind:
        mask[..., 0] = True
    return mask


# --- tokens

@given(seed=seeds, shape=st.lists(few, max_size=3), vocabulary=st.integers(1, 7), features=few)
@settings(max_examples=25, deadline=None)
def test_an_embedding_is_a_one_hot_times_the_table(seed, shape, vocabulary, features):
    tokens = np.random.default_rng(seed).integers(vocabulary, size=shape)
    table, grad = normal(seed, (vocabulary, features), (*shape, features))
    hot = one_hot(tokens, vocabulary, dtype="float64")
    assert np.array_equal(hot, keras.ops.one_hot(tokens, vocabulary))
    assert np.array_equal(embedding(tokens, table), hot @ table)
    expected = hot.reshape(-1, vocabulary).T @ grad.reshape(-1, features)
    assert np.allclose(embedding_backward(grad, tokens, table), expected, rtol=0, atol=1e-12)


def test_an_embedding_equals_kerass_and_repeated_tokens_add_up():
    tokens = np.array([[0, 2, 0], [1, 0, 0]])
    layer = keras.layers.Embedding(4, 3)
    layer.build()
    table, = layer.get_weights()
    ours = embedding(tokens, table)
    assert ours.dtype == np.float32 and np.array_equal(ours, layer(tokens))
    grad, = normal(0, (2, 3, 3))
    table = table.astype("float64")
    slope = embedding_backward(grad, tokens, table)
    assert np.allclose(slope, numerical_gradient(lambda t: np.sum(grad * embedding(tokens, t)), table), rtol=0, atol=1e-8)
    assert np.allclose(slope[0], grad[0, 0] + grad[0, 2] + grad[1, 1] + grad[1, 2]) and not slope[3].any()


@pytest.mark.parametrize("length, depth", [(1, 1), (7, 1), (5, 2), (50, 7), (33, 16)])
def test_positions_are_the_sines_of_the_paper(length, depth):
    expected = np.zeros((length, depth))
    for p in range(length):
        for j in range(depth):
            angle = p / 10_000 ** (2 * (j // 2) / depth)
            expected[p, j] = np.cos(angle) if j % 2 else np.sin(angle)
    assert np.allclose(positional_encoding(length, depth, dtype="float64"), expected, rtol=0, atol=1e-12)
    assert positional_encoding(length, depth).dtype == np.float32


def test_positions_differ_and_fit_by_distance():
    places = positional_encoding(200, 16, dtype="float64")
    fit = places @ places.T
    for distance in (0, 1, 17):
        assert np.ptp(np.diagonal(fit, distance)) < 1e-10
    gaps = np.linalg.norm(places[:, np.newaxis] - places, axis=-1) + 10 * np.eye(200)
    assert gaps.min() > 0.1


# --- one attention

def reference(query, key, value, mask=None):
    """SciPy's softmax in float64; targets that see nothing get zeros."""
    query, key, value = (np.asarray(array, "float64") for array in (query, key, value))
    scores = np.einsum("...td,...sd->...ts", query, key) / np.sqrt(query.shape[-1])
    if mask is None:
        weights = softmax(scores, axis=-1)
    else:
        mask = np.broadcast_to(mask, scores.shape)
        weights = np.zeros_like(scores)
        for place in np.ndindex(scores.shape[:-1]):
            if mask[place].any():
                weights[place][mask[place]] = softmax(scores[place][mask[place]])
    return np.einsum("...ts,...sf->...tf", weights, value), weights


@kinds
@given(seed=seeds, front=st.lists(few, max_size=2), sizes=st.tuples(few, few, few, few), masked=st.booleans())
@settings(max_examples=40, deadline=None)
def test_attention_equals_scipys_formula(kind, close, seed, front, sizes, masked):
    target, source, depth, features = sizes
    query, key, value = normal(seed, (*front, target, depth), (*front, source, depth), (*front, source, features), kind=kind)
    mask = random_mask(seed, (*front, target, source), blind=True) if masked else None
    output, weights = scaled_dot_product_attention(query, key, value, mask=mask)
    assert output.dtype == weights.dtype == kind
    for ours, theirs in zip((output, weights), reference(query, key, value, mask), strict=True):
        assert ours.shape == theirs.shape and abs(ours - theirs).max() <= close


@given(seed=seeds, batch=few, heads=few, sizes=st.tuples(few, few, few), masked=st.booleans())
@settings(max_examples=25, deadline=None)
def test_attention_equals_kerass(seed, batch, heads, sizes, masked):
    target, source, depth = sizes
    shapes = [(batch, heads, size, depth) for size in (target, source, source)]
    query, key, value = normal(seed, *shapes, kind="float32")
    mask = random_mask(seed, (batch, 1, target, source)) if masked else None
    theirs = keras.ops.dot_product_attention(*(array.swapaxes(1, 2) for array in (query, key, value)), mask=mask)
    ours, _ = scaled_dot_product_attention(query, key, value, mask=mask)
    assert abs(ours.swapaxes(1, 2) - np.asarray(theirs)).max() <= 1e-5


@given(seed=seeds, front=st.lists(st.integers(1, 2), max_size=2), sizes=st.tuples(few, few, few, few), masked=st.booleans())
@settings(max_examples=25, deadline=None)
def test_slopes_are_those_of_differences(seed, front, sizes, masked):
    target, source, depth, features = sizes
    query, key, value, grad = normal(seed, (*front, target, depth), (*front, source, depth), (*front, source, features),
                                     (*front, target, features))
    mask = random_mask(seed, (*front, target, source), blind=True) if masked else None
    slopes = scaled_dot_product_attention_backward(grad, query, key, value, mask=mask)

    def loss(*arrays):
        return np.sum(grad * scaled_dot_product_attention(*arrays, mask=mask)[0])

    expected = (numerical_gradient(lambda a: loss(a, key, value), query), numerical_gradient(lambda a: loss(query, a, value), key),
                numerical_gradient(lambda a: loss(query, key, a), value))
    for ours, theirs in zip(slopes, expected, strict=True):
        assert ours.shape == theirs.shape and abs(ours - theirs).max() <= 1e-6


@given(seed=seeds, length=st.integers(2, 8), depth=few)
@settings(max_examples=25, deadline=None)
def test_without_positions_order_means_nothing(seed, length, depth):
    x, = normal(seed, (length, depth))
    order = np.random.default_rng(seed).permutation(length)
    output, weights = scaled_dot_product_attention(x, x, x)
    moved, moved_weights = scaled_dot_product_attention(x[order], x[order], x[order])
    assert np.allclose(moved, output[order], rtol=0, atol=1e-12)
    assert np.allclose(moved_weights, weights[order][:, order], rtol=0, atol=1e-12)


def test_with_positions_order_means_something():
    x, = normal(0, (6, 4))
    places = positional_encoding(6, 4, dtype="float64")
    order = np.arange(6)[::-1]
    first, second = x + places, x[order] + places
    output, _ = scaled_dot_product_attention(first, first, first)
    moved, _ = scaled_dot_product_attention(second, second, second)
    assert abs(moved - output[order]).max() > 0.1


@given(seed=seeds, kind=st.sampled_from(["float32", "float64"]))
@settings(max_examples=25, deadline=None)
def test_what_is_hidden_changes_nothing(seed, kind):
    query, key, value, grad = normal(seed, (2, 4, 3), (2, 5, 3), (2, 5, 2), (2, 4, 2), kind=kind)
    mask = random_mask(seed, (2, 4, 5), blind=True)
    mask[:, :, 2] = False
    before = scaled_dot_product_attention(query, key, value, mask=mask)
    other_key, other_value = key.copy(), value.copy()
    other_key[:, 2], other_value[:, 2] = 1e4, -1e4
    after = scaled_dot_product_attention(query, other_key, other_value, mask=mask)
    assert all(np.allclose(a, b, rtol=1e-6, atol=1e-6) for a, b in zip(before, after, strict=True))
    _, key_slope, value_slope = scaled_dot_product_attention_backward(grad, query, key, value, mask=mask)
    assert not key_slope[:, 2].any() and not value_slope[:, 2].any()


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_target_that_sees_nothing_gets_nothing(kind):
    query, key, value, grad = normal(3, (4, 3), (5, 3), (5, 2), (4, 2), kind=kind)
    mask = np.ones((4, 5), bool)
    mask[1] = False
    output, weights = scaled_dot_product_attention(query, key, value, mask=mask)
    assert not output[1].any() and not weights[1].any() and np.allclose(weights[[0, 2, 3]].sum(axis=-1), 1)
    slopes = scaled_dot_product_attention_backward(grad, query, key, value, mask=mask)
    assert not slopes[0][1].any()
    without = scaled_dot_product_attention_backward(np.delete(grad, 1, 0), np.delete(query, 1, 0), key, value)
    assert all(np.allclose(ours, theirs, atol=1e-6) for ours, theirs in zip(slopes[1:], without[1:], strict=True))
    for nothing in scaled_dot_product_attention(query, key, value, mask=np.zeros((4, 5), bool)):
        assert nothing.dtype == kind and not nothing.any()


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_huge_scores_choose_the_best_without_a_warning(kind):
    query, key = np.array([[1000.0], [-1000.0]], kind), np.array([[-1000.0], [1000.0]], kind)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        _, weights = scaled_dot_product_attention(query, key, key)
        _, seen = scaled_dot_product_attention(query, key, key, mask=causal_mask(2))
    assert np.array_equal(weights, [[0, 1], [1, 0]]) and np.array_equal(seen, [[1, 0], [1, 0]])


def test_causal_mask_keeps_the_future_out():
    x, = normal(1, (6, 3))
    output, weights = scaled_dot_product_attention(x, x, x, mask=causal_mask(6))
    assert np.array_equal(causal_mask(3), [[1, 0, 0], [1, 1, 0], [1, 1, 1]]) and causal_mask(3).dtype == bool
    for end in range(1, 6):
        head = x[:end]
        assert np.allclose(scaled_dot_product_attention(head, head, head, mask=causal_mask(end))[0], output[:end], rtol=0, atol=1e-12)
    assert np.array_equal(weights[0], [1, 0, 0, 0, 0, 0])


def test_padding_mask_is_as_if_the_filling_were_not_there():
    x, = normal(2, (3, 5, 4))
    lengths = [5, 2, 0]
    mask = padding_mask(lengths, 5)
    assert mask.shape == (3, 1, 5) and mask.dtype == bool and mask.sum(axis=-1).ravel().tolist() == lengths
    output, _ = scaled_dot_product_attention(x, x, x, mask=mask)
    short = scaled_dot_product_attention(x[1], x[1, :2], x[1, :2])[0]
    assert np.allclose(output[1], short, rtol=0, atol=1e-12) and not output[2].any()
    both, _ = scaled_dot_product_attention(x, x, x, mask=mask & causal_mask(5))
    assert np.allclose(both[1, 1:], output[1, 1:]) and np.allclose(both[1, 0], x[1, 0])


# --- many heads

@st.composite
def heads(draw, *, sizes=few, most=3, depths=few):
    """A layer's settings and inputs: self-attention or cross-attention, odd sizes, with and without biases."""
    batch, target, source = draw(st.integers(1, most)), draw(sizes), draw(sizes)
    itself = draw(st.booleans())
    inputs = [draw(sizes)] * 3 if itself else [draw(sizes) for _ in range(3)]
    layer = dict(num_heads=draw(st.integers(1, 3)), key_dim=draw(depths), value_dim=draw(st.none() | st.sampled_from([2, 3, 5])),
                 use_bias=draw(st.booleans()), output_shape=draw(st.none() | few))
    return layer, [(batch, target, inputs[0]), *((batch, target if itself else source, size) for size in inputs[1:])], itself, draw(seeds)


def build(settings, shapes, itself, seed, kind):
    """A Keras layer with random weights of moderate size, and its inputs."""
    layer = keras.layers.MultiHeadAttention(**settings, dtype=kind)
    layer.build(shapes[0], shapes[2], shapes[1])
    layer.set_weights([0.5 * array for array in normal(seed, *(w.shape for w in layer.weights), kind=kind)])
    query, key, value = normal(seed + 1, *shapes, kind=kind)
    return layer, [query] * 3 if itself else [query, key, value]


@given(made=heads(), rank=st.sampled_from([0, 2, 3, 4]))
@settings(max_examples=30, deadline=None)
def test_many_heads_equal_one_head_after_the_other(made, rank):
    layer, (query, key, value) = build(*made, "float64")
    weights, heads = HeadWeights.from_keras(layer.get_weights()), layer.num_heads
    mask = heads_mask(rank, len(query), heads, query.shape[1], key.shape[1], blind=True)
    everywhere = np.ones((len(query), heads, query.shape[1], key.shape[1]), bool)
    everywhere &= True if mask is None else mask[:, np.newaxis] if rank == 3 else mask
    biases = [np.zeros(heads) if bias is None else bias for bias in weights[1:6:2]]
    output, attention = multi_head_attention(query, key, value, weights, mask=mask)
    expected = np.zeros_like(output) + (0 if weights.output_bias is None else weights.output_bias)
    for head in range(heads):
        ask, offer, give = (x @ kernel[:, head] + bias[head]
                            for x, kernel, bias in zip((query, key, value), weights[:6:2], biases, strict=True))
        found, wanted = reference(ask, offer, give, everywhere[:, head])
        expected += found @ weights.output_kernel[head]
        assert abs(attention[:, head] - wanted).max() <= 1e-10
    assert abs(output - expected).max() <= 1e-10


def heads_mask(rank, batch, heads, target, source, *, blind=False):
    """A mask of 2, 3 or 4 axes, or None for 0."""
    shape = {0: (), 2: (target, source), 3: (batch, target, source), 4: (batch, heads, target, source)}[rank]
    return random_mask(1, shape, blind=blind) if shape else None


def equals_keras(made, rank, kind, close):
    """Output and scores of the layer's two ways of computing them; the one without scores differs for targets that see nothing."""
    layer, (query, key, value) = build(*made, kind)
    weights = HeadWeights.from_keras(layer.get_weights())
    for blind in (False, True):
        mask = heads_mask(rank, len(query), layer.num_heads, query.shape[1], key.shape[1], blind=blind)
        ours = multi_head_attention(query, key, value, weights, mask=mask)
        pairs = list(zip(ours, layer(query, value, key, attention_mask=mask, return_attention_scores=True), strict=True))
        if not blind:
            pairs.append((ours[0], layer(query, value, key, attention_mask=mask)))
        for mine, other in pairs:
            assert mine.shape == tuple(other.shape) and mine.dtype == kind and abs(mine - np.asarray(other)).max() <= close


# Keras 3.15 on TensorFlow takes a bias (heads, 1) for one along time where there are as many steps as heads, so depths start at 2 here.
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
    theirs, scores = layer(x, x, key_mask=np.arange(7) < lengths[:, np.newaxis], use_causal_mask=True, return_attention_scores=True)
    ours, attention = multi_head_attention(x, x, x, weights, mask=causal_mask(7) & padding_mask(lengths, 7))
    assert abs(ours - np.asarray(theirs)).max() <= close and abs(attention - np.asarray(scores)).max() <= close


@given(made=heads(sizes=st.integers(1, 3), most=2), masked=st.booleans())
@settings(max_examples=25, deadline=None)
def test_slopes_of_every_array_are_those_of_differences(made, masked):
    settings, shapes, _, seed = made
    layer, inputs = build(settings, shapes, False, seed, "float64")
    mask = random_mask(seed, (shapes[0][0], shapes[0][1], shapes[1][1]), blind=True) if masked else None
    weights = HeadWeights.from_keras(layer.get_weights())
    output, _ = multi_head_attention(*inputs, weights, mask=mask)
    grad, = normal(seed, output.shape)
    *slopes, weight_slopes = multi_head_attention_backward(grad, *inputs, weights, mask=mask)
    everything = [*inputs, *weights]

    def loss(place, array):
        arrays = [*everything[:place], array, *everything[place + 1:]]
        return np.sum(grad * multi_head_attention(*arrays[:3], HeadWeights(*arrays[3:]), mask=mask)[0])

    for place, (array, slope) in enumerate(zip(everything, [*slopes, *weight_slopes], strict=True)):
        if array is None:
            assert slope is None
        else:
            expected = numerical_gradient(lambda a, place=place: loss(place, a), array)
            assert slope.shape == array.shape and abs(slope - expected).max() <= 1e-6


@kinds
@pytest.mark.parametrize("bias", [True, False])
def test_slopes_equal_kerass(kind, close, bias):
    settings = dict(num_heads=3, key_dim=4, value_dim=2, output_shape=6, use_bias=bias)
    layer, (x, _, _) = build(settings, [(2, 5, 4)] * 3, True, 5, kind)
    grad, = normal(6, (2, 5, 6), kind=kind)
    grad, mask = grad / 4, causal_mask(5)
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(variable, variable, attention_mask=mask[np.newaxis]) * grad)
    theirs = tape.gradient(loss, [variable, *(w.value for w in layer.trainable_weights)])
    *slopes, weights = multi_head_attention_backward(grad, x, x, x, HeadWeights.from_keras(layer.get_weights()), mask=mask)
    ours = [sum(slopes), *weights.to_keras()]
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
    assert np.allclose(output[1], weights.output_bias) and not attention[1].any() and np.allclose(attention[0].sum(axis=-1), 1)


@pytest.mark.parametrize("bias", [True, False])
def test_weights_go_to_keras_and_back(bias):
    layer, inputs = build(dict(num_heads=2, key_dim=3, value_dim=5, use_bias=bias), [(1, 2, 4)] * 3, True, 4, "float32")
    weights = HeadWeights.from_keras(layer.get_weights())
    assert weights.value_kernel.shape == (4, 2, 5) and weights.output_kernel.shape == (2, 5, 4)
    assert (weights.output_bias is None) is not bias
    twin = keras.layers.MultiHeadAttention(2, 3, value_dim=5, use_bias=bias)
    twin.build(*[(1, 2, 4)] * 3)
    twin.set_weights(weights.to_keras())
    assert np.array_equal(twin(*inputs[:2]), layer(*inputs[:2]))


def test_nothing_given_is_changed():
    layer, (x, _, _) = build(dict(num_heads=2, key_dim=3), [(2, 4, 5)] * 3, True, 9, "float64")
    weights, mask, grad, table = HeadWeights.from_keras(layer.get_weights()), causal_mask(4), np.ones((2, 4, 5)), np.ones((3, 5))
    given = [x, mask, grad, table, *weights]
    kept = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    multi_head_attention_backward(grad, x, x, x, weights, mask=mask)
    scaled_dot_product_attention_backward(grad, x, x, x, mask=mask)
    embedding_backward(grad, np.array([[0, 1, 2, 2]] * 2), table)
    assert all(np.array_equal(now, then) for now, then in zip(given, kept, strict=True))


# --- what is told

def good_weights(inputs=4, heads=2, key_dim=3, value_dim=5, outputs=6):
    into = [(inputs, heads, key_dim), (heads, key_dim)] * 2 + [(inputs, heads, value_dim), (heads, value_dim)]
    return HeadWeights(*normal(0, *into, (heads, value_dim, outputs), (outputs,)))


X, W = np.ones((2, 3, 4)), good_weights()


@pytest.mark.parametrize("call, words", [
    (lambda: one_hot([0, 3], 3), ["tokens: ", "from 0 to 3", "integers from 0 to 2"]),
    (lambda: one_hot([0.5], 3), ["tokens: ", "float64", "integers"]),
    (lambda: one_hot([0], 0), ["depth: 0", "at least 1"]),
    (lambda: embedding([-1, 0], np.ones((3, 2))), ["tokens: ", "from -1 to 0"]),
    (lambda: embedding([0], np.ones((3, 2), int)), ["table: ", "int64", "float32 or float64"]),
    (lambda: embedding([0], np.ones(3)), ["table: shape (3,)", "(vocabulary, features)"]),
    (lambda: embedding_backward(np.ones((1, 3)), [0], np.ones((3, 2))), ["grad: shape (1, 3)", "(1, 2)"]),
    (lambda: positional_encoding(0, 4), ["length: 0"]),
    (lambda: positional_encoding(4, 2.5), ["depth: 2.5"]),
    (lambda: causal_mask(-1), ["length: -1"]),
    (lambda: padding_mask([4], 3), ["lengths: ", "from 4 to 4", "from 0 to 3"]),
    (lambda: padding_mask([[1]], 3), ["lengths: shape (1, 1)", "(batch)"]),
    (lambda: scaled_dot_product_attention(X, X[..., :2], X), ["key: shape (2, 3, 2)", "depth = 4"]),
    (lambda: scaled_dot_product_attention(X, X, X[:, :2]), ["value: shape (2, 2, 4)", "source = 3"]),
    (lambda: scaled_dot_product_attention(X, X[:1], X[:1]), ["key: shape (1, 3, 4)", "(2, 3, 4)", "in front"]),
    (lambda: scaled_dot_product_attention(X, X, X[:1]), ["value: shape (1, 3, 4)", "(2, 3, 4)"]),
    (lambda: scaled_dot_product_attention(X[0, 0], X, X), ["query: shape (4,)", "(..., target, depth)"]),
    (lambda: scaled_dot_product_attention(X.astype(int), X, X), ["query: ", "int64"]),
    (lambda: scaled_dot_product_attention(X, np.where(X == 1, np.nan, X), X), ["key: ", "24 values nan"]),
    (lambda: scaled_dot_product_attention(X * 1e200, X * 1e200, X), ["query times key", "18 values nan or infinite"]),
    (lambda: scaled_dot_product_attention(X, X, X, mask=np.ones((2, 3, 4), bool)), ["mask: shape (2, 3, 4)", "(2, 3, 3)"]),
    (lambda: scaled_dot_product_attention(X[0], X[0], X[0], mask=np.ones((2, 3, 3), bool)), ["mask: shape (2, 3, 3)", "(3, 3)"]),
    (lambda: scaled_dot_product_attention(X, X, X, mask=np.ones((3, 3))), ["mask: ", "float64", "booleans"]),
    (lambda: scaled_dot_product_attention_backward(X[:, :2], X, X, X), ["grad: shape (2, 2, 4)", "(2, 3, 4)"]),
    (lambda: HeadWeights.from_keras([X] * 10), ["arrays: 10", "8, or 4", "gate"]),
    (lambda: multi_head_attention(X, X, X, list(W)), ["weights: list", "HeadWeights"]),
    (lambda: multi_head_attention(X[0], X, X, W), ["query: shape (3, 4)", "(batch, target, inputs)"]),
    (lambda: multi_head_attention(X, X[:1], X, W), ["key: shape (1, 3, 4)", "batch = 2"]),
    (lambda: multi_head_attention(X, X, X[:, :2], W), ["value: shape (2, 2, 4)", "source = 3"]),
    (lambda: multi_head_attention(X, X, X, good_weights(inputs=5)), ["weights.query_kernel: shape (5, 2, 3)", "inputs = 4"]),
    (lambda: multi_head_attention(X, X, X, W._replace(key_kernel=np.ones((4, 1, 3)))), ["weights.key_kernel: ", "heads = 2"]),
    (lambda: multi_head_attention(X, X, X, W._replace(value_kernel=np.ones((4, 1, 5)))), ["weights.value_kernel: ", "heads = 2"]),
    (lambda: multi_head_attention(X, X, X, W._replace(output_kernel=np.ones((2, 3, 6)))), ["weights.output_kernel: ", "value_dim = 5"]),
    (lambda: multi_head_attention(X, X, X, W._replace(output_bias=np.ones(5))), ["weights.output_bias: shape (5,)", "outputs = 6"]),
    (lambda: multi_head_attention(X, X, X, W._replace(key_bias=np.ones((2, 4)))), ["weights.key_bias: shape (2, 4)", "key_dim = 3"]),
    (lambda: multi_head_attention(X, X, X, W._replace(value_kernel=None)), ["weights.value_kernel: shape ()", "value_dim"]),
    (lambda: multi_head_attention(X, X, X, W, mask=np.ones((3, 3, 3), bool)), ["mask: ", "(2, 2, 3, 3)"]),
    (lambda: multi_head_attention_backward(X, X, X, X, W), ["grad: shape (2, 3, 4)", "(2, 3, 6)"]),
])
def test_faults_are_named(call, words):
    with pytest.raises(ArrayError) as told:
        call()
    message = str(told.value)
    assert message.startswith(words[0]) and "\n" not in message and all(word in message for word in words), message
