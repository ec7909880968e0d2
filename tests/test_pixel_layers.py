"""Every kind of layer on random networks, against its own output and against changed pixels."""

import json
import math

import keras
import numpy as np
import pytest
from keras import layers

from medbook.inspection.feature_maps import feature_maps
from medbook.inspection.layers import layer_outputs
from medbook.inspection.pixel import explain_in, layer_tensors, receptive_field
from medbook.inspection.pixel_layers import EXPLANATIONS, RULES

ACTIVATIONS = (
    None,
    "relu",
    "relu6",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "elu",
    "gelu",
    "silu",
    "softmax",
    "softplus",
    "linear",
    lambda z: z * 2 + 1,
)
SIZES = {1: (31,), 2: (13, 11), 3: (7, 6, 8)}


def pick(rng, *choices):
    return choices[int(rng.integers(len(choices)))]


def several(rng, rank, low, high):
    return tuple(int(n) for n in rng.integers(low, high + 1, rank))


def random_convolution(rng, rank, channels):
    """A convolution with random taps, steps, gaps, padding, groups, bias and activation."""
    stepped = rng.random() < 0.5
    options = {
        "kernel_size": several(rng, rank, 1, 4),
        "padding": pick(rng, "valid", "same"),
        "use_bias": bool(rng.random() < 0.8),
        "activation": ACTIVATIONS[int(rng.integers(len(ACTIVATIONS)))],
        "strides" if stepped else "dilation_rate": several(rng, rank, 1, 2),
    }
    if rank == 1 and rng.random() < 0.3:
        options["padding"] = "causal"
    groups = pick(rng, 1, 1, 2) if channels % 2 == 0 else 1
    return getattr(layers, f"Conv{rank}D")(int(rng.integers(1, 4)) * 2, groups=groups, **options)


def random_other_convolution(rng, rank, channels):
    """A depthwise, separable or transposed convolution."""
    kind = pick(rng, "Depthwise", "Separable", "Transpose") if rank < 3 else "Transpose"
    options = {
        "padding": pick(rng, "valid", "same"),
        "activation": pick(rng, None, "relu", "softmax"),
        "strides": pick(rng, 1, 2),
    }
    if kind == "Transpose":
        return getattr(layers, f"Conv{rank}DTranspose")(4, several(rng, rank, 1, 4), **options)
    if kind == "Separable":
        return getattr(layers, f"SeparableConv{rank}D")(
            4, several(rng, rank, 1, 3), depth_multiplier=pick(rng, 1, 2), **options
        )
    return getattr(layers, f"DepthwiseConv{rank}D")(
        several(rng, rank, 1, 3), depth_multiplier=pick(rng, 1, 2), **options
    )


def random_pooling(rng, rank, channels):
    kind = pick(rng, "MaxPooling", "AveragePooling")
    return getattr(layers, f"{kind}{rank}D")(
        several(rng, rank, 1, 3), strides=pick(rng, None, 1, 2), padding=pick(rng, "valid", "same")
    )


def random_small(rng, rank, channels):
    """A layer that acts number by number, normalises or moves numbers."""
    softly = layers.Softmax() if rng.random() < 0.5 else layers.Softmax(axis=1)
    choices = [
        layers.BatchNormalization(),
        layers.BatchNormalization(center=False, scale=False),
        layers.LayerNormalization(),
        layers.LayerNormalization(axis=[1, -1]),
        layers.ReLU(negative_slope=0.1, threshold=0.2, max_value=1.5),
        layers.LeakyReLU(),
        layers.PReLU(),
        layers.PReLU(shared_axes=list(range(1, rank + 1))),
        layers.ELU(0.7),
        softly,
        layers.Dropout(0.5),
        layers.Activation(ACTIVATIONS[int(rng.integers(1, len(ACTIVATIONS)))]),
        layers.Rescaling(0.3, offset=-0.1),
        layers.GroupNormalization(2 if channels % 2 == 0 else 1),
        layers.GroupNormalization(-1),
        getattr(layers, f"ZeroPadding{rank}D")(pick(rng, 1, 2)),
        getattr(layers, f"UpSampling{rank}D")(2),
        layers.Dense(3, activation="relu"),
        getattr(layers, f"Cropping{rank}D")(1),
        layers.Identity(),
        layers.Permute((*range(rank, 0, -1), rank + 1)),
    ]
    return choices[int(rng.integers(len(choices)))]


MAKERS = (
    random_convolution,
    random_convolution,
    random_other_convolution,
    random_pooling,
    random_small,
    random_small,
)


def random_block(rng, x, rank):
    """One more layer, or a branch that joins again."""
    layer = pick(rng, *MAKERS)(rng, rank, x.shape[-1])
    if min(x.shape[1:-1]) < 8 and not isinstance(
        layer, layers.Activation | layers.BatchNormalization
    ):
        layer = getattr(layers, f"Conv{rank}D")(4, 3, padding="same")
    y = layer(x)
    if rng.random() < 0.25:
        y = layers.Concatenate(axis=-1)([y, getattr(layers, f"Conv{rank}D")(2, 1)(y)])
    if rng.random() < 0.25:
        join = pick(
            rng,
            layers.Add,
            layers.Multiply,
            layers.Average,
            layers.Maximum,
            layers.Minimum,
            layers.Subtract,
        )
        y = join()([y, layers.Activation("tanh")(y)])
    return y


def fill(model, rng):
    """Random numbers for all weights, positive ones for variances."""
    for variable in model.variables:
        if "seed" not in variable.path:
            numbers = rng.normal(
                0, 1 / math.sqrt(max(math.prod(variable.shape[:-1]), 4)), variable.shape
            )
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
    """A random network of any style for signals, images or volumes, and a batch of two."""
    rng = np.random.default_rng(seed)
    rank = pick(rng, 1, 2, 2, 3)
    images = rng.normal(size=(2, *SIZES[rank], int(rng.integers(1, 4)))).astype("float32")
    start = x = keras.Input(images.shape[1:])
    for _ in range(4):
        x = random_block(rng, x, rank)
    body, style = (
        keras.Model(start, x, name="body"),
        pick(rng, "functional", "nested", "subclassed"),
    )
    ends = [layers.Flatten(), layers.Reshape((-1, 1))] + [
        getattr(layers, f"Global{kind}Pooling{rank}D")() for kind in ("Max", "Average")
    ]
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


@pytest.mark.backends
@pytest.mark.parametrize("seed", range(25))
def test_total_is_the_layers_own_value(seed):
    """25 networks with 8 pixels each."""
    model, images, rng = random_network(seed)
    maps = feature_maps(model, images)
    for path, index in random_pixels(model, images, rng, 4):
        tensors, image = layer_tensors(model, images, path), int(rng.integers(2))
        for place in (index, tuple(int(rng.integers(length)) for length in maps[path].shape[1:])):
            found = explain_in(tensors, place, image=image)
            assert found.value == pytest.approx(
                float(maps[path][(image, *place)]), rel=1e-6, abs=1e-6
            )
            assert abs(found.total - found.value) <= 1e-4, (path, found)
            assert found.agrees and found.steps[-1][1] == found.total
            assert "does not take" not in found.note and "usual arithmetic" not in found.note, (
                path,
                found,
            )
            json.dumps(found.to_dict(), allow_nan=False)


def changed_by(model, images, path, index):
    """The places of the image, of any channel, whose change moves the value: (count, axes)."""
    base = images[:1]
    places = list(np.ndindex(base.shape[1:-1]))
    batch = np.repeat(base, len(places) + 1, axis=0)
    for number, place in enumerate(places):
        batch[(number, *place)] += 2.5
    values = feature_maps(model, batch, path, batch_size=512)[path][(slice(None), *index)].astype(
        float
    )
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
            assert (
                (changed[:, axis] >= start).all() and (changed[:, axis] < stop).all()
                if len(changed)
                else True
            )


def linear_network(rng, rank):
    """Windows of every kind with positive weights, so that whatever is reached acts."""
    start = x = keras.Input((*SIZES[rank], 2))
    for _ in range(int(rng.integers(1, 4))):
        free = "dilation_rate" if rng.random() < 0.5 else "strides"
        options = {"padding": pick(rng, "valid", "same"), free: several(rng, rank, 1, 2)}
        kinds = [
            getattr(layers, f"Conv{rank}D")(2, several(rng, rank, 1, 3), **options),
            getattr(layers, f"AveragePooling{rank}D")(
                several(rng, rank, 1, 3), strides=pick(rng, 1, 2), padding=options["padding"]
            ),
            getattr(layers, f"Conv{rank}DTranspose")(
                2, several(rng, rank, 2, 3), strides=2, padding=options["padding"]
            ),
            getattr(layers, f"ZeroPadding{rank}D")(1),
            getattr(layers, f"UpSampling{rank}D")(2),
            getattr(layers, f"Cropping{rank}D")(1),
        ]
        x = (
            kinds[int(rng.integers(len(kinds)))](x)
            if min(x.shape[1:-1]) > 4
            else getattr(layers, f"Conv{rank}D")(2, 3, padding="same")(x)
        )
    model = keras.Model(start, x)
    model.set_weights([rng.uniform(0.5, 1, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("seed", range(20))
def test_receptive_field_is_no_larger_than_what_acts(seed):
    rng = np.random.default_rng(seed)
    rank = pick(rng, 1, 2, 2, 3)
    model, images = (
        linear_network(rng, rank),
        rng.normal(size=(1, *SIZES[rank], 2)).astype("float32"),
    )
    path = list(layer_outputs(model, images))[-1]
    index = tuple(int(rng.integers(length)) for length in model.output_shape[1:])
    changed = changed_by(model, images, path, index)
    field = receptive_field(model, images, path, index)
    assert (field is None) == (not len(changed))
    if field:
        assert field == tuple(
            (int(a), int(b) + 1) for a, b in zip(changed.min(0), changed.max(0), strict=True)
        )


def test_whatever_is_explained_has_a_rule():
    assert EXPLANATIONS.keys() <= RULES.keys()
