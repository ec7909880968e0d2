"""Chapter 5.5: class activation maps against closed forms, small steps and a textbook's recipe."""

import itertools

import cv2
import keras
import numpy as np
import pytest

from medbook.inspection import activation_maps as cams
from medbook.inspection.backend import InspectionError, backend
from medbook.inspection.feature_maps import feature_maps
from tests.inspection_models import images, linear, score, seeded, small_cnn  # noqa: F401

layers = keras.layers


@pytest.mark.backends
def test_grad_cam_of_pooled_networks_is_the_class_activation_map():
    """After global average pooling a logit's gradient by each of n places is its weight over n."""
    model = keras.Sequential(
        [
            keras.Input((10, 12, 1)),
            layers.Conv2D(6, 3, activation="relu", name="maps"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, name="head"),
        ]
    )
    x = images(4, 10, 12, 1)
    maps = feature_maps(model, x, ["maps"])["maps"]
    weights = model.get_weights()[-2]
    cam = np.maximum(np.einsum("nhwc,c->nhw", maps, weights[:, 2]) / (8 * 10), 0)
    assert np.allclose(cams.grad_cam(model, x, target=2, upsample=False), cam, atol=1e-6)
    enlarged = np.stack([cv2.resize(one, (12, 10), interpolation=cv2.INTER_LINEAR) for one in cam])
    assert np.allclose(cams.grad_cam(model, x, target=2), enlarged, atol=1e-6) and cam.max() > 0


def recipe(model, x, layer, target):
    """Maps and gradients by finite differences above `layer`: no gradient of any backend."""
    below = [one.name for one in model.layers].index(layer) + 1
    above = keras.Sequential(model.layers[below:])
    maps = feature_maps(model, x, [layer])[layer]
    above.build((None, *maps.shape[1:]))
    gradients = np.zeros(maps.shape)
    for place in itertools.product(*map(range, maps.shape[1:])):
        step = np.zeros_like(maps)
        step[(slice(None), *place)] = 0.05
        gradients[(slice(None), *place)] = (
            score(above, maps + step, target) - score(above, maps - step, target)
        ) / 0.1
    return maps, gradients


@pytest.mark.backends
def test_grad_cams_equal_the_recipe_by_finite_differences():
    model = small_cnn((8, 8, 1), activation=None)
    x = images(2, 8, 8, 1)  # linear above "last": the differences are exact
    maps, gradients = recipe(model, x, "last", 1)
    cam = np.maximum((gradients.mean((1, 2), keepdims=True) * maps).sum(-1), 0)
    assert (
        np.abs(cams.grad_cam(model, x, target=1, layer="last", upsample=False) - cam).max() <= 1e-5
    )
    fine = np.maximum((gradients * maps).sum(-1), 0)
    assert np.abs(
        cams.hires_cam(model, x, target=1, layer="last", upsample=False) - fine
    ).max() <= 1e-4 * max(fine.max(), 1)
    total = maps.sum((1, 2), keepdims=True)
    below = 2 * gradients**2 + gradients**3 * total
    alpha = np.divide(gradients**2, below, out=np.zeros_like(below), where=np.abs(below) > 1e-9)
    plus = np.maximum(
        ((alpha * np.maximum(gradients, 0)).sum((1, 2), keepdims=True) * maps).sum(-1), 0
    )
    found = cams.grad_cam_plus_plus(model, x, target=1, layer="last", upsample=False)
    assert np.allclose(found, plus, rtol=1e-3, atol=1e-4) and plus.max() > 1e-2


@pytest.mark.skipif(backend() != "tensorflow", reason="the textbook's recipe is TensorFlow's")
@pytest.mark.parametrize("layer", ["first", "pool", "last"])
def test_grad_cam_equals_the_textbook_recipe(layer):
    import tensorflow as tf

    model = small_cnn()
    x = images(3, 12, 14, 2)
    both = keras.Model(model.inputs, [model.get_layer(layer).output, model.outputs[0]])
    with tf.GradientTape() as tape:
        maps, output = both(tf.constant(x))
        top = tf.reduce_max(output, axis=1)
    weights = tf.reduce_mean(tape.gradient(top, maps), axis=(1, 2))
    cam = tf.nn.relu(tf.einsum("nhwc,nc->nhw", maps, weights))[..., None]
    expected = tf.image.resize(cam, (12, 14))[..., 0]
    assert np.abs(cams.grad_cam(model, x, layer=layer) - expected).max() <= 1e-5


def test_a_wrong_layer_is_told_and_never_replaced():
    model = small_cnn()
    x = images(1, 12, 14, 2)
    for layer, words in (
        ("head", "no map with the image's 2 spatial axes; fit are first, pool, last"),
        ("lst", "no layer 'lst'.*last"),
        (model.layers[-2], "no map with"),
    ):
        with pytest.raises(InspectionError, match=words):
            cams.grad_cam(model, x, layer=layer)
    found = [
        cams.grad_cam(model, x, layer=layer) for layer in ("last", model.get_layer("last"), None)
    ]
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])
    assert not np.allclose(found[0], cams.grad_cam(model, x, layer="first"))


@pytest.mark.backends
def test_an_ambiguous_name_is_told_and_each_call_of_a_shared_layer_can_be_meant():
    shared = layers.Conv2D(2, 3, padding="same", activation="relu", name="shared")
    inputs = keras.Input((8, 8, 2))
    y = shared(shared(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(y)))
    x = images(2, 8, 8, 2)
    with pytest.raises(InspectionError, match="names 2 outputs: shared#1, shared#2"):
        cams.grad_cam(model, x, layer="shared")
    maps = feature_maps(model, x)["shared#2"]
    gradients = model.get_layer("head").get_weights()[0][:, 1].reshape(8, 8, 2)
    cam = np.maximum((maps * gradients.mean((0, 1))).sum(-1), 0)
    assert np.allclose(cams.grad_cam(model, x, layer="shared#2", target=1), cam, atol=1e-5)
    assert not np.allclose(
        cams.grad_cam(model, x, layer="shared#1", target=1, relu=False),
        cams.grad_cam(model, x, target=1, relu=False),
    )


def test_enlarging_is_opencvs_and_keeps_constants():
    maps = images(2, 5, 7)
    expected = np.stack([cv2.resize(one, (23, 16), interpolation=cv2.INTER_LINEAR) for one in maps])
    assert np.allclose(cams.enlarge(maps, (16, 23)), expected, atol=1e-5)
    assert np.allclose(cams.enlarge(np.ones((1, 2, 3, 4)), (5, 6, 7)), 1)
