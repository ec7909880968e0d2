"""Dense layers and activations: equal to Keras and SciPy, no overflow, clear errors."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.foundations import dense as module
from medbook.foundations.arrays import ArrayError, numerical_gradient
from medbook.foundations.dense import (
    dense,
    dense_backward,
    gelu,
    gelu_backward,
    leaky_relu,
    leaky_relu_backward,
    log_softmax,
    log_softmax_backward,
    relu,
    relu_backward,
    sigmoid,
    sigmoid_backward,
    softmax,
    softmax_backward,
    softplus,
    tanh,
    without_overflow,
)

many = settings(max_examples=40, deadline=None, derandomize=True)
fewer = settings(max_examples=15, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)
leading = st.lists(st.integers(1, 5), min_size=0, max_size=3).map(
    tuple
)  # axes in front of the last: none, batch, batch and image
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
CURVES = ("sigmoid", "tanh", "relu", "softplus")
REFERENCE = {
    "sigmoid": scipy.special.expit,
    "tanh": np.tanh,
    "relu": lambda x: (x + abs(x)) / 2,
    "softplus": lambda x: np.logaddexp(0, x),
}


def curve(name):
    return getattr(module, name), getattr(module, f"{name}_backward")


@st.composite
def layers(draw, dtype="float64"):
    """x, kernel, bias or None and a gradient for the output, with sums near one."""
    front, inputs, units = draw(leading), draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rng = np.random.default_rng(draw(seeds))
    x, kernel = (
        rng.normal(size=(*front, inputs)),
        rng.normal(size=(inputs, units)) / np.sqrt(inputs),
    )
    bias = rng.normal(size=units) if draw(st.booleans()) else None
    grad = rng.normal(size=(*front, units))
    return tuple(
        None if array is None else array.astype(dtype) for array in (x, kernel, bias, grad)
    )


def keras_dense(x, kernel, bias):
    """Keras's own layer with these weights, and its gradients in the order x, kernel, bias."""
    layer = keras.layers.Dense(kernel.shape[1], use_bias=bias is not None, dtype=str(x.dtype))
    layer.build((None, x.shape[-1]))
    layer.set_weights([kernel] if bias is None else [kernel, bias])
    return layer


@pytest.mark.parametrize("dtype", TOLERANCE)
@many
@given(data=st.data())
def test_dense_equals_keras_and_a_float64_sum(dtype, data):
    x, kernel, bias, _ = data.draw(layers(dtype))
    ours = dense(x, kernel, bias)
    exact = np.einsum("...d,du->...u", x.astype("float64"), kernel.astype("float64")) + (
        0 if bias is None else bias
    )
    assert ours.dtype == dtype and ours.shape == x.shape[:-1] + (kernel.shape[1],)
    np.testing.assert_allclose(ours, exact, rtol=0, atol=TOLERANCE[dtype])
    rows = x.reshape(-1, x.shape[-1])
    np.testing.assert_allclose(
        ours.reshape(len(rows), -1),
        keras_dense(x, kernel, bias)(rows),
        rtol=0,
        atol=TOLERANCE[dtype],
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@many
@given(data=st.data())
def test_dense_backward_equals_a_gradient_tape(dtype, data):
    x, kernel, bias, grad = data.draw(layers(dtype))
    rows, gradients = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    layer, variable = keras_dense(x, kernel, bias), tf.Variable(rows)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(gradients * layer(variable))
    theirs = tape.gradient(value, [variable, *layer.trainable_variables])
    dx, dkernel, dbias = dense_backward(grad, x, kernel, bias)
    assert (dbias is None) == (bias is None) and dx.shape == x.shape
    for our, their in zip((dx.reshape(rows.shape), dkernel, dbias), theirs, strict=False):
        assert our.dtype == dtype
        np.testing.assert_allclose(
            our, their, rtol=1e-5 if dtype == "float32" else 0, atol=10 * TOLERANCE[dtype]
        )


@fewer
@given(layers())
def test_dense_backward_equals_differences(arrays):
    x, kernel, bias, grad = arrays
    found = dense_backward(grad, x, kernel, bias)
    pairs = [
        (found[0], numerical_gradient(lambda v: np.sum(grad * dense(v, kernel, bias)), x)),
        (found[1], numerical_gradient(lambda v: np.sum(grad * dense(x, v, bias)), kernel)),
    ]
    if bias is not None:
        pairs.append(
            (found[2], numerical_gradient(lambda v: np.sum(grad * dense(x, kernel, v)), bias))
        )
    for ours, gradient in pairs:
        np.testing.assert_allclose(ours, gradient, rtol=0, atol=1e-6)


def test_dense_by_hand():
    assert dense(
        np.array([1.0, 2.0]),
        np.array([[1.0, 0.0, 3.0], [0.5, -1.0, 0.0]]),
        np.array([0.0, 1.0, -1.0]),
    ).tolist() == [2, -1, 2]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CURVES)
@many
@given(
    shape=st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple),
    scale=st.sampled_from([0.1, 1, 10, 1000]),
    seed=seeds,
)
def test_curves_and_gradients_equal_keras_and_scipy(dtype, name, shape, scale, seed):
    rng = np.random.default_rng(seed)
    x, grad = (rng.normal(0, scale, shape)).astype(dtype), rng.normal(size=shape).astype(dtype)
    forward, backward = curve(name)
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        theirs = getattr(keras.ops, name)(variable)
        value = tf.reduce_sum(grad * theirs)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        ours, gradient = forward(x), backward(grad, x)
    assert ours.dtype == gradient.dtype == dtype and ours.shape == gradient.shape == shape
    relative = TOLERANCE[dtype]
    np.testing.assert_allclose(ours, theirs, rtol=relative, atol=relative)
    np.testing.assert_allclose(
        ours, REFERENCE[name](x.astype("float64")), rtol=relative, atol=relative
    )
    np.testing.assert_allclose(
        gradient, tape.gradient(value, variable), rtol=relative, atol=relative
    )


@pytest.mark.parametrize("name", [*CURVES, "leaky_relu", "gelu"])
@fewer
@given(seed=seeds)
def test_gradients_of_curves_equal_differences(name, seed):
    rng = np.random.default_rng(seed)
    x, grad = rng.normal(0, 3, (3, 5)), rng.normal(size=(3, 5))
    x[abs(x) < 1e-3] = 1  # away from ReLU's corner
    forward, backward = curve(name)
    np.testing.assert_allclose(
        backward(grad, x),
        numerical_gradient(lambda v: np.sum(grad * forward(v)), x),
        rtol=0,
        atol=1e-6,
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "name, limits, gradients",
    [
        ("sigmoid", (0, 1), (0, 0)),
        ("tanh", (-1, 1), (0, 0)),
        ("relu", (0, np.inf), (0, 1)),
        ("softplus", (0, np.inf), (0, 1)),
        ("gelu", (0, np.inf), (0, 1)),
    ],
)
def test_limits(dtype, name, limits, gradients):
    forward, backward = curve(name)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert forward(np.array([-np.inf, np.inf], dtype)).tolist() == list(limits)
        assert backward(np.ones(2, dtype), np.array([-np.inf, np.inf], dtype)).tolist() == list(
            gradients
        )
        assert forward(np.array([-1000, 1000], dtype)).tolist() == [
            limits[0],
            1000 if limits[1] == np.inf else limits[1],
        ]
        assert backward(np.ones(2, dtype), np.array([-1000, 1000], dtype)).tolist() == list(
            gradients
        )


def test_sigmoid_keeps_its_digits_in_the_tails():
    x = np.linspace(-80, 80, 161)
    np.testing.assert_allclose(sigmoid(x), scipy.special.expit(x), rtol=1e-14)
    np.testing.assert_allclose(
        sigmoid_backward(np.ones_like(x), x),
        scipy.special.expit(x) * scipy.special.expit(-x),
        rtol=1e-13,
    )


def test_relu_has_no_gradient_at_its_corner():
    assert relu_backward(np.ones(3), np.array([-1.0, 0.0, 1.0])).tolist() == [0, 0, 1]


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis")
@pytest.mark.parametrize("dtype", TOLERANCE)
@many
@given(data=st.data(), scale=st.sampled_from([1, 30, 1000]), seed=seeds)
def test_softmax_equals_scipy_and_keras_along_any_axis(dtype, data, scale, seed):
    shape = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(seed)
    x, grad = rng.normal(0, scale, shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    for name, backward in (("softmax", softmax_backward), ("log_softmax", log_softmax_backward)):
        variable = tf.Variable(x)
        with tf.GradientTape() as tape:
            theirs = getattr(tf.nn, name)(variable, axis=axis)
            value = tf.reduce_sum(grad * theirs)
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            ours, gradient = getattr(module, name)(x, axis), backward(grad, x, axis)
        assert ours.dtype == gradient.dtype == dtype
        pairs = [
            (ours, getattr(scipy.special, name)(x.astype("float64"), axis)),
            (ours, getattr(keras.ops, name)(x, axis=axis)),
            (gradient, tape.gradient(value, variable)),
        ]
        for mine, other in pairs:
            np.testing.assert_allclose(mine, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    np.testing.assert_allclose(softmax(x, axis).sum(axis=axis), 1, rtol=1e-6)


@fewer
@given(seed=seeds, axis=st.sampled_from([0, 1, -1]))
def test_gradients_of_softmax_equal_differences(seed, axis):
    rng = np.random.default_rng(seed)
    x, grad = rng.normal(0, 2, (4, 3)), rng.normal(size=(4, 3))
    for forward, backward in ((softmax, softmax_backward), (log_softmax, log_softmax_backward)):
        gradient = numerical_gradient(lambda v, f=forward: np.sum(grad * f(v, axis)), x)
        np.testing.assert_allclose(backward(grad, x, axis), gradient, rtol=0, atol=1e-6)


def test_softmax_of_classes_ruled_out():
    x = np.array([[0.0, -np.inf, 0.0], [-np.inf, -np.inf, 5.0]])
    with np.errstate(invalid="raise", over="raise"):
        assert softmax(x).tolist() == [[0.5, 0, 0.5], [0, 0, 1]]
        gradient = softmax_backward(np.array([[1.0, 9.0, 0.0], [1.0, 2.0, 3.0]]), x)
    assert gradient.tolist() == [[0.25, 0, -0.25], [0, 0, 0]]


def test_arguments_stay_as_they_were():
    rng = np.random.default_rng(0)
    x, kernel, bias, grad = (
        rng.normal(size=(4, 3)),
        rng.normal(size=(3, 3)),
        rng.normal(size=3),
        rng.normal(size=(4, 3)),
    )
    kept = [array.copy() for array in (x, kernel, bias, grad)]
    dense(x, kernel, bias), dense_backward(grad, x, kernel, bias)
    for name in (*CURVES, "leaky_relu", "gelu", "softmax", "log_softmax"):
        forward, backward = curve(name)
        forward(x), backward(grad, x)
    assert all((now == then).all() for now, then in zip((x, kernel, bias, grad), kept, strict=True))


def test_views_and_columns_in_fortran_order():
    rng = np.random.default_rng(0)
    x, kernel = np.asfortranarray(rng.normal(size=(6, 8)))[::2, ::-1], rng.normal(size=(5, 8)).T
    np.testing.assert_allclose(
        dense(x, kernel), np.einsum("nd,du->nu", x, kernel), rtol=0, atol=1e-12
    )
    np.testing.assert_allclose(softmax(x), scipy.special.softmax(x.copy(), axis=-1), rtol=1e-13)


X, KERNEL, BIAS = np.ones((2, 3)), np.ones((3, 4)), np.ones(4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: dense(X, KERNEL.T), r"kernel: shape \(4, 3\), but expected \(inputs = 3, units\)"),
        (lambda: dense(X, KERNEL, np.ones(3)), r"bias: shape \(3,\), but expected \(units = 4\)"),
        (
            lambda: dense(X, KERNEL, np.ones((1, 4))),
            r"bias: shape \(1, 4\), but expected \(units = 4\)",
        ),
        (
            lambda: dense(X.astype(int), KERNEL),
            r"x: shape \(2, 3\) of int64, but expected float32 or float64",
        ),
        (
            lambda: dense(X, KERNEL.astype("float16")),
            r"kernel: shape \(3, 4\) of float16, but expected float32 or float64",
        ),
        (
            lambda: dense(X * np.nan, KERNEL),
            r"x: shape \(2, 3\) with 6 values nan or infinite, the first at \(0, 0\)",
        ),
        (lambda: dense(np.ones((0, 3)), KERNEL), r"x: shape \(0, 3\) holds no number at all"),
        (lambda: dense(np.float64(1), KERNEL), r"x: shape \(\), but expected \(\.\.\., inputs\)"),
        (
            lambda: dense_backward(np.ones((4, 2)), X, KERNEL),
            r"grad: shape \(4, 2\), but expected the output's \(2, 4\)",
        ),
        (
            lambda: dense_backward(np.full((2, 4), np.nan), X, KERNEL),
            r"grad: shape \(2, 4\) with 8 values nan or infinite",
        ),
        (
            lambda: sigmoid(np.array([0, 1])),
            r"x: shape \(2,\) of int64, but expected float32 or float64",
        ),
        (
            lambda: tanh(np.array([0, np.nan])),
            r"x: shape \(2,\) with 1 values nan, the first at \(1,\), but expected numbers",
        ),
        (lambda: softplus([[1.0], [1.0, 2.0]]), r"x: rows of different lengths"),
        (lambda: relu(np.array([])), r"x: shape \(0,\) holds no number at all"),
        (
            lambda: relu_backward(np.ones(1), X),
            r"grad: shape \(1,\), but expected the output's \(2, 3\)",
        ),
        (lambda: leaky_relu(X, negative_slope="1"), r"negative_slope: '1', but expected a number"),
        (
            lambda: leaky_relu(X, negative_slope=np.inf),
            r"negative_slope: inf, but expected a finite number",
        ),
        (lambda: gelu(X.astype(int)), r"x: shape \(2, 3\) of int64"),
        (
            lambda: gelu_backward(np.ones(1), X),
            r"grad: shape \(1,\), but expected the output's \(2, 3\)",
        ),
        (
            lambda: softmax(X, axis=2),
            r"axis: 2, but expected an axis of x, whose shape is \(2, 3\)",
        ),
        (lambda: softmax(X, axis=None), r"axis: None, but expected an axis of x"),
        (lambda: softmax(np.array([[0.0, np.inf]])), r"x: shape \(1, 2\) with \+inf"),
        (
            lambda: log_softmax(np.full((2, 2), -np.inf)),
            r"x: shape \(2, 2\) with .* -inf throughout along axis -1",
        ),
        (
            lambda: softmax_backward(np.ones((3, 2)), X),
            r"grad: shape \(3, 2\), but expected the output's \(2, 3\)",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ArrayError, match=message):
        call()


def test_scores_further_apart_than_numbers_reach():
    x = np.array([3e38, -3e38], "float32")
    with np.errstate(all="raise"):
        assert softmax(x).tolist() == [1, 0]
        assert log_softmax(x).tolist() == [0, -np.inf]


def gelu_by_definition(x, approximate):
    """GELU and its gradient in float64, as the article writes them."""
    x = x.astype("float64")
    if not approximate:
        density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
        below = (1 + scipy.special.erf(x / np.sqrt(2))) / 2
        return x * below, below + x * density
    inner = np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)
    below = (1 + np.tanh(inner)) / 2
    return x * below, below + x * (1 - np.tanh(inner) ** 2) / 2 * np.sqrt(2 / np.pi) * (
        1 + 3 * 0.044715 * x**2
    )


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("dtype", TOLERANCE)
@many
@given(
    shape=st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple),
    scale=st.sampled_from([0.1, 1, 10]),
    seed=seeds,
)
def test_gelu_equals_its_definition_and_keras(dtype, approximate, shape, scale, seed):
    """Keras on TensorFlow keeps the root of 2 in float32, so float64 goes by the definition."""
    rng = np.random.default_rng(seed)
    x, grad = rng.normal(0, scale, shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    ours, gradient = (
        gelu(x, approximate=approximate),
        gelu_backward(grad, x, approximate=approximate),
    )
    assert ours.dtype == gradient.dtype == dtype and ours.shape == gradient.shape == shape
    value, slope = gelu_by_definition(x, approximate)
    np.testing.assert_allclose(ours, value, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    np.testing.assert_allclose(gradient, grad * slope, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        theirs = keras.activations.gelu(variable, approximate=approximate)
        total = tf.reduce_sum(grad * theirs)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient, tape.gradient(total, variable), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", TOLERANCE)
@many
@given(slope=st.sampled_from([0.0, 0.01, 0.2, 0.5]), seed=seeds)
def test_leaky_relu_equals_its_definition_and_keras(dtype, slope, seed):
    rng = np.random.default_rng(seed)
    x, grad = rng.normal(0, 10, (3, 4)).astype(dtype), rng.normal(size=(3, 4)).astype(dtype)
    ours, gradient = (
        leaky_relu(x, negative_slope=slope),
        leaky_relu_backward(grad, x, negative_slope=slope),
    )
    assert ours.dtype == gradient.dtype == dtype
    np.testing.assert_allclose(
        ours, np.maximum(x, 0) + slope * np.minimum(x, 0), rtol=TOLERANCE[dtype]
    )
    np.testing.assert_allclose(gradient, grad * np.where(x > 0, 1, slope), rtol=TOLERANCE[dtype])
    np.testing.assert_allclose(
        ours, keras.activations.leaky_relu(x, negative_slope=slope), rtol=1e-6
    )
    assert np.array_equal(leaky_relu(x), leaky_relu(x, negative_slope=0.2))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("approximate", [False, True])
def test_gelu_of_large_numbers(dtype, approximate):
    x = np.array([-np.inf, -np.finfo(dtype).max, -1000, 1000, np.finfo(dtype).max, np.inf], dtype)
    with np.errstate(all="raise", under="ignore"):
        assert gelu(x, approximate=approximate).tolist() == [0, 0, 0, *x[3:].tolist()]
        assert gelu_backward(np.ones_like(x), x, approximate=approximate).tolist() == [
            0,
            0,
            0,
            1,
            1,
            1,
        ]


def test_the_module_and_its_first_function_share_a_name():
    from medbook import foundations
    from medbook.foundations import dense as either

    assert np.array_equal(either(X, KERNEL, BIAS), dense(X, KERNEL, BIAS))
    assert np.array_equal(foundations.dense(X, KERNEL, bias=BIAS), dense(X, KERNEL, BIAS))
    assert either.dense is dense and either.relu is relu


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_what_overflows_on_the_way_is_done_again_in_a_wider_kind(dtype):
    top = np.array([np.finfo(dtype).max] * 3, dtype)
    with np.errstate(all="raise"):
        mean = without_overflow(lambda x: x.sum() / 3, top)
        pair_ = without_overflow(lambda x, none: (x * 2 / 4, none), top, None)
        beyond = without_overflow(lambda x: x * 2, top)
    assert (
        mean == top[0] and mean.dtype == dtype and (pair_[0] == top / 2).all() and pair_[1] is None
    )
    assert np.isinf(beyond).all() and beyond.dtype == dtype
    assert without_overflow(np.exp, np.zeros(2, dtype)).tolist() == [1, 1]
