"""Chapter 5.2: every layer's output equals the layer's own, on all kinds of models."""

import gc
import tracemalloc

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
from medbook.inspection import layers
from medbook.inspection.backend import InspectionError, backend
from tests.inspection_models import (
    any_size,
    array,
    attention,
    functional,
    in_turn,
    input_dict,
    input_list,
    late_sequential,
    nested,
    nested_functional,
    numpy,
    recurrent,
    sequential,
    shared,
    shuffled,
    states,
    subclassed,
    tokens,
    volume,
)


quick = settings(max_examples=30, deadline=None, derandomize=True)


ON_ALL_BACKENDS = [functional, nested, subclassed, input_dict, shared, states, tokens]
ON_ONE = [
    sequential,
    late_sequential,
    nested_functional,
    input_list,
    recurrent,
    attention,
    volume,
    any_size,
]
KINDS = [pytest.param(kind, marks=pytest.mark.backends) for kind in ON_ALL_BACKENDS] + ON_ONE


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def example(request):
    """A model of each kind, its images, each layer's own output, and the maps that are found."""
    model, images, own = request.param()
    return model, images, own(images), f.feature_maps(model, images)


def test_maps_equal_each_layers_own_output(example):
    _, _, expected, found = example
    assert set(expected) <= set(found)
    for path, values in expected.items():
        assert found[path].shape == values.shape and found[path].dtype == "float32"
        np.testing.assert_allclose(
            found[path], values, rtol=0, atol=1e-5 * max(1, abs(values).max()), err_msg=path
        )


def test_names_shapes_and_bytes_agree_with_the_maps(example):
    model, images, _, maps = example
    outputs = layers.layer_outputs(model, images)
    output, packed = f.quantised_maps(model, images)
    assert list(outputs) == list(maps) == list(packed)
    for path, values in maps.items():
        found = outputs[path]
        assert (found.path, found.shape) == (path, (None, *values.shape[1:]))
        assert found.dtype == values.dtype and layers.find_layer(outputs, path) == path
        one = packed[path]
        assert one.values.dtype == "uint8" and one.values.shape == values.shape
        span = (one.high - one.low).reshape(len(values), *[1] * (values.ndim - 2), -1)
        assert (abs(one.restore() - values) <= span / 510 * 1.01 + 1e-5).all()
    shapes = [keras.tree.map_structure(np.shape, one) for one in (output, model(images))]
    assert shapes[0] == shapes[1]


@pytest.mark.skipif(backend() != "tensorflow", reason="asks nothing of the backend")
def test_one_layer_alone_and_any_batch_size_give_the_same(example):
    model, images, _, whole = example
    for path, values in f.feature_maps(model, images, list(whole)[-2:], batch_size=1).items():
        np.testing.assert_allclose(
            values, whole[path], rtol=0, atol=1e-5 * max(1, abs(values).max())
        )
    first = next(iter(whole))
    assert list(f.feature_maps(model, images, first, batch_size=2)) == [first]


@settings(quick, max_examples=8)
@given(
    st.integers(0, 2**16),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["same", "valid"]),
    st.integers(1, 7),
)
def test_random_networks(seed, kernel, stride, padding, batch_size):
    rng = np.random.default_rng(seed)
    stack = []
    for _ in range(rng.integers(1, 4)):
        stack.append(
            L.Conv2D(
                int(rng.integers(1, 4)),
                kernel,
                stride,
                padding,
                activation=str(rng.choice(["relu", "tanh", "linear"])),
            )
        )
        stack.append(
            [L.BatchNormalization(), L.MaxPooling2D(2, padding="same"), L.Activation("sigmoid")][
                rng.integers(3)
            ]
        )
    size = int(rng.integers(20, 40)) * (1 if padding == "same" else stride**2)
    model = shuffled(keras.Sequential([keras.Input((size, size, 1)), *stack]), seed)
    images = array(5, size, size, 1, seed=seed)
    found = f.feature_maps(model, images, batch_size=batch_size)
    for path, values in in_turn(model.layers)(images).items():
        np.testing.assert_allclose(
            found[path], values, rtol=0, atol=1e-5 * max(1, abs(values).max())
        )


@pytest.mark.backends
def test_new_weights_are_seen():
    model, images, own = functional()
    f.feature_maps(model, images)
    shuffled(model, 5)
    np.testing.assert_allclose(
        f.feature_maps(model, images)["norm"], own(images)["norm"], atol=1e-4
    )
    model.get_layer("b").bias.assign([100.0, 0, 0])
    assert f.feature_maps(model, images, "b")["b"][..., 0].mean() > 50
    model.optimizer = keras.optimizers.SGD(0.1)
    model.compile("sgd", "categorical_crossentropy")
    model.fit(images, np.eye(2)[[0, 1, 0]], verbose=0)
    np.testing.assert_allclose(
        f.feature_maps(model, images)["scores"], numpy(model(images)), atol=1e-5
    )


def test_a_hundred_images_one_after_another_do_not_grow_memory():
    model = keras.Sequential(
        [keras.Input((64, 64, 1)), L.Conv2D(16, 3), L.ReLU(), L.MaxPooling2D()]
    )
    images = array(100, 64, 64, 1)
    size = sum(values.nbytes for values in f.feature_maps(model, images[:1]).values())
    psutil = pytest.importorskip("psutil")
    for number in range(20):
        f.feature_maps(model, images[number : number + 1])
    gc.collect()
    tracemalloc.start()
    before = psutil.Process().memory_info().rss
    process = tracemalloc.get_traced_memory()[0]
    for number in range(100):
        f.feature_maps(model, images[number : number + 1])
        f.quantised_maps(model, images[number : number + 1])
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0] - process
    tracemalloc.stop()
    assert traced < 5 * size and psutil.Process().memory_info().rss - before < 60 * size
    assert len(model.__dict__["_medbook_inspection"][1]) <= 16


@pytest.mark.backends
def test_mixed_bfloat16_maps_come_as_float32():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, images, own = sequential()
    finally:
        keras.config.set_dtype_policy(before)
    found = f.feature_maps(model, images)
    packed = f.quantised_maps(model, images)[1]
    if keras.backend.backend() != "torch":  # there Keras's symbolic pass names another type
        assert layers.layer_outputs(model, images)[model.layers[0].name].dtype == "bfloat16"
    for path, values in own(images).items():
        assert found[path].dtype == "float32"
        np.testing.assert_allclose(found[path], values, atol=0.02 * abs(values).max())
        np.testing.assert_allclose(packed[path].restore(), values, atol=0.03 * abs(values).max())


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, None, True])
def test_wrong_batch_sizes(batch_size):
    model, images, _ = sequential()
    with pytest.raises(InspectionError, match="batch_size: expected a positive integer"):
        f.feature_maps(model, images, batch_size=batch_size)


@pytest.mark.backends
def test_maps_that_are_not_finite_are_told_and_returned():
    stack = [
        L.Rescaling(1e30, name="large"),
        L.Rescaling(1e30, name="larger"),
        L.Rescaling(1.0, name="last"),
    ]
    model = keras.Sequential([keras.Input((4,)), *stack])
    images = np.ones((2, 4), "float32")
    with pytest.warns(
        UserWarning, match="output is not finite.*first such map is that of 'larger'"
    ):
        maps = f.feature_maps(model, images)
    assert np.isinf(maps["larger"]).all() and np.isfinite(maps["large"]).all()
    with pytest.warns(UserWarning, match="'larger'"):
        packed = f.quantised_maps(model, images)[1]
    assert (
        np.isnan(packed["larger"].low).all()
        and np.isnan(packed["larger"].high).all()
        and not packed["larger"].values.any()
    )


@quick
@given(st.integers(0, 2**16), st.integers(1, 5), st.sampled_from([1e-30, 1e-3, 1.0, 1e6, 1e37]))
def test_bytes_hold_each_map_to_half_a_step(seed, rank, size):
    rng = np.random.default_rng(seed)
    maps = (rng.normal(size=rng.integers(1, 5, rank)) * size).astype("float32")
    values, low, high = (
        np.asarray(keras.ops.convert_to_numpy(one))
        for one in f.quantise(keras.ops.convert_to_tensor(maps))
    )
    maps = maps if rank > 1 else maps[:, None]
    axes = tuple(range(1, rank - 1)) if rank > 2 else (1,)
    expected = [
        end(maps, axes) if rank > 2 else end(maps, axes, keepdims=True) for end in (np.min, np.max)
    ]
    np.testing.assert_array_equal([low, high], expected)
    restored = f.Quantised(values, low, high).restore()
    span = (high - low).reshape(len(maps), *[1] * (maps.ndim - 2), -1)
    assert (abs(restored - maps) <= span / 510 * 1.001 + 1e-6 * size).all()
    assert set(np.unique(values[..., 0][low[..., 0] == high[..., 0]])) <= {0}


@pytest.mark.backends
def test_bytes_of_constant_and_broken_maps():
    maps = np.stack(
        [np.full((3, 3), 7.0), np.arange(9.0).reshape(3, 3), np.eye(3) * np.nan, np.eye(3) / 1e-45],
        -1,
    )[None].astype("float32")
    values, low, high = (
        np.asarray(keras.ops.convert_to_numpy(one))
        for one in f.quantise(keras.ops.convert_to_tensor(maps))
    )
    assert not values[..., [0, 2, 3]].any() and values[0, ..., 1].ravel().tolist() == [
        0,
        32,
        64,
        96,
        128,
        159,
        191,
        223,
        255,
    ]
    np.testing.assert_array_equal(low[0], [7, 0, np.nan, np.nan])
    np.testing.assert_array_equal(high[0], [7, 8, np.nan, np.nan])


@quick
@given(
    st.integers(0, 2**16),
    st.integers(1, 20),
    st.one_of(st.none(), st.integers(1, 25)),
    st.integers(0, 3),
    st.sampled_from(["each", "shared", "signed"]),
)
def test_mosaic_puts_every_map_in_its_place(seed, count, columns, pad, scale):
    maps = np.random.default_rng(seed).normal(size=(4, 5, count)).astype("float32")
    sheet = f.mosaic(maps, columns=columns, pad=pad, scale=scale)
    wide = min(columns or int(np.ceil(np.sqrt(count))), count)
    rows = -(-count // wide)
    assert (
        sheet.shape == (rows * (4 + pad) - pad, wide * (5 + pad) - pad)
        and sheet.min() >= 0
        and sheet.max() <= 1
    )
    seen = np.ones_like(sheet, bool)
    for number in range(count):
        top = number // wide * (4 + pad)
        left = number % wide * (5 + pad)
        one = maps[..., number]
        all_ = maps if scale != "each" else maps[..., number]
        low, high = (
            (all_.min(), all_.max()) if scale != "signed" else (-abs(all_).max(), abs(all_).max())
        )
        np.testing.assert_allclose(
            sheet[top : top + 4, left : left + 5], (one - low) / (high - low), atol=1e-5
        )
        seen[top : top + 4, left : left + 5] = False
    assert (sheet[seen] == (0.5 if scale == "signed" else 1)).all()


def test_mosaic_of_other_shapes():
    volume = array(5, 4, 3, 2)
    signal = array(9, 4)
    assert np.array_equal(f.mosaic(volume), f.mosaic(volume[2]))
    assert f.mosaic(signal).shape == (4, 9) and np.array_equal(
        f.mosaic(signal).argmax(1), signal.argmax(0)
    )
    assert f.mosaic(array(7)).shape == (1, 7)
    assert f.mosaic(np.full((3, 3, 4), 5.0), pad=0).tolist() == np.zeros((6, 6)).tolist()
    assert (
        np.isfinite(f.mosaic(np.where(signal > 1, np.nan, signal))).all()
        and not f.mosaic(np.full((2, 2, 1), np.nan)).any()
    )
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
    assert isinstance(table, pd.DataFrame) and len(table) == sum(
        values.shape[-1] for values in maps.values()
    )
    for row in table.itertuples():
        values = maps[row.layer][..., row.map]
        np.testing.assert_allclose(
            [row.mean, row.std, row.min, row.max, row.zeros],
            [values.mean(), values.std(), values.min(), values.max(), np.mean(values == 0)],
            rtol=1e-4,
            atol=1e-6,
        )
        assert row.dead == (np.ptp(values) == 0)
    assert table.saturated.isna().all()


def test_dead_and_saturated_maps_are_found():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            L.Conv2D(4, 1, activation="relu", name="relu"),
            L.Conv2D(2, 1, activation="sigmoid", name="gate"),
            L.ReLU(max_value=2.0, name="cut"),
            L.Activation("tanh"),
        ]
    )
    second = np.array([[9.0, 0]] + [[0, 0]] * 3)[None, None]
    model.set_weights(
        [
            np.array([1.0, 1, -1, 0])[None, None, None],
            np.array([0.0, 1, -100, 0]),
            second,
            np.zeros(2),
        ]
    )
    images = np.linspace(0.1, 5, 72).reshape(2, 6, 6, 1)
    table = f.map_statistics(
        f.feature_maps(model, images), layers.layer_outputs(model, images)
    ).set_index(["layer", "map"])
    assert table.loc["relu"].dead.tolist() == [False, False, True, True] and table.loc[
        "relu"
    ].zeros.tolist() == [0, 0, 1, 1]
    assert table.loc["relu"].saturated.isna().all()
    assert (
        table.loc[("gate", 0), "saturated"] == np.mean(1 / (1 + np.exp(-9 * images)) >= 0.99) > 0.8
    )
    assert table.loc[("gate", 1), "saturated"] == 0 and table.loc[("gate", 1), "dead"]
    assert f._saturation_bounds(L.ReLU(6.0)) == (None, 6) and f._saturation_bounds(
        L.Dense(1, activation="relu6")
    ) == (None, 6)
    assert f._saturation_bounds(L.Dense(1)) is None and f._saturation_bounds(L.LSTM(2)) is None


def test_a_unit_with_one_value_is_dead_only_at_zero():
    table = f.map_statistics({"units": np.array([[0.0, 2.0]])})
    assert table.dead.tolist() == [True, False]


def test_kernel_pictures():
    model = keras.Sequential(
        [
            keras.Input((9, 9, 2)),
            L.Conv2D(3, (2, 4), name="conv"),
            L.DepthwiseConv2D(3, name="deep"),
            L.Conv2DTranspose(5, 3, name="back"),
            L.SeparableConv2D(2, 3, name="split"),
            L.Flatten(name="flat"),
            L.Dense(4, name="dense"),
        ]
    )
    kernel = model.get_layer("conv").get_weights()[0]
    pictures = f.kernel_pictures(model, "conv")
    assert pictures.shape == (2, 4, 6)
    for filter_, channel in np.ndindex(3, 2):
        assert np.array_equal(pictures[..., filter_ * 2 + channel], kernel[:, :, channel, filter_])
    chosen = f.kernel_pictures(model, "conv", channels=[1], filters=[2, 0])
    assert np.array_equal(chosen, np.stack([kernel[:, :, 1, 2], kernel[:, :, 1, 0]], -1))
    back = model.get_layer("back").get_weights()[0]
    assert np.array_equal(f.kernel_pictures(model, "back")[..., 1], back[:, :, 0, 1])
    assert f.kernel_pictures(model, "deep").shape == (3, 3, 3) and f.kernel_pictures(
        model, "split"
    ).shape == (3, 3, 5)
    assert np.array_equal(
        f.kernel_pictures(model, "dense")[..., 0], model.get_layer("dense").get_weights()[0]
    )
    for call, message in (
        (lambda: f.kernel_pictures(model, "flat"), r"'flat' \(Flatten\) has no kernel"),
        (lambda: f.kernel_pictures(model, "con"), "no layer"),
        (
            lambda: f.kernel_pictures(model, "conv", channels=[2]),
            "channels: expected numbers below 2",
        ),
        (
            lambda: f.kernel_pictures(model, "conv", filters=[-1]),
            "filters: expected numbers below 3",
        ),
    ):
        with pytest.raises(InspectionError, match=message):
            call()


def test_kernels_of_signals_volumes_and_inner_layers():
    signals = keras.Sequential([keras.Input((20, 3)), L.Conv1D(4, 5, name="conv")])
    assert np.array_equal(
        f.kernel_pictures(signals, "conv")[1, :, 2], signals.layers[0].get_weights()[0][:, 1, 2]
    )
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
    assert ax.get_title() == "six maps" and np.array_equal(
        ax.images[0].get_array(), f.mosaic(maps, columns=3, scale="shared")
    )
    assert f.show_maps(array(9, 4), ax=ax) is ax
    plt.close("all")


def test_the_example_network_finds_nodules():
    model = f.example_network()
    phantoms = [
        chest_radiograph(1000 + number, nodules=number % 2, size=64, seed=number)
        for number in range(40)
    ]
    images = np.stack([normalise(phantom.image, (0.5, 99.5)) for phantom in phantoms])[..., None]
    scores = f.feature_maps(model, images)
    last = list(scores.values())[-1]
    assert last.shape == (40, 2) and np.allclose(last.sum(1), 1, atol=1e-5)
    assert np.mean(last[1::2, 1] > 0.5) > 0.6 and np.mean(last[::2, 1] < 0.5) > 0.6


def test_the_module_can_be_called():
    model, images, _ = sequential()
    assert list(f(model, images)) == list(f.feature_maps(model, images))
