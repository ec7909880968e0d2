"""Chapter 5.1: compiled functions follow the weights, gradients are calculus's, on any backend."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medbook.inspection import backend as b

pytestmark = pytest.mark.backends
quick = settings(max_examples=5, deadline=None, derandomize=True)


def dense(seed=0, activation=None):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4, activation=activation), keras.layers.Dense(2)]
    )


def by_hand(model, x):
    for layer in model.layers:
        kernel, bias = layer.get_weights()
        x = x @ kernel + bias
        x = np.tanh(x) if layer.activation is keras.activations.tanh else x
    return x


@quick
@given(st.integers(0, 2**16), st.integers(1, 5))
def test_compiled_equals_the_sums_written_out_and_follows_new_weights(seed, count):
    model = dense(seed, "tanh")
    rng = np.random.default_rng(seed)
    run = b.compile_function(lambda x: model(x, training=False), model)
    x = rng.normal(size=(count, 3)).astype("float32")
    for _ in range(2):
        np.testing.assert_allclose(b.to_numpy(run(x)), by_hand(model, x), rtol=1e-4, atol=1e-5)
        model.set_weights([rng.normal(size=weight.shape) for weight in model.get_weights()])
    model.layers[0].kernel.assign(np.zeros((3, 4)))
    assert (
        np.ptp(b.to_numpy(run(rng.normal(size=(4, 3)).astype("float32"))), axis=0).max() < 1e-6
    )  # the image no longer matters


def test_compiled_takes_and_gives_lists_and_dicts():
    model = dense()
    x = np.eye(3, dtype="float32")
    run = b.compile_function(
        lambda pair, more: {"sum": [model(pair["b"]) + model(pair["a"]), more * 2]}, model
    )
    found = run({"a": x, "b": 2 * x}, np.float32(4))
    np.testing.assert_allclose(
        b.to_numpy(found["sum"][0]), by_hand(model, x) + by_hand(model, 2 * x), atol=1e-5
    )
    assert float(b.to_numpy(found["sum"][1])) == 8


@quick
@given(st.integers(0, 2**16), st.sampled_from(["tanh", "sigmoid", "softplus"]))
def test_gradients_equal_finite_differences(seed, activation):
    model = dense(seed, activation)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 3)).astype("float32")
    weights = rng.normal(size=(2, 2)).astype("float32")
    by_input = b.gradient(lambda x, w: (keras.ops.sum(model(x) * w), model(x)), model)
    gradients, scores = by_input(x, weights)
    run = b.compile_function(lambda x: model(x), model)
    found = np.zeros((2, 3))
    for place in np.ndindex(2, 3):
        step = np.zeros((2, 3), "float32")
        step[place] = 1e-2
        found[place] = (
            np.sum((b.to_numpy(run(x + step)) - b.to_numpy(run(x - step))) * weights) / 2e-2
        )
    np.testing.assert_allclose(b.to_numpy(gradients), found, rtol=1e-2, atol=2e-3)
    np.testing.assert_allclose(b.to_numpy(scores), b.to_numpy(run(x)), atol=1e-6)


def test_gradient_by_hand_and_after_new_weights():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, activation="relu")])
    by_input = b.gradient(lambda x: (keras.ops.sum(model(x)), []), model)
    for kernel in ([3.0, -1.0], [0.5, 2.0]):
        model.set_weights([np.array(kernel)[:, None], np.zeros(1)])
        gradients, extras = by_input(np.array([[1, 1], [-5, -5]], "float32"))
        assert (
            b.to_numpy(gradients).tolist() == [kernel, [0, 0]] and extras == []
        )  # ReLU: open above zero, shut below


def test_gradients_by_several_inputs_and_zero_where_nothing_depends():
    model = dense()
    by_input = b.gradient(
        lambda pair: (keras.ops.sum(model(pair["used"])[:, 0]), {"other": pair["unused"] * 2}),
        model,
    )
    gradients, extras = by_input(
        {"used": np.ones((1, 3), "float32"), "unused": np.full((1, 2), 3, "float32")}
    )
    first, second = (layer.get_weights()[0] for layer in model.layers)
    np.testing.assert_allclose(
        b.to_numpy(gradients["used"])[0], (first @ second)[:, 0], rtol=1e-5, atol=1e-6
    )
    assert b.to_numpy(gradients["unused"]).tolist() == [[0, 0]] and b.to_numpy(
        extras["other"]
    ).tolist() == [[6, 6]]


def test_batch_norm_and_dropout_rest_while_one_looks():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )
    before = model.get_weights()
    x = np.random.default_rng(0).normal(5, 1, (8, 3)).astype("float32")
    run = b.compile_function(lambda x: model(x, training=False), model)
    assert np.array_equal(b.to_numpy(run(x)), b.to_numpy(run(x)))
    b.gradient(lambda x: (keras.ops.sum(model(x, training=False)), []), model)(x)
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int32", "uint8", "bool"])
def test_to_numpy_keeps_values_and_shape(dtype):
    values = np.array([[0, 1], [1, 1], [1, 0]])
    found = b.to_numpy(keras.ops.cast(values, dtype))
    assert found.shape == (3, 2) and found.tolist() == values.tolist()
    assert found.dtype == ("float32" if dtype == "bfloat16" else dtype)


def test_to_numpy_outlives_its_tensor():
    held = [b.to_numpy(keras.ops.full((1000,), float(number))) for number in range(50)]
    assert [set(array.tolist()) for array in held] == [{float(number)} for number in range(50)]


def test_the_backend_is_named(monkeypatch):
    assert b.backend() == keras.backend.backend()
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(b.InspectionError, match="tensorflow, jax, torch; KERAS_BACKEND is 'numpy'"):
        b.backend()


# what the models of real people do


def test_a_bilinear_enlargement_runs_on_images_of_any_size_without_a_warning(caplog):
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.UpSampling2D(interpolation="bilinear"),
            keras.layers.Conv2D(2, 3),
        ]
    )
    run = b.compile_function(lambda x: model(x, training=False), model)
    by_input = b.gradient(lambda x: (keras.ops.sum(model(x)), []), model)
    for size, count in itertools.product((4, 5, 6, 7, 8, 9), (1, 3)):
        assert b.to_numpy(run(np.ones((count, size, size, 1), "float32"))).shape == (
            count,
            2 * size - 2,
            2 * size - 2,
            2,
        )
        assert b.to_numpy(by_input(np.ones((count, size, size, 1), "float32"))[0]).shape == (
            count,
            size,
            size,
            1,
        )
    assert "retracing" not in caplog.text


def test_a_layer_that_keeps_a_state_is_left_as_it_was():
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, 6, 3)), keras.layers.LSTM(4, stateful=True)]
    )
    x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("float32")
    run = b.compile_function(lambda x: model(x, training=False), model)
    by_input = b.gradient(lambda x: (keras.ops.sum(model(x)), []), model)
    first = b.to_numpy(run(x))
    by_input(x)
    assert np.array_equal(b.to_numpy(run(x)), first) and not any(
        np.any(b.to_numpy(state)) for state in model.layers[0].states
    )


@pytest.mark.parametrize(
    "whole",
    [
        keras.ops.round,
        lambda x: keras.ops.cast(keras.ops.cast(x, "int32"), "float32"),
        keras.ops.zeros_like,
    ],
)
def test_a_strict_gradient_is_refused_where_nothing_links_it(whole):
    model = dense()
    x = np.ones((2, 3), "float32")
    cut = b.gradient(
        lambda x: (keras.ops.sum(model(keras.ops.stop_gradient(whole(x)))), []), model, strict=True
    )
    with pytest.raises(b.InspectionError, match="no gradient by this input"):
        cut(x)
    asleep = b.gradient(
        lambda x: (keras.ops.sum(keras.ops.relu(model(x) * 0 - 1)), []), model, strict=True
    )
    assert not b.to_numpy(asleep(x)[0]).any()
    with pytest.raises(b.InspectionError, match="Embedding"):
        table = keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Embedding(4, 2),
                keras.layers.Flatten(),
                keras.layers.Dense(1),
            ]
        )
        b.gradient(lambda x: (keras.ops.sum(table(x)), []), table, strict=True)(x)
