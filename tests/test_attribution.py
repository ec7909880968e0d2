"""Attribution against closed forms, explicit loops, finite differences and a textbook recipe, on all kinds of models and any engine."""
import itertools

import cv2
import keras
import numpy as np
import pytest

from medbook.inspection import attribution as at
from medbook.inspection.backend import InspectionError, engine
from medbook.inspection.feature_maps import feature_maps

layers = keras.layers
SLOPES = [at.saliency, at.gradient_times_input, at.smooth_grad, at.integrated_gradients]
CAMS = [at.grad_cam, at.grad_cam_plus_plus, at.hires_cam, at.score_cam]
ALL = SLOPES + CAMS + [at.occlusion, at.rise]


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(3)


def images(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype("float32")


def small_cnn(shape=(12, 14, 2), classes=3, activation="softmax", smooth=False):
    """Two convolutions with large weights, so that scores differ between images; no kinks (GELU, mean pooling) if `smooth`."""
    pool = layers.AveragePooling2D if smooth else layers.MaxPooling2D
    act, spread = "gelu" if smooth else "relu", keras.initializers.RandomNormal(0.0, 0.4)
    return keras.Sequential([
        keras.Input(shape), layers.Conv2D(4, 3, activation=act, kernel_initializer=spread, name="first"), pool(2, name="pool"),
        layers.Conv2D(5, 3, padding="same", activation=act, kernel_initializer=spread, name="last"), layers.Flatten(),
        layers.Dense(classes, activation=activation, kernel_initializer=spread, name="head")])


def score(model, batch, target):
    return keras.ops.convert_to_numpy(model(batch, training=False))[:, target].astype(float)


def linear(shape, classes=2):
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(classes, name="head")])


# what is scored -----------------------------------------------------------------------------------------------------------------

def test_scores_of_each_kind_of_target():
    model, x = small_cnn(), images(3, 12, 14, 2)
    output = keras.ops.convert_to_numpy(model(x))
    assert np.allclose(at.scores(model, x), output.max(1), atol=1e-6)
    assert np.allclose(at.scores(model, x, target=1), output[:, 1], atol=1e-6)
    assert np.allclose(at.scores(model, x, target=[2, 0, 1]), output[[0, 1, 2], [2, 0, 1]], atol=1e-6)
    assert np.allclose(at.scores(model, x, target=(2,)), output[:, 2], atol=1e-6)
    assert np.allclose(at.scores(model, x, target=np.array([True, False, True])), output[:, 0] + output[:, 2], atol=1e-6)
    each = np.arange(9.0).reshape(3, 3)
    assert np.allclose(at.scores(model, x, target=each), (output * each).sum(1), atol=1e-5)


def test_a_single_unit_is_itself_below_and_above_a_half():
    model, x = small_cnn(classes=1, activation="sigmoid"), images(6, 12, 14, 2)
    expected = keras.ops.convert_to_numpy(model(x))[:, 0]
    assert np.allclose(at.scores(model, x), expected, atol=1e-6) and np.allclose(at.scores(model, x, target=0), expected, atol=1e-6)


@pytest.mark.parametrize("ending", ["dense", "layer", "activation", "conv"])
@pytest.mark.parametrize("function", ["softmax", "sigmoid"])
def test_logits_are_what_the_last_activation_was_given(ending, function):
    plain = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(3, 6, name="c"), layers.Flatten(), layers.Dense(4, name="d")])
    inputs = keras.Input((6, 6, 1))
    y = layers.Flatten()(layers.Conv2D(3, 6, name="c")(inputs))
    if ending == "conv":
        inputs, y = keras.Input((6, 6, 1)), None
        y = layers.Conv2D(3, 6, name="c", activation=function)(inputs)
        plain = keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(3, 6, name="c")])
    elif ending == "dense":
        y = layers.Dense(4, activation=function, name="d")(y)
    else:
        y = layers.Dense(4, name="d")(y)
        made = layers.Activation(function) if ending == "activation" else (layers.Softmax() if function == "softmax" else None)
        y = made(y) if made else keras.ops.sigmoid(y)
    model = keras.Model(inputs, y)
    model.set_weights(plain.get_weights())
    x, target = images(2, 6, 6, 1), (0, 0, 1) if ending == "conv" else 1
    assert np.allclose(at.scores(model, x, target=target, logits=True), at.scores(plain, x, target=target), atol=1e-5)
    assert np.allclose(at.saliency(model, x, target=target, logits=True), at.saliency(plain, x, target=target), atol=1e-5)
    assert not np.allclose(at.saliency(model, x, target=target), at.saliency(plain, x, target=target), atol=1e-5)


def test_logits_of_a_nested_head_leave_the_model_as_it_is():
    head = keras.Sequential([keras.Input((8,)), layers.Dense(3, activation="softmax", name="d")], name="head")
    model = keras.Sequential([keras.Input((8,)), head])
    x = images(2, 8)
    before = keras.ops.convert_to_numpy(model(x))
    found = at.scores(model, x, target=1, logits=True)
    kernel, bias = head.get_weights()
    assert np.allclose(found, x @ kernel[:, 1] + bias[1], atol=1e-5)
    assert head.layers[-1].activation is keras.activations.softmax
    assert np.array_equal(before, keras.ops.convert_to_numpy(model(x)))


@pytest.mark.parametrize("target, words", [
    (3, "no class 3: the output has classes 0 to 2"), (-1, "no class -1"), ((0, 1), "no unit"), ((5,), "no unit"),
    ([0, 1, 2], "give a class"), (np.ones(4), "mask of shape"), ("nodule", "give a class"), (0.5, "give a class"),
    (np.array([np.nan, 0, 0]), "NaN")])
def test_a_wrong_target_is_told(target, words):
    with pytest.raises(InspectionError, match=words):
        at.saliency(small_cnn(), images(2, 12, 14, 2), target=target)


def test_a_single_unit_has_no_class_one():
    with pytest.raises(InspectionError, match="single unit is target=0"):
        at.grad_cam(small_cnn(classes=1, activation="sigmoid"), images(1, 12, 14, 2), target=1)


def test_logits_need_a_softmax_or_sigmoid():
    with pytest.raises(InspectionError, match="ends in 'head' .Dense.; leave logits out"):
        at.saliency(small_cnn(activation=None), images(1, 12, 14, 2), logits=True)


# slopes -------------------------------------------------------------------------------------------------------------------------

def test_linear_models_give_the_known_attributions():
    model, x = linear((5, 6, 2)), images(3, 5, 6, 2)
    weights = model.get_weights()[0][:, 1].reshape(5, 6, 2)
    known = {"saliency": np.broadcast_to(np.abs(weights).max(-1), (3, 5, 6)), "gradient_times_input": (weights * x).sum(-1),
             "smooth_grad": np.broadcast_to(np.abs(weights).max(-1), (3, 5, 6)), "integrated_gradients": (weights * (x - 0.25)).sum(-1)}
    for method in SLOPES:
        options = {"baseline": 0.25} if method is at.integrated_gradients else {}
        assert np.allclose(method(model, x, target=1, **options), known[method.__name__], atol=1e-5), method.__name__
    assert np.allclose(at.saliency(model, x, target=1, keep_channels=True), weights, atol=1e-6)
    covered = at.occlusion(model, x, target=1, patch=1, stride=1, fill=0.25)
    assert np.allclose(covered, (weights * (x - 0.25)).sum(-1), atol=1e-5)


def test_saliency_equals_finite_differences():
    model, x = small_cnn(smooth=True, activation="sigmoid"), images(1, 12, 14, 2)
    slopes = at.saliency(model, x, target=2, keep_channels=True)[0]
    rng = np.random.default_rng(1)
    for _ in range(20):
        place = tuple(int(rng.integers(n)) for n in slopes.shape)
        step = np.zeros_like(x)
        step[(0, *place)] = 0.02
        difference = (score(model, x + step, 2) - score(model, x - step, 2))[0] / 0.04
        assert abs(slopes[place] - difference) < 2e-3 * np.abs(slopes).max() + 2e-5


@pytest.mark.parametrize("baseline", [0.0, 0.7, "image"])
def test_integrated_gradients_are_complete(baseline):
    model, x = small_cnn(smooth=True), images(3, 12, 14, 2)
    baseline = images(12, 14, 2, seed=9) if baseline == "image" else baseline
    for keep in (False, True):
        found = at.integrated_gradients(model, x, target=1, baseline=baseline, keep_channels=keep, steps=256)
        check = at.completeness(model, x, found, target=1, baseline=baseline)
        origin = np.broadcast_to(np.asarray(baseline, "float32"), x.shape)
        assert np.allclose(check.expected, score(model, x, 1) - score(model, origin, 1), atol=1e-6)
        assert np.abs(check.total - check.expected).max() <= 1e-3 * np.abs(check.expected).max() and check.expected.any()


def test_integrated_gradients_of_relu_networks_close_the_gap_with_more_steps():
    model, x = small_cnn(), images(2, 12, 14, 2)
    few, many = (at.completeness(model, x, at.integrated_gradients(model, x, steps=steps)).gap.max() for steps in (3, 512))
    assert many < 1e-3 and many < few


def test_completeness_of_nothing_is_infinite_or_zero():
    assert at.Completeness(np.array([0.0, 1.0]), np.array([0.0, 0.0])).gap.tolist() == [0, np.inf]


def test_smooth_grad_is_the_mean_over_the_same_noise():
    model, x = small_cnn(smooth=True), images(2, 12, 14, 2)
    noise = np.random.default_rng(5).standard_normal((6, 12, 14, 2), np.float32)
    found = at.smooth_grad(model, x, target=0, samples=6, noise=0.1, seed=5, keep_channels=True, batch_size=4)
    for one, image in zip(found, x, strict=True):
        each = at.saliency(model, image + np.float32(0.1 * np.ptp(image)) * noise, target=0, keep_channels=True)
        assert np.allclose(one, each.mean(0), atol=1e-6)


# class activation maps ----------------------------------------------------------------------------------------------------------

def test_grad_cam_of_pooled_networks_is_the_class_activation_map():
    """After global average pooling a dense layer weighs the maps: the slope of a logit by each of n places is that weight over n."""
    model = keras.Sequential([keras.Input((10, 12, 1)), layers.Conv2D(6, 3, activation="relu", name="maps"),
                              layers.GlobalAveragePooling2D(), layers.Dense(3, name="head")])
    x = images(4, 10, 12, 1)
    maps, weights = feature_maps(model, x, ["maps"])["maps"], model.get_weights()[-2]
    cam = np.maximum(np.einsum("nhwc,c->nhw", maps, weights[:, 2]) / (8 * 10), 0)
    assert np.allclose(at.grad_cam(model, x, target=2, upsample=False), cam, atol=1e-6)
    enlarged = np.stack([cv2.resize(one, (12, 10), interpolation=cv2.INTER_LINEAR) for one in cam])
    assert np.allclose(at.grad_cam(model, x, target=2), enlarged, atol=1e-6) and cam.max() > 0


def recipe(model, x, layer, target):
    """Grad-CAM from slopes by finite differences of the part of the model above `layer`: no gradient of any engine."""
    below = [one.name for one in model.layers].index(layer) + 1
    above, maps = keras.Sequential(model.layers[below:]), feature_maps(model, x, [layer])[layer]
    above.build((None, *maps.shape[1:]))
    slopes = np.zeros(maps.shape)
    for place in itertools.product(*map(range, maps.shape[1:])):
        step = np.zeros_like(maps)
        step[(slice(None), *place)] = 0.05
        slopes[(slice(None), *place)] = (score(above, maps + step, target) - score(above, maps - step, target)) / 0.1
    return maps, slopes


def test_grad_cams_equal_the_recipe_by_finite_differences():
    model, x = small_cnn((8, 8, 1), activation=None), images(2, 8, 8, 1)              # linear above "last": the differences are exact
    maps, slopes = recipe(model, x, "last", 1)
    cam = np.maximum((slopes.mean((1, 2), keepdims=True) * maps).sum(-1), 0)
    assert np.abs(at.grad_cam(model, x, target=1, layer="last", upsample=False) - cam).max() <= 1e-5
    fine = np.maximum((slopes * maps).sum(-1), 0)
    assert np.abs(at.hires_cam(model, x, target=1, layer="last", upsample=False) - fine).max() <= 1e-4 * max(fine.max(), 1)
    total = maps.sum((1, 2), keepdims=True)
    below = 2 * slopes**2 + slopes**3 * total
    alpha = np.divide(slopes**2, below, out=np.zeros_like(below), where=np.abs(below) > 1e-9)
    plus = np.maximum(((alpha * np.maximum(slopes, 0)).sum((1, 2), keepdims=True) * maps).sum(-1), 0)
    found = at.grad_cam_plus_plus(model, x, target=1, layer="last", upsample=False)
    assert np.allclose(found, plus, rtol=1e-3, atol=1e-4) and plus.max() > 1e-2


@pytest.mark.skipif(engine() != "tensorflow", reason="the textbook's recipe is TensorFlow's")
@pytest.mark.parametrize("layer", ["first", "pool", "last"])
def test_grad_cam_equals_the_textbook_recipe(layer):
    import tensorflow as tf

    model, x = small_cnn(), images(3, 12, 14, 2)
    both = keras.Model(model.inputs, [model.get_layer(layer).output, model.outputs[0]])
    with tf.GradientTape() as tape:
        maps, output = both(tf.constant(x))
        top = tf.reduce_max(output, axis=1)
    weights = tf.reduce_mean(tape.gradient(top, maps), axis=(1, 2))
    cam = tf.nn.relu(tf.einsum("nhwc,nc->nhw", maps, weights))[..., None]
    expected = tf.image.resize(cam, (12, 14))[..., 0]
    assert np.abs(at.grad_cam(model, x, layer=layer) - expected).max() <= 1e-5


def test_score_cam_equals_an_explicit_loop():
    model, x = small_cnn(), images(2, 12, 14, 2)
    maps = feature_maps(model, x, ["last"])["last"].copy()
    for softmax in (True, False):
        found = at.score_cam(model, x, target=1, softmax=softmax, upsample=False, batch_size=3)
        for image, one, cam in zip(x, maps, found, strict=True):
            live = [k for k in range(one.shape[-1]) if np.ptp(one[..., k]) > 0]
            masks = [cv2.resize(one[..., k], (14, 12), interpolation=cv2.INTER_LINEAR) for k in live]
            seen = np.stack([image * ((mask - mask.min()) / np.ptp(mask))[..., None] for mask in masks])
            weights = score(model, seen, 1)
            weights = np.exp(weights) / np.exp(weights).sum() if softmax else weights
            assert np.allclose(cam, np.maximum(one[..., live] @ weights, 0), atol=1e-5)


def test_score_cam_keeps_the_most_varied_maps_and_bears_dead_ones():
    maps = np.stack([np.full((2, 2), 3.0), np.eye(2), 5 * np.eye(2), 2 * np.eye(2)], -1)
    assert at.most_varied(maps, None).tolist() == [1, 2, 3] and at.most_varied(maps, 2).tolist() == [2, 3]
    model = small_cnn()
    model.get_layer("last").set_weights([np.zeros_like(one) for one in model.get_layer("last").get_weights()])
    assert not at.score_cam(model, images(1, 12, 14, 2)).any()


# covering -----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("fill", ["mean", 0.0, 0.5])
def test_occlusion_equals_an_explicit_loop(fill):
    model, x = small_cnn(), images(1, 12, 14, 2)
    blank = x[0].mean((0, 1)) if fill == "mean" else fill
    total, count = np.zeros((12, 14)), np.zeros((12, 14))
    for top in (0, 2, 4, 6, 8, 9):
        for left in (0, 3, 6, 9):
            covered = x.copy()
            covered[0, top:top + 3, left:left + 5] = blank
            total[top:top + 3, left:left + 5] += (score(model, x, 0) - score(model, covered, 0))[0]
            count[top:top + 3, left:left + 5] += 1
    assert count.min() > 0
    found = at.occlusion(model, x, target=0, patch=(3, 5), stride=(2, 3), fill=fill, batch_size=7)[0]
    assert np.allclose(found, total / count, atol=1e-5) and np.abs(found).max() > 1e-3


def test_rise_equals_an_explicit_loop():
    model, x = small_cnn(), images(2, 12, 14, 2)
    found = at.rise(model, x, target=0, masks=40, cells=(3, 4), keep=0.4, seed=2, batch_size=16)
    grids, shifts = at.rise_draws((12, 14), 40, (3, 4), 0.4, 2)
    for image, heat in zip(x, found, strict=True):
        total = np.zeros((12, 14))
        for grid, (down, right) in zip(grids, shifts, strict=True):
            rows, columns = (np.arange(12) + 0.5) * 3 / 12 - 0.5 + down, (np.arange(14) + 0.5) * 4 / 14 - 0.5 + right
            across = np.stack([np.interp(columns, np.arange(5), line) for line in grid])
            mask = np.stack([np.interp(rows, np.arange(4), line) for line in across.T], axis=1)
            total += score(model, (image * mask[..., None])[None].astype("float32"), 0)[0] * mask
        assert np.allclose(heat, total / (40 * 0.4), atol=1e-5)


def test_folding_normalisations_changes_nothing_but_rounding():
    rng, depthwise = np.random.default_rng(0), layers.DepthwiseConv2D(3, padding="same", strides=2, use_bias=False)
    body = [layers.Conv2D(5, 3, dilation_rate=2), layers.BatchNormalization(), layers.ReLU(), depthwise,
            layers.BatchNormalization(scale=False), layers.Conv2D(4, 1, use_bias=False), layers.BatchNormalization(center=False),
            layers.Conv2D(3, 1, activation="relu"), layers.BatchNormalization(axis=1), layers.GlobalAveragePooling2D(), layers.Dense(2)]
    model = keras.Sequential([keras.Input((14, 14, 2)), *body])
    model.set_weights([rng.random(one.shape) + 0.1 for one in model.get_weights()])
    x, call = images(3, 14, 14, 2), keras.Operation.__call__
    run = at.folded(lambda batch: model(batch, training=False))
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    assert np.allclose(keras.ops.convert_to_numpy(run(keras.ops.convert_to_tensor(x))), expected, rtol=1e-4)
    assert keras.Operation.__call__ is call
    model.set_weights([one * 0.9 for one in model.get_weights()])                    # new weights are seen
    heat = at.occlusion(model, x, target=0, patch=14, fill=0.0)
    fall = score(model, x, 0) - score(model, 0 * x, 0)
    assert np.allclose(heat, fall[:, None, None], rtol=1e-3, atol=1e-4)


# all methods --------------------------------------------------------------------------------------------------------------------

class Own(keras.Model):
    """A subclassed model."""

    def __init__(self):
        super().__init__(name="own")
        self.convolution, self.pool, self.head = layers.Conv2D(4, 3, activation="relu"), layers.GlobalMaxPooling2D(), layers.Dense(2)

    def call(self, x):
        return self.head(self.pool(self.convolution(x)))


def kinds():
    """A model and its images for each kind."""
    functional = keras.Input((10, 9, 1))
    y = layers.Conv2D(3, 3, activation="relu")(functional)
    yield "functional", keras.Model(functional, layers.Dense(2)(layers.Flatten()(y))), images(3, 10, 9, 1)
    yield "sequential", small_cnn(), images(3, 12, 14, 2)
    backbone = keras.Sequential([keras.Input((10, 9, 1)), layers.Conv2D(3, 3, activation="relu"), layers.Conv2D(4, 3)], name="backbone")
    nested = keras.Sequential([keras.Input((10, 9, 1)), backbone, layers.GlobalAveragePooling2D(), layers.Dense(2, activation="softmax")])
    yield "nested", nested, images(3, 10, 9, 1)
    own = Own()
    own(images(1, 10, 9, 1))
    yield "subclassed", own, images(3, 10, 9, 1)
    picture, table = keras.Input((10, 9, 1), name="picture"), keras.Input((4,), name="table")
    both = layers.Concatenate()([layers.Flatten()(layers.Conv2D(3, 3, activation="relu")(picture)), layers.Dense(3)(table)])
    two = keras.Model({"picture": picture, "table": table}, layers.Dense(2)(both))
    yield "two inputs", two, {"picture": images(3, 10, 9, 1), "table": images(3, 4)}
    for rank, shape in ((1, (16, 2)), (3, (6, 7, 8, 1))):
        convolution = getattr(layers, f"Conv{rank}D")(3, 3, activation="relu")
        model = keras.Sequential([keras.Input(shape), convolution, layers.Flatten(), layers.Dense(1, activation="sigmoid")])
        yield f"{rank}-D", model, images(3, *shape)


KINDS = ["functional", "sequential", "nested", "subclassed", "two inputs", "1-D", "3-D"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_on_every_kind_of_model(kind):
    model, x = next((model, x) for name, model, x in kinds() if name == kind)
    shape = (x["picture"] if kind == "two inputs" else x).shape[:-1]
    for method in ALL:
        options = {at.rise: {"masks": 20, "cells": 3}, at.integrated_gradients: {"steps": 4}}.get(method, {})
        options = {"relu": False} if method in CAMS else options
        found = method(model, x, target=0, **options)
        assert found.shape == shape and found.dtype == np.float32 and np.isfinite(found).all(), method.__name__
        one = method(model, keras.tree.map_structure(lambda array: array[1:2], x), target=0, **options)
        assert np.abs(one - found[1:2]).max() <= 1e-5 * max(np.abs(found).max(), 1), method.__name__
        assert np.ptp(found) > 0, method.__name__


def test_batches_of_any_size_give_the_same():
    model, x = small_cnn(), images(5, 12, 14, 2)
    for method in ALL:
        options = {"masks": 21} if method is at.rise else {}
        assert np.allclose(method(model, x, batch_size=2, **options), method(model, x, **options), atol=1e-5), method.__name__


def test_arrays_that_come_back_can_be_written_to():
    model, x = small_cnn(), images(1, 12, 14, 2)
    for method in ALL:
        found = method(model, x, **({"masks": 5} if method is at.rise else {}))
        found += 1
    at.grad_cam(model, x, upsample=False)[0, 0, 0] = 1


def test_new_weights_are_seen():
    model, x = small_cnn(), images(1, 12, 14, 2)
    before = at.grad_cam(model, x, target=0, relu=False)
    model.set_weights([2 * one for one in model.get_weights()])
    assert not np.allclose(at.grad_cam(model, x, target=0, relu=False), before)


def test_whole_numbers_and_multi_label_and_dense_outputs():
    inputs = keras.Input((8, 8, 1))
    down = layers.MaxPooling2D(name="down")(layers.Conv2D(3, 3, padding="same", activation="relu", name="a")(inputs))
    dense = keras.Model(inputs, layers.Conv2D(2, 1, activation="softmax", name="out")(layers.UpSampling2D()(down)))
    x = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 1)).astype("uint8")
    total = keras.ops.convert_to_numpy(dense(x.astype("float32")))[..., 1].sum((1, 2))
    assert np.allclose(at.scores(dense, x, target=1), total, rtol=1e-5)
    mask = np.zeros((8, 8, 2), bool)
    mask[2, 3, 1] = True
    slopes = at.saliency(dense, x, target=mask, logits=True)                       # the softmax of such large values is flat
    assert np.array_equal(slopes, at.saliency(dense, x, target=(2, 3, 1), logits=True)) and slopes.any()
    assert not slopes[:, 6:].any()                                                   # out of that pixel's receptive field
    assert at.grad_cam(dense, x, target=mask, layer="down").shape == (2, 8, 8)
    with pytest.raises(InspectionError, match="output is dense"):
        at.saliency(dense, x)
    with pytest.raises(InspectionError, match="itself a map.*name the layer"):
        at.grad_cam(dense, x, target=1)


def test_mixed_precision_gives_nearly_the_same_in_float32():
    x = images(2, 12, 14, 2)
    plain = small_cnn(activation=None)
    with_policy = keras.models.clone_model(plain, clone_function=lambda layer: type(layer).from_config(
        layer.get_config() | ({"dtype": "mixed_bfloat16"} if not isinstance(layer, layers.InputLayer) else {})))
    with_policy.set_weights(plain.get_weights())
    for method in ALL:
        options = {at.rise: {"masks": 20}, at.integrated_gradients: {"steps": 8}}.get(method, {})
        found, expected = method(with_policy, x, target=1, **options), method(plain, x, target=1, **options)
        assert found.dtype == np.float32 and np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean() + 0.02, method.__name__


def test_tables_are_explained_feature_by_feature():
    model, x = linear((7,)), images(3, 7)
    weights = model.get_weights()[0][:, 1]
    assert np.allclose(at.gradient_times_input(model, x, target=1), x * weights, atol=1e-6)
    assert np.allclose(at.occlusion(model, x, target=1, patch=1, fill=0.0), x * weights, atol=1e-5)
    with pytest.raises(InspectionError, match="keeps the image's spatial axes"):
        at.grad_cam(model, x)


# layers and inputs --------------------------------------------------------------------------------------------------------------

def test_a_wrong_layer_is_told_and_never_replaced():
    model, x = small_cnn(), images(1, 12, 14, 2)
    for layer, words in (("head", "no map with the image's 2 spatial axes; fit are first, pool, last"), ("lst", "no layer 'lst'.*last"),
                         (model.layers[-2], "no map with")):
        with pytest.raises(InspectionError, match=words):
            at.grad_cam(model, x, layer=layer)
    found = [at.grad_cam(model, x, layer=layer) for layer in ("last", model.get_layer("last"), None)]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert not np.allclose(found[0], at.grad_cam(model, x, layer="first"))


def test_an_ambiguous_name_is_told_and_each_call_of_a_shared_layer_can_be_meant():
    shared, inputs = layers.Conv2D(2, 3, padding="same", activation="relu", name="shared"), keras.Input((8, 8, 2))
    y = shared(shared(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(y)))
    x = images(2, 8, 8, 2)
    with pytest.raises(InspectionError, match="names 2 outputs: shared#1, shared#2"):
        at.grad_cam(model, x, layer="shared")
    maps = feature_maps(model, x)["shared#2"]
    slopes = model.get_layer("head").get_weights()[0][:, 1].reshape(8, 8, 2)
    cam = np.maximum((maps * slopes.mean((0, 1))).sum(-1), 0)
    assert np.allclose(at.grad_cam(model, x, layer="shared#2", target=1), cam, atol=1e-5)
    assert not np.allclose(at.grad_cam(model, x, layer="shared#1", target=1, relu=False), at.grad_cam(model, x, target=1, relu=False))


def test_several_image_like_inputs_must_be_named():
    first, second = keras.Input((8, 8, 1), name="before"), keras.Input((8, 8, 1), name="after")
    y = layers.Concatenate()([layers.Conv2D(2, 3, name="left")(first), layers.Conv2D(2, 3, name="right")(second)])
    model = keras.Model([first, second], layers.Dense(2)(layers.Flatten()(y)))
    x = [images(2, 8, 8, 1), images(2, 8, 8, 1, seed=1)]
    with pytest.raises(InspectionError, match="2 of 2 inputs are image-like.*'before', 'after'"):
        at.saliency(model, x, target=0)
    with pytest.raises(InspectionError, match="no input 'later'"):
        at.saliency(model, x, target=0, input="later")
    assert np.array_equal(at.saliency(model, x, target=0, input="after"), at.saliency(model, x, target=0, input=1))
    assert not np.allclose(at.saliency(model, x, target=0, input=0), at.saliency(model, x, target=0, input=1))
    with pytest.raises(InspectionError, match="several image-like inputs: name the layer"):
        at.grad_cam(model, x, target=0, input=0)
    assert at.grad_cam(model, x, target=0, input=0, layer="left").shape == (2, 8, 8)


@pytest.mark.parametrize("call, words", [
    (lambda m, x: at.saliency(m, x[0]), "single image"), (lambda m, x: at.grad_cam(m, x, batch_size=0), "batch_size"),
    (lambda m, x: at.occlusion(m, x, patch=99), "patch must be"), (lambda m, x: at.occlusion(m, x, stride=0), "stride must be"),
    (lambda m, x: at.occlusion(m, x, patch=(1, 2, 3)), "one for each axis"), (lambda m, x: at.occlusion(m, x, fill="black"), "fill is"),
    (lambda m, x: at.rise(m, x, keep=1.0), "keep"), (lambda m, x: at.integrated_gradients(m, x, baseline=np.ones(5)), "baseline of shape"),
    (lambda m, x: at.deletion_insertion(m, x, np.ones((1, 3, 3))), "attribution of shape")])
def test_wrong_options_are_told(call, words):
    with pytest.raises(InspectionError, match=words):
        call(small_cnn(), images(1, 12, 14, 2))


def test_two_outputs_are_told():
    inputs = keras.Input((4, 4, 1))
    flat = layers.Flatten()(inputs)
    with pytest.raises(InspectionError, match="has 2 outputs; explain one"):
        at.saliency(keras.Model(inputs, [layers.Dense(2)(flat), layers.Dense(1)(flat)]), images(1, 4, 4, 1))


# faithfulness -------------------------------------------------------------------------------------------------------------------

def test_deletion_and_insertion_equal_an_explicit_loop():
    model, x = linear((4, 5, 1)), images(1, 4, 5, 1)
    order = np.random.default_rng(0).permutation(20)
    attribution = np.empty(20)
    attribution[order] = np.arange(20, 0, -1)
    curves = at.deletion_insertion(model, x, attribution.reshape(1, 4, 5), target=1, steps=10, fill=0.3, batch_size=6)
    for step in range(11):
        gone, shown = x.reshape(1, 20).copy(), np.full((1, 20), 0.3, "float32")
        gone[0, order[:2 * step]], shown[0, order[:2 * step]] = 0.3, x.ravel()[order[:2 * step]]
        assert abs(curves.deletion[0, step] - score(model, gone.reshape(x.shape), 1)[0]) < 1e-5
        assert abs(curves.insertion[0, step] - score(model, shown.reshape(x.shape), 1)[0]) < 1e-5
    assert np.allclose(curves.deletion_area, [np.mean((curves.deletion[0, 1:] + curves.deletion[0, :-1]) / 2)], atol=1e-6)


def test_the_exact_attribution_of_a_linear_model_has_the_best_areas():
    model, x = linear((6, 6, 1)), images(3, 6, 6, 1)
    best = at.deletion_insertion(model, x, at.occlusion(model, x, target=0, patch=1, fill=0.0), target=0, fill=0.0)
    for seed in range(5):
        other = at.deletion_insertion(model, x, images(3, 6, 6, seed=seed), target=0, fill=0.0)
        assert (best.deletion_area < other.deletion_area).all() and (best.insertion_area > other.insertion_area).all()


def test_ranks_break_ties_at_random_but_keep_the_order():
    flat = at.ranks(np.zeros((5, 5)))
    assert sorted(flat.ravel()) == list(range(25)) and not np.array_equal(flat.ravel(), np.arange(25))
    assert at.ranks(np.array([[1.0, 3.0], [2.0, 0.0]])).tolist() == [[2, 0], [1, 3]]


def test_pointing_game_by_hand():
    maps = np.zeros((4, 6, 6))
    maps[0, 1, 1], maps[1, 5, 5], maps[2, 1, 1] = 1, 1, 1
    maps[2, 5, 5] = 1                                                                # two highest pixels, one outside; map 3 is flat
    mask = np.zeros((6, 6), bool)
    mask[:3, :3] = True
    for truths in ([mask] * 4, [[(0, 0, 3, 3)]] * 4, [(0.2, 0.0, 2.6, 3.0)] * 4):
        game = at.pointing_game(maps, truths)
        assert game.hits.tolist() == [True, False, False, False] and game.rate == 0.25 and abs(game.chance - 0.25) < 1e-9
    z, p, n = 1.959963984540054, 0.25, 4
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    assert abs(game.low - (middle - half)) < 1e-9 and abs(game.high - (middle + half)) < 1e-9


@pytest.mark.parametrize("truths, words", [([[]] * 2, "numbers, not"), ([np.zeros((3, 3), bool)] * 2, "image 0 has nothing"),
                                           ([np.ones((3, 3), bool)], "but 1 truths"), ([[(0, 0, 3)]] * 2, "4 numbers")])
def test_pointing_game_tells_wrong_truths(truths, words):
    with pytest.raises(InspectionError, match=words):
        at.pointing_game(np.zeros((2, 3, 3)), truths)


def test_randomisation_leaves_the_model_as_it_is_and_tells_methods_apart():
    model, x = small_cnn(), images(3, 12, 14, 2)
    before, output = [one.copy() for one in model.get_weights()], keras.ops.convert_to_numpy(model(x))
    found = at.randomisation_check(model, x, at.saliency)
    assert list(found) == ["head", "last", "first"] and all(one.shape == (3,) for one in found.values())
    assert all(np.array_equal(one, other) for one, other in zip(before, model.get_weights(), strict=True))
    assert np.array_equal(output, keras.ops.convert_to_numpy(model(x)))
    assert found["first"].mean() < 0.9

    def edges(model, images, *, target=None):                                       # looks at the image alone
        return np.stack([cv2.Laplacian(image[..., 0], cv2.CV_32F) for image in images])
    assert all(np.allclose(one, 1) for one in at.randomisation_check(model, x, edges).values())
    again = at.randomisation_check(model, x, at.saliency)
    assert all(np.array_equal(found[path], again[path]) for path in found)


def test_randomisation_of_a_subclassed_model_needs_a_clone():
    own, x = Own(), images(2, 10, 9, 1)
    own(x)

    def clone(model):
        twin = Own()
        twin(x)
        return twin
    found = at.randomisation_check(own, x, at.grad_cam, target=0, clone=clone)
    assert list(found) == ["dense", "conv2d"] or len(found) == 2
    with pytest.raises(InspectionError, match="cannot be cloned.*clone="):
        at.randomisation_check(own, x, at.grad_cam, target=0, clone=lambda model: Own())


def test_rank_correlation():
    rng = np.random.default_rng(0)
    one, other = rng.random((2, 30))
    from scipy.stats import spearmanr
    assert abs(at.rank_correlation(one, other) - spearmanr(one, other).statistic) < 1e-12
    assert at.rank_correlation(np.zeros(9), one[:9]) == 0 and abs(at.rank_correlation(one, np.exp(one)) - 1) < 1e-12


# pictures -----------------------------------------------------------------------------------------------------------------------

def test_enlarging_is_opencvs_and_keeps_constants():
    maps = images(2, 5, 7)
    expected = np.stack([cv2.resize(one, (23, 16), interpolation=cv2.INTER_LINEAR) for one in maps])
    assert np.allclose(at.enlarged(maps, (16, 23)), expected, atol=1e-5)
    assert np.allclose(at.enlarged(np.ones((1, 2, 3, 4)), (5, 6, 7)), 1)


def test_overlay_colours_where_it_speaks():
    grey, values = np.linspace(0, 1, 64).reshape(8, 8), np.zeros((8, 8))
    assert np.allclose(at.overlay(grey, values), np.repeat(grey[..., None], 3, -1), atol=1e-6)
    values[2, 3], values[6, 6] = 1, -1
    painted = at.overlay(grey, values)
    assert painted.shape == (8, 8, 3) and painted[2, 3, 0] > painted[2, 3, 2] and painted[6, 6, 2] > painted[6, 6, 0]
    with pytest.raises(InspectionError, match="over an image"):
        at.overlay(grey, values[:4])


def test_show_attribution_draws_each():
    import matplotlib
    matplotlib.use("agg")
    figure = at.show_attribution([images(8, 8, 1)], images(3, 8, 8), ["a", "b", "c"])
    assert [panel.get_title() for panel in figure.axes] == ["a", "b", "c"]

# models of real people ----------------------------------------------------------------------------------------------------------

def test_one_output_inside_a_dict_or_a_list_is_the_only_one():
    image = keras.Input((8, 8, 1))
    y = layers.Dense(2, activation="softmax", name="head")(layers.Flatten()(layers.Conv2D(2, 3, name="conv")(image)))
    plain, x = keras.Model(image, y), images(2, 8, 8, 1)
    for packed in ({"p": y}, [y]):
        model = keras.Model(image, packed)
        for method, options in [(one, {}) for one in (at.saliency, at.grad_cam, at.occlusion, at.scores, at.integrated_gradients)] + [
                (at.rise, {"masks": 8}), (at.saliency, {"logits": True}), (at.grad_cam, {"target": 1, "logits": True})]:
            np.testing.assert_allclose(method(model, x, **options), method(plain, x, **options), atol=1e-5)


def tokens(declared):
    """A reader of tokens whose input says that it takes whole numbers, or does not say so."""
    kind = {"dtype": "int32"} if declared else {}
    return keras.Sequential([keras.Input((7,), **kind), layers.Embedding(11, 5, name="table"), layers.Flatten(),
                             layers.Dense(2, name="head")])


@pytest.mark.parametrize("declared", [True, False])
def test_tokens_have_no_slope_and_can_be_covered(declared):
    model, x = tokens(declared), np.random.default_rng(0).integers(0, 11, (2, 7))
    for method in SLOPES if declared else SLOPES[:2]:
        with pytest.raises(InspectionError, match="no slope.*occlusion"):
            method(model, x, target=1)
    assert at.occlusion(model, x, target=1, fill=0).shape == (2, 7) and at.occlusion(model, x, target=1, fill=0).any()


def test_pixels_that_are_whole_numbers_keep_their_slopes():
    model, x = small_cnn(), np.random.default_rng(0).integers(0, 256, (2, 12, 14, 2)).astype("uint8")
    for method in SLOPES:
        np.testing.assert_array_equal(method(model, x, target=1), method(model, x.astype("float32"), target=1))


def test_a_model_that_was_made_for_some_images_at_a_time():
    image = keras.Input(batch_shape=(2, 8, 8, 1))
    y = layers.Dense(2, name="head")(keras.ops.reshape(layers.Conv2D(2, 3, name="conv")(image), (2, -1)))
    model, x = keras.Model(image, y), images(4, 8, 8, 1)
    for method in (at.saliency, at.gradient_times_input, at.grad_cam, at.scores):
        found = method(model, x, target=1, batch_size=2)
        np.testing.assert_allclose(found[:2], method(model, x[:2], target=1), atol=1e-6)
    for method in (at.saliency, at.grad_cam, at.scores):
        with pytest.raises(InspectionError, match="made for 2 images at a time.*batch_size=2"):
            method(model, x, target=1)
    assert at.integrated_gradients(model, x[:1].repeat(2, 0), target=1, batch_size=2).shape == (2, 8, 8)
    with pytest.raises(InspectionError, match="made for 2 images"):
        at.occlusion(model, x[:2], target=1)
