"""Chapter 5.3: layers of all kinds of models are heard and found, and models stay as they are."""

import copy
import gc
import threading
import warnings
import weakref

import keras
import numpy as np
import pytest
from keras import layers as L

import medbook.inspection.feature_maps as f
from medbook.inspection import layers
from medbook.inspection.backend import (
    InspectionError,
    backend,
    compile_function,
    gradient,
    to_numpy,
)
from tests.inspection_models import array, functional, nested, numpy, sequential, shared, subclassed


def test_layers_added_removed_and_replaced_are_seen():
    model, images, _ = sequential()
    f.feature_maps(model, images)
    model.pop()
    assert "dense" not in list(f.feature_maps(model, images))[-1]
    model.add(L.Dense(3, activation="tanh", name="other"))
    np.testing.assert_allclose(
        f.feature_maps(model, images)["other"], numpy(model(images)), atol=1e-5
    )
    model.layers[
        -1
    ].activation = keras.activations.linear  # a common way to the scores before the softmax
    flat = f.feature_maps(model, images)[model.layers[-2].name]
    (kernel, bias) = model.layers[-1].get_weights()
    np.testing.assert_allclose(
        f.feature_maps(model, images)["other"], flat @ kernel + bias, atol=1e-4
    )


def test_a_change_inside_a_nested_model_is_seen():
    inner = keras.Sequential([keras.Input((4,)), L.Dense(4, name="one")], name="inner")
    model = keras.Sequential([keras.Input((4,)), inner])
    f.feature_maps(model, array(2, 4))
    inner.layers[0].activation = lambda x: x * 0 + 7
    assert (f.feature_maps(model, array(2, 4))["inner/one"] == 7).all()


@pytest.mark.backends
def test_edit_replaces_what_goes_on_through_the_model():
    model, images, _ = nested()
    halved = compile_function(
        lambda x: layers.run_recorded(model, x, {"backbone/inner/relu": lambda y: y * 0.5})[0],
        model,
    )
    last = f.feature_maps(model, images)["flat"]
    (kernel, bias) = model.layers[-1].get_weights()
    np.testing.assert_allclose(to_numpy(halved(images)), 0.5 * last @ kernel + bias, atol=1e-4)


@pytest.mark.backends
def test_gradient_at_a_hidden_layer_by_an_edit():
    model, images, _ = nested()

    def score(delta, images):
        return keras.ops.sum(
            layers.run_recorded(model, images, {"flat": lambda y: y + delta})[0][:, 1]
        ), []

    gradients, _ = gradient(score, model)(np.zeros((2, 48), "float32"), images)
    np.testing.assert_allclose(
        to_numpy(gradients), np.tile(model.layers[-1].get_weights()[0][:, 1], (2, 1)), atol=1e-5
    )


@pytest.mark.backends
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
    with pytest.raises(
        InspectionError, match=r"cannot run on images of shape \(2, 3\).*out of order"
    ):
        f.feature_maps(model, array(2, 3))
    assert keras.Operation.__call__ is before
    with pytest.raises(ZeroDivisionError), layers.record_calls(model):
        raise ZeroDivisionError
    assert keras.Operation.__call__ is before
    model.broken = False
    assert layers.layer_outputs(model, array(2, 3)) == {}


@pytest.mark.backends
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
        np.testing.assert_allclose(
            list(f.feature_maps(other, images).values())[-1], expected, atol=1e-6
        )


def test_the_cache_holds_sixteen_things():
    model, images, _ = sequential()
    for number in range(40):
        assert layers.remember(model, number, lambda number=number: number) == number
    assert list(model.__dict__["_medbook_inspection"][1]) == list(range(24, 40))
    layers.remember(model, 30, lambda: "made again")
    assert list(model.__dict__["_medbook_inspection"][1].values())[-1] == 30


def test_two_threads_explore_two_models_at_once():
    jobs = [nested(), subclassed()]
    failures = []

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
    other = functional()[0]
    seen = []
    with layers.record_calls(model) as recorder:
        thread = threading.Thread(target=lambda: seen.append(other(array(1, 9, 8, 2))))
        thread.start()
        thread.join(60)
        model(images)
    assert len(seen) == 1 and [record.path for record in recorder.records] == list(own(images))


def test_wrong_layers():
    model, images, _ = nested()
    for layer, message in (
        ("convv", "no layer 'convv' among 8; there is .*backbone/conv"),
        ("conv", "'conv' names 2 outputs: backbone/conv, backbone/inner/conv"),
        ("", "no layer ''"),
        (3, "no layer 3|no layer '3'"),
        (L.Dense(1, name="alien"), "no layer 'alien'"),
    ):
        with pytest.raises(InspectionError, match=message):
            f.feature_maps(model, images, layer)
    assert list(f.feature_maps(model, images, "inner/conv")) == list(
        f.feature_maps(model, images, model.layers[1].layers[1].layers[0])
    )
    model, images, _ = shared()
    for layer in ("conv", model.layers[0]):
        with pytest.raises(
            InspectionError, match="'conv' names 2 outputs: conv#1, conv#2; give one"
        ):
            f.feature_maps(model, images, layer)


@pytest.mark.backends
def test_weights_that_are_not_finite_are_told():
    ill = L.Conv2D(2, 3, activation="relu", name="ill")
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), L.Conv2D(2, 3, name="fine"), ill, L.Flatten(), L.Dense(2)]
    )
    kernel = model.layers[1].kernel
    kernel.assign(np.where(np.arange(np.prod(kernel.shape)) == 7, np.nan, 1).reshape(kernel.shape))
    with pytest.warns(UserWarning, match="weight '.*ill/kernel' of model .* is not finite"):
        f.feature_maps(model, array(1, 8, 8, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        f.feature_maps(sequential()[0], array(1, 8, 8, 1))


@keras.saving.register_keras_serializable("medbook_tests")
class Conditional(L.Layer):
    """A layer that calls another inside `keras.ops.cond` or `map`, where no tensor may leave."""

    def __init__(self, how, **options):
        super().__init__(**options)
        self.how = how
        self.inner = L.Dense(4, name="inner")

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        if self.how == "map":
            return keras.ops.map(self.inner, x)
        return keras.ops.cond(keras.ops.mean(x) > 0, lambda: self.inner(x), lambda: -self.inner(x))


@pytest.mark.backends
@pytest.mark.parametrize("how", ["cond", "map"])
def test_a_layer_called_inside_a_condition_or_a_map_leaves_its_owner_whole(how):
    if (how, backend()) == ("map", "torch"):
        pytest.skip(
            "PyTorch calls the layer once for each image, Keras's look at shapes once in all"
        )
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            Conditional(how, name="w"),
            L.Conv1D(3, 2, name="c"),
            L.GlobalAveragePooling1D(name="g"),
        ]
    )
    x = array(2, 5, 4)
    maps = f.feature_maps(model, x)
    assert {"w", "c", "g"} <= set(maps) and (backend() == "torch" or set(maps) == {"w", "c", "g"})
    np.testing.assert_allclose(maps["w"], numpy(model.layers[0](x)), atol=1e-5)


class Repeated(keras.Model):
    """Two convolutions of one name, made in another order than they are called."""

    def __init__(self):
        super().__init__(name="repeated")
        self.second = L.Conv2D(2, 3, name="conv")
        self.first = L.Conv2D(3, 3, name="conv")

    def call(self, x):
        return self.second(self.first(x))


def test_kernels_of_layers_that_share_a_name_are_had_by_the_layer_alone():
    model = Repeated()
    model(array(1, 8, 8, 1))
    for name in ("conv", "conv#1", "conv#2"):
        with pytest.raises(InspectionError, match="names 2 layers; .* the layer itself"):
            f.kernel_pictures(model, name)
    outputs = layers.layer_outputs(model, array(1, 8, 8, 1))
    assert (
        f.kernel_pictures(model, outputs["conv#1"].layer).shape == (3, 3, 3)
        and outputs["conv#1"].layer is model.first
    )
    assert f.kernel_pictures(model, model.second).shape == (3, 3, 6)
    twin = L.Conv2D(1, 3, padding="same", name="twin")
    shared = keras.Sequential([keras.Input((5, 5, 1)), twin, L.ReLU(), twin])
    assert np.array_equal(f.kernel_pictures(shared, "twin#2"), f.kernel_pictures(shared, "twin"))
    with pytest.raises(InspectionError, match="no layer 'conv9'"):
        f.kernel_pictures(model, "conv9")


@pytest.mark.backends
def test_looking_leaves_the_state_of_a_stateful_model():
    model = keras.Sequential(
        [
            keras.Input(batch_shape=(2, 6, 3)),
            L.LSTM(4, stateful=True, return_sequences=True),
            L.LSTM(3, stateful=True),
        ]
    )
    x = array(2, 6, 3)
    model(x)
    states = [state for layer in model.layers for state in layer.states]
    kept = [numpy(state) for state in states]
    first = f.feature_maps(model, x)
    second = f.feature_maps(model, x)
    assert all(np.array_equal(first[path], second[path]) for path in first)
    assert all(np.array_equal(one, numpy(state)) for one, state in zip(kept, states, strict=True))
    with pytest.raises(InspectionError, match="made for 2 images"):
        f.feature_maps(model, array(3, 6, 3))


class Scaled(keras.Model):
    """A model whose `call` reads an attribute and, on request, does without a layer."""

    def __init__(self):
        super().__init__(name="scaled")
        self.dense = L.Dense(2, name="dense")
        self.extra = L.Dense(2, name="extra")
        self.scale = 1.0
        self.short = False

    def call(self, x):
        y = self.dense(x) * self.scale
        return y if self.short else self.extra(y)


def test_an_attribute_is_seen_after_forgetting_and_a_layer_that_left_is_an_error():
    model = Scaled()
    x = array(2, 3)
    model(x)
    before = f.feature_maps(model, x, "extra")["extra"]
    model.scale = 2.0
    layers.forget(model)
    np.testing.assert_allclose(
        f.feature_maps(model, x, "extra")["extra"], 2 * before - numpy(model.extra.bias), atol=1e-5
    )
    layers.forget(model)
    layers.layer_outputs(model, x)
    model.short = True
    with pytest.raises(InspectionError, match="'extra' was not called this time.*forget"):
        f.feature_maps(model, x)


@pytest.mark.skipif(backend() != "tensorflow", reason="tf.function is TensorFlow's")
@pytest.mark.parametrize("where", ["class", "instance"])
def test_a_call_that_is_a_tf_function_is_listened_to(where):
    import tensorflow as tf

    class Decorated(keras.Model):
        def __init__(self):
            super().__init__(name="decorated")
            self.a = L.Conv1D(3, 2, name="a")
            self.b = L.Dense(2, name="b")

        def call(self, x):
            return self.b(keras.ops.mean(self.a(x), 1))

    if where == "class":
        Decorated.call = tf.function(Decorated.call)
    model = Decorated()
    x = array(2, 5, 4)
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
