"""Chapter 5.2: every layer's output equals the layer's own, on all kinds of models and every engine (KERAS_BACKEND)."""
import copy
import gc
import threading
import tracemalloc
import warnings
import weakref

import keras
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as L

import medbook.inspection.feature_maps as f
from medbook.images.phantoms import chest_radiograph
from medbook.images.preprocess import normalise
from medbook.inspection.backend import InspectionError, compiled, engine, gradient, to_numpy

quick = settings(max_examples=30, deadline=None, derandomize=True)


def array(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def numpy(tensor):
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))


def shuffled(model, seed=1):
    """The model with random weights everywhere, biases and running means too, so that no layer acts as if it were not there."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if "seed" not in variable.path:
            values = rng.normal(0, 0.4, variable.shape)
            variable.assign(abs(values) + 0.2 if "variance" in variable.path else values)
    return model


# Each kind: (model, images, {path: the layer's own output by another way}).

def by_submodels(model):
    """Outputs of a functional or Sequential model's layers by Keras's own way of asking for them."""
    return lambda x: {layer.name: numpy(keras.Model(model.inputs, layer.output)(x, training=False)) for layer in model.layers
                      if not isinstance(layer, L.InputLayer)}


def in_turn(stack, inside=""):
    """Outputs of layers called one after the other, those of a nested Sequential before its own."""
    def run(x):
        found = {}
        for layer in stack:
            if isinstance(layer, keras.Sequential):
                found |= in_turn(layer.layers, f"{inside}{layer.name}/")(x)
            x = layer(x, training=False) if "training" in layer.call.__code__.co_varnames else layer(x)
            found[inside + layer.name] = numpy(x)
        return found
    return run


def functional():
    x = keras.Input((9, 8, 2), name="image")
    a = L.Conv2D(3, 3, activation="relu", padding="same", name="a")(x)
    y = L.BatchNormalization(name="norm")(L.Add(name="sum")([a, L.Conv2D(3, 1, name="b")(x)]))
    y = L.Dense(2, activation="softmax", name="scores")(L.GlobalAveragePooling2D(name="mean")(L.Dropout(0.5, name="drop")(y)))
    model = shuffled(keras.Model(x, y, name="functional"))
    return model, array(3, 9, 8, 2), by_submodels(model)


def sequential():
    model = shuffled(keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(4, 3), L.ReLU(), L.MaxPooling2D(), L.Flatten(), L.Dense(2)]))
    return model, array(2, 8, 8, 1), in_turn(model.layers)


def late_sequential():
    model = keras.Sequential([L.Conv2D(4, 3, name="c"), L.Flatten(name="f"), L.Dense(2, name="d")])
    model(array(1, 8, 8, 1))
    return shuffled(model), array(2, 8, 8, 1), in_turn(model.layers)


def nested():
    inner = keras.Sequential([keras.Input((6, 6, 4)), L.Conv2D(3, 3, name="conv"), L.ReLU(name="relu")], name="inner")
    middle = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(4, 3, name="conv"), inner], name="backbone")
    head = [L.Flatten(name="flat"), L.Dense(2, name="head")]
    model = shuffled(keras.Sequential([keras.Input((8, 8, 1)), L.Rescaling(2.0, name="twice"), middle, *head]))
    return model, array(2, 8, 8, 1), in_turn(model.layers)


def nested_functional():
    x = keras.Input((8, 8, 1))
    a = L.Conv2D(3, 3, name="one")(x)
    backbone = keras.Model(x, L.Concatenate(name="both")([a, L.Conv2D(2, 3, name="two")(x)]), name="backbone")
    model = shuffled(keras.Sequential([keras.Input((8, 8, 1)), backbone, L.GlobalMaxPooling2D(name="top")]))

    def own(x):
        inner = {f"backbone/{name}": values for name, values in by_submodels(backbone)(x).items()}
        return inner | {"backbone": inner["backbone/both"], "top": inner["backbone/both"].max((1, 2))}
    return model, array(2, 8, 8, 1), own


class Block(keras.layers.Layer):
    def __init__(self, width, **options):
        super().__init__(**options)
        self.first, self.second = L.Conv2D(width, 3, padding="same", name="first"), L.Conv2D(width, 1, name="second")

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
        return found | {"head": x.mean((1, 2)) @ model.head.get_weights()[0] + model.head.get_weights()[1]}
    return model, array(2, 7, 7, 2), own


def two_inputs():
    image, age = keras.Input((6, 6, 1), name="image"), keras.Input((2,), name="age")
    flat = L.Flatten(name="flat")(L.Conv2D(2, 3, name="conv")(image))
    return image, age, L.Dense(2, name="out")(L.Concatenate(name="join")([flat, L.Dense(3, name="years")(age)]))


def input_list():
    image, age, out = two_inputs()
    model = shuffled(keras.Model([image, age], out))
    return model, [array(3, 6, 6, 1), array(3, 2)], by_submodels(model)


def input_dict():
    image, age, out = two_inputs()
    model = shuffled(keras.Model({"zebra": image, "apple": age}, {"label": out, "again": out * 2}))
    own = keras.Model([image, age], [model.get_layer(name).output for name in ("conv", "years", "out")])
    return model, {"zebra": array(3, 6, 6, 1), "apple": array(3, 2)}, lambda x: dict(zip(
        ("conv", "years", "out"), map(numpy, own([x["zebra"], x["apple"]])), strict=True))


def shared():
    conv = L.Conv2D(2, 3, padding="same", name="conv")
    model = shuffled(keras.Sequential([keras.Input((6, 6, 2)), conv, L.ReLU(name="relu"), conv]))

    def own(x):
        one = numpy(conv(x))
        return {"conv#1": one, "relu": np.maximum(one, 0), "conv#2": numpy(conv(np.maximum(one, 0)))}
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
    return model, array(2, 5, 3), lambda x: {f"lstm[{place}]": numpy(one) for place, one in enumerate(model(x))}


def attention():
    x = keras.Input((7, 4))
    y, weights = L.MultiHeadAttention(2, 3, name="attend")(x, x, return_attention_scores=True)
    model = shuffled(keras.Model(x, [L.LayerNormalization(name="norm")(y), weights]))

    def own(x):
        out, weights = model.get_layer("attend")(x, x, return_attention_scores=True)
        return {"attend[0]": numpy(out), "attend[1]": numpy(weights), "norm": numpy(model.get_layer("norm")(out))}
    return model, array(2, 7, 4), own


def volume():
    stack = [L.Conv3D(3, 3, activation="tanh"), L.AveragePooling3D(2), L.GlobalMaxPooling3D(), L.Dense(1)]
    model = shuffled(keras.Sequential([keras.Input((6, 7, 8, 1)), *stack]))
    return model, array(2, 6, 7, 8, 1), in_turn(model.layers)


def tokens():
    model = shuffled(keras.Sequential([keras.Input((6,), dtype="int32"), L.Embedding(9, 4), L.Conv1D(3, 2), L.GlobalAveragePooling1D()]))
    return model, np.random.default_rng(0).integers(0, 9, (3, 6)), in_turn(model.layers)


def any_size():
    model = shuffled(keras.Sequential([keras.Input((None, None, 1)), L.Conv2D(3, 3), L.GlobalAveragePooling2D(), L.Dense(2)]))
    return model, array(2, 9, 11, 1), in_turn(model.layers)


KINDS = [functional, sequential, late_sequential, nested, nested_functional, subclassed, input_list, input_dict, shared, recurrent, states,
         attention, volume, tokens, any_size]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


@kinds
def test_maps_equal_each_layers_own_output(kind):
    model, images, own = kind()
    expected, found = own(images), f.feature_maps(model, images)
    assert set(expected) <= set(found)
    for path, values in expected.items():
        assert found[path].shape == values.shape and found[path].dtype == "float32"
        np.testing.assert_allclose(found[path], values, rtol=0, atol=1e-5 * max(1, abs(values).max()), err_msg=path)


@kinds
def test_names_shapes_and_bytes_agree_with_the_maps(kind):
    model, images, _ = kind()
    outputs, maps, (output, packed) = f.layer_outputs(model, images), f.feature_maps(model, images), f.quantised_maps(model, images)
    assert list(outputs) == list(maps) == list(packed)
    for path, values in maps.items():
        assert outputs[path].path == path and outputs[path].shape == (None, *values.shape[1:]) and outputs[path].dtype == values.dtype
        assert f.find_layer(outputs, path) == path
        one = packed[path]
        assert one.values.dtype == "uint8" and one.values.shape == values.shape
        span = np.expand_dims((one.high - one.low).reshape(len(values), *[1] * (values.ndim - 2), -1), ())
        assert (abs(one.restored() - values) <= span / 510 * 1.01 + 1e-5).all()
    assert keras.tree.map_structure(np.shape, output) == keras.tree.map_structure(np.shape, model(images))


@kinds
def test_one_layer_alone_and_any_batch_size_give_the_same(kind):
    model, images, _ = kind()
    whole = f.feature_maps(model, images)
    for path, values in f.feature_maps(model, images, list(whole)[-2:], batch_size=1).items():
        np.testing.assert_allclose(values, whole[path], rtol=0, atol=1e-5 * max(1, abs(values).max()))
    first = next(iter(whole))
    assert list(f.feature_maps(model, images, first, batch_size=2)) == [first]


@settings(quick, max_examples=15)
@given(st.integers(0, 2**16), st.integers(1, 3), st.integers(1, 3), st.sampled_from(["same", "valid"]), st.integers(1, 7))
def test_random_networks(seed, kernel, stride, padding, batch_size):
    rng, stack = np.random.default_rng(seed), []
    for _ in range(rng.integers(1, 4)):
        stack.append(L.Conv2D(int(rng.integers(1, 4)), kernel, stride, padding, activation=str(rng.choice(["relu", "tanh", "linear"]))))
        stack.append([L.BatchNormalization(), L.MaxPooling2D(2, padding="same"), L.Activation("sigmoid")][rng.integers(3)])
    size = int(rng.integers(20, 40)) * (1 if padding == "same" else stride**2)
    model = shuffled(keras.Sequential([keras.Input((size, size, 1)), *stack]), seed)
    images = array(5, size, size, 1, seed=seed)
    found = f.feature_maps(model, images, batch_size=batch_size)
    for path, values in in_turn(model.layers)(images).items():
        np.testing.assert_allclose(found[path], values, rtol=0, atol=1e-5 * max(1, abs(values).max()))


# ---- a model that changes

def test_new_weights_are_seen():
    model, images, own = functional()
    f.feature_maps(model, images)
    shuffled(model, 5)
    np.testing.assert_allclose(f.feature_maps(model, images)["norm"], own(images)["norm"], atol=1e-4)
    model.get_layer("b").bias.assign([100.0, 0, 0])
    assert f.feature_maps(model, images, "b")["b"][..., 0].mean() > 50
    model.optimizer = keras.optimizers.SGD(0.1)
    model.compile("sgd", "categorical_crossentropy")
    model.fit(images, np.eye(2)[[0, 1, 0]], verbose=0)
    np.testing.assert_allclose(f.feature_maps(model, images)["scores"], numpy(model(images)), atol=1e-5)


def test_layers_added_removed_and_replaced_are_seen():
    model, images, _ = sequential()
    f.feature_maps(model, images)
    model.pop()
    assert "dense" not in list(f.feature_maps(model, images))[-1]
    model.add(L.Dense(3, activation="tanh", name="other"))
    np.testing.assert_allclose(f.feature_maps(model, images)["other"], numpy(model(images)), atol=1e-5)
    model.layers[-1].activation = keras.activations.linear                # a common way to the scores before the softmax
    flat, (kernel, bias) = f.feature_maps(model, images)[model.layers[-2].name], model.layers[-1].get_weights()
    np.testing.assert_allclose(f.feature_maps(model, images)["other"], flat @ kernel + bias, atol=1e-4)


def test_a_change_inside_a_nested_model_is_seen():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, name="one")], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner])
    f.feature_maps(model, array(2, 4))
    inner.layers[0].activation = lambda x: x * 0 + 7
    assert (f.feature_maps(model, array(2, 4))["inner/one"] == 7).all()


def test_edit_replaces_what_goes_on_through_the_model():
    model, images, _ = nested()
    halved = compiled(lambda x: f.run_recorded(model, x, {"backbone/inner/relu": lambda y: y * 0.5})[0], model)
    last, (kernel, bias) = f.feature_maps(model, images)["flat"], model.layers[-1].get_weights()
    np.testing.assert_allclose(to_numpy(halved(images)), 0.5 * last @ kernel + bias, atol=1e-4)


def test_slope_at_a_hidden_layer_by_an_edit():
    model, images, _ = nested()
    def score(delta, images):
        return keras.ops.sum(f.run_recorded(model, images, {"flat": lambda y: y + delta})[0][:, 1]), []
    slopes, _ = gradient(score, model)(np.zeros((2, 48), "float32"), images)
    np.testing.assert_allclose(to_numpy(slopes), np.tile(model.layers[-1].get_weights()[0][:, 1], (2, 1)), atol=1e-5)


# ---- what must stay clean

def test_calls_are_restored_after_an_exception():
    before = keras.Operation.__call__

    class Broken(keras.Model):
        def call(self, x):
            if getattr(self, "broken", False):
                raise RuntimeError("out of order")
            return x * 1
    model = Broken()
    model(array(1, 3))
    model.broken = True
    with pytest.raises(InspectionError, match=r"cannot run on images of shape \(2, 3\).*out of order"):
        f.feature_maps(model, array(2, 3))
    assert keras.Operation.__call__ is before
    with pytest.raises(ZeroDivisionError), f.recording(model):
        raise ZeroDivisionError
    assert keras.Operation.__call__ is before
    model.broken = False
    assert f.layer_outputs(model, array(2, 3)) == {}


def test_a_models_cache_goes_with_the_model():
    model, images, _ = nested()
    f.feature_maps(model, images)
    f.quantised_maps(model, images)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_copies_and_files_of_a_model_know_nothing_of_its_cache(tmp_path):
    model, images, _ = sequential()
    expected = list(f.feature_maps(model, images).values())[-1]
    model.save(tmp_path / "model.keras")
    for other in (copy.deepcopy(model), keras.saving.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(list(f.feature_maps(other, images).values())[-1], expected, atol=1e-6)


def test_a_hundred_images_one_after_another_do_not_grow_memory():
    model = keras.Sequential([keras.Input((64, 64, 1)), L.Conv2D(16, 3), L.ReLU(), L.MaxPooling2D()])
    images = array(100, 64, 64, 1)
    size = sum(values.nbytes for values in f.feature_maps(model, images[:1]).values())
    psutil = pytest.importorskip("psutil")
    for number in range(20):
        f.feature_maps(model, images[number:number + 1])
    gc.collect()
    tracemalloc.start()
    before, process = psutil.Process().memory_info().rss, tracemalloc.get_traced_memory()[0]
    for number in range(100):
        f.feature_maps(model, images[number:number + 1])
        f.quantised_maps(model, images[number:number + 1])
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0] - process
    tracemalloc.stop()
    assert traced < 5 * size and psutil.Process().memory_info().rss - before < 60 * size
    assert len(model.__dict__["_medbook_inspection"][1]) <= 16


def test_the_cache_holds_sixteen_things():
    model, images, _ = sequential()
    for number in range(40):
        assert f.cached(model, number, lambda number=number: number) == number
    assert list(model.__dict__["_medbook_inspection"][1]) == list(range(24, 40))
    f.cached(model, 30, lambda: "made again")
    assert list(model.__dict__["_medbook_inspection"][1].values())[-1] == 30


def test_two_threads_explore_two_models_at_once():
    jobs, failures = [nested(), subclassed()], []

    def explore(model, images, own):
        try:
            for layer in (None, *list(own(images))[:3]) * 4:
                for path, values in f.feature_maps(model, images, layer).items():
                    np.testing.assert_allclose(values, own(images)[path], atol=1e-4)
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=explore, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures and not any(thread.is_alive() for thread in threads)


def test_another_thread_runs_its_model_unseen_while_one_is_recorded():
    model, images, own = sequential()
    other, seen = functional()[0], []
    with f.recording(model) as recorder:
        thread = threading.Thread(target=lambda: seen.append(other(array(1, 9, 8, 2))))
        thread.start()
        thread.join(60)
        model(images)
    assert len(seen) == 1 and [record.path for record in recorder.records] == list(own(images))


# ---- types

def test_mixed_bfloat16_maps_come_as_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, images, own = sequential()
    finally:
        keras.config.set_dtype_policy(before)
    found, packed = f.feature_maps(model, images), f.quantised_maps(model, images)[1]
    if keras.backend.backend() != "torch":                                # there Keras's symbolic pass names another type
        assert f.layer_outputs(model, images)[model.layers[0].name].dtype == "bfloat16"
    for path, values in own(images).items():
        assert found[path].dtype == "float32"
        np.testing.assert_allclose(found[path], values, atol=0.02 * abs(values).max())
        np.testing.assert_allclose(packed[path].restored(), values, atol=0.03 * abs(values).max())


@pytest.mark.parametrize("dtype", ["uint8", "float64", "int64", "float16", "bool"])
def test_images_of_other_types(dtype):
    model, _, own = sequential()
    images = (abs(array(2, 8, 8, 1)) * 20).astype(dtype)
    expected, found = own(images.astype("float32")), f.feature_maps(model, images)
    for path, values in expected.items():
        np.testing.assert_allclose(found[path], values, rtol=0, atol=1e-5 * abs(values).max())


def test_tensors_lists_of_numbers_and_read_only_arrays():
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, name="d")])
    images = array(2, 3)
    expected = f.feature_maps(model, images)["d"]
    images.flags.writeable = False
    assert np.array_equal(f.feature_maps(model, images)["d"], expected)
    assert np.array_equal(f.feature_maps(model, keras.ops.convert_to_tensor(array(2, 3)))["d"], expected)
    assert np.array_equal(f.feature_maps(model, np.asfortranarray(images))["d"], expected)


def test_a_model_for_any_size_takes_another_size_next():
    model, images, own = any_size()
    for shape in ((2, 9, 11, 1), (1, 20, 5, 1), (2, 9, 11, 1), (3, 6, 6, 1)):
        images = array(*shape)
        for path, values in own(images).items():
            np.testing.assert_allclose(f.feature_maps(model, images)[path], values, atol=1e-5)


# ---- clear errors

@pytest.mark.parametrize(("change", "message"), [
    (lambda x: x[0], r"shape \(8, 8, 1\), but model 'plain' takes \(batch, 8, 8, 1\); write images\[None\]"),
    (lambda x: x[..., 0], r"write images\[\.\.\., None\]"),
    (lambda x: x[0, ..., 0], r"write images\[None, \.\.\., None\]"),
    (lambda x: np.moveaxis(x, -1, 1), r"np\.moveaxis\(images, 1, -1\)"),
    (lambda x: x[:, :5], r"shape \(2, 5, 8, 1\), but model 'plain' takes \(batch, 8, 8, 1\)$"),
    (lambda x: np.repeat(x, 3, -1), r"\(2, 8, 8, 3\), but"),
    (lambda x: x[:0], r"no images: an array of shape \(0, 8, 8, 1\)"),
    (lambda x: x * np.nan, "NaN or infinity"),
    (lambda x: x / 0, "NaN or infinity"),
    (lambda x: x.astype(str), "images must be numbers, not <U"),
    (lambda x: x.astype(complex), "images must be numbers, not complex128"),
    (lambda x: "image.png", "images must be numbers"),
    (lambda x: None, "images must be numbers|no images|inputs"),
    (lambda x: [x, x], r"has 1 inputs, 2 were given; write np\.stack\(images\)"),
    (lambda x: {"picture": x}, r"has inputs \[.*\], \['picture'\] were given"),
])
def test_wrong_images(change, message):
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(2, 3)], name="plain")
    for function in (f.feature_maps, f.quantised_maps, f.layer_outputs):
        with np.errstate(all="ignore"), pytest.raises(InspectionError, match=message):
            function(model, change(array(2, 8, 8, 1)))


def test_wrong_inputs_of_several():
    model, (image, age), _ = input_list()
    for wrong, message in (([image], "has 2 inputs, 1 were given"), ([image, age[:2]], r"not \[3, 2\]"),
                           ([age, image], r"images have shape \(3, 2\)"),
                           ({"image": image}, r"has inputs \['age', 'image'\], \['image'\] were given")):
        with pytest.raises(InspectionError, match=message):
            f.feature_maps(model, wrong)
    by_name = f.feature_maps(model, {"image": image, "age": age})
    assert np.array_equal(by_name["out"], f.feature_maps(model, [image, age])["out"])


def test_wrong_models():
    for wrong in (None, "model.keras", L.Dense(2), lambda x: x):
        with pytest.raises(InspectionError, match="expected a keras.Model, not"):
            f.feature_maps(wrong, array(2, 3))
    for unbuilt in (keras.Sequential([L.Dense(2)]), Subclassed()):
        with pytest.raises(InspectionError, match="has no weights yet: build it, or call it once"):
            f.feature_maps(unbuilt, array(2, 3))
    model, _, _ = subclassed()
    with pytest.raises(InspectionError, match=r"model 'mine' cannot run on images of shape \(2, 7, 7, 5\)"):
        f.feature_maps(model, array(2, 7, 7, 5))


def test_wrong_layers():
    model, images, _ = nested()
    for layer, message in (("convv", "no layer 'convv' among 8; there is .*backbone/conv"),
                           ("conv", "'conv' names 2 outputs: backbone/conv, backbone/inner/conv"),
                           ("", "no layer ''"), (3, "no layer 3|no layer '3'"), (L.Dense(1, name="alien"), "no layer 'alien'")):
        with pytest.raises(InspectionError, match=message):
            f.feature_maps(model, images, layer)
    assert list(f.feature_maps(model, images, "inner/conv")) == list(f.feature_maps(model, images, model.layers[1].layers[1].layers[0]))
    model, images, _ = shared()
    for layer in ("conv", model.layers[0]):
        with pytest.raises(InspectionError, match="'conv' names 2 outputs: conv#1, conv#2; give one"):
            f.feature_maps(model, images, layer)


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, None, True])
def test_wrong_batch_sizes(batch_size):
    model, images, _ = sequential()
    with pytest.raises(InspectionError, match="batch_size: expected a positive integer"):
        f.feature_maps(model, images, batch_size=batch_size)


def test_weights_that_are_not_finite_are_told():
    ill = L.Conv2D(2, 3, activation="relu", name="ill")
    model = keras.Sequential([keras.Input((8, 8, 1)), L.Conv2D(2, 3, name="fine"), ill, L.Flatten(), L.Dense(2)])
    kernel = model.layers[1].kernel
    kernel.assign(np.where(np.arange(np.prod(kernel.shape)) == 7, np.nan, 1).reshape(kernel.shape))
    with pytest.warns(UserWarning, match="weight '.*ill/kernel' of model .* is not finite"):
        f.feature_maps(model, array(1, 8, 8, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        f.feature_maps(sequential()[0], array(1, 8, 8, 1))


def test_maps_that_are_not_finite_are_told_and_returned():
    stack = [L.Rescaling(1e30, name="large"), L.Rescaling(1e30, name="larger"), L.Rescaling(1.0, name="last")]
    model = keras.Sequential([keras.Input((4,)), *stack])
    images = np.ones((2, 4), "float32")
    with pytest.warns(UserWarning, match="output is not finite.*first such map is that of 'larger'"):
        maps = f.feature_maps(model, images)
    assert np.isinf(maps["larger"]).all() and np.isfinite(maps["large"]).all()
    with pytest.warns(UserWarning, match="'larger'"):
        packed = f.quantised_maps(model, images)[1]
    assert np.isnan(packed["larger"].low).all() and np.isnan(packed["larger"].high).all() and not packed["larger"].values.any()


# ---- bytes, mosaics, statistics, weights

@quick
@given(st.integers(0, 2**16), st.integers(1, 5), st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e37]))
def test_bytes_hold_each_map_to_half_a_step(seed, rank, size):
    rng = np.random.default_rng(seed)
    maps = (rng.normal(size=rng.integers(1, 5, rank)) * size).astype("float32")
    values, low, high = (np.asarray(keras.ops.convert_to_numpy(one)) for one in f.quantised(keras.ops.convert_to_tensor(maps)))
    maps = maps if rank > 1 else maps[:, None]
    axes = tuple(range(1, rank - 1)) if rank > 2 else (1,)
    expected = [end(maps, axes) if rank > 2 else end(maps, axes, keepdims=True) for end in (np.min, np.max)]
    np.testing.assert_array_equal([low, high], expected)
    restored, span = f.Quantised(values, low, high).restored(), (high - low).reshape(len(maps), *[1] * (maps.ndim - 2), -1)
    assert (abs(restored - maps) <= span / 510 * 1.001 + 1e-6 * size).all()
    assert set(np.unique(values[..., 0][low[..., 0] == high[..., 0]])) <= {0}


def test_bytes_of_constant_and_broken_maps():
    maps = np.stack([np.full((3, 3), 7.0), np.arange(9.0).reshape(3, 3), np.eye(3) * np.nan, np.eye(3) / 1e-45], -1)[None].astype("float32")
    values, low, high = (np.asarray(keras.ops.convert_to_numpy(one)) for one in f.quantised(keras.ops.convert_to_tensor(maps)))
    assert not values[..., [0, 2, 3]].any() and values[0, ..., 1].ravel().tolist() == [0, 32, 64, 96, 128, 159, 191, 223, 255]
    np.testing.assert_array_equal(low[0], [7, 0, np.nan, np.nan])
    np.testing.assert_array_equal(high[0], [7, 8, np.nan, np.nan])


@quick
@given(st.integers(0, 2**16), st.integers(1, 20), st.one_of(st.none(), st.integers(1, 25)), st.integers(0, 3),
       st.sampled_from(["each", "shared", "signed"]))
def test_mosaic_puts_every_map_in_its_place(seed, count, columns, pad, scale):
    maps = np.random.default_rng(seed).normal(size=(4, 5, count)).astype("float32")
    sheet = f.mosaic(maps, columns=columns, pad=pad, scale=scale)
    wide = min(columns or int(np.ceil(np.sqrt(count))), count)
    rows = -(-count // wide)
    assert sheet.shape == (rows * (4 + pad) - pad, wide * (5 + pad) - pad) and sheet.min() >= 0 and sheet.max() <= 1
    seen = np.ones_like(sheet, bool)
    for number in range(count):
        top, left = number // wide * (4 + pad), number % wide * (5 + pad)
        one, all_ = maps[..., number], maps if scale != "each" else maps[..., number]
        low, high = (all_.min(), all_.max()) if scale != "signed" else (-abs(all_).max(), abs(all_).max())
        np.testing.assert_allclose(sheet[top:top + 4, left:left + 5], (one - low) / (high - low), atol=1e-5)
        seen[top:top + 4, left:left + 5] = False
    assert (sheet[seen] == (0.5 if scale == "signed" else 1)).all()


def test_mosaic_of_other_shapes():
    volume, signal = array(5, 4, 3, 2), array(9, 4)
    assert np.array_equal(f.mosaic(volume), f.mosaic(volume[2]))
    assert f.mosaic(signal).shape == (4, 9) and np.array_equal(f.mosaic(signal).argmax(1), signal.argmax(0))
    assert f.mosaic(array(7)).shape == (1, 7)
    assert f.mosaic(np.full((3, 3, 4), 5.0), pad=0).tolist() == np.zeros((6, 6)).tolist()
    assert np.isfinite(f.mosaic(np.where(signal > 1, np.nan, signal))).all() and not f.mosaic(np.full((2, 2, 1), np.nan)).any()
    assert f.mosaic(np.arange(16, dtype="uint8").reshape(2, 2, 4)).max() == 1
    for wrong in (np.zeros((1, 2, 3, 4, 5)), np.zeros((0, 3, 3)), 3.0):
        with pytest.raises(InspectionError, match="maps of one image"):
            f.mosaic(wrong)
    with pytest.raises(InspectionError, match="scale: expected each, shared or signed, not 'all'"):
        f.mosaic(signal, scale="all")


def test_statistics_against_a_loop():
    model, images, _ = functional()
    maps = f.feature_maps(model, images)
    table = f.map_statistics(maps)
    assert isinstance(table, pd.DataFrame) and len(table) == sum(values.shape[-1] for values in maps.values())
    for row in table.itertuples():
        values = maps[row.layer][..., row.map]
        np.testing.assert_allclose([row.mean, row.std, row.min, row.max, row.zeros],
                                   [values.mean(), values.std(), values.min(), values.max(), np.mean(values == 0)], rtol=1e-4, atol=1e-6)
        assert row.dead == (np.ptp(values) == 0)
    assert table.saturated.isna().all()


def test_dead_and_saturated_maps_are_found():
    model = keras.Sequential([keras.Input((6, 6, 1)), L.Conv2D(4, 1, activation="relu", name="relu"),
                              L.Conv2D(2, 1, activation="sigmoid", name="gate"), L.ReLU(max_value=2.0, name="cut"), L.Activation("tanh")])
    second = np.array([[9.0, 0]] + [[0, 0]] * 3)[None, None]
    model.set_weights([np.array([1.0, 1, -1, 0])[None, None, None], np.array([0.0, 1, -100, 0]), second, np.zeros(2)])
    images = np.linspace(0.1, 5, 72).reshape(2, 6, 6, 1)
    table = f.map_statistics(f.feature_maps(model, images), f.layer_outputs(model, images)).set_index(["layer", "map"])
    assert table.loc["relu"].dead.tolist() == [False, False, True, True] and table.loc["relu"].zeros.tolist() == [0, 0, 1, 1]
    assert table.loc["relu"].saturated.isna().all()
    assert table.loc[("gate", 0), "saturated"] == np.mean(1 / (1 + np.exp(-9 * images)) >= 0.99) > 0.8
    assert table.loc[("gate", 1), "saturated"] == 0 and table.loc[("gate", 1), "dead"]
    assert f.saturation_bounds(L.ReLU(6.0)) == (None, 6) and f.saturation_bounds(L.Dense(1, activation="relu6")) == (None, 6)
    assert f.saturation_bounds(L.Dense(1)) is None and f.saturation_bounds(L.LSTM(2)) is None


def test_a_unit_with_one_value_is_dead_only_at_zero():
    table = f.map_statistics({"units": np.array([[0.0, 2.0]])})
    assert table.dead.tolist() == [True, False]


def test_kernel_pictures():
    model = keras.Sequential([keras.Input((9, 9, 2)), L.Conv2D(3, (2, 4), name="conv"), L.DepthwiseConv2D(3, name="deep"),
                              L.Conv2DTranspose(5, 3, name="back"), L.SeparableConv2D(2, 3, name="split"), L.Flatten(name="flat"),
                              L.Dense(4, name="dense")])
    kernel, pictures = model.get_layer("conv").get_weights()[0], f.kernel_pictures(model, "conv")
    assert pictures.shape == (2, 4, 6)
    for filter_, channel in np.ndindex(3, 2):
        assert np.array_equal(pictures[..., filter_ * 2 + channel], kernel[:, :, channel, filter_])
    chosen = f.kernel_pictures(model, "conv", channels=[1], filters=[2, 0])
    assert np.array_equal(chosen, np.stack([kernel[:, :, 1, 2], kernel[:, :, 1, 0]], -1))
    back = model.get_layer("back").get_weights()[0]
    assert np.array_equal(f.kernel_pictures(model, "back")[..., 1], back[:, :, 0, 1])
    assert f.kernel_pictures(model, "deep").shape == (3, 3, 3) and f.kernel_pictures(model, "split").shape == (3, 3, 5)
    assert np.array_equal(f.kernel_pictures(model, "dense")[..., 0], model.get_layer("dense").get_weights()[0])
    for call, message in ((lambda: f.kernel_pictures(model, "flat"), r"'flat' \(Flatten\) has no kernel"),
                          (lambda: f.kernel_pictures(model, "con"), "no layer"),
                          (lambda: f.kernel_pictures(model, "conv", channels=[2]), "channels: expected numbers below 2"),
                          (lambda: f.kernel_pictures(model, "conv", filters=[-1]), "filters: expected numbers below 3")):
        with pytest.raises(InspectionError, match=message):
            call()


def test_kernels_of_signals_volumes_and_inner_layers():
    signals = keras.Sequential([keras.Input((20, 3)), L.Conv1D(4, 5, name="conv")])
    assert np.array_equal(f.kernel_pictures(signals, "conv")[1, :, 2], signals.layers[0].get_weights()[0][:, 1, 2])
    volumes = keras.Sequential([keras.Input((9, 9, 9, 2)), L.Conv3D(3, (3, 4, 5), name="conv")])
    pictures = f.kernel_pictures(volumes, "conv")
    assert pictures.shape == (3, 4, 5, 6) and f.mosaic(pictures, pad=0, columns=6).shape == (4, 30)
    model, _, _ = nested()
    assert f.kernel_pictures(model, "backbone/inner/conv").shape == (3, 3, 12)
    with pytest.raises(InspectionError, match="names 2"):
        f.kernel_pictures(model, "conv")
    assert f.kernel_pictures(subclassed()[0], "last/second").shape == (1, 1, 4)


def test_show_maps_draws_the_mosaic():
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    maps = array(5, 4, 6)
    ax = f.show_maps(maps, "six maps", columns=3, scale="shared")
    assert ax.get_title() == "six maps" and np.array_equal(ax.images[0].get_array(), f.mosaic(maps, columns=3, scale="shared"))
    assert f.show_maps(array(9, 4), ax=ax) is ax
    plt.close("all")


def test_the_example_network_finds_nodules():
    model = f.example_network()
    phantoms = [chest_radiograph(1000 + number, nodules=number % 2, size=64, seed=number) for number in range(40)]
    images = np.stack([normalise(phantom.image, (0.5, 99.5)) for phantom in phantoms])[..., None]
    scores = f.feature_maps(model, images)
    last = list(scores.values())[-1]
    assert last.shape == (40, 2) and np.allclose(last.sum(1), 1, atol=1e-5)
    assert np.mean(last[1::2, 1] > 0.5) > 0.6 and np.mean(last[::2, 1] < 0.5) > 0.6


def test_the_module_can_be_called():
    model, images, _ = sequential()
    assert list(f(model, images)) == list(f.feature_maps(model, images))


# models of real people ----------------------------------------------------------------------------------------------------------

@keras.saving.register_keras_serializable("medbook_tests")
class Conditional(L.Layer):
    """A person's own layer that calls another inside `keras.ops.cond` or `map`, where no tensor may leave."""

    def __init__(self, how, **options):
        super().__init__(**options)
        self.how, self.inner = how, L.Dense(4, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        if self.how == "map":
            return keras.ops.map(self.inner, x)
        return keras.ops.cond(keras.ops.mean(x) > 0, lambda: self.inner(x), lambda: -self.inner(x))


@pytest.mark.parametrize("how", ["cond", "map"])
def test_a_layer_called_inside_a_condition_or_a_map_leaves_its_owner_whole(how):
    if (how, engine()) == ("map", "torch"):
        pytest.skip("PyTorch calls the layer once for each image, and Keras's look at shapes once in all: told as an InspectionError")
    model = keras.Sequential([keras.Input((5, 4)), Conditional(how, name="w"), L.Conv1D(3, 2, name="c"),
                              L.GlobalAveragePooling1D(name="g")])
    x = array(2, 5, 4)
    maps = f.feature_maps(model, x)
    assert {"w", "c", "g"} <= set(maps) and (engine() == "torch" or set(maps) == {"w", "c", "g"})
    np.testing.assert_allclose(maps["w"], numpy(model.layers[0](x)), atol=1e-5)


class Repeated(keras.Model):
    """Two convolutions of one name, made in another order than they are called."""

    def __init__(self):
        super().__init__(name="repeated")
        self.second, self.first = L.Conv2D(2, 3, name="conv"), L.Conv2D(3, 3, name="conv")

    def call(self, x):
        return self.second(self.first(x))


def test_kernels_of_layers_that_share_a_name_are_had_by_the_layer_alone():
    model = Repeated()
    model(array(1, 8, 8, 1))
    for name in ("conv", "conv#1", "conv#2"):
        with pytest.raises(InspectionError, match="names 2 layers; .* the layer itself"):
            f.kernel_pictures(model, name)
    outputs = f.layer_outputs(model, array(1, 8, 8, 1))
    assert f.kernel_pictures(model, outputs["conv#1"].layer).shape == (3, 3, 3) and outputs["conv#1"].layer is model.first
    assert f.kernel_pictures(model, model.second).shape == (3, 3, 6)
    twin = L.Conv2D(1, 3, padding="same", name="twin")
    shared = keras.Sequential([keras.Input((5, 5, 1)), twin, L.ReLU(), twin])
    assert np.array_equal(f.kernel_pictures(shared, "twin#2"), f.kernel_pictures(shared, "twin"))
    with pytest.raises(InspectionError, match="no layer 'conv9'"):
        f.kernel_pictures(model, "conv9")


@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_model_that_was_made_for_four_images(count):
    image = keras.Input(batch_shape=(4, 8, 8, 1))
    model = keras.Model(image, L.Dense(2, name="d")(keras.ops.reshape(L.Conv2D(3, 3, name="c")(image), (4, -1))))
    x = array(count, 8, 8, 1)
    if count == 4:
        np.testing.assert_allclose(f.feature_maps(model, x)["d"], numpy(model(x)), atol=1e-5)
        assert f.layer_outputs(model, x)["c"].shape == (None, 6, 6, 3)
    else:
        with pytest.raises(InspectionError, match=f"shape \\({count}, 8, 8, 1\\).*made for 4 images at a time"):
            f.feature_maps(model, x)


def test_looking_leaves_the_state_of_a_stateful_model():
    model = keras.Sequential([keras.Input(batch_shape=(2, 6, 3)), L.LSTM(4, stateful=True, return_sequences=True),
                              L.LSTM(3, stateful=True)])
    x = array(2, 6, 3)
    model(x)
    states = [state for layer in model.layers for state in layer.states]
    kept = [numpy(state) for state in states]
    first, second = f.feature_maps(model, x), f.feature_maps(model, x)
    assert all(np.array_equal(first[path], second[path]) for path in first)
    assert all(np.array_equal(one, numpy(state)) for one, state in zip(kept, states, strict=True))
    with pytest.raises(InspectionError, match="made for 2 images"):
        f.feature_maps(model, array(3, 6, 3))


def test_numbers_of_another_machine_and_masked_pixels():
    model = keras.Sequential([keras.Input((4, 4, 1)), L.Conv2D(1, 3)])
    x = np.random.default_rng(0).integers(0, 9, (1, 4, 4, 1))
    same = f.feature_maps(model, x.astype("float32"))[model.layers[0].name]
    for kind in (">f4", ">f8", ">u2", ">i4"):
        assert f.as_batch(model, x.astype(kind)).dtype.isnative
        np.testing.assert_allclose(f.feature_maps(model, x.astype(kind))[model.layers[0].name], same, atol=1e-5)
    with pytest.raises(InspectionError, match="masked.*filled"):
        f.as_batch(model, np.ma.masked_equal(x.astype("float32"), x.flat[0]))
    assert f.as_batch(model, np.ma.masked_equal(x.astype("float32"), 99)).shape == x.shape


class Scaled(keras.Model):
    """A model whose `call` reads an attribute and, on request, does without a layer."""

    def __init__(self):
        super().__init__(name="scaled")
        self.dense, self.extra, self.scale, self.short = L.Dense(2, name="dense"), L.Dense(2, name="extra"), 1.0, False

    def call(self, x):
        y = self.dense(x) * self.scale
        return y if self.short else self.extra(y)


def test_an_attribute_is_seen_after_forgetting_and_a_layer_that_left_is_an_error():
    model, x = Scaled(), array(2, 3)
    model(x)
    before = f.feature_maps(model, x, "extra")["extra"]
    model.scale = 2.0
    f.forget(model)
    np.testing.assert_allclose(f.feature_maps(model, x, "extra")["extra"], 2 * before - numpy(model.extra.bias), atol=1e-5)
    f.forget(model)
    f.layer_outputs(model, x)
    model.short = True
    with pytest.raises(InspectionError, match="'extra' was not called this time.*forget"):
        f.feature_maps(model, x)


class Two(keras.Model):
    """Several positional inputs, which Keras allows and nobody can pass as one batch."""

    def __init__(self):
        super().__init__(name="two")
        self.dense = L.Dense(2)

    def call(self, image, age):
        return self.dense(keras.ops.concatenate([image, age], -1))


def test_several_positional_inputs_are_told_how_to_pass():
    model, x = Two(), array(2, 3)
    model(x, x)
    with pytest.raises(InspectionError, match=r"'age'.*one argument, call\(self, inputs\), a list or a dict"):
        f.feature_maps(model, [x, x])


@pytest.mark.skipif(engine() != "tensorflow", reason="tf.function is TensorFlow's")
@pytest.mark.parametrize("where", ["class", "instance"])
def test_a_call_that_is_a_tf_function_is_listened_to(where):
    import tensorflow as tf

    class Decorated(keras.Model):
        def __init__(self):
            super().__init__(name="decorated")
            self.a, self.b = L.Conv1D(3, 2, name="a"), L.Dense(2, name="b")

        def call(self, x):
            return self.b(keras.ops.mean(self.a(x), 1))

    if where == "class":
        Decorated.call = tf.function(Decorated.call)
    model, x = Decorated(), array(2, 5, 4)
    if where == "instance":
        model.call = tf.function(model.call)
    decorated = model.call
    model(x)
    for _ in range(2):
        maps = f.feature_maps(model, x)
        assert list(maps) == ["a", "b"]
        np.testing.assert_allclose(maps["b"], numpy(model(x)), atol=1e-5)
        np.testing.assert_allclose(maps["a"], numpy(model.a(x)), atol=1e-5)
    assert type(model.call) is type(decorated)
