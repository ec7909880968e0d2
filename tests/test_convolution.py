"""Chapter 2.2: the formula in loops, sizes and paddings, and what one output sees."""

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import signal as scipy_signal

from medbook.foundations import convolution as cv
from medbook.foundations import fast_convolution as fast
from medbook.foundations.arrays import ArrayError

few = settings(max_examples=30, deadline=None, derandomize=True)


@few
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_one_dimensional_sums_equal_scipy(size, taps, seed):
    rng = np.random.default_rng(seed)
    x, kernel = rng.standard_normal(size), rng.standard_normal(taps)
    assert np.allclose(cv.convolve(x, kernel), scipy_signal.convolve(x, kernel), atol=1e-12)
    assert np.allclose(
        cv.correlate(x, kernel, "full"), scipy_signal.correlate(x, kernel), atol=1e-12
    )
    if taps <= size:
        assert np.allclose(
            cv.convolve(x, kernel, "valid"), scipy_signal.convolve(x, kernel, "valid"), atol=1e-12
        )
        assert np.allclose(
            cv.convolve(x, kernel, "same"), scipy_signal.convolve(x, kernel, "same"), atol=1e-12
        )
    same = keras.ops.conv(x[None, :, None], kernel[:, None, None], padding="same")
    assert np.abs(cv.correlate(x, kernel, "same") - same[0, :, 0]).max() <= 1e-10


@pytest.mark.parametrize("taps", [2, 4, 6])
def test_same_of_an_even_kernel_is_the_middle_of_full_as_scipy_cuts_it(taps):
    x, kernel = np.arange(1.0, 8), np.arange(1.0, taps + 1)
    expected = scipy_signal.convolve(x, kernel, mode="same")
    assert np.allclose(cv.convolve(x, kernel, "same"), expected, atol=1e-12)
    assert not np.allclose(
        cv.correlate(x, kernel[::-1], "same"), expected
    )  # Keras's side of the odd zero


@few
@given(
    st.integers(1, 40),
    st.integers(1, 7),
    st.integers(1, 9),
    st.integers(1, 3),
    st.sampled_from(["valid", "same"]),
)
def test_output_size_is_keras(size, kernel, stride, dilation, padding):
    if stride > 1:
        dilation = 1
    assume(padding == "same" or dilation * (kernel - 1) < size)
    layer = keras.layers.Conv2D(1, kernel, strides=stride, padding=padding, dilation_rate=dilation)
    found = cv.output_size((size, 2 * size), kernel, stride, padding, dilation)
    assert (None, *found, 1) == layer.compute_output_shape((None, size, 2 * size, 1))
    assert cv.output_size(size, kernel, stride, padding, dilation) == found[0]


@few
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2)), min_size=1, max_size=3
    )
)
def test_receptive_field_is_where_the_output_reacts(layers):
    size, jump = cv.receptive_field(layers)
    x = np.zeros((1, 1, 200, 1))

    def seen(place):
        """The pixels that an output depends on: all-ones kernels, back from a one there."""
        shapes, y = [], x
        for kernel, stride, dilation in layers:
            shapes.append(y)
            y = fast.conv2d(
                y, np.ones((1, kernel, 1, 1)), stride=(1, stride), dilation=(1, dilation)
            )
        grad = np.zeros_like(y)
        grad[0, 0, place] = 1
        for (kernel, stride, dilation), before in zip(
            reversed(layers), reversed(shapes), strict=True
        ):
            grad = fast.conv2d_backward(
                grad, before, np.ones((1, kernel, 1, 1)), stride=(1, stride), dilation=(1, dilation)
            )[0]
        return np.flatnonzero(grad)

    assert seen(0)[0] == 0 and seen(0)[-1] == size - 1
    assert seen(1)[0] == jump


# --- refusals ---


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: cv.output_size(4, 5),
            "kernel: size 5 with dilation 1 spans 5, but expected at most 4, the size",
        ),
        (
            lambda: cv.output_size(4, 3, padding="full"),
            "padding: 'full', but expected one of 'valid', 'same'",
        ),
        (lambda: cv.output_size(4, 2.5), "kernel: 2.5, but expected an integer of at least 1"),
        (
            lambda: cv.padding_of(4, 3, padding="reflect"),
            "padding: 'reflect', but expected one of 'valid', 'same', 'full'",
        ),
        (
            lambda: cv.correlate(np.ones(3), np.ones(4)),
            "kernel: size 4 with dilation 1 spans 4, but expected at most 3, the size",
        ),
        (
            lambda: cv.convolve(np.ones(3), np.ones((2, 2))),
            "kernel: shape (2, 2), but expected (taps)",
        ),
        (
            lambda: cv.convolve([1, 2, 3], np.ones(2)),
            "signal: shape (3,) of int64, but expected float32 or float64",
        ),
        (
            lambda: cv.receptive_field([3, (3, 1, 1, 1)]),
            "layers: (3, 1, 1, 1), but expected (kernel, stride, dilation)",
        ),
        (lambda: cv.receptive_field([0]), "layers: 0, but expected an integer of at least 1"),
        (lambda: cv.receptive_field([]), "layers: [], but expected at least one layer"),
    ],
)
def test_refusals_name_the_argument_its_shape_and_what_was_expected(call, message):
    with pytest.raises(ArrayError) as error:
        call()
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("padding", [-1, 1.5, True, (1,), (1, 2, 3), (0, -1), None])
def test_a_padding_that_is_no_number_of_zeros(padding):
    for call in (
        lambda: cv.output_size(4, 3, padding=padding),
        lambda: cv.padding_of(4, 3, padding=padding),
    ):
        with pytest.raises(ArrayError, match="^padding: "):
            call()


@few
@given(
    st.integers(1, 20), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.integers(0, 6)
)
def test_a_number_of_zeros_is_put_on_both_sides(size, kernel, stride, dilation, zeros):
    if dilation * (kernel - 1) + 1 > size + 2 * zeros:
        with pytest.raises(ArrayError, match="^kernel: "):
            cv.output_size(size, kernel, stride, zeros, dilation)
        return
    assert cv.padding_of(size, kernel, stride, zeros, dilation) == (zeros, zeros)
    wide = cv.output_size(size + 2 * zeros, kernel, stride, "valid", dilation)
    assert cv.output_size(size, kernel, stride, zeros, dilation) == wide
    assert cv.output_size(size, (kernel, 1), stride, (zeros, 0), dilation)[0] == wide
