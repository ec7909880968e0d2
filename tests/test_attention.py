"""Attention equals Keras's and SciPy's formula; its masks hide what they say."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from medbook.foundations.arrays import ArrayError, numerical_gradient
from medbook.foundations.attention import (
    causal_mask,
    embedding,
    embedding_backward,
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
    (table,) = layer.get_weights()
    ours = embedding(tokens, table)
    assert ours.dtype == np.float32 and np.array_equal(ours, layer(tokens))
    (grad,) = normal(0, (2, 3, 3))
    table = table.astype("float64")
    gradient = embedding_backward(grad, tokens, table)
    assert np.allclose(
        gradient,
        numerical_gradient(lambda t: np.sum(grad * embedding(tokens, t)), table),
        rtol=0,
        atol=1e-8,
    )
    assert (
        np.allclose(gradient[0], grad[0, 0] + grad[0, 2] + grad[1, 1] + grad[1, 2])
        and not gradient[3].any()
    )


@pytest.mark.parametrize("length, depth", [(1, 1), (7, 1), (5, 2), (50, 7), (33, 16)])
def test_positions_are_the_sines_of_the_paper(length, depth):
    expected = np.zeros((length, depth))
    for p in range(length):
        for j in range(depth):
            angle = p / 10_000 ** (2 * (j // 2) / depth)
            expected[p, j] = np.cos(angle) if j % 2 else np.sin(angle)
    assert np.allclose(
        positional_encoding(length, depth, dtype="float64"), expected, rtol=0, atol=1e-12
    )
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
@given(
    seed=seeds,
    front=st.lists(few, max_size=2),
    sizes=st.tuples(few, few, few, few),
    masked=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_attention_equals_scipys_formula(kind, close, seed, front, sizes, masked):
    target, source, depth, features = sizes
    query, key, value = normal(
        seed,
        (*front, target, depth),
        (*front, source, depth),
        (*front, source, features),
        kind=kind,
    )
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
    theirs = keras.ops.dot_product_attention(
        *(array.swapaxes(1, 2) for array in (query, key, value)), mask=mask
    )
    ours, _ = scaled_dot_product_attention(query, key, value, mask=mask)
    assert abs(ours.swapaxes(1, 2) - np.asarray(theirs)).max() <= 1e-5


@given(
    seed=seeds,
    front=st.lists(st.integers(1, 2), max_size=2),
    sizes=st.tuples(few, few, few, few),
    masked=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_gradients_are_those_of_differences(seed, front, sizes, masked):
    target, source, depth, features = sizes
    query, key, value, grad = normal(
        seed,
        (*front, target, depth),
        (*front, source, depth),
        (*front, source, features),
        (*front, target, features),
    )
    mask = random_mask(seed, (*front, target, source), blind=True) if masked else None
    gradients = scaled_dot_product_attention_backward(grad, query, key, value, mask=mask)

    def loss(*arrays):
        return np.sum(grad * scaled_dot_product_attention(*arrays, mask=mask)[0])

    expected = (
        numerical_gradient(lambda a: loss(a, key, value), query),
        numerical_gradient(lambda a: loss(query, a, value), key),
        numerical_gradient(lambda a: loss(query, key, a), value),
    )
    for ours, theirs in zip(gradients, expected, strict=True):
        assert ours.shape == theirs.shape and abs(ours - theirs).max() <= 1e-6


@given(seed=seeds, length=st.integers(2, 8), depth=few)
@settings(max_examples=25, deadline=None)
def test_without_positions_order_means_nothing(seed, length, depth):
    (x,) = normal(seed, (length, depth))
    order = np.random.default_rng(seed).permutation(length)
    output, weights = scaled_dot_product_attention(x, x, x)
    moved, moved_weights = scaled_dot_product_attention(x[order], x[order], x[order])
    assert np.allclose(moved, output[order], rtol=0, atol=1e-12)
    assert np.allclose(moved_weights, weights[order][:, order], rtol=0, atol=1e-12)


def test_with_positions_order_means_something():
    (x,) = normal(0, (6, 4))
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
    _, key_gradient, value_gradient = scaled_dot_product_attention_backward(
        grad, query, key, value, mask=mask
    )
    assert not key_gradient[:, 2].any() and not value_gradient[:, 2].any()


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_target_that_sees_nothing_gets_nothing(kind):
    query, key, value, grad = normal(3, (4, 3), (5, 3), (5, 2), (4, 2), kind=kind)
    mask = np.ones((4, 5), bool)
    mask[1] = False
    output, weights = scaled_dot_product_attention(query, key, value, mask=mask)
    assert (
        not output[1].any()
        and not weights[1].any()
        and np.allclose(weights[[0, 2, 3]].sum(axis=-1), 1)
    )
    gradients = scaled_dot_product_attention_backward(grad, query, key, value, mask=mask)
    assert not gradients[0][1].any()
    without = scaled_dot_product_attention_backward(
        np.delete(grad, 1, 0), np.delete(query, 1, 0), key, value
    )
    assert all(
        np.allclose(ours, theirs, atol=1e-6)
        for ours, theirs in zip(gradients[1:], without[1:], strict=True)
    )
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
    (x,) = normal(1, (6, 3))
    output, weights = scaled_dot_product_attention(x, x, x, mask=causal_mask(6))
    assert (
        np.array_equal(causal_mask(3), [[1, 0, 0], [1, 1, 0], [1, 1, 1]])
        and causal_mask(3).dtype == bool
    )
    for end in range(1, 6):
        head = x[:end]
        assert np.allclose(
            scaled_dot_product_attention(head, head, head, mask=causal_mask(end))[0],
            output[:end],
            rtol=0,
            atol=1e-12,
        )
    assert np.array_equal(weights[0], [1, 0, 0, 0, 0, 0])


def test_padding_mask_is_as_if_the_filling_were_not_there():
    (x,) = normal(2, (3, 5, 4))
    lengths = [5, 2, 0]
    mask = padding_mask(lengths, 5)
    assert (
        mask.shape == (3, 1, 5)
        and mask.dtype == bool
        and mask.sum(axis=-1).ravel().tolist() == lengths
    )
    output, _ = scaled_dot_product_attention(x, x, x, mask=mask)
    short = scaled_dot_product_attention(x[1], x[1, :2], x[1, :2])[0]
    assert np.allclose(output[1], short, rtol=0, atol=1e-12) and not output[2].any()
    both, _ = scaled_dot_product_attention(x, x, x, mask=mask & causal_mask(5))
    assert np.allclose(both[1, 1:], output[1, 1:]) and np.allclose(both[1, 0], x[1, 0])


@given(
    seed=seeds,
    front=st.lists(st.integers(1, 2), min_size=1, max_size=2),
    sizes=st.tuples(few, few, few),
    whole=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_a_bias_adds_to_the_scores_and_has_a_gradient(seed, front, sizes, whole):
    target, source, depth = sizes
    query, key, value, grad = normal(
        seed,
        (*front, target, depth),
        (*front, source, depth),
        (*front, source, 2),
        (*front, target, 2),
    )
    (bias,) = normal(
        seed + 1, (*front, target, source) if whole else (*(1 for _ in front), target, source)
    )
    mask = random_mask(seed, (*front, target, source), blind=True)
    wide = np.concatenate([query, np.ones((*query.shape[:-1], 1))], axis=-1)
    output, weights = scaled_dot_product_attention(query, key, value, bias=bias)
    scores = np.einsum("...td,...sd->...ts", query, key) / np.sqrt(depth) + bias
    assert wide.shape[-1] == depth + 1 and abs(weights - softmax(scores, axis=-1)).max() <= 1e-10
    assert abs(output - weights @ value).max() <= 1e-10

    def loss(q, b):
        return np.sum(grad * scaled_dot_product_attention(q, key, value, mask=mask, bias=b)[0])

    found = scaled_dot_product_attention_backward(grad, query, key, value, mask=mask, bias=bias)
    assert len(found) == 4 and found[3].shape == bias.shape
    assert abs(found[0] - numerical_gradient(lambda q: loss(q, bias), query)).max() <= 1e-6
    assert abs(found[3] - numerical_gradient(lambda b: loss(query, b), bias)).max() <= 1e-6


@given(seed=seeds, batch=few, heads=few, sizes=st.tuples(few, few, few))
@settings(max_examples=20, deadline=None)
def test_a_bias_equals_kerass(seed, batch, heads, sizes):
    target, source, depth = sizes
    query, key, value = normal(
        seed, *((batch, heads, size, depth) for size in (target, source, source)), kind="float32"
    )
    (bias,) = normal(seed + 1, (batch, heads, target, source), kind="float32")
    mask = random_mask(seed, (batch, 1, target, source))
    swapped = [array.swapaxes(1, 2) for array in (query, key, value)]
    theirs = keras.ops.dot_product_attention(*swapped, bias=bias, mask=mask)
    ours, weights = scaled_dot_product_attention(query, key, value, bias=bias, mask=mask)
    assert ours.dtype == weights.dtype == np.float32
    assert abs(ours.swapaxes(1, 2) - np.asarray(theirs)).max() <= 1e-5


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_a_bias_of_minus_infinity_hides_and_a_huge_one_stays_finite(kind):
    query, key, value = normal(3, (4, 3), (5, 3), (5, 2), kind=kind)
    mask = random_mask(1, (4, 5), blind=True)
    mask[1] = False
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        hidden = scaled_dot_product_attention(query, key, value, bias=np.where(mask, 0.0, -np.inf))
        largest = np.where(np.eye(4, 5, dtype=bool), np.finfo(kind).max, 0)
        _, chosen = scaled_dot_product_attention(query * 1e3, key, value, bias=largest.astype(kind))
    assert all(
        (a == b).all()
        for a, b in zip(
            hidden, scaled_dot_product_attention(query, key, value, mask=mask), strict=True
        )
    )
    assert chosen.dtype == kind and np.array_equal(chosen, np.eye(4, 5))


def test_a_mask_that_could_be_of_the_batch_is_refused_and_its_axis_named():
    """(batch, source) would be stretched over the targets, or over the heads, without a word."""
    (x,) = normal(0, (3, 3, 4))
    real = np.array([[True, True, True], [True, True, False], [True, False, True]])
    with pytest.raises(
        ArrayError,
        match=r"^mask: shape \(3, 3\).*\(batch, source\) or .*; write mask\[:, np.newaxis\]",
    ):
        scaled_dot_product_attention(x, x, x, mask=real)
    with pytest.raises(ArrayError, match=r"^bias: shape \(3, 3\).*\(batch, source\)"):
        scaled_dot_product_attention(x, x, x, bias=real.astype(float))
    _, shares = scaled_dot_product_attention(x, x, x, mask=real[:, np.newaxis])
    assert not shares[1, :, 2].any() and shares[0, :, 2].all()
    _, shares = scaled_dot_product_attention(x, x, x, mask=real[np.newaxis])
    assert not shares[:, 1, 2].any() and shares[1, 0, 2] > 0
    four = np.stack([x, x], axis=1)[:2]
    for mask in (padding_mask([3, 1], 3), np.ones((2, 3, 3), bool)):
        with pytest.raises(
            ArrayError, match=r"^mask: shape .*the scores have 4 axes.*mask\[:, np.newaxis\]"
        ):
            scaled_dot_product_attention(four, four, four, mask=mask)
    wanted = r"^mask: .*\(batch, source\); write mask\[:, np.newaxis\]$"
    with pytest.raises(ArrayError, match=wanted):
        scaled_dot_product_attention(np.ones((2, 5, 4)), x[:2], x[:2], mask=real[:2])
    for plain in (
        causal_mask(3),
        np.tile([True, True, False], (3, 1)),
        np.ones((1, 3), bool),
    ):  # mean one thing
        scaled_dot_product_attention(x, x, x, mask=plain)


def test_nothing_given_is_changed():
    (x,) = normal(9, (2, 4, 5))
    mask, bias, grad, table = (
        causal_mask(4),
        np.ones((1, 4, 4)),
        np.ones((2, 4, 5)),
        np.ones((3, 5)),
    )
    given = [x, mask, bias, grad, table]
    kept = [array.copy() for array in given]
    for array in given:
        array.flags.writeable = False
    scaled_dot_product_attention_backward(grad, x, x, x, mask=mask, bias=bias)
    embedding_backward(grad, np.array([[0, 1, 2, 2]] * 2), table)
    assert all(np.array_equal(now, then) for now, then in zip(given, kept, strict=True))


# --- what is told

X = np.ones((2, 3, 4))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: one_hot([0, 3], 3), ["tokens: ", "from 0 to 3", "integers from 0 to 2"]),
        (lambda: one_hot([0.5], 3), ["tokens: ", "float64", "integers"]),
        (lambda: one_hot([0], 0), ["depth: 0", "at least 1"]),
        (lambda: embedding([-1, 0], np.ones((3, 2))), ["tokens: ", "from -1 to 0"]),
        (lambda: embedding([0], np.ones((3, 2), int)), ["table: ", "int64", "float32 or float64"]),
        (lambda: embedding([0], np.ones(3)), ["table: shape (3,)", "(vocabulary, features)"]),
        (
            lambda: embedding_backward(np.ones((1, 3)), [0], np.ones((3, 2))),
            ["grad: shape (1, 3)", "(1, 2)"],
        ),
        (lambda: positional_encoding(0, 4), ["length: 0"]),
        (lambda: positional_encoding(4, 2.5), ["depth: 2.5"]),
        (lambda: causal_mask(-1), ["length: -1"]),
        (lambda: padding_mask([4], 3), ["lengths: ", "from 4 to 4", "from 0 to 3"]),
        (lambda: padding_mask([[1]], 3), ["lengths: shape (1, 1)", "(batch)"]),
        (
            lambda: scaled_dot_product_attention(X, X[..., :2], X),
            ["key: shape (2, 3, 2)", "depth = 4"],
        ),
        (
            lambda: scaled_dot_product_attention(X, X, X[:, :2]),
            ["value: shape (2, 2, 4)", "source = 3"],
        ),
        (
            lambda: scaled_dot_product_attention(X, X[:1], X[:1]),
            ["key: shape (1, 3, 4)", "(2, 3, 4)", "in front"],
        ),
        (
            lambda: scaled_dot_product_attention(X, X, X[:1]),
            ["value: shape (1, 3, 4)", "(2, 3, 4)"],
        ),
        (
            lambda: scaled_dot_product_attention(X[0, 0], X, X),
            ["query: shape (4,)", "(..., target, depth)"],
        ),
        (lambda: scaled_dot_product_attention(X.astype(int), X, X), ["query: ", "int64"]),
        (
            lambda: scaled_dot_product_attention(X, np.where(X == 1, np.nan, X), X),
            ["key: ", "24 values nan"],
        ),
        (
            lambda: scaled_dot_product_attention(X * 1e200, X * 1e200, X),
            ["query times key", "18 values nan or infinite"],
        ),
        (
            lambda: scaled_dot_product_attention(X, X, X, mask=np.ones((2, 3, 4), bool)),
            ["mask: shape (2, 3, 4)", "(2, 3, 3)"],
        ),
        (
            lambda: scaled_dot_product_attention(X[0], X[0], X[0], mask=np.ones((2, 3, 3), bool)),
            ["mask: shape (2, 3, 3)", "(3, 3)"],
        ),
        (
            lambda: scaled_dot_product_attention(X, X, X, mask=np.ones((3, 3))),
            ["mask: ", "float64", "booleans"],
        ),
        (
            lambda: scaled_dot_product_attention_backward(X[:, :2], X, X, X),
            ["grad: shape (2, 2, 4)", "(2, 3, 4)"],
        ),
        (lambda: one_hot([0], 3, dtype="float99"), ["dtype: 'float99'", "a kind of number"]),
        (lambda: one_hot([0], 3, dtype=None), ["dtype: None"]),
        (lambda: one_hot([0], 3, dtype=object), ["dtype: "]),
        (lambda: positional_encoding(2, 2, dtype="int8"), ["dtype: 'int8'"]),
        (
            lambda: scaled_dot_product_attention(X, X, X, bias=np.full((3, 3), np.inf)),
            ["bias: ", "+inf"],
        ),
        (
            lambda: scaled_dot_product_attention(X, X, X, bias=np.full((3, 3), np.nan)),
            ["bias: ", "nan"],
        ),
        (
            lambda: scaled_dot_product_attention(X, X, X, bias=np.ones((3, 3), int)),
            ["bias: ", "int64"],
        ),
        (
            lambda: scaled_dot_product_attention(X, X, X, bias=np.ones((2, 3, 4))),
            ["bias: shape (2, 3, 4)", "(2, 3, 3)"],
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
