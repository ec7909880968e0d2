"""Chapter 2.5: pooling equals Keras's and its definition; its gradients are those of calculus."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.foundations import pooling as p
from medbook.foundations.arrays import ArrayError, numerical_gradient

POOLS = {
    "max": (p.max_pool2d, p.max_pool2d_backward, p.max_pool2d_loops, keras.layers.MaxPooling2D),
    "average": (
        p.avg_pool2d,
        p.avg_pool2d_backward,
        p.avg_pool2d_loops,
        keras.layers.AveragePooling2D,
    ),
}
GLOBAL = {
    "max": (p.global_max_pool2d, p.global_max_pool2d_backward, keras.layers.GlobalMaxPooling2D),
    "average": (
        p.global_avg_pool2d,
        p.global_avg_pool2d_backward,
        keras.layers.GlobalAveragePooling2D,
    ),
}
kinds = pytest.mark.parametrize("kind", ["max", "average"])
quick = settings(max_examples=40, deadline=None, derandomize=True)
X = np.random.default_rng(0).normal(size=(2, 7, 9, 3))


@st.composite
def cases(draw, largest=9):
    """An image's shape, a window, a stride (None too, or larger) and a padding that fit it."""
    height, width = draw(st.integers(1, largest)), draw(st.integers(1, largest))
    padding = draw(st.sampled_from(["valid", "same"]))
    size = tuple(
        draw(st.integers(1, side if padding == "valid" else largest + 2))
        for side in (height, width)
    )
    stride = draw(st.one_of(st.none(), st.tuples(st.integers(1, 5), st.integers(1, 5))))
    shape = (draw(st.integers(1, 3)), height, width, draw(st.integers(1, 3)))
    return shape, size, {"stride": stride, "padding": padding}, draw(st.integers(0, 2**16))


def tape_gradient(layer, x, grad):
    """Slope of Σ grad · layer(x) by TensorFlow."""
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(variable) * grad)
    return tape.gradient(loss, variable).numpy()


@kinds
@given(case=cases())
@quick
def test_float64_equals_the_definition(kind, case):
    shape, size, options, seed = case
    pool, _, loops, _ = POOLS[kind]
    x = np.random.default_rng(seed).normal(size=shape)
    kept = x.copy()
    y = pool(x, size, **options)
    assert y.dtype == np.float64 and (x == kept).all()
    np.testing.assert_allclose(y, loops(x, size, **options), rtol=0, atol=1e-10)


@kinds
@given(case=cases())
@quick
def test_equals_keras_in_both_kinds(kind, case):
    shape, size, options, seed = case
    pool, _, _, layer = POOLS[kind]
    for dtype, atol in (("float32", 1e-5), ("float64", 1e-10)):
        x = np.random.default_rng(seed).normal(size=shape).astype(dtype)
        theirs = layer(size, strides=options["stride"], padding=options["padding"], dtype=dtype)(
            x
        ).numpy()
        y = pool(x, size, **options)
        assert y.dtype == dtype and y.shape == theirs.shape
        np.testing.assert_allclose(y, theirs, rtol=0, atol=atol)


@kinds
@given(case=cases(largest=6))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_gradients_equal_differences(kind, case):
    shape, size, options, seed = case
    pool, backward, _, _ = POOLS[kind]
    rng = np.random.default_rng(seed)
    x = rng.permutation(np.prod(shape)).reshape(shape) / 10  # no two values nearer than the step
    grad = rng.normal(size=pool(x, size, **options).shape)
    gradient = backward(grad, x, size, **options)
    assert gradient.dtype == np.float64
    found = numerical_gradient(lambda moved: np.sum(grad * pool(moved, size, **options)), x)
    np.testing.assert_allclose(gradient, found, rtol=0, atol=1e-6)


@kinds
@given(case=cases())
@settings(max_examples=30, deadline=None, derandomize=True)
def test_gradients_equal_the_tape_ties_included(kind, case):
    shape, size, options, seed = case
    pool, backward, _, layer = POOLS[kind]
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, shape).astype("float32")  # few greys, many ties
    grad = rng.normal(size=pool(x, size, **options).shape).astype("float32")
    kept = x.copy(), grad.copy()
    gradient = backward(grad, x, size, **options)
    assert gradient.dtype == np.float32 and (x == kept[0]).all() and (grad == kept[1]).all()
    if kind == "average" and np.any(np.array(size) > shape[1:3]):
        return  # TensorFlow's own gradient is wrong there on some processors: see the next test
    theirs = tape_gradient(
        layer(size, strides=options["stride"], padding=options["padding"]), x, grad
    )
    np.testing.assert_allclose(gradient, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "shape, size", [((1, 4, 1, 1), (5, 1)), ((2, 3, 2, 2), (4, 7)), ((1, 1, 1, 1), 3)]
)
def test_gradient_of_a_mean_over_more_than_the_image_is_that_of_the_definition(shape, size):
    x = np.random.default_rng(0).normal(size=shape)
    options = {"stride": 1, "padding": "same"}
    y = p.avg_pool2d_loops(x, size, **options)
    grad = np.cos(np.arange(y.size)).reshape(y.shape)

    def error(moved):
        return np.sum(grad * p.avg_pool2d_loops(moved, size, **options))

    ours = p.avg_pool2d_backward(grad, x, size, **options)
    np.testing.assert_allclose(ours, numerical_gradient(error, x), rtol=0, atol=1e-8)


@kinds
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(2, 7), st.integers(2, 7), st.integers(1, 2)),
    size=st.integers(2, 5),
    stride=st.integers(1, 3),
    zeros=st.integers(0, 2),
    seed=st.integers(0, 99),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_number_of_pixels_as_padding_equals_pytorch(kind, shape, size, stride, zeros, seed):
    torch = pytest.importorskip("torch")
    pool, backward, _, _ = POOLS[kind]
    x = np.random.default_rng(seed).permutation(np.prod(shape)).reshape(shape) / 10
    options = {"stride": stride, "padding": zeros}
    if 2 * zeros > size or size > min(shape[1:3]) + 2 * zeros:
        with pytest.raises(ArrayError):
            pool(x, size, **options)
        return
    image = torch.tensor(np.moveaxis(x, 3, 1).copy(), requires_grad=True)
    functions = {"max": torch.nn.functional.max_pool2d, "average": torch.nn.functional.avg_pool2d}
    more = {"count_include_pad": False} if kind == "average" else {}
    theirs = functions[kind](image, size, stride=stride, padding=zeros, **more)
    y = pool(x, size, **options)
    np.testing.assert_allclose(y, np.moveaxis(theirs.detach().numpy(), 1, 3), atol=1e-10)
    grad = np.cos(np.arange(y.size)).reshape(y.shape)
    (theirs * torch.tensor(np.moveaxis(grad, 3, 1).copy())).sum().backward()
    ours = backward(grad, x, size, **options)
    np.testing.assert_allclose(ours, np.moveaxis(image.grad.numpy(), 1, 3), atol=1e-10)


def test_the_first_of_ties_takes_all():
    gradient = p.max_pool2d_backward(np.ones((1, 2, 2, 1)), np.zeros((1, 4, 4, 1)), 3, stride=1)[
        0, ..., 0
    ]
    assert gradient[:2, :2].tolist() == [[1, 1], [1, 1]] and gradient.sum() == 4
    below = p.max_pool2d_backward(
        np.ones((1, 2, 2, 1)), np.full((1, 3, 3, 1), -7.0), 2, padding="same"
    )[0, ..., 0]
    assert below.tolist() == [
        [1, 0, 1],
        [0, 0, 0],
        [1, 0, 1],
    ]  # padding never wins over values below zero


@kinds
@given(shape=st.tuples(*[st.integers(1, 6)] * 4), seed=st.integers(0, 2**16))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_global_pooling(kind, shape, seed):
    pool, backward, layer = GLOBAL[kind]
    rng = np.random.default_rng(seed)
    grad = rng.normal(size=(shape[0], shape[3]))
    for x in (rng.normal(size=shape), rng.integers(0, 3, shape).astype("float64")):
        layer64 = layer(dtype="float64")
        np.testing.assert_allclose(pool(x), layer64(x), rtol=0, atol=1e-10)
        np.testing.assert_allclose(
            backward(grad, x), tape_gradient(layer64, x, grad), rtol=0, atol=1e-10
        )
    x = rng.permutation(np.prod(shape)).reshape(shape) / 10
    np.testing.assert_allclose(
        backward(grad, x),
        numerical_gradient(lambda moved: np.sum(grad * pool(moved)), x),
        rtol=0,
        atol=1e-6,
    )
    single = x.astype("float32")
    assert (
        pool(single).dtype == np.float32
        and backward(grad.astype("float32"), single).dtype == np.float32
    )
    np.testing.assert_allclose(pool(single), layer()(single), rtol=1e-5)


def test_global_pooling_is_a_window_of_the_image_and_rounds_little():
    np.testing.assert_allclose(
        p.avg_pool2d(X, X.shape[1:3])[:, 0, 0], p.global_avg_pool2d(X), atol=1e-12
    )
    assert (p.max_pool2d(X, X.shape[1:3])[:, 0, 0] == p.global_max_pool2d(X)).all()
    large = np.random.default_rng(1).random((1, 1024, 1024, 2), "float32")
    np.testing.assert_allclose(
        p.global_avg_pool2d(large)[0], large.mean(axis=(0, 1, 2), dtype="float64"), rtol=3e-6
    )


def test_invariants():
    assert (p.max_pool2d(np.exp(X), 3, stride=2) == np.exp(p.max_pool2d(X, 3, stride=2))).all()
    tiled = X[:, :6, :9]
    assert np.isclose(p.avg_pool2d(tiled, (2, 3)).mean(), tiled.mean(), atol=1e-14)
    ones = np.ones_like(p.avg_pool2d(X, 3, stride=2, padding="same"))
    for _, backward, _, _ in POOLS.values():
        assert np.isclose(backward(ones, X, 3, stride=2, padding="same").sum(), ones.sum())
    assert (p.avg_pool2d(np.ones_like(X), 3, stride=1, padding="same") == 1).all()
    assert (p.max_pool2d(X[:, 2:], 2) == p.max_pool2d(X, 2)[:, 1:]).all()


@pytest.mark.parametrize("shape", [(1, 150, 150, 8), (40, 30, 31, 5)])
@kinds
def test_many_blocks_and_unusual_memory(kind, shape):
    pool, backward, _, _ = POOLS[kind]
    x = np.random.default_rng(2).normal(size=shape)
    grad = np.random.default_rng(3).normal(size=pool(x, 3, stride=2).shape)
    for view in (np.asfortranarray(x), np.ascontiguousarray(x[::-1])[::-1]):
        assert (pool(view, 3, stride=2) == pool(x, 3, stride=2)).all()
        assert (backward(grad, view, 3, stride=2) == backward(grad, x, 3, stride=2)).all()
    alone = np.concatenate([pool(image[np.newaxis], 3, stride=2) for image in x])
    assert (pool(x, 3, stride=2) == alone).all()
    frozen = x.copy()
    frozen.flags.writeable = grad.flags.writeable = False
    assert (backward(grad, frozen, 3, stride=2) == backward(grad, x, 3, stride=2)).all()


@kinds
@pytest.mark.parametrize(
    "x, size, options, words",
    [
        (X[0], 2, {}, ["x: ", "(7, 9, 3)", "(batch, height, width, channels)"]),
        (X.astype("int32"), 2, {}, ["x: ", "int32", "float32"]),
        (np.where(X > 2, np.nan, X), 2, {}, ["x: ", "nan"]),
        (np.where(X > 2, -np.inf, X), 2, {}, ["x: ", "infinite"]),
        (X[:0], 2, {}, ["x: ", "(0, 7, 9, 3)"]),
        (X, 8, {}, ["size: ", "(8, 8)", "(2, 7, 9, 3)", "(7, 9)"]),
        (X, (7, 10), {}, ["size: ", "(7, 10)", "(7, 9)"]),
        (X, 0, {}, ["size: ", "0"]),
        (X, (2, 2, 2), {}, ["size: ", "(2, 2, 2)"]),
        (X, 2, {"stride": 1.5}, ["stride: ", "1.5"]),
        (X, 2, {"stride": (0, 1)}, ["stride: ", "0"]),
        (X, 2, {"padding": "full"}, ["padding: ", "'full'", "'valid', 'same'"]),
    ],
)
def test_faults_are_told(kind, x, size, options, words):
    forward, backward, loops, _ = POOLS[kind]
    for call in (
        lambda: forward(x, size, **options),
        lambda: loops(x, size, **options),
        lambda: backward(X, x, size, **options),
    ):
        with pytest.raises(ArrayError) as told:
            call()
        message = str(told.value)
        assert message.startswith(words[0]) and "expected" in message and "\n" not in message
        assert all(word in message for word in words)


@kinds
def test_a_wrong_grad_is_told(kind):
    _, backward, _, _ = POOLS[kind]
    for grad, words in (
        (X, ["(2, 7, 9, 3)", "height = 3, width = 4"]),
        (np.full((2, 3, 4, 3), np.nan), ["nan"]),
        (np.zeros((2, 3, 4, 3), int), ["int64"]),
    ):
        with pytest.raises(ArrayError) as told:
            backward(grad, X, 2)
        assert str(told.value).startswith("grad: ") and all(
            word in str(told.value) for word in words
        )
    _, backward, _ = GLOBAL[kind]
    with pytest.raises(ArrayError, match=r"^grad: shape \(3, 2\).*batch = 2, channels = 3"):
        backward(np.zeros((3, 2)), X)
    with pytest.raises(ArrayError, match="^x: "):
        backward(np.zeros((2, 3)), X[0])


def test_a_window_far_larger_than_the_image_sees_all_of_it():
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3))
    assert p.max_pool2d(x, 10**9, padding="same") == pytest.approx(
        x.max(axis=(1, 2), keepdims=True)
    )
    assert p.avg_pool2d(x, 10**9, padding="same") == pytest.approx(
        x.mean(axis=(1, 2), keepdims=True)
    )
    assert p.avg_pool2d_backward(np.ones((2, 1, 1, 3)), x, 10**9, padding="same") == pytest.approx(
        np.full(x.shape, 1 / 20)
    )
