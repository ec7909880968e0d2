"""One pixel with its receptive field: models of every kind, several inputs, odd layers, errors."""

import json
import math

import keras
import numpy as np
import pytest
from keras import layers

from medbook.inspection.backend import InspectionError
from medbook.inspection.feature_maps import feature_maps
from medbook.inspection.layers import layer_outputs, Record
from medbook.inspection.pixel import (
    _CallsOf,
    _record_layer,
    explain_pixel,
    layer_tensors,
    receptive_field,
    wiring,
)


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


def test_padding_is_counted_and_the_field_is_cut_at_the_border():
    found = explain_pixel(small(), picture(1, 12, 10, 2), "first", (0, 0, 0))
    assert (
        found.patch_box == ((-1, 2), (-1, 2))
        and found.field_box == ((0, 2), (0, 2))
        and "5 of 9 taps lie in the padding" in found.note
    )


def test_nested_models_tell_of_the_layer_that_gives_their_output():
    body = keras.Sequential(
        [
            keras.Input((12, 10, 2)),
            layers.Conv2D(4, 3, name="inner"),
            layers.Dropout(0.5, name="drop"),
        ],
        name="body",
    )
    start = keras.Input((12, 10, 2))
    model = keras.Model(start, layers.GlobalMaxPooling2D()(body(start)))
    image = picture(1, 12, 10, 2)
    outside, inside = (
        explain_pixel(model, image, path, (2, 3, 1)) for path in ("body", "body/inner")
    )
    assert (
        outside.steps == inside.steps
        and outside.kind == "convolution"
        and outside.field_box == ((2, 5), (3, 6))
    )
    assert explain_pixel(model, image, "body/drop", (2, 3, 1)).steps[0][0].startswith("copied")


class Doubled(layers.Layer):
    """A person's own layer, with one of Keras's inside."""

    def __init__(self, **options):
        super().__init__(**options)
        self.conv = layers.Conv2D(2, 3, name="conv")

    def call(self, x):
        return self.conv(x * 2) + 1


class Odd(layers.Conv2D):
    """A convolution that does something else."""

    def call(self, x):
        return super().call(x) * 3


def test_unknown_layers_give_their_value_and_no_story():
    model = keras.Sequential(
        [
            keras.Input((12, 10, 1)),
            Odd(2, 3, name="odd"),
            Doubled(name="doubled"),
            layers.UpSampling2D(interpolation="bilinear", name="up"),
            layers.Reshape((-1, 2)),
            layers.LSTM(3, name="lstm"),
            layers.Dense(1),
        ]
    )
    image = picture(2, 12, 10, 1)
    maps = feature_maps(model, image)
    for path, index in (
        ("odd", (1, 2, 1)),
        ("doubled", (3, 3, 0)),
        ("up", (5, 5, 1)),
        ("lstm", (2,)),
    ):
        found = explain_pixel(model, image, path, index, image=1)
        assert found.kind == "other" and found.total == found.value == pytest.approx(
            float(maps[path][(1, *index)]), abs=1e-6
        )
        assert "apart" in found.note, found.note
    assert explain_pixel(model, image, "doubled/conv", (3, 3, 0)).kind == "convolution"
    assert receptive_field(model, image, "odd", (1, 2, 1)) == ((0, 12), (0, 10))
    assert receptive_field(model, image, "lstm", (0,)) == ((0, 12), (0, 10))


def around(z):
    return z - keras.ops.max(z, axis=1, keepdims=True)


def test_a_function_that_looks_around_is_not_told():
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(2, 3, activation=around, name="conv")]
    )
    found = explain_pixel(model, picture(1, 6, 6, 1), "conv", (0, 1, 0))
    assert found.kind == "other" and found.total == found.value and "usual arithmetic" in found.note


@pytest.mark.backends
def test_several_inputs_give_a_field_each():
    first, second = keras.Input((12, 10, 1), name="image"), keras.Input((12, 10, 1), name="mask")
    branches = [
        layers.Conv2D(2, 3, name="conv")(first),
        layers.MaxPooling2D(3, strides=1, name="pool")(second),
    ]
    model = keras.Model([first, second], layers.Concatenate(name="join")(branches))
    images = [picture(1, 12, 10, 1), picture(1, 12, 10, 1, seed=1)]
    assert receptive_field(model, images, "join", (4, 5, 2)) == [None, ((4, 7), (5, 8))]
    found = explain_pixel(model, images, "join", (4, 5, 1))
    assert (
        found.field_box == ((4, 7), (5, 8))
        and found.steps[0][0] == "copied from input 0 at (4, 5, 1)"
        and found.agrees
    )


def image_and_age(siamese=False):
    """A model of an age and an image by name, or of two images."""
    image, other = (
        keras.Input((12, 10, 1), name="image"),
        keras.Input((12, 10, 1) if siamese else (2,), name="other" if siamese else "age"),
    )
    left = layers.Conv2D(2, 3, name="conv")(image)
    right = layers.Flatten()(layers.Conv2D(2, 3, name="second")(other)) if siamese else other
    joined = layers.Concatenate(name="join")([layers.Flatten()(left), right])
    given = [image, other] if siamese else {"image": image, "age": other}
    return keras.Model(given, layers.Dense(2, name="out")(joined))


def test_the_field_is_on_the_image_and_each_input_has_its_own():
    model, images = image_and_age(), {"age": picture(1, 2), "image": picture(1, 12, 10, 1)}
    found = explain_pixel(model, images, "conv", (2, 3, 1))
    assert (
        found.field_input == "image"
        and found.field_box == ((2, 5), (3, 6))
        and found.fields == {"age": None, "image": ((2, 5), (3, 6))}
    )
    assert found.to_dict()["field_box"] == [[2, 5], [3, 6]]
    assert explain_pixel(model, images, "conv", (2, 3, 1), input="age").field_box is None
    with pytest.raises(InspectionError, match="no input 'sex': the model has 'age', 'image'"):
        explain_pixel(model, images, "conv", (2, 3, 1), input="sex")
    pair = [picture(1, 12, 10, 1), picture(1, 12, 10, 1, seed=1)]
    assert explain_pixel(image_and_age(True), pair, "second", (2, 3, 1)).field_box is None
    found = explain_pixel(image_and_age(True), pair, "second", (2, 3, 1), input=1)
    assert found.field_input == "other" and found.field_box == ((2, 5), (3, 6))


def test_a_layer_is_read_without_compiling_and_without_its_neighbours():
    model, image = small(), picture(1, 12, 10, 2)
    layer_outputs(model, image)
    wiring(model, image)
    kept = set(model.__dict__["_medbook_inspection"][1])
    record = _record_layer(model, "second", image)
    assert record.path == "second" and set(model.__dict__["_medbook_inspection"][1]) == kept
    for path in layer_outputs(model, image):
        layer_tensors(model, image, path)
    assert set(model.__dict__["_medbook_inspection"][1]) == kept
    calls = _CallsOf("conv#2")
    for path in ("conv", "conv", "other", "conv2"):
        calls.append(Record(path, None, [], None))
    assert [one.path for one in calls] == ["conv", "conv"]


@pytest.mark.backends
def test_mixed_precision_says_its_tolerance_and_keeps_the_wires():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        body = small()
        start = keras.Input((12, 10, 2))
        model = keras.Model(
            start,
            layers.Conv2D(1, 1, dtype="float32", name="last")(
                body.get_layer("second")(body.get_layer("pool")(body.get_layer("first")(start)))
            ),
        )
    finally:
        keras.config.set_dtype_policy("float32")
    image = picture(1, 12, 10, 2)
    found = explain_pixel(model, image, "second", (1, 2, 0))
    assert (
        found.kind == "convolution"
        and found.agrees
        and found.tolerance < 0.1
        and "bfloat16" in found.note
    )
    assert found.field_box == receptive_field(model, image, "last", (1, 2, 0)) == ((1, 9), (3, 10))


def test_weights_that_are_no_numbers_give_a_note_and_clean_json():
    model = small()
    kernel, bias = model.get_layer("second").get_weights()
    kernel[0, 0, 1, 0] = np.nan
    model.get_layer("second").set_weights([kernel, bias])
    found = explain_pixel(model, picture(1, 12, 10, 2), "second", (1, 1, 0))
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert (
        json.loads(text)["value"] is None
        and "not finite" in found.note
        and found.kind == "convolution"
        and found.agrees
    )
    assert "channel 1 of 4 shown" in found.note


@pytest.mark.parametrize(
    ("index", "image", "words"),
    [
        ((1, 1), 0, "3 whole numbers"),
        ((0, 1, 1, 0), 0, "choose the image with image="),
        ((6, 0, 0), 0, "outside the output"),
        ((-1, 0, 0), 0, "count from 0"),
        ((1.5, 0, 0), 0, "whole numbers"),
        ("abc", 0, "whole numbers"),
        ((0, 0, 0), 2, "the batch holds 2"),
        ((0, 0, 0), -1, "count from 0"),
    ],
)
def test_wrong_places_are_named(index, image, words):
    with pytest.raises(InspectionError, match=words):
        explain_pixel(small(), picture(2, 12, 10, 2), "pool", index, image=image)


def test_wrong_layers_and_images_are_named():
    with pytest.raises(InspectionError, match="no layer 'secnd'.*second"):
        explain_pixel(small(), picture(1, 12, 10, 2), "secnd", (0, 0, 0))
    with pytest.raises(InspectionError, match="has shape|have shape"):
        receptive_field(small(), picture(1, 12, 10, 3), "second", (0, 0, 0))


@pytest.mark.backends
def test_new_weights_are_seen():
    model, image = small(), picture(1, 12, 10, 2)
    before = explain_pixel(model, image, "second", (1, 1, 0)).value
    model.set_weights([2 * w for w in model.get_weights()])
    found = explain_pixel(model, image, "second", (1, 1, 0))
    assert found.agrees and not math.isclose(found.value, before)


def test_a_units_number_alone_is_a_place():
    found = explain_pixel(small(), picture(1, 12, 10, 2), "dense", 1)
    assert found.title == "dense, unit 1" and found.kind == "dense" and found.patch_box is None
    assert found.steps[-1][0].startswith("softmax") and 0 < found.total < 1
