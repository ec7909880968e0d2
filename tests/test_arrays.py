"""Chapter 2.1: what comes in is named, and gradients are those of calculus."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from medbook.foundations.arrays import (
    ArrayError,
    as_floats,
    as_integers,
    as_mask,
    generator,
    number,
    numerical_gradient,
    one_of,
    pair,
    positive,
)

AXES = "batch height width channels"
GOOD = np.zeros((2, 5, 5, 3), "float32")


def test_a_good_array_is_handed_back_itself():
    assert as_floats("x", GOOD, AXES, channels=3) is GOOD
    assert as_floats("x", GOOD, "... width channels", channels=3) is GOOD
    assert as_floats("x", [0.5, 1.0], "n").dtype == np.float64


@pytest.mark.parametrize(
    "value, words",
    [
        (GOOD[0], ["(5, 5, 3)", "(batch, height, width, channels = 3)"]),
        (GOOD[..., :2], ["(2, 5, 5, 2)", "channels = 3"]),
        (GOOD[:0], ["(0, 5, 5, 3)", "no number"]),
        (GOOD.astype("uint8"), ["uint8", "float32 or float64", "overflow"]),
        (GOOD.astype("float16"), ["float16"]),
        (GOOD.astype("complex64"), ["complex64"]),
        (np.where(np.arange(3) == 1, np.nan, GOOD), ["50 values", "nan", "(0, 0, 0, 1)"]),
        (np.where(np.arange(3) == 2, np.inf, GOOD), ["infinite", "(0, 0, 0, 2)"]),
        ([[1.0], [1.0, 2.0]], ["different lengths"]),
        (np.ma.masked_array(GOOD, GOOD == 0), ["masked", "filled"]),
        ("picture", ["()"]),
        (None, ["()"]),
    ],
)
def test_a_bad_array_is_told_in_one_line(value, words):
    with pytest.raises(ArrayError) as told:
        as_floats("image", value, AXES, channels=3)
    message = str(told.value)
    assert (
        message.startswith("image: ")
        and "\n" not in message
        and all(word in message for word in words)
    )


@pytest.mark.parametrize("name", ["float32", "float64"])
def test_a_sum_that_overflows_is_no_fault(name):
    big = np.full(10, np.finfo(name).max / 2, name)
    assert as_floats("x", big, "n") is big
    with pytest.raises(ArrayError, match="infinite"):
        as_floats("x", np.append(big, np.inf).astype(name), "n")
    cancelling = np.array([np.inf, -np.inf], name)
    assert as_floats("x", cancelling, "n", finite=False) is cancelling
    with pytest.raises(ArrayError, match="nan"):
        as_floats("x", np.append(cancelling, np.nan).astype(name), "n", finite=False)


def test_labels_and_masks():
    assert as_integers("labels", [0, 1], "batch", high=2).dtype == np.int64
    for bad in ([0.0, 1.0], [0, 2], [-1, 0], [[0]], [True, False]):
        with pytest.raises(ArrayError, match="^labels: .*expected"):
            as_integers("labels", bad, "batch", high=2)
    assert as_mask("mask", [True, False], "time").dtype == bool
    for bad in ([0, 1], [[True]], [[True], [True, False]]):
        with pytest.raises(ArrayError, match="^mask: .*expected"):
            as_mask("mask", bad, "time")


def test_sizes_and_choices():
    assert positive("size", np.int32(3)) == 3 and pair("stride", [1, 2]) == (1, 2)
    assert one_of("padding", "same", ("valid", "same")) == "same"
    for bad in (0, -1, 1.0, "2", True, None):
        with pytest.raises(ArrayError, match="^size: .*expected"):
            positive("size", bad)
    for bad in ((1,), (1, 2, 3), (1, 0), 1.5):
        with pytest.raises(ArrayError, match="^stride: .*expected"):
            pair("stride", bad)
    with pytest.raises(ArrayError, match="^padding: 'full', but expected one of 'valid', 'same'"):
        one_of("padding", "full", ("valid", "same"))


@settings(max_examples=30, deadline=None)
@given(
    arrays("float64", array_shapes(max_dims=3, max_side=4), elements=st.floats(-3, 3)),
    st.integers(0, 2**32 - 1),
)
def test_gradients_are_those_of_calculus(array, seed):
    weights = np.random.default_rng(seed).normal(size=array.shape)
    before = array.copy()
    found = numerical_gradient(lambda x: np.sum(weights * np.sin(x) * x), array)
    assert found == pytest.approx(weights * (np.cos(array) * array + np.sin(array)), abs=1e-8)
    assert (array == before).all()


def test_gradients_of_what_has_none():
    with pytest.raises(ArrayError, match="float32"):
        numerical_gradient(np.sum, GOOD)
    with pytest.raises(ArrayError, match=r"function: gave shape \(3,\)"):
        numerical_gradient(lambda x: x, np.ones(3))
    for value in (None, "gradient", 1j):
        with pytest.raises(ArrayError, match="^function: gave .*expected one real number"):
            numerical_gradient(lambda x, value=value: value, np.ones(3))
    for step in (0, -1e-6, np.nan, np.inf):
        with pytest.raises(ArrayError, match="^step: .*expected a positive number"):
            numerical_gradient(np.sum, np.ones(3), step=step)


@pytest.mark.parametrize("size", [1e-8, 1, 1e4, 1e8, 1e12])
def test_gradients_at_numbers_of_any_size(size):
    assert numerical_gradient(
        lambda w: float(w.sum()), np.array([float(size), -size])
    ) == pytest.approx([1, 1], rel=1e-4)
    assert numerical_gradient(
        lambda w: float((w**2).sum()), np.array([float(size)])
    ) == pytest.approx(2 * size, rel=1e-6, abs=1e-8)


def test_big_endian_numbers_are_turned_round():
    turned = as_floats("x", np.array([1.5, 2], ">f4"), "n")
    assert turned.dtype == np.float32 and turned.tolist() == [1.5, 2]


def test_messages_stay_in_one_line():
    words = np.array(["valid", "same"])
    square = np.ones((3, 3))
    for check, *arguments in (
        (pair, "stride", square),
        (positive, "size", square),
        (one_of, "padding", words, ("valid",)),
    ):
        with pytest.raises(ArrayError) as told:
            check(*arguments)
        assert "\n" not in str(told.value)


def test_other_programs_tensors_are_taken_or_named():
    torch = pytest.importorskip("torch")
    np.testing.assert_array_equal(as_floats("x", torch.ones(2, 3), "batch units"), np.ones((2, 3)))
    with pytest.raises(ArrayError, match=r"^x: a torch.Tensor .*\.detach\(\)\.cpu\(\)\.numpy\(\)"):
        as_floats("x", torch.ones(2, 3, requires_grad=True), "batch units")
    keras = pytest.importorskip("keras")
    with pytest.raises(ArrayError, match="^x: a keras.KerasTensor that NumPy cannot read"):
        as_floats("x", keras.Input((3,)), "batch units")


@pytest.mark.parametrize(
    "value", ["word", None, {"a": 1}, object(), [[1.0], [2.0, 3.0]], b"bytes", 1j * np.ones((1, 1))]
)
def test_what_is_no_array_is_named(value):
    with pytest.raises(ArrayError, match="^x: .*but expected"):
        as_floats("x", value, "batch units")


def test_a_hint_leads_to_what_is_wanted():
    with pytest.raises(
        ArrayError, match=r"expected float64; convert it, as in array.astype\('float64'\)"
    ):
        numerical_gradient(np.sum, np.arange(3))
    assert numerical_gradient(np.sum, np.arange(3).astype("float64")).tolist() == pytest.approx(
        [1, 1, 1]
    )


@pytest.mark.parametrize("value", [True, "1", None, np.nan, np.inf, -1, 1, [0.5]])
def test_numbers_have_limits(value):
    with pytest.raises(ArrayError, match="^rate: .*expected a number from 0 to below 1"):
        number("rate", value, low=0, high=1, open_high=True)
    assert number("rate", np.float32(0), low=0, high=1, open_high=True) == 0


@pytest.mark.parametrize("seed", ["a", -1, 1.5, [0.5]])
def test_seeds_are_integers(seed):
    with pytest.raises(ArrayError, match="^seed: "):
        generator("seed", seed)
    assert generator("seed", (1, 2)).random() == generator("seed", (1, 2)).random()
