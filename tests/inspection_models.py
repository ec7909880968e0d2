"""Models of every kind for the tests of part 5, with small helpers; images are random."""

import keras
import numpy as np
import pytest
from keras import layers as L

layers = keras.layers


@pytest.fixture(autouse=True)
def seeded():
    """Every test begins with the same random weights."""
    keras.utils.set_random_seed(3)


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))


def shuffled(model, seed=1):
    """The model with random weights, biases and running means too, so that each layer acts."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" not in variable.path:
            values = rng.normal(0, 0.4, variable.shape)
            variable.assign(abs(values) + 0.2 if "variance" in variable.path else values)
    return model


def by_submodels(model):
    """Outputs of a functional or Sequential model's layers by Keras's own way of asking."""
    return lambda x: {
        layer.name: numpy(keras.Model(model.inputs, layer.output)(x, training=False))
        for layer in model.layers
        if not isinstance(layer, L.InputLayer)
    }


def in_turn(stack, inside=""):
    """Outputs of layers called one after the other, those of a nested Sequential before its own."""

    def run(x):
        found = {}
        for layer in stack:
            if isinstance(layer, keras.Sequential):
                found |= in_turn(layer.layers, f"{inside}{layer.name}/")(x)
            x = (
                layer(x, training=False)
                if "training" in layer.call.__code__.co_varnames
                else layer(x)
            )
            found[inside + layer.name] = numpy(x)
        return found

    return run


def functional():
    x = keras.Input((9, 8, 2), name="image")
    a = L.Conv2D(3, 3, activation="relu", padding="same", name="a")(x)
    y = L.BatchNormalization(name="norm")(L.Add(name="sum")([a, L.Conv2D(3, 1, name="b")(x)]))
    y = L.Dense(2, activation="softmax", name="scores")(
        L.GlobalAveragePooling2D(name="mean")(L.Dropout(0.5, name="drop")(y))
    )
    model = shuffled(keras.Model(x, y, name="functional"))
    return model, array(3, 9, 8, 2), by_submodels(model)


def sequential():
    model = shuffled(
        keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                L.Conv2D(4, 3),
                L.ReLU(),
                L.MaxPooling2D(),
                L.Flatten(),
                L.Dense(2),
            ]
        )
    )
    return model, array(2, 8, 8, 1), in_turn(model.layers)


def late_sequential():
    model = keras.Sequential([L.Conv2D(4, 3, name="c"), L.Flatten(name="f"), L.Dense(2, name="d")])
    model(array(1, 8, 8, 1))
    return shuffled(model), array(2, 8, 8, 1), in_turn(model.layers)


def nested():
    inner = keras.Sequential(
        [keras.Input((6, 6, 4)), L.Conv2D(3, 3, name="conv"), L.ReLU(name="relu")], name="inner"
    )
    middle = keras.Sequential(
        [keras.Input((8, 8, 1)), L.Conv2D(4, 3, name="conv"), inner], name="backbone"
    )
    head = [L.Flatten(name="flat"), L.Dense(2, name="head")]
    model = shuffled(
        keras.Sequential([keras.Input((8, 8, 1)), L.Rescaling(2.0, name="twice"), middle, *head])
    )
    return model, array(2, 8, 8, 1), in_turn(model.layers)


def nested_functional():
    x = keras.Input((8, 8, 1))
    a = L.Conv2D(3, 3, name="one")(x)
    backbone = keras.Model(
        x, L.Concatenate(name="both")([a, L.Conv2D(2, 3, name="two")(x)]), name="backbone"
    )
    model = shuffled(
        keras.Sequential([keras.Input((8, 8, 1)), backbone, L.GlobalMaxPooling2D(name="top")])
    )

    def own(x):
        inner = {f"backbone/{name}": values for name, values in by_submodels(backbone)(x).items()}
        return inner | {
            "backbone": inner["backbone/both"],
            "top": inner["backbone/both"].max((1, 2)),
        }

    return model, array(2, 8, 8, 1), own


class Block(keras.layers.Layer):
    def __init__(self, width, **options):
        super().__init__(**options)
        self.first = L.Conv2D(width, 3, padding="same", name="first")
        self.second = L.Conv2D(width, 1, name="second")

    def call(self, x, training=False):
        return keras.ops.relu(self.second(self.first(x))) + 1


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.blocks = [Block(3, name="block"), Block(2, name="last")]
        self.head = L.Dense(2, name="head")

    def call(self, x, training=False):
        for block in self.blocks:
            x = block(x, training=training)
        return self.head(keras.ops.mean(x, (1, 2)))


def subclassed():
    model = Subclassed()
    model(array(1, 7, 7, 2))
    shuffled(model)

    def own(x):
        found = {}
        for block in model.blocks:
            found[f"{block.name}/first"] = numpy(block.first(x))
            found[f"{block.name}/second"] = numpy(block.second(found[f"{block.name}/first"]))
            found[block.name] = x = np.maximum(found[f"{block.name}/second"], 0) + 1
        return found | {
            "head": x.mean((1, 2)) @ model.head.get_weights()[0] + model.head.get_weights()[1]
        }

    return model, array(2, 7, 7, 2), own


def two_inputs():
    image = keras.Input((6, 6, 1), name="image")
    age = keras.Input((2,), name="age")
    flat = L.Flatten(name="flat")(L.Conv2D(2, 3, name="conv")(image))
    return (
        image,
        age,
        L.Dense(2, name="out")(L.Concatenate(name="join")([flat, L.Dense(3, name="years")(age)])),
    )


def input_list():
    image, age, out = two_inputs()
    model = shuffled(keras.Model([image, age], out))
    return model, [array(3, 6, 6, 1), array(3, 2)], by_submodels(model)


def input_dict():
    image, age, out = two_inputs()
    model = shuffled(keras.Model({"zebra": image, "apple": age}, {"label": out, "again": out * 2}))
    own = keras.Model(
        [image, age], [model.get_layer(name).output for name in ("conv", "years", "out")]
    )
    return (
        model,
        {"zebra": array(3, 6, 6, 1), "apple": array(3, 2)},
        lambda x: dict(
            zip(("conv", "years", "out"), map(numpy, own([x["zebra"], x["apple"]])), strict=True)
        ),
    )


def shared():
    conv = L.Conv2D(2, 3, padding="same", name="conv")
    model = shuffled(keras.Sequential([keras.Input((6, 6, 2)), conv, L.ReLU(name="relu"), conv]))

    def own(x):
        one = numpy(conv(x))
        return {
            "conv#1": one,
            "relu": np.maximum(one, 0),
            "conv#2": numpy(conv(np.maximum(one, 0))),
        }

    return model, array(2, 6, 6, 2), own


def recurrent():
    both = L.Bidirectional(L.LSTM(3, return_sequences=True), name="both")
    stack = [L.Conv1D(4, 3, name="conv"), both, L.GRU(4, name="gru"), L.Dense(2, name="out")]
    model = shuffled(keras.Sequential([keras.Input((12, 3)), *stack]))
    return model, array(2, 12, 3), in_turn(model.layers)


def states():
    x = keras.Input((5, 3))
    sequence, hidden, cell = L.LSTM(4, return_sequences=True, return_state=True, name="lstm")(x)
    model = shuffled(keras.Model(x, [sequence, hidden, cell]))
    return (
        model,
        array(2, 5, 3),
        lambda x: {f"lstm[{place}]": numpy(one) for place, one in enumerate(model(x))},
    )


def attention():
    x = keras.Input((7, 4))
    y, weights = L.MultiHeadAttention(2, 3, name="attend")(x, x, return_attention_scores=True)
    model = shuffled(keras.Model(x, [L.LayerNormalization(name="norm")(y), weights]))

    def own(x):
        out, weights = model.get_layer("attend")(x, x, return_attention_scores=True)
        return {
            "attend[0]": numpy(out),
            "attend[1]": numpy(weights),
            "norm": numpy(model.get_layer("norm")(out)),
        }

    return model, array(2, 7, 4), own


def volume():
    stack = [
        L.Conv3D(3, 3, activation="tanh"),
        L.AveragePooling3D(2),
        L.GlobalMaxPooling3D(),
        L.Dense(1),
    ]
    model = shuffled(keras.Sequential([keras.Input((6, 7, 8, 1)), *stack]))
    return model, array(2, 6, 7, 8, 1), in_turn(model.layers)


def tokens():
    model = shuffled(
        keras.Sequential(
            [
                keras.Input((6,), dtype="int32"),
                L.Embedding(9, 4),
                L.Conv1D(3, 2),
                L.GlobalAveragePooling1D(),
            ]
        )
    )
    return model, np.random.default_rng(0).integers(0, 9, (3, 6)), in_turn(model.layers)


def any_size():
    model = shuffled(
        keras.Sequential(
            [keras.Input((None, None, 1)), L.Conv2D(3, 3), L.GlobalAveragePooling2D(), L.Dense(2)]
        )
    )
    return model, array(2, 9, 11, 1), in_turn(model.layers)


def images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype("float32")


def small_cnn(shape=(12, 14, 2), classes=3, activation="softmax", smooth=False):
    """Two convolutions with large weights, so that scores differ; no kinks if `smooth`."""
    pool = layers.AveragePooling2D if smooth else layers.MaxPooling2D
    act = "gelu" if smooth else "relu"
    spread = keras.initializers.RandomNormal(0.0, 0.4)
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(4, 3, activation=act, kernel_initializer=spread, name="first"),
            pool(2, name="pool"),
            layers.Conv2D(
                5, 3, padding="same", activation=act, kernel_initializer=spread, name="last"
            ),
            layers.Flatten(),
            layers.Dense(classes, activation=activation, kernel_initializer=spread, name="head"),
        ]
    )


def score(model, batch, target):
    return keras.ops.convert_to_numpy(model(batch, training=False))[:, target].astype(float)


def linear(shape, classes=2):
    return keras.Sequential(
        [keras.Input(shape), layers.Flatten(), layers.Dense(classes, name="head")]
    )


class Own(keras.Model):
    """A subclassed model."""

    def __init__(self):
        super().__init__(name="own")
        self.convolution = layers.Conv2D(4, 3, activation="relu")
        self.pool = layers.GlobalMaxPooling2D()
        self.head = layers.Dense(2)

    def call(self, x):
        return self.head(self.pool(self.convolution(x)))


def kinds():
    """A model and its images for each kind."""
    functional = keras.Input((10, 9, 1))
    y = layers.Conv2D(3, 3, activation="relu")(functional)
    yield (
        "functional",
        keras.Model(functional, layers.Dense(2)(layers.Flatten()(y))),
        images(3, 10, 9, 1),
    )
    yield "sequential", small_cnn(), images(3, 12, 14, 2)
    backbone = keras.Sequential(
        [keras.Input((10, 9, 1)), layers.Conv2D(3, 3, activation="relu"), layers.Conv2D(4, 3)],
        name="backbone",
    )
    nested = keras.Sequential(
        [
            keras.Input((10, 9, 1)),
            backbone,
            layers.GlobalAveragePooling2D(),
            layers.Dense(2, activation="softmax"),
        ]
    )
    yield "nested", nested, images(3, 10, 9, 1)
    own = Own()
    own(images(1, 10, 9, 1))
    yield "subclassed", own, images(3, 10, 9, 1)
    picture = keras.Input((10, 9, 1), name="picture")
    table = keras.Input((4,), name="table")
    both = layers.Concatenate()(
        [layers.Flatten()(layers.Conv2D(3, 3, activation="relu")(picture)), layers.Dense(3)(table)]
    )
    two = keras.Model({"picture": picture, "table": table}, layers.Dense(2)(both))
    yield "two inputs", two, {"picture": images(3, 10, 9, 1), "table": images(3, 4)}
    for rank, shape in ((1, (16, 2)), (3, (6, 7, 8, 1))):
        convolution = getattr(layers, f"Conv{rank}D")(3, 3, activation="relu")
        model = keras.Sequential(
            [
                keras.Input(shape),
                convolution,
                layers.Flatten(),
                layers.Dense(1, activation="sigmoid"),
            ]
        )
        yield f"{rank}-D", model, images(3, *shape)
