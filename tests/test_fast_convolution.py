"""Chapter 2.3: convolutions as a matrix product, and their gradients, equal the libraries'."""

import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import signal as scipy_signal

from medbook.foundations import convolution as cv
from medbook.foundations import fast_convolution as fast
from medbook.foundations.arrays import ArrayError, numerical_gradient

few = settings(max_examples=30, deadline=None, derandomize=True)
small = st.integers(1, 4)
pairs = st.tuples(small, small)


@st.composite
def problems(draw, side=11, channels=4):
    """Sizes and options of a convolution that fits:
    odd, even, one channel, strides over the kernel."""
    padding = draw(st.sampled_from(["valid", "same"]))
    size, dilation = draw(pairs), draw(st.one_of(st.just((1, 1)), pairs))
    stride = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    shape = (
        draw(st.integers(1, 3)),
        draw(st.integers(1, side)),
        draw(st.integers(1, side)),
        draw(st.integers(1, channels)),
    )
    reach = [d * (k - 1) + 1 for k, d in zip(size, dilation, strict=True)]
    assume(padding == "same" or (reach[0] <= shape[1] and reach[1] <= shape[2]))
    return (
        shape,
        (*size, shape[3], draw(small)),
        {"stride": stride, "padding": padding, "dilation": dilation},
    )


def arrays(shape, kernel_shape, dtype="float64", seed=0):
    """x, kernel and bias whose outputs are of the order of one."""
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal(kernel_shape) / np.sqrt(np.prod(kernel_shape[:-1]))
    return tuple(
        array.astype(dtype)
        for array in (rng.standard_normal(shape), kernel, rng.standard_normal(kernel_shape[-1]))
    )


def by_scipy(x, kernel, bias, *, stride, padding, dilation):
    """A convolution from SciPy's correlation alone: dilate, pad, correlate, keep every s-th."""
    (sh, sw), (dh, dw), (kh, kw) = stride, dilation, kernel.shape[:2]
    wide = np.zeros((dh * (kh - 1) + 1, dw * (kw - 1) + 1, *kernel.shape[2:]))
    wide[::dh, ::dw] = kernel
    if padding == "same":
        missing = [
            max((int(np.ceil(n / s)) - 1) * s + r - n, 0)
            for n, s, r in zip(x.shape[1:3], stride, wide.shape[:2], strict=True)
        ]
        x = np.pad(x, [(0, 0), *((m // 2, m - m // 2) for m in missing), (0, 0)])
    maps = [
        [
            sum(
                scipy_signal.correlate(image[..., c], wide[..., c, f], "valid", method="direct")
                for c in range(x.shape[3])
            )
            for f in range(kernel.shape[3])
        ]
        for image in x
    ]
    return np.moveaxis(np.array(maps), 1, 3)[:, ::sh, ::sw] + bias


def by_keras(x, kernel, bias, options):
    """Keras's convolution, which allows no stride together with a dilation."""
    return (
        keras.ops.conv(
            x,
            kernel,
            strides=options["stride"],
            padding=options["padding"],
            dilation_rate=options["dilation"],
        )
        + bias
    )


def for_keras(problem):
    """The problem without its dilation where it has a stride too."""
    shape, kernel_shape, options = problem
    return (
        shape,
        kernel_shape,
        options if max(options["stride"]) == 1 else options | {"dilation": (1, 1)},
    )


# --- forward ---


@few
@given(problems())
def test_equals_scipy_and_the_loops_in_double_precision(problem):
    shape, kernel_shape, options = problem
    x, kernel, bias = arrays(shape, kernel_shape)
    expected = by_scipy(x, kernel, bias, **options)
    y = fast.conv2d(x, kernel, bias, **options)
    assert y.dtype == np.float64 and y.shape == expected.shape
    assert np.abs(y - expected).max() <= 1e-10
    assert np.abs(fast.conv2d(x, kernel, **options) - (expected - bias)).max() <= 1e-10
    if y.size * kernel[..., 0].size < 20_000:
        assert np.abs(cv.conv2d_loops(x, kernel, bias, **options) - expected).max() <= 1e-10


@few
@given(problems())
def test_equals_keras_layer_in_single_precision_and_ops_in_double(problem):
    shape, kernel_shape, options = for_keras(problem)
    x, kernel, bias = arrays(shape, kernel_shape)
    assert (
        np.abs(fast.conv2d(x, kernel, bias, **options) - by_keras(x, kernel, bias, options)).max()
        <= 1e-10
    )
    layer = keras.layers.Conv2D(
        kernel_shape[3],
        kernel_shape[:2],
        strides=options["stride"],
        padding=options["padding"],
        dilation_rate=options["dilation"],
    )
    layer.build(shape)
    layer.set_weights([kernel.astype("float32"), bias.astype("float32")])
    y = fast.conv2d(x.astype("float32"), *layer.get_weights(), **options)
    expected = layer(x.astype("float32"))
    assert y.dtype == np.float32 and y.shape == tuple(expected.shape)
    assert np.abs(y - expected).max() <= 1e-5


def test_one_dimension_equals_keras_layer():
    x, kernel, bias = arrays((2, 31, 3), (5, 3, 4), "float32")
    for stride, padding, dilation in (
        (1, "valid", 1),
        (3, "same", 1),
        (7, "valid", 1),
        (1, "same", 2),
    ):
        layer = keras.layers.Conv1D(4, 5, strides=stride, padding=padding, dilation_rate=dilation)
        layer.build(x.shape)
        layer.set_weights([kernel, bias])
        y = fast.conv1d(x, kernel, bias, stride=stride, padding=padding, dilation=dilation)
        assert y.shape == layer(x).shape and np.abs(y - layer(x)).max() <= 1e-5


# --- backward ---


@few
@given(problems(side=6, channels=2))
def test_gradients_equal_finite_differences_for_every_argument(problem):
    shape, kernel_shape, options = problem
    x, kernel, bias = arrays(shape, kernel_shape)
    grad = np.random.default_rng(1).standard_normal(fast.conv2d(x, kernel, bias, **options).shape)
    found = fast.conv2d_backward(grad, x, kernel, bias, **options)
    for place, array in enumerate((x, kernel, bias)):

        def error(moved, place=place):
            arguments = [x, kernel, bias]
            arguments[place] = moved
            return np.sum(grad * fast.conv2d(*arguments, **options))

        assert found[place].shape == array.shape
        assert np.abs(found[place] - numerical_gradient(error, array)).max() <= 1e-6


@few
@given(problems())
def test_gradients_equal_tensorflow_in_both_precisions(problem):
    shape, kernel_shape, options = for_keras(problem)
    for dtype, tolerance in (("float64", 1e-10), ("float32", 1e-5)):
        variables = [tf.Variable(array) for array in arrays(shape, kernel_shape, dtype)]
        with tf.GradientTape() as tape:
            y = by_keras(*variables, options)
            grad = np.random.default_rng(1).standard_normal(y.shape).astype(dtype) / np.sqrt(
                np.prod(y.shape[:3])
            )
            error = keras.ops.sum(grad * y)
        found = fast.conv2d_backward(grad, *(v.numpy() for v in variables), **options)
        for ours, theirs in zip(found, tape.gradient(error, variables), strict=True):
            assert ours.dtype == dtype and np.abs(ours - theirs).max() <= tolerance


def test_gradients_along_time_equal_finite_differences():
    x, kernel, bias = arrays((2, 12, 2), (3, 2, 3))
    options = {"stride": 2, "padding": "same", "dilation": 2}
    grad = np.random.default_rng(1).standard_normal(fast.conv1d(x, kernel, bias, **options).shape)
    dx, dkernel, dbias = fast.conv1d_backward(grad, x, kernel, bias, **options)
    for found, array, error in (
        (dx, x, lambda x: np.sum(grad * fast.conv1d(x, kernel, bias, **options))),
        (dkernel, kernel, lambda kernel: np.sum(grad * fast.conv1d(x, kernel, bias, **options))),
        (dbias, bias, lambda bias: np.sum(grad * fast.conv1d(x, kernel, bias, **options))),
    ):
        assert (
            found.shape == array.shape
            and np.abs(found - numerical_gradient(error, array)).max() <= 1e-6
        )


def test_backward_leaves_out_what_is_not_wanted():
    x, kernel, bias = arrays((2, 6, 5, 2), (3, 2, 2, 3))
    grad = np.ones((2, 4, 4, 3))
    dx, dkernel, dbias = fast.conv2d_backward(grad, x, kernel, bias)
    assert fast.conv2d_backward(grad, x, kernel)[2] is None
    skipped, same_kernel, same_bias = fast.conv2d_backward(grad, x, kernel, bias, needs_x=False)
    assert (
        skipped is None
        and np.array_equal(same_kernel, dkernel)
        and np.array_equal(same_bias, dbias)
    )
    assert dx.any()


# --- what must hold of any convolution ---


@few
@given(st.integers(-4, 4), st.integers(-4, 4), st.integers(0, 99))
def test_moving_the_image_moves_the_map(down, right, seed):
    x, kernel, _ = arrays((1, 20, 20, 2), (3, 3, 2, 2), seed=seed)
    x[:, :6], x[:, -6:], x[:, :, :6], x[:, :, -6:] = 0, 0, 0, 0  # nothing is pushed over the border
    moved = fast.conv2d(np.roll(x, (down, right), (1, 2)), kernel, padding="same")
    assert np.allclose(
        moved, np.roll(fast.conv2d(x, kernel, padding="same"), (down, right), (1, 2)), atol=1e-12
    )


@few
@given(problems(), st.floats(-3, 3))
def test_linear_in_image_and_in_kernel(problem, factor):
    shape, kernel_shape, options = problem
    x, kernel, _ = arrays(shape, kernel_shape)
    other, other_kernel, _ = arrays(shape, kernel_shape, seed=1)
    y = fast.conv2d(x, kernel, **options)
    assert np.allclose(
        fast.conv2d(x + factor * other, kernel, **options),
        y + factor * fast.conv2d(other, kernel, **options),
        atol=1e-10,
    )
    moved = fast.conv2d(x, kernel + factor * other_kernel, **options)
    assert np.allclose(moved, y + factor * fast.conv2d(x, other_kernel, **options), atol=1e-10)


def test_nothing_given_is_changed():
    given_arrays = arrays((2, 7, 6, 1), (3, 3, 1, 2))
    grad = np.ones((2, 7, 6, 2))
    kept = [array.copy() for array in (*given_arrays, grad)]
    fast.conv2d(*given_arrays, padding="same")
    fast.conv2d_backward(grad, *given_arrays, padding="same")
    assert all(
        np.array_equal(array, copy) for array, copy in zip((*given_arrays, grad), kept, strict=True)
    )


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, ::-1],
        lambda x: x[:, :, ::2],
        lambda x: x.transpose(0, 2, 1, 3),
        np.asfortranarray,
    ],
)
def test_arrays_that_do_not_lie_in_one_piece(view):
    x, kernel, bias = arrays((2, 9, 8, 3), (2, 3, 3, 4))
    for size in ((2, 3), (1, 1)):
        used = kernel[: size[0], : size[1]]
        for ours in (
            fast.conv2d(view(x), used, bias),
            fast.conv2d(view(x), np.asfortranarray(used), bias[::-1][::-1]),
        ):
            assert np.allclose(
                ours,
                by_scipy(view(x), used, bias, stride=(1, 1), padding="valid", dilation=(1, 1)),
                atol=1e-12,
            )


@pytest.mark.parametrize("limit", [1, 700, 5000, 1 << 20])
@pytest.mark.parametrize("options", [{}, {"padding": "same", "stride": (2, 1)}, {"dilation": 2}])
def test_the_result_does_not_depend_on_how_it_is_cut_into_blocks(limit, options, monkeypatch):
    x, kernel, bias = arrays((3, 11, 10, 2), (3, 3, 2, 4))
    whole = fast.conv2d(x, kernel, bias, **options)
    gradients = fast.conv2d_backward(whole, x, kernel, bias, **options)
    monkeypatch.setattr(fast, "BLOCK_BYTES", limit)
    assert np.allclose(fast.conv2d(x, kernel, bias, **options), whole, atol=1e-12)
    for ours, theirs in zip(
        fast.conv2d_backward(whole, x, kernel, bias, **options), gradients, strict=True
    ):
        assert np.allclose(ours, theirs, atol=1e-10)


def test_im2col_holds_the_windows_in_the_kernels_order():
    x, kernel, _ = arrays((2, 6, 7, 3), (3, 2, 3, 4))
    columns = fast.im2col(x, (3, 2), stride=(1, 2))
    assert columns.shape == (2 * 4 * 3, 18)
    assert np.array_equal(
        columns[1 * 12 + 2 * 3 + 1], x[1, 2:5, 2:4].ravel()
    )  # image 1, output row 2, column 1
    assert np.allclose(
        (columns @ kernel.reshape(18, 4)).reshape(2, 4, 3, 4),
        fast.conv2d(x, kernel, stride=(1, 2)),
        atol=1e-12,
    )


# --- memory ---


def peak_beyond(result_bytes, call):
    """Bytes that a call held at its worst, beyond its results."""
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak - result_bytes


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_memory_stays_bounded_for_a_large_image(padding):
    x = np.ones((1, 1024, 1024, 4), "float32")
    kernel, bias = np.ones((5, 5, 4, 2), "float32"), np.zeros(2, "float32")
    side = cv.output_size(1024, 5, padding=padding)
    grad = np.ones((1, side, side, 2), "float32")
    whole_matrix, frame = side**2 * 100 * 4, 1.02 * x.nbytes
    assert whole_matrix > 400e6
    padded = 0 if padding == "valid" else frame
    assert (
        peak_beyond(grad.nbytes + padded, lambda: fast.conv2d(x, kernel, bias, padding=padding))
        < 8e6
    )
    assert (
        peak_beyond(
            frame + 2 * padded, lambda: fast.conv2d_backward(grad, x, kernel, bias, padding=padding)
        )
        < 12e6
    )


def test_memory_stays_bounded_for_a_kernel_as_wide_as_the_block():
    x, kernel = np.ones((1, 40, 1024, 64), "float32"), np.ones((11, 11, 64, 1), "float32")
    assert (
        peak_beyond(30 * 1014 * 4, lambda: fast.conv2d(x, kernel)) < 8e6
    )  # one row of patches alone is 31 MB


# --- refusals ---

X, KERNEL, BIAS = arrays((2, 5, 4, 3), (3, 3, 3, 2))


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: fast.conv2d(X[0], KERNEL),
            "x: shape (5, 4, 3), but expected (batch, height, width, channels)",
        ),
        (lambda: fast.conv2d(X[:0], KERNEL), "x: shape (0, 5, 4, 3) holds no number at all"),
        (
            lambda: fast.conv2d(X.astype("int16"), KERNEL),
            "x: shape (2, 5, 4, 3) of int16, but expected float32 or float64",
        ),
        (lambda: fast.conv2d(np.where(X > 2, np.nan, X), KERNEL), "x: shape (2, 5, 4, 3) with"),
        (
            lambda: fast.conv2d(X, KERNEL[:, :, :2]),
            "kernel: shape (3, 3, 2, 2), but expected (kernel_height, kernel_width, "
            "channels = 3, filters)",
        ),
        (lambda: fast.conv2d(X, KERNEL, BIAS[:1]), "bias: shape (1,), but expected (filters = 2)"),
        (
            lambda: fast.conv2d(X, KERNEL, np.array([1, 2])),
            "bias: shape (2,) of int64, but expected float32 or float64",
        ),
        (
            lambda: fast.conv2d(X, KERNEL, stride=0),
            "stride: 0, but expected an integer of at least 1",
        ),
        (
            lambda: fast.conv2d(X, KERNEL, dilation=(1, 2, 3)),
            "dilation: (1, 2, 3), but expected an integer or two",
        ),
        (
            lambda: fast.conv2d(X, KERNEL, padding="full"),
            "padding: 'full', but expected one of 'valid', 'same'",
        ),
        (
            lambda: fast.conv2d(X, KERNEL, dilation=2),
            "kernel: shape (3, 3, 3, 2) with dilation (2, 2) spans 5 × 5 pixels, "
            "but expected at most 5 × 4, the image",
        ),
        (
            lambda: fast.im2col(X, (6, 1)),
            "size: (6, 1) with dilation (1, 1) spans 6 × 1 pixels, "
            "but expected at most 5 × 4, the image",
        ),
        (
            lambda: fast.conv1d(X, KERNEL[0]),
            "x: shape (2, 5, 4, 3), but expected (batch, time, channels)",
        ),
        (
            lambda: fast.conv1d(X[0], KERNEL),
            "kernel: shape (3, 3, 3, 2), but expected (taps, channels = 3, filters)",
        ),
        (
            lambda: fast.conv2d_backward(np.ones((2, 3, 2, 1)), X, KERNEL),
            "grad: shape (2, 3, 2, 1), but expected (batch = 2, rows = 3, columns = 2, "
            "filters = 2)",
        ),
        (
            lambda: fast.conv1d_backward(np.ones((2, 3)), X[0], KERNEL[0]),
            "grad: shape (2, 3), but expected (batch = ",
        ),
        (
            lambda: fast.conv1d(X[0], np.ones((9, 3, 2))),
            "kernel: size 9 with dilation 1 spans 9, but expected at most ",
        ),
    ],
)
def test_refusals_name_the_argument_its_shape_and_what_was_expected(call, message):
    with pytest.raises(ArrayError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_padding_that_is_no_word():
    with pytest.raises(ArrayError, match="^padding: .*expected 'valid', 'same'"):
        fast.conv2d(X, KERNEL, padding=np.array(["valid", "same"]))


@pytest.mark.parametrize("x_shape", [(2, 3, 8, 8), (1, 3, 5, 3 + 1)])
def test_channels_in_front_are_named_as_such(x_shape):
    kernel = np.ones((3, 3, 3, 2))
    with pytest.raises(ArrayError, match=r"^x: .*channels in front.*np.moveaxis\(x, 1, -1\)"):
        fast.conv2d(np.ones(x_shape), kernel)
    assert fast.conv2d(np.moveaxis(np.ones(x_shape), 1, -1), kernel).shape[3] == 2


@few
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 3),
)
def test_numbers_of_zeros_equal_pytorch_forward_and_backward(
    height, width, taps, rows, columns, stride
):
    torch = pytest.importorskip("torch")
    assume(taps <= height + 2 * rows and taps <= width + 2 * columns)
    x, kernel, bias = arrays((2, height, width, 3), (taps, taps, 3, 2))
    image, weights, shift = (
        torch.tensor(array, requires_grad=True)
        for array in (np.moveaxis(x, 3, 1).copy(), np.moveaxis(kernel, (3, 2), (0, 1)).copy(), bias)
    )
    theirs = torch.nn.functional.conv2d(
        image, weights, shift, stride=stride, padding=(rows, columns)
    )
    options = {"stride": stride, "padding": (rows, columns)}
    ours = fast.conv2d(x, kernel, bias, **options)
    np.testing.assert_allclose(ours, np.moveaxis(theirs.detach().numpy(), 1, 3), atol=1e-10)
    np.testing.assert_allclose(cv.conv2d_loops(x, kernel, bias, **options), ours, atol=1e-10)
    grad = np.cos(np.arange(ours.size)).reshape(ours.shape)
    (theirs * torch.tensor(np.moveaxis(grad, 3, 1).copy())).sum().backward()
    dx, dkernel, dbias = fast.conv2d_backward(grad, x, kernel, bias, **options)
    np.testing.assert_allclose(dx, np.moveaxis(image.grad.numpy(), 1, 3), atol=1e-10)
    np.testing.assert_allclose(
        dkernel, np.moveaxis(weights.grad.numpy(), (0, 1), (3, 2)), atol=1e-9
    )
    np.testing.assert_allclose(dbias, shift.grad.numpy(), atol=1e-10)


def test_zeros_along_time():
    x, kernel = np.ones((1, 5, 2)), np.ones((3, 2, 1))
    padded = np.pad(x, ((0, 0), (2, 2), (0, 0)))
    np.testing.assert_allclose(fast.conv1d(x, kernel, padding=2), fast.conv1d(padded, kernel))
    dx, _, _ = fast.conv1d_backward(np.ones((1, 7, 1)), x, kernel, padding=2)
    assert dx.shape == x.shape
