"""Chapter 2.4: depthwise, grouped and transposed convolution equal Keras and PyTorch, both ways."""

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from medbook.foundations import transposed as tr
from medbook.foundations.arrays import ArrayError, numerical_gradient
from medbook.foundations.fast_convolution import conv2d

few = settings(max_examples=30, deadline=None, derandomize=True)
sides = st.integers(1, 8)
taps = st.tuples(st.integers(1, 4), st.integers(1, 4))
strides = st.tuples(st.integers(1, 3), st.integers(1, 3))
words = st.sampled_from(["valid", "same"])


def drawn(*shapes, seed=0, dtype="float64"):
    """Random arrays of these shapes."""
    rng = np.random.default_rng(seed)
    return [rng.normal(size=shape).astype(dtype) for shape in shapes]


def differences(function, arguments, place):
    """The gradient of a function's sum, weighted as `weights` says, for one of its arguments."""

    def error(value):
        y = function(*arguments[:place], value, *arguments[place + 1 :])
        return np.sum(weights(y) * y)

    return numerical_gradient(error, arguments[place])


def weights(y):
    """Fixed weights for the entries of an output."""
    return np.cos(np.arange(y.size)).reshape(y.shape)


def check_gradients(function, backward, arguments):
    """Every gradient of `backward` equals central differences of `function`."""
    grad = weights(function(*arguments))
    for place, gradient in enumerate(backward(grad, *arguments)):
        expected = differences(function, arguments, place)
        np.testing.assert_allclose(gradient, expected, atol=1e-6)


# --- depthwise ---


@few
@given(
    sides, sides, taps, strides, words, st.integers(1, 3), st.sampled_from(["float32", "float64"])
)
def test_depthwise_equals_keras(height, width, size, stride, padding, multiplier, dtype):
    assume(padding == "same" or (size[0] <= height and size[1] <= width))
    stride = (stride[0], stride[0])  # TensorFlow takes equal strides alone
    x, kernel = drawn((2, height, width, 3), (*size, 3, multiplier), dtype=dtype)
    y = tr.depthwise_conv2d(x, kernel, stride=stride, padding=padding)
    theirs = keras.ops.depthwise_conv(x, kernel, strides=stride, padding=padding)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, theirs, atol={"float32": 1e-5, "float64": 1e-10}[dtype])


@few
@given(taps, strides, st.tuples(st.integers(1, 2), st.integers(1, 2)), st.integers(0, 2))
def test_depthwise_gradients_equal_differences(size, stride, dilation, zeros):
    options = {"stride": stride, "padding": zeros, "dilation": dilation}
    reach = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    assume(max(reach) <= 5 + 2 * zeros)
    arguments = drawn((2, 5, 6, 2), (*size, 2, 2), (4,))
    check_gradients(
        lambda *a: tr.depthwise_conv2d(*a, **options),
        lambda grad, *a: tr.depthwise_conv2d_backward(grad, *a, **options),
        arguments,
    )


# --- groups ---


@few
@given(sides, sides, taps, st.integers(1, 3), words, st.sampled_from([1, 2, 3, 6]))
def test_groups_equal_pytorch_and_keras(height, width, size, stride, padding, groups):
    torch = pytest.importorskip("torch")
    assume(padding == "same" or (size[0] <= height and size[1] <= width))
    x, kernel, bias = drawn((2, height, width, 6), (*size, 6 // groups, 12), (12,))
    options = {"groups": groups, "stride": stride, "padding": padding}
    y = tr.grouped_conv2d(x, kernel, bias, **options)
    theirs = keras.ops.conv(x, kernel, strides=stride, padding=padding) + bias
    np.testing.assert_allclose(y, theirs, atol=1e-10)
    if padding == "same":
        return
    image, weight, shift = (
        torch.tensor(array.copy(), requires_grad=True)
        for array in (np.moveaxis(x, 3, 1), np.moveaxis(kernel, (3, 2), (0, 1)), bias)
    )
    found = torch.nn.functional.conv2d(image, weight, shift, stride=stride, groups=groups)
    np.testing.assert_allclose(y, np.moveaxis(found.detach().numpy(), 1, 3), atol=1e-10)
    grad = weights(y)
    (found * torch.tensor(np.moveaxis(grad, 3, 1).copy())).sum().backward()
    dx, dkernel, dbias = tr.grouped_conv2d_backward(grad, x, kernel, bias, **options)
    np.testing.assert_allclose(dx, np.moveaxis(image.grad.numpy(), 1, 3), atol=1e-10)
    expected = np.moveaxis(weight.grad.numpy(), (0, 1), (3, 2))
    np.testing.assert_allclose(dkernel, expected, atol=1e-9)
    np.testing.assert_allclose(dbias, shift.grad.numpy(), atol=1e-10)


def test_one_group_is_the_full_convolution_and_all_are_the_depthwise_one():
    x, full, single = drawn((2, 6, 5, 4), (3, 3, 4, 8), (3, 3, 4, 2))
    np.testing.assert_array_equal(tr.grouped_conv2d(x, full), conv2d(x, full))
    as_groups = single.reshape(3, 3, 1, 8)
    np.testing.assert_allclose(
        tr.grouped_conv2d(x, as_groups, groups=4), tr.depthwise_conv2d(x, single), atol=1e-12
    )


# --- transposed ---


@few
@given(sides, sides, taps, strides, words, st.sampled_from(["float32", "float64"]))
def test_transposed_equals_keras(height, width, size, stride, padding, dtype):
    x, kernel = drawn((2, height, width, 3), (*size, 2, 3), dtype=dtype)
    y = tr.conv2d_transpose(x, kernel, stride=stride, padding=padding)
    theirs = keras.ops.conv_transpose(x, kernel, strides=stride, padding=padding)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, theirs, atol={"float32": 1e-5, "float64": 1e-10}[dtype])


@few
@given(sides, sides, taps, strides, words)
def test_transposed_is_the_transpose_and_its_gradients_equal_differences(
    height, width, size, stride, padding
):
    assume(height * width < 20)
    options = {"stride": stride, "padding": padding}
    arguments = drawn((1, height, width, 3), (*size, 2, 3), (2,))
    x, kernel, _ = arguments
    large = weights(tr.conv2d_transpose(x, kernel, **options))
    there = np.sum(conv2d(large, kernel, **options) * x)
    back = np.sum(large * tr.conv2d_transpose(x, kernel, **options))
    assert np.isclose(there, back, atol=1e-10)
    check_gradients(
        lambda *a: tr.conv2d_transpose(*a, **options),
        lambda grad, *a: tr.conv2d_transpose_backward(grad, *a, **options),
        arguments,
    )


# --- refusals ---

X = np.ones((2, 6, 5, 4))


@pytest.mark.parametrize(
    "call, said",
    [
        (lambda: tr.depthwise_conv2d(X[0], np.ones((3, 3, 4, 1))), "^x: shape"),
        (lambda: tr.depthwise_conv2d(X, np.ones((3, 3, 2, 1))), "^kernel: .*channels = 4"),
        (lambda: tr.depthwise_conv2d(X, np.ones((7, 3, 4, 1))), "^kernel: .*spans 7 × 3"),
        (lambda: tr.depthwise_conv2d(X, np.ones((3, 3, 4, 2)), np.ones(4)), "^bias: .*maps = 8"),
        (lambda: tr.depthwise_conv2d(X, np.ones((3, 3, 4, 1)), padding="full"), "^padding: "),
        (lambda: tr.depthwise_conv2d(X, np.ones((3, 3, 4, 1)), stride=0), "^stride: "),
        (
            lambda: tr.depthwise_conv2d(np.moveaxis(X, 3, 1), np.ones((3, 3, 4, 1))),
            "^x: .*channels in front",
        ),
        (
            lambda: tr.depthwise_conv2d_backward(np.ones((2, 4, 3, 1)), X, np.ones((3, 3, 4, 1))),
            "^grad: .*maps = 4",
        ),
        (lambda: tr.grouped_conv2d(X, np.ones((3, 3, 2, 3)), groups=2), "^groups: 2"),
        (lambda: tr.grouped_conv2d(X, np.ones((3, 3, 4, 4)), groups=2), "group_channels = 2"),
        (lambda: tr.grouped_conv2d(X, np.ones((3, 3, 2, 4)), groups=0), "^groups: 0"),
        (
            lambda: tr.grouped_conv2d(X, np.ones((3, 3, 2, 4)), np.ones(3), groups=2),
            "^bias: .*filters = 4",
        ),
        (
            lambda: tr.grouped_conv2d_backward(
                np.ones((2, 4, 3, 2)), X, np.ones((3, 3, 2, 4)), groups=2
            ),
            "^grad: .*filters = 4",
        ),
        (lambda: tr.conv2d_transpose(X, np.ones((3, 3, 4, 2))), "^kernel: .*channels = 4"),
        (lambda: tr.conv2d_transpose(X, np.ones((3, 3, 2, 4)), padding=1), "^padding: 1"),
        (lambda: tr.conv2d_transpose(X, np.ones((3, 3, 2, 4)), np.ones(4)), "^bias: .*filters = 2"),
        (lambda: tr.conv2d_transpose(X.astype(int), np.ones((3, 3, 2, 4))), "^x: .*int64"),
        (
            lambda: tr.conv2d_transpose(np.moveaxis(X, 3, 1), np.ones((3, 3, 2, 4))),
            "^x: .*channels in front",
        ),
        (
            lambda: tr.conv2d_transpose_backward(np.ones((2, 8, 7, 1)), X, np.ones((3, 3, 2, 4))),
            "^grad: .*filters = 2",
        ),
    ],
)
def test_refusals_name_the_argument(call, said):
    with pytest.raises(ArrayError, match=said) as error:
        call()
    assert "\n" not in str(error.value)


def test_nothing_given_is_changed():
    x, kernel, bias = drawn((2, 6, 5, 4), (3, 3, 4, 2), (8,))
    copies = [array.copy() for array in (x, kernel, bias)]
    y = tr.depthwise_conv2d(x, kernel, bias, padding="same")
    tr.depthwise_conv2d_backward(y, x, kernel, bias, padding="same")
    for array, copy in zip((x, kernel, bias), copies, strict=True):
        np.testing.assert_array_equal(array, copy)
