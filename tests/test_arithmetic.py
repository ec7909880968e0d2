"""The arithmetic of one number, worked by hand, and where windows stand."""

import keras
import numpy as np
import pytest
from keras import layers

from medbook.inspection.arithmetic import (
    FORMULAS,
    activation_steps,
    draw_pixel,
    explain_convolution,
    explain_dense,
    explain_pooling,
    explain_softmax,
    patch_at,
    tap_places,
    weight,
)
from medbook.inspection.feature_maps import feature_maps
from medbook.inspection.pixel import explain_pixel


def small(**options):
    """A small image network with the names first, pool, second, flat, dense."""
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [
            keras.Input((12, 10, 2)),
            layers.Conv2D(4, 3, padding="same", name="first", activation="relu", **options),
            layers.MaxPooling2D(name="pool"),
            layers.Conv2D(3, 3, name="second"),
            layers.Flatten(name="flat"),
            layers.Dense(2, activation="softmax", name="dense"),
        ]
    )


def picture(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_steps_and_boxes_of_a_convolution_worked_by_hand():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(1, 2, activation="relu", name="conv")]
    )
    model.set_weights([np.array([[1.0, -1], [2, 0]])[..., None, None], np.array([0.5])])
    image = np.arange(16.0, dtype="float32").reshape(1, 4, 4, 1)
    found = explain_pixel(model, image, "conv", (1, 2, 0)).to_dict()
    assert [number for _, number in found["steps"]] == [6 - 7 + 20, 0.5, 19.5, 19.5]
    assert [table["values"] for table in found["tables"]] == [
        [[6, 7], [10, 11]],
        [[1, -1], [2, 0]],
        [[6, -7], [20, 0]],
    ]
    assert found["patch_box"] == found["field_box"] == [[1, 3], [2, 4]]
    assert found["agrees"] and found["title"] == "conv, map 0, pixel (1, 2)"


def test_the_strongest_channel_is_shown_and_all_are_summed():
    model, image = small(), picture(1, 12, 10, 2)
    found = explain_pixel(model, image, "second", (1, 1, 2))
    patch = feature_maps(model, image, "pool")["pool"][0, 1:4, 1:4].astype(float)
    by_channel = (patch * weight(model.get_layer("second"), "kernel")[..., 2]).sum(axis=(0, 1))
    best = int(np.abs(by_channel).argmax())
    assert found.note.startswith(f"channel {best} of 4 shown")
    np.testing.assert_array_equal(found.tables[0][1], patch[..., best])
    assert found.steps[0][1] == pytest.approx(by_channel[best]) and found.steps[2][
        1
    ] == pytest.approx(by_channel.sum())


def test_one_other_channel_is_singular():
    found = explain_pixel(small(), picture(1, 12, 10, 2), "first", (3, 3, 0))
    assert found.steps[1][0] == "1 other channel"


@pytest.mark.parametrize("padding", ["valid", "same", "causal"])
def test_taps_stand_where_the_layer_reads(padding):
    rng = np.random.default_rng(0)
    for _ in range(10):
        size, stride, dilation = (
            int(rng.integers(1, 5)),
            int(rng.integers(1, 4)),
            int(rng.integers(1, 3)),
        )
        if stride > 1:
            dilation = 1
        layer = layers.Conv1D(
            1,
            size,
            strides=stride,
            padding=padding,
            dilation_rate=dilation,
            use_bias=False,
            kernel_initializer="ones",
        )
        signal = rng.normal(size=(1, 17, 1)).astype("float32")
        for index, value in enumerate(keras.ops.convert_to_numpy(layer(signal))[0, :, 0]):
            places = tap_places((17,), (index,), (size,), (stride,), padding, (dilation,))
            assert patch_at(signal[0], places).sum() == pytest.approx(value, abs=1e-5)


def test_a_pooling_a_dense_unit_and_a_softmax_by_hand():
    values = np.arange(16.0).reshape(4, 4, 1)
    found = explain_pooling(layers.MaxPooling2D(2), [values], (1, 0, 0))
    assert (
        found.total == 13
        and found.note == "found at (3, 1)"
        and found.patch_box == ((2, 4), (0, 2))
    )
    assert explain_pooling(layers.GlobalAveragePooling2D(), [values], (0,)).total == 7.5
    dense = layers.Dense(2)
    dense.build((None, 3))
    dense.set_weights([np.array([[1.0, 0], [2, 1], [0, 3]]), np.array([0.5, -1])])
    assert explain_dense(dense, [np.array([1.0, 2, 3])], (1,)).total == 2 + 9 - 1
    assert explain_softmax(np.log([[1.0, 3], [2, 2]]), (0, 1), -1).total == pytest.approx(0.75)


def test_all_formulas_are_kerass_own_functions():
    z = np.linspace(-5, 5, 31)
    for function, (_, formula) in FORMULAS.items():
        np.testing.assert_allclose(
            formula(z),
            keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(z, "float32"))),
            atol=1e-5,
        )
    steps = activation_steps(lambda z: 2 * z, 1.0, lambda: np.array([1.0, 4.0]), 1, "float32")
    assert steps[0][1] == 8


def test_tables_are_drawn_beside_or_below_each_other():
    conv = layers.Conv2D(1, 2)
    conv.build((None, 4, 4, 1))
    drawn = draw_pixel(explain_convolution(conv, [np.ones((4, 4, 1))], (0, 0, 0)))
    assert [panel.get_title() for panel in drawn.axes[:3]] == ["patch", "× kernel", "= product"]
    drawn = draw_pixel(explain_softmax(np.array([1.0, 2, 3]), (2,), -1))
    assert len(drawn.axes) == 3
