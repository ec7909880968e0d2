"""The arithmetic behind one pixel against the layer's own output, and the receptive field against changed pixels."""
import json
import math

import keras
import numpy as np
import pytest
from keras import layers

from medbook.inspection.backend import InspectionError
from medbook.inspection.feature_maps import Record, feature_maps, layer_outputs
from medbook.inspection.arithmetic import weight
from medbook.inspection.pixel import (
    _CallsOf, _record_layer, explain_in, explain_pixel, layer_tensors, receptive_field, wiring,
)

ACTIVATIONS = (None, "relu", "relu6", "leaky_relu", "sigmoid", "tanh", "elu", "gelu", "silu", "softmax", "softplus", "linear",
               lambda z: z * 2 + 1)
SIZES = {1: (31,), 2: (13, 11), 3: (7, 6, 8)}


def pick(rng, *choices):
    return choices[int(rng.integers(len(choices)))]


def several(rng, rank, low, high):
    return tuple(int(n) for n in rng.integers(low, high + 1, rank))


def random_convolution(rng, rank, channels):
    """A convolution with random taps, steps, gaps, padding, groups, bias and activation."""
    stepped = rng.random() < 0.5
    options = {"kernel_size": several(rng, rank, 1, 4), "padding": pick(rng, "valid", "same"), "use_bias": bool(rng.random() < 0.8),
               "activation": ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))],
               "strides" if stepped else "dilation_rate": several(rng, rank, 1, 2)}
    if rank == 1 and rng.random() < 0.3:
        options["padding"] = "causal"
    groups = pick(rng, 1, 1, 2) if channels % 2 == 0 else 1
    return getattr(layers, f"Conv{rank}D")(int(rng.integers(1, 4)) * 2, groups=groups, **options)


def random_other_convolution(rng, rank, channels):
    """A depthwise, separable or transposed convolution."""
    kind = pick(rng, "Depthwise", "Separable", "Transpose") if rank < 3 else "Transpose"
    options = {"padding": pick(rng, "valid", "same"), "activation": pick(rng, None, "relu", "softmax"), "strides": pick(rng, 1, 2)}
    if kind == "Transpose":
        return getattr(layers, f"Conv{rank}DTranspose")(4, several(rng, rank, 1, 4), **options)
    if kind == "Separable":
        return getattr(layers, f"SeparableConv{rank}D")(4, several(rng, rank, 1, 3), depth_multiplier=pick(rng, 1, 2), **options)
    return getattr(layers, f"DepthwiseConv{rank}D")(several(rng, rank, 1, 3), depth_multiplier=pick(rng, 1, 2), **options)


def random_pooling(rng, rank, channels):
    kind = pick(rng, "MaxPooling", "AveragePooling")
    return getattr(layers, f"{kind}{rank}D")(several(rng, rank, 1, 3), strides=pick(rng, None, 1, 2), padding=pick(rng, "valid", "same"))


def random_small(rng, rank, channels):
    """A layer that acts number by number, normalises or moves numbers."""
    softly = layers.Softmax() if rng.random() < 0.5 else layers.Softmax(axis=1)
    choices = [layers.BatchNormalization(), layers.BatchNormalization(center=False, scale=False), layers.LayerNormalization(),
               layers.LayerNormalization(axis=[1, -1]), layers.ReLU(negative_slope=0.1, threshold=0.2, max_value=1.5), layers.LeakyReLU(),
               layers.PReLU(), layers.PReLU(shared_axes=list(range(1, rank + 1))), layers.ELU(0.7), softly, layers.Dropout(0.5),
               layers.Activation(ACTIVATIONS[int(rng.integers(1, len(ACTIVATIONS)))]), layers.Rescaling(0.3, offset=-0.1),
               layers.GroupNormalization(2 if channels % 2 == 0 else 1), layers.GroupNormalization(-1),
               getattr(layers, f"ZeroPadding{rank}D")(pick(rng, 1, 2)), getattr(layers, f"UpSampling{rank}D")(2),
               layers.Dense(3, activation="relu"), getattr(layers, f"Cropping{rank}D")(1), layers.Identity(),
               layers.Permute((*range(rank, 0, -1), rank + 1))]
    return choices[int(rng.integers(len(choices)))]


MAKERS = (random_convolution, random_convolution, random_other_convolution, random_pooling, random_small, random_small)


def random_block(rng, x, rank):
    """One more layer, or a branch that joins again."""
    layer = pick(rng, *MAKERS)(rng, rank, x.shape[-1])
    if min(x.shape[1:-1]) < 8 and not isinstance(layer, layers.Activation | layers.BatchNormalization):
        layer = getattr(layers, f"Conv{rank}D")(4, 3, padding="same")
    y = layer(x)
    if rng.random() < 0.25:
        y = layers.Concatenate(axis=-1)([y, getattr(layers, f"Conv{rank}D")(2, 1)(y)])
    if rng.random() < 0.25:
        join = pick(rng, layers.Add, layers.Multiply, layers.Average, layers.Maximum, layers.Minimum, layers.Subtract)
        y = join()([y, layers.Activation("tanh")(y)])
    return y


def fill(model, rng):
    """Random numbers for all weights, positive ones for variances."""
    for variable in model.variables:
        if "seed" not in variable.path:
            numbers = rng.normal(0, 1 / math.sqrt(max(math.prod(variable.shape[:-1]), 4)), variable.shape)
            variable.assign(np.abs(numbers) + 0.5 if "variance" in variable.path else numbers)
    return model


class Own(keras.Model):
    """A subclassed model: a body, then a head."""

    def __init__(self, body, head):
        super().__init__()
        self.body, self.head = body, head

    def call(self, images):
        return self.head(self.body(images))


def random_network(seed):
    """A random functional, nested or subclassed network for signals, images or volumes, and a batch of two."""
    rng = np.random.default_rng(seed)
    rank = pick(rng, 1, 2, 2, 3)
    images = rng.normal(size=(2, *SIZES[rank], int(rng.integers(1, 4)))).astype("float32")
    start = x = keras.Input(images.shape[1:])
    for _ in range(4):
        x = random_block(rng, x, rank)
    body, style = keras.Model(start, x, name="body"), pick(rng, "functional", "nested", "subclassed")
    ends = [layers.Flatten(), layers.Reshape((-1, 1))] + [getattr(layers, f"Global{kind}Pooling{rank}D")() for kind in ("Max", "Average")]
    units = layers.Dense(5, activation=pick(rng, "relu", "gelu", None))
    head = keras.Sequential([pick(rng, *ends), units, layers.Dense(3, activation="softmax")])
    if style == "subclassed":
        model = Own(body, head)
        model(images)
    else:
        again = start if style == "functional" else keras.Input(images.shape[1:])
        model = keras.Model(again, head(x if style == "functional" else body(again)))
    return fill(model, rng), images, rng


def random_pixels(model, images, rng, count):
    """Random layers with a random place each."""
    outputs = layer_outputs(model, images)
    for path in rng.choice(list(outputs), count):
        yield str(path), tuple(int(rng.integers(length)) for length in outputs[str(path)].shape[1:])


@pytest.mark.parametrize("seed", range(25))
def test_total_is_the_layers_own_value(seed):
    """25 networks with 8 pixels each."""
    model, images, rng = random_network(seed)
    maps = feature_maps(model, images)
    for path, index in random_pixels(model, images, rng, 4):
        tensors, image = layer_tensors(model, images, path), int(rng.integers(2))
        for place in (index, tuple(int(rng.integers(length)) for length in maps[path].shape[1:])):
            found = explain_in(tensors, place, image=image)
            assert found.value == pytest.approx(float(maps[path][(image, *place)]), rel=1e-6, abs=1e-6)
            assert abs(found.total - found.value) <= 1e-4, (path, found)
            assert found.agrees and found.steps[-1][1] == found.total
            assert "does not take" not in found.note and "usual arithmetic" not in found.note, (path, found)
            json.dumps(found.to_dict(), allow_nan=False)


def changed_by(model, images, path, index):
    """The places of the image, of any channel, whose change moves the value: (count, axes)."""
    base = images[:1]
    places = list(np.ndindex(base.shape[1:-1]))
    batch = np.repeat(base, len(places) + 1, axis=0)
    for number, place in enumerate(places):
        batch[(number, *place)] += 2.5
    values = feature_maps(model, batch, path, batch_size=512)[path][(slice(None), *index)].astype(float)
    return np.array(places)[np.abs(values[:-1] - values[-1]) > 1e-7]


@pytest.mark.parametrize("seed", range(100, 112))
def test_receptive_field_holds_every_pixel_that_changes_the_value(seed):
    model, images, rng = random_network(seed)
    for path, index in random_pixels(model, images, rng, 2):
        field = receptive_field(model, images, path, index)
        changed = changed_by(model, images, path, index)
        assert field is not None or not len(changed)
        for axis, (start, stop) in enumerate(field or ()):
            assert 0 <= start < stop <= images.shape[1 + axis]
            assert (changed[:, axis] >= start).all() and (changed[:, axis] < stop).all() if len(changed) else True


def linear_network(rng, rank):
    """Windows of every kind, with positive weights and nothing that hides a pixel: what is reached acts."""
    start = x = keras.Input((*SIZES[rank], 2))
    for _ in range(int(rng.integers(1, 4))):
        free = "dilation_rate" if rng.random() < 0.5 else "strides"
        options = {"padding": pick(rng, "valid", "same"), free: several(rng, rank, 1, 2)}
        kinds = [getattr(layers, f"Conv{rank}D")(2, several(rng, rank, 1, 3), **options),
                 getattr(layers, f"AveragePooling{rank}D")(several(rng, rank, 1, 3), strides=pick(rng, 1, 2), padding=options["padding"]),
                 getattr(layers, f"Conv{rank}DTranspose")(2, several(rng, rank, 2, 3), strides=2, padding=options["padding"]),
                 getattr(layers, f"ZeroPadding{rank}D")(1), getattr(layers, f"UpSampling{rank}D")(2),
                 getattr(layers, f"Cropping{rank}D")(1)]
        x = kinds[int(rng.integers(len(kinds)))](x) if min(x.shape[1:-1]) > 4 else getattr(layers, f"Conv{rank}D")(2, 3, padding="same")(x)
    model = keras.Model(start, x)
    model.set_weights([rng.uniform(0.5, 1, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("seed", range(20))
def test_receptive_field_is_no_larger_than_what_acts(seed):
    rng = np.random.default_rng(seed)
    rank = pick(rng, 1, 2, 2, 3)
    model, images = linear_network(rng, rank), rng.normal(size=(1, *SIZES[rank], 2)).astype("float32")
    path = list(layer_outputs(model, images))[-1]
    index = tuple(int(rng.integers(length)) for length in model.output_shape[1:])
    changed = changed_by(model, images, path, index)
    field = receptive_field(model, images, path, index)
    assert (field is None) == (not len(changed))
    if field:
        assert field == tuple((int(a), int(b) + 1) for a, b in zip(changed.min(0), changed.max(0), strict=True))


def small(**options):
    """A small image network with the names first, pool, second, flat, dense."""
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((12, 10, 2)), layers.Conv2D(4, 3, padding="same", name="first", activation="relu", **options),
                             layers.MaxPooling2D(name="pool"), layers.Conv2D(3, 3, name="second"), layers.Flatten(name="flat"),
                             layers.Dense(2, activation="softmax", name="dense")])


def picture(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def test_steps_and_boxes_of_a_convolution_worked_by_hand():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(1, 2, activation="relu", name="conv")])
    model.set_weights([np.array([[1.0, -1], [2, 0]])[..., None, None], np.array([0.5])])
    image = np.arange(16.0, dtype="float32").reshape(1, 4, 4, 1)
    found = explain_pixel(model, image, "conv", (1, 2, 0)).to_dict()
    assert [number for _, number in found["steps"]] == [6 - 7 + 20, 0.5, 19.5, 19.5]
    assert [table["values"] for table in found["tables"]] == [[[6, 7], [10, 11]], [[1, -1], [2, 0]], [[6, -7], [20, 0]]]
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
    assert found.steps[0][1] == pytest.approx(by_channel[best]) and found.steps[2][1] == pytest.approx(by_channel.sum())


def test_padding_is_counted_and_the_field_is_cut_at_the_border():
    found = explain_pixel(small(), picture(1, 12, 10, 2), "first", (0, 0, 0))
    assert found.patch_box == ((-1, 2), (-1, 2)) and found.field_box == ((0, 2), (0, 2)) and "5 of 9 taps lie in the padding" in found.note


def test_nested_models_tell_of_the_layer_that_gives_their_output():
    body = keras.Sequential([keras.Input((12, 10, 2)), layers.Conv2D(4, 3, name="inner"), layers.Dropout(0.5, name="drop")], name="body")
    start = keras.Input((12, 10, 2))
    model = keras.Model(start, layers.GlobalMaxPooling2D()(body(start)))
    image = picture(1, 12, 10, 2)
    outside, inside = (explain_pixel(model, image, path, (2, 3, 1)) for path in ("body", "body/inner"))
    assert outside.steps == inside.steps and outside.kind == "convolution" and outside.field_box == ((2, 5), (3, 6))
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
    model = keras.Sequential([keras.Input((12, 10, 1)), Odd(2, 3, name="odd"), Doubled(name="doubled"), layers.UpSampling2D(
        interpolation="bilinear", name="up"), layers.Reshape((-1, 2)), layers.LSTM(3, name="lstm"), layers.Dense(1)])
    image = picture(2, 12, 10, 1)
    maps = feature_maps(model, image)
    for path, index in (("odd", (1, 2, 1)), ("doubled", (3, 3, 0)), ("up", (5, 5, 1)), ("lstm", (2,))):
        found = explain_pixel(model, image, path, index, image=1)
        assert found.kind == "other" and found.total == found.value == pytest.approx(float(maps[path][(1, *index)]), abs=1e-6)
        assert "apart" in found.note, found.note
    assert explain_pixel(model, image, "doubled/conv", (3, 3, 0)).kind == "convolution"
    assert receptive_field(model, image, "odd", (1, 2, 1)) == ((0, 12), (0, 10))
    assert receptive_field(model, image, "lstm", (0,)) == ((0, 12), (0, 10))


def around(z):
    return z - keras.ops.max(z, axis=1, keepdims=True)


def test_a_function_that_looks_around_is_not_told():
    model = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(2, 3, activation=around, name="conv")])
    found = explain_pixel(model, picture(1, 6, 6, 1), "conv", (0, 1, 0))
    assert found.kind == "other" and found.total == found.value and "usual arithmetic" in found.note


def test_several_inputs_give_a_field_each():
    first, second = keras.Input((12, 10, 1), name="image"), keras.Input((12, 10, 1), name="mask")
    branches = [layers.Conv2D(2, 3, name="conv")(first), layers.MaxPooling2D(3, strides=1, name="pool")(second)]
    model = keras.Model([first, second], layers.Concatenate(name="join")(branches))
    images = [picture(1, 12, 10, 1), picture(1, 12, 10, 1, seed=1)]
    assert receptive_field(model, images, "join", (4, 5, 2)) == [None, ((4, 7), (5, 8))]
    found = explain_pixel(model, images, "join", (4, 5, 1))
    assert found.field_box == ((4, 7), (5, 8)) and found.steps[0][0] == "copied from input 0 at (4, 5, 1)" and found.agrees


def image_and_age(siamese=False):
    """A model of an age and an image by name, or of two images."""
    image, other = keras.Input((12, 10, 1), name="image"), keras.Input((12, 10, 1) if siamese else (2,), name="other" if siamese else "age")
    left = layers.Conv2D(2, 3, name="conv")(image)
    right = layers.Flatten()(layers.Conv2D(2, 3, name="second")(other)) if siamese else other
    joined = layers.Concatenate(name="join")([layers.Flatten()(left), right])
    given = [image, other] if siamese else {"image": image, "age": other}
    return keras.Model(given, layers.Dense(2, name="out")(joined))


def test_the_field_is_on_the_image_and_each_input_has_its_own():
    model, images = image_and_age(), {"age": picture(1, 2), "image": picture(1, 12, 10, 1)}
    found = explain_pixel(model, images, "conv", (2, 3, 1))
    assert found.field_input == "image" and found.field_box == ((2, 5), (3, 6)) and found.fields == {"age": None, "image": ((2, 5), (3, 6))}
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


def test_one_other_channel_is_singular():
    found = explain_pixel(small(), picture(1, 12, 10, 2), "first", (3, 3, 0))
    assert found.steps[1][0] == "1 other channel"


def test_mixed_precision_says_its_tolerance_and_keeps_the_wires():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        body = small()
        start = keras.Input((12, 10, 2))
        model = keras.Model(start, layers.Conv2D(1, 1, dtype="float32", name="last")(body.get_layer("second")(
            body.get_layer("pool")(body.get_layer("first")(start)))))
    finally:
        keras.config.set_dtype_policy("float32")
    image = picture(1, 12, 10, 2)
    found = explain_pixel(model, image, "second", (1, 2, 0))
    assert found.kind == "convolution" and found.agrees and found.tolerance < 0.1 and "bfloat16" in found.note
    assert found.field_box == receptive_field(model, image, "last", (1, 2, 0)) == ((1, 9), (3, 10))


def test_weights_that_are_no_numbers_give_a_note_and_clean_json():
    model = small()
    kernel, bias = model.get_layer("second").get_weights()
    kernel[0, 0, 1, 0] = np.nan
    model.get_layer("second").set_weights([kernel, bias])
    found = explain_pixel(model, picture(1, 12, 10, 2), "second", (1, 1, 0))
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert json.loads(text)["value"] is None and "not finite" in found.note and found.kind == "convolution" and found.agrees
    assert "channel 1 of 4 shown" in found.note


@pytest.mark.parametrize(("index", "image", "words"), [
    ((1, 1), 0, "3 whole numbers"), ((0, 1, 1, 0), 0, "choose the image with image="), ((6, 0, 0), 0, "outside the output"),
    ((-1, 0, 0), 0, "count from 0"), ((1.5, 0, 0), 0, "whole numbers"), ("abc", 0, "whole numbers"), ((0, 0, 0), 2, "the batch holds 2"),
    ((0, 0, 0), -1, "count from 0")])
def test_wrong_places_are_named(index, image, words):
    with pytest.raises(InspectionError, match=words):
        explain_pixel(small(), picture(2, 12, 10, 2), "pool", index, image=image)


def test_wrong_layers_and_images_are_named():
    with pytest.raises(InspectionError, match="no layer 'secnd'.*second"):
        explain_pixel(small(), picture(1, 12, 10, 2), "secnd", (0, 0, 0))
    with pytest.raises(InspectionError, match="has shape|have shape"):
        receptive_field(small(), picture(1, 12, 10, 3), "second", (0, 0, 0))


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
